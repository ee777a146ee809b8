package api

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"incusd/api"
	"incusd/internal/tokens"
)

// An allowance is how much of something is had per second, and at once after a rest.
type allowance struct {
	rate  rate.Limit
	burst int
}

func (a allowance) limiter() *rate.Limiter { return rate.NewLimiter(a.rate, a.burst) }

// What those may cost who are not trusted, or not yet. What one of them uses up is
// taken from nobody else's share, and all strangers together have a share of the server.
var (
	// Certificates that are not known here, of which the leader is asked.
	allLookups    = allowance{50, 100}
	sourceLookups = allowance{10, 20}
	// A key that was trusted elsewhere a moment ago is found at the first try; a key that
	// was not can be asked for again soon.
	keyLookups = allowance{1, 5}
	// Attempts to use what may be a token: they make the leader answer a read.
	allAttempts    = allowance{100, 500}
	sourceAttempts = allowance{10, 50}
	// Bearer tokens that a client's key has not signed: each costs the check of a signature.
	sourceForgeries = sourceAttempts
	// Attempts with the secret of a live token: some write to the log.
	tokenAttempts = allowance{10, 50}
	// Admissions and their ends, by one key: each writes to the log.
	joinSteps = allowance{1, 20}
)

// limits are those of one server.
type limits struct {
	lookups, attempts              *rate.Limiter // of all together
	lookupsOfKey, lookupsOfSource  *shares
	attemptsOfSource, usesOfTokens *shares
	forgeries, joinSteps           *shares
	bodies                         *bodies
}

func newLimits() *limits {
	return &limits{
		lookups: allLookups.limiter(), lookupsOfKey: newShares(keyLookups), lookupsOfSource: newShares(sourceLookups),
		attempts: allAttempts.limiter(), attemptsOfSource: newShares(sourceAttempts), usesOfTokens: newShares(tokenAttempts),
		forgeries: newShares(sourceForgeries),
		joinSteps: newShares(joinSteps), bodies: newBodies(),
	}
}

// lookup tells whether the leader may be asked for a stranger's certificate.
func (l *limits) lookup(c *caller) bool {
	return l.lookupsOfKey.allow(c.fingerprint) && l.lookupsOfSource.allow(Source(c.address)) && l.lookups.Allow()
}

// attempt tells whether a stranger may try something that costs more than an answer.
func (l *limits) attempt(c *caller) bool {
	return l.attemptsOfSource.allow(Source(c.address)) && l.attempts.Allow()
}

// useOf refuses a caller who tries secrets too often. Who has that of a live token has
// the token's own share, so that strangers cannot keep a server from joining.
func (s *Server) useOf(c *call, secret string) error {
	hash := tokens.Hash(secret)
	var allowed bool
	switch {
	case c.caller.admin():
		return nil
	case s.isLive(hash):
		allowed = s.limits.usesOfTokens.allow(hash)
	default:
		allowed = s.limits.attempt(&c.caller)
	}
	if !allowed {
		return api.Errorf(api.TooMany, "Too many attempts to use a token")
	}
	return nil
}

// isLive tells whether there is a token with that hash that still opens something.
func (s *Server) isLive(hash string) bool {
	view := s.cfg.Store.Local()
	if view == nil {
		return false
	}
	t, ok := view.Token(hash)
	return ok && tokens.Ended(t, s.cfg.Now()) == nil
}

// stepOf refuses a key that takes steps of a join too often. Strangers share what
// strangers have: a key costs nothing.
func (s *Server) stepOf(c *call) error {
	var allowed bool
	if c.caller.kind == Stranger {
		allowed = s.limits.attempt(&c.caller)
	} else {
		allowed = s.limits.joinSteps.allow(c.caller.fingerprint)
	}
	if !allowed {
		return api.Errorf(api.TooMany, "Too many attempts to join")
	}
	return nil
}

// maxShares is how many shares of one kind are remembered.
const maxShares = 1024

// shares give each key an allowance of its own. They remember the keys that were used
// last; one that was forgotten begins anew.
type shares struct {
	each allowance
	mu   sync.Mutex
	// young has the keys used since it was last full, old those before that.
	young, old map[string]*rate.Limiter
}

func newShares(each allowance) *shares {
	return &shares{each: each, young: make(map[string]*rate.Limiter)}
}

// allow takes one from the share of key, if there is one left.
func (s *shares) allow(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.share(key).Allow()
}

// left tells whether there is one left, and takes none.
func (s *shares) left(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.share(key).Tokens() >= 1
}

// share is that of key; s.mu is held.
func (s *shares) share(key string) *rate.Limiter {
	limiter, ok := s.young[key]
	if !ok {
		if limiter, ok = s.old[key]; !ok {
			limiter = s.each.limiter()
		}
		if len(s.young) == maxShares/2 {
			s.old, s.young = s.young, make(map[string]*rate.Limiter)
		}
		s.young[key] = limiter
	}
	return limiter
}

// Source is the part of a remote address, with or without a port, that whoever is
// there cannot choose: all of it, or the network of an IPv6 address.
func Source(address string) string {
	host := hostOf(address)
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap(); ip.Is4() {
		return ip.String()
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return network.String()
}

// hostOf is an address without its port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

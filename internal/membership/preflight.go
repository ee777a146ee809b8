package membership

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// Preflight reports everything that would keep a server from joining, and changes
// nothing. caller is the fingerprint of the certificate that the caller showed, "" if
// none: without a token or the password it must have claimed one. source is the IP address
// of the caller. Who has neither a token's secret, nor the password, nor
// a claim learns nothing else: the error is TokenUnknown, TokenUsed, TokenRevoked,
// TokenExpired, TokenMalformed or TokenNotClaimed. It dials the server's address, so
// it blocks for up to Settings.ProbeTimeout after a linearizable read.
func (s *Admissions) Preflight(ctx context.Context, caller, source string, req JoinRequest) (*JoinReport, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	if !view.Cluster().Enabled {
		return nil, api.NotClustered
	}
	a, err := s.applicant(ctx, view, caller, source, req)
	if err != nil {
		return nil, err
	}
	a.checkName(view)
	if req.Address != "" {
		a.checkAddress(view)
	}
	a.checkClock(s.now(), s.set.MaxClockSkew)
	a.checkVersion(view)
	a.checkMember(view)
	if a.dialBack {
		s.dialBack(ctx, a)
	}
	return &JoinReport{
		Name:         a.name,
		ClusterID:    view.Cluster().ID,
		Version:      api.Version,
		Time:         s.now().UTC(),
		MemberConfig: s.inventory.MemberConfig(view, s.store.ID()),
		Entities:     s.inventory.JoinEntities(view),
		Problems:     a.problems,
	}, nil
}

// An applicant is a server that asks to join, and what speaks against it.
type applicant struct {
	req   JoinRequest
	token *state.Token // nil where the password was shown
	// name and address are those asked for, with defaults filled in.
	name, address string
	// cert may be nil, fingerprint "", if the certificate cannot be read.
	cert        *x509.Certificate
	fingerprint string
	// dialBack is set when the address is worth a try.
	dialBack bool
	problems []api.Error
}

func (a *applicant) add(err error) {
	if err != nil {
		a.problems = append(a.problems, *api.AsError(err))
	}
}

// applicant finds the token that gives the caller the right to ask.
func (s *Admissions) applicant(ctx context.Context, view *raftstore.View, caller, source string, req JoinRequest) (*applicant, error) {
	a := &applicant{req: req, problems: []api.Error{}}
	if req.Token == "" && req.Password != "" {
		if err := s.passwords.Verify(ctx, source, string(req.Password)); err != nil {
			return nil, err
		}
		a.name = req.Name
		a.add(a.readCertificate(req.Certificate, s.now()))
		return a, nil
	}
	if req.Token == "" {
		return a, s.claimed(view, caller, a)
	}
	text, err := api.ParseJoinToken(req.Token)
	if err != nil {
		return nil, err
	}
	certErr := a.readCertificate(req.Certificate, s.now())
	token, problems := tokens.Inspect(view, text, a.fingerprint, s.now())
	if token == nil || tokens.Ended(token, s.now()) != nil {
		return nil, problems[0]
	}
	a.token, a.name = token, req.Name
	if a.name == "" {
		a.name = text.ServerName
	}
	for _, p := range problems {
		a.add(p)
	}
	if text.ServerName == token.Name { // else it was said already
		a.checkTokenName()
	}
	a.add(certErr)
	return a, nil
}

// claimed fills a from the token that the caller's certificate has claimed.
func (s *Admissions) claimed(view *raftstore.View, caller string, a *applicant) error {
	token, err := claim(view, caller)
	if err != nil {
		return err
	}
	if ended := tokens.Ended(token, s.now()); ended != nil {
		return ended
	}
	a.token, a.name = token, a.req.Name
	if a.name == "" {
		a.name = token.Name
	}
	a.checkTokenName()
	a.add(a.readCertificate(token.ClaimedCert, s.now()))
	return nil
}

// claim returns the token that the server with the certificate of that fingerprint
// claims, or what became of its claim.
func claim(view *raftstore.View, fingerprint string) (*state.Token, error) {
	if fingerprint == "" {
		return nil, api.TokenNotClaimed
	}
	if t, ok := view.TokenByClaim(fingerprint); ok {
		return t, nil
	}
	var last *state.Token
	for _, t := range view.Tokens() {
		if t.ClaimedBy == fingerprint && (last == nil || t.EndedAt.After(last.EndedAt)) {
			last = t
		}
	}
	if last != nil {
		if ended := tokens.Ended(last, last.EndedAt); ended != nil {
			return nil, ended
		}
	}
	return nil, api.TokenNotClaimed
}

func (a *applicant) checkTokenName() {
	if a.name != a.token.Name {
		a.add(api.Errorf(api.TokenWrongName, "The join token was issued for member %q, not for %q", a.token.Name, a.name))
	}
}

func (a *applicant) readCertificate(text string, now time.Time) error {
	cert, err := trust.ParseCertificate(text)
	if err != nil {
		return err
	}
	a.cert, a.fingerprint = cert, trust.Fingerprint(cert)
	return trust.CheckValid(cert, now)
}

func (a *applicant) checkName(view *raftstore.View) {
	if err := api.ValidateMemberName(a.name); err != nil {
		a.add(err)
		return
	}
	for _, m := range others(view, a.fingerprint) {
		switch {
		case m.ID == a.replaces():
			a.add(a.token.CheckReplaced(m))
		case m.Name == a.name:
			a.add(api.Errorf(api.NameTaken, "The cluster already has a member with name: %s", a.name))
		}
	}
}

func (a *applicant) checkAddress(view *raftstore.View) {
	address, err := MemberAddress(a.req.Address)
	if err != nil {
		a.add(err)
		return
	}
	a.address = address
	a.dialBack = a.fingerprint != ""
	for _, m := range others(view, a.fingerprint) {
		if m.Address == address && m.ID != a.replaces() {
			a.add(api.Errorf(api.AddressTaken, "The cluster already has a member with address: %s", address))
			a.dialBack = false
		}
	}
}

// replaces is the ID of the member whose place the server takes, "" for none.
func (a *applicant) replaces() string {
	if a.token == nil {
		return ""
	}
	return a.token.Replaces
}

// others are the members, active and joining, that are not the server with the
// certificate of that fingerprint.
func others(view *raftstore.View, fingerprint string) []*state.Member {
	all := append(view.Members(), view.Joining()...)
	return slices.DeleteFunc(all, func(m *state.Member) bool { return m.Fingerprint == fingerprint })
}

func (a *applicant) checkClock(now time.Time, limit time.Duration) {
	if a.req.Time.IsZero() {
		return
	}
	if skew := a.req.Time.Sub(now); skew.Abs() > limit {
		word := "ahead of"
		if skew < 0 {
			word = "behind"
		}
		a.add(api.Errorf(api.ClockSkew, "The clock of the joining server is %s %s the cluster's", skew.Abs().Round(time.Second), word))
	}
}

func (a *applicant) checkVersion(view *raftstore.View) {
	if needed := view.CommandVersion(); a.req.CommandVersion != 0 && a.req.CommandVersion < needed {
		a.add(api.Errorf(api.VersionTooOld, "The joining server knows commands up to version %d, the cluster needs version %d", a.req.CommandVersion, needed).
			WithHint("install version %s or newer on the joining server", api.Version))
	}
}

func (a *applicant) checkMember(view *raftstore.View) {
	m, ok := view.MemberByFingerprint(a.fingerprint)
	if a.fingerprint != "" && ok && m.State == state.MemberActive {
		a.add(api.Errorf(api.CertTaken, "The certificate belongs to member %q already", m.Name).
			WithHint("if that is this server and it lost its store, remove the member first: incus cluster remove %s --force", m.Name))
	}
}

// dialBack finds out whether this member reaches the joining server where it says it is.
func (s *Admissions) dialBack(ctx context.Context, a *applicant) {
	probeCtx, cancel := context.WithTimeout(ctx, s.set.ProbeTimeout)
	defer cancel()
	got, err := s.prober.Probe(probeCtx, a.address)
	switch {
	case probeCtx.Err() != nil:
		a.add(api.Errorf(api.AddressUnreach, "Address %s did not answer within %s", a.address, s.set.ProbeTimeout))
	case err != nil:
		s.log.Debug("A joining server was not reached", "address", a.address, "err", err)
		a.add(api.Errorf(api.AddressUnreach, "Address %s cannot be reached from the cluster: %s", a.address, probeFailure(err)))
	case got != a.fingerprint:
		a.add(api.Errorf(api.AddressUnreach, "Another server answers at %s: its certificate has the fingerprint %.12s, expected %.12s", a.address, got, a.fingerprint).
			WithHint("give the address of the joining server itself"))
	}
}

// probeFailure says in fixed words why an address was not reached: the error itself
// would tell the caller about the cluster's network.
func probeFailure(err error) string {
	var timeout interface{ Timeout() bool }
	var noTLS tls.RecordHeaderError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.As(err, &noTLS):
		return "what answers there does not speak TLS"
	}
	return "no connection"
}

// MemberAddress checks the address of a member and brings it into the form that is
// stored: host:port. Names are not resolved: they may mean something else there.
func MemberAddress(address string) (string, error) {
	if address == "" {
		return "", api.Errorf(api.AddressInvalid, "Member address must not be empty")
	}
	if err := config.ValidateListenAddress(address, config.AddressOptions{AllowDNS: true}); err != nil {
		return "", api.Errorf(api.AddressInvalid, "Invalid server address %q: %v", address, err)
	}
	canonical := config.CanonicalAddress(address, config.DefaultPort)
	if err := checkReach(canonical); err != nil {
		return "", err
	}
	return canonical, nil
}

// checkReach refuses addresses that name nobody whom all members reach. The cluster
// must not be made to dial them: services of the machine's provider are found there.
func checkReach(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil // a name
	}
	switch ip := at.Addr().Unmap(); {
	case ip.IsLinkLocalUnicast():
		return api.Errorf(api.AddressInvalid, "Invalid server address %q: Link-local addresses aren't allowed", address)
	case ip.IsMulticast():
		return api.Errorf(api.AddressInvalid, "Invalid server address %q: Multicast addresses aren't allowed", address)
	}
	return nil
}

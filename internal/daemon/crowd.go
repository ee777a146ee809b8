package daemon

import (
	"container/list"
	"net"
	"sync"
	"syscall"

	restapi "incusd/internal/api"
)

// How many connections one listener keeps open. A server or a client needs a handful;
// these are limits for those who mean harm.
const (
	maxConnections      = 4096
	maxStrangers        = maxConnections / 2
	maxOfOneSource      = 1024 // of strangers, and again of those who were recognized
	descriptorsReserved = 256  // for files, and for connections to other members
)

// A crowdLimit is a listener that keeps room for those who belong here. Whoever comes is
// a stranger until a request proves otherwise. When strangers are too many, from one
// source or in all, the one who came first has to go, not the one who comes: it may be
// the administrator. Nobody waits for a place, since then one who keeps hers would stop
// all others.
type crowdLimit struct {
	net.Listener
	// strangers and known are limits for all, ofOneSource for the strangers from one source and for the
	// known ones.
	strangers, known, ofOneSource int

	mu      sync.Mutex
	sources map[string]*source // by restapi.Source of the remote address
	// All of sources together.
	strangersNow, knownNow int
}

// A source is where connections come from.
type source struct {
	strangers *list.List // of *guest, in the order in which they came
	known     int
}

func newCrowdLimit(ln net.Listener) *crowdLimit {
	strangers := maxStrangers
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < maxConnections+descriptorsReserved {
		strangers = max(16, (int(files.Cur)-descriptorsReserved)/2)
	}
	return &crowdLimit{
		Listener: ln, strangers: strangers, known: strangers, ofOneSource: min(maxOfOneSource, strangers),
		sources: make(map[string]*source),
	}
}

// Accept waits for the next connection and, if it is one too many, ends an older one.
func (l *crowdLimit) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, crowd: l, from: restapi.Source(conn.RemoteAddr().String())}
	if oldest := l.enter(g); oldest != nil {
		oldest.Close()
	}
	return g, nil
}

// enter counts g, and returns who has to go for it, if somebody has to.
func (l *crowdLimit) enter(g *guest) (oldest *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.sources[g.from]
	if !ok {
		s = &source{strangers: list.New()}
		l.sources[g.from] = s
	}
	g.place = s.strangers.PushBack(g)
	l.strangersNow++
	crowded := s
	switch {
	case s.strangers.Len() > l.ofOneSource:
	case l.strangersNow > l.strangers:
		for _, other := range l.sources {
			if other.strangers.Len() > crowded.strangers.Len() {
				crowded = other
			}
		}
	default:
		return nil
	}
	oldest = crowded.strangers.Front().Value.(*guest)
	l.leave(oldest)
	return oldest
}

// recognize makes a stranger a known one, if there is room among those.
func (l *crowdLimit) recognize(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[g.from]
	if g.place == nil || l.knownNow >= l.known || s.known >= l.ofOneSource {
		return // known already, or gone; or it takes its chance among the strangers
	}
	s.strangers.Remove(g.place)
	g.place, g.known = nil, true
	l.strangersNow--
	s.known++
	l.knownNow++
}

// leave stops counting g, at its first call. l.mu is held.
func (l *crowdLimit) leave(g *guest) {
	s := l.sources[g.from]
	switch {
	case g.place != nil:
		s.strangers.Remove(g.place)
		g.place = nil
		l.strangersNow--
	case g.known:
		g.known = false
		s.known--
		l.knownNow--
	default:
		return
	}
	if s.strangers.Len() == 0 && s.known == 0 {
		delete(l.sources, g.from)
	}
}

// A guest is a connection that is counted until it is closed.
type guest struct {
	net.Conn
	crowd *crowdLimit
	from  string
	// Guarded by crowd.mu: its place among the strangers, or that it is known.
	place *list.Element
	known bool
}

// Recognized says that a request on the connection has shown who is there.
func (g *guest) Recognized() { g.crowd.recognize(g) }

// Close ends the connection.
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.leave(g)
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

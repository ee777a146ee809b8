package daemon

import (
	"net"
	"sync"

	restapi "incusd/internal/api"
)

// How many connections one listener keeps open: in all, and from one source. A server
// or a client needs a handful.
const (
	maxConnections  = 4096
	maxOfOneAddress = 512
)

// A crowdLimit is a listener that hangs up on those who come when it is full. It does
// not let them wait: then one who holds its connections would stop all others.
type crowdLimit struct {
	net.Listener
	limit, limitOfOne int

	mu     sync.Mutex
	all    int
	source map[string]int // connections by restapi.Source of the remote address
}

func newCrowdLimit(ln net.Listener) *crowdLimit {
	return &crowdLimit{Listener: ln, limit: maxConnections, limitOfOne: maxOfOneAddress, source: make(map[string]int)}
}

func (l *crowdLimit) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := restapi.Source(conn.RemoteAddr().String())
		if l.enter(source) {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(source) })}, nil
		}
		conn.Close()
	}
}

func (l *crowdLimit) enter(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.limit || l.source[source] >= l.limitOfOne {
		return false
	}
	l.all++
	l.source[source]++
	return true
}

func (l *crowdLimit) leave(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.source[source]--; l.source[source] == 0 {
		delete(l.source, source)
	}
}

// A countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

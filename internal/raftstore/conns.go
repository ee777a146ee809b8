package raftstore

import (
	"net"
	"net/rpc"
	"sync"
	"time"
)

// conns are the open connections of a store, so that closing it ends them.
type conns struct {
	mu     sync.Mutex
	open   map[*trackedConn]bool
	closed bool
}

type trackedConn struct {
	net.Conn
	owner *conns
	peer  string // the member at the other end
	done  chan struct{}
	once  sync.Once
}

// Close closes the connection once, and ends whoever waits for its end.
func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		close(c.done)
		c.owner.mu.Lock()
		delete(c.owner.open, c)
		c.owner.mu.Unlock()
	})
	return err
}

func (s *Store) track(c net.Conn, peer string) *trackedConn {
	t := &trackedConn{Conn: c, owner: &s.conns, peer: peer, done: make(chan struct{})}
	s.conns.mu.Lock()
	closed := s.conns.closed
	if !closed {
		if s.conns.open == nil {
			s.conns.open = make(map[*trackedConn]bool)
		}
		s.conns.open[t] = true
	}
	s.conns.mu.Unlock()
	// Whoever delays the opening of a connection until it is no member any more has missed the
	// moment at which its connections were ended.
	if _, member := s.peer(peer); closed || !member {
		t.Close()
	}
	return t
}

// A boundedConn gives up a write that takes longer than bound: net/rpc writes under a
// lock, so one stuck message would hold up all calls to that member.
type boundedConn struct {
	net.Conn
	bound time.Duration
}

func (c *boundedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.bound)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// closeAll closes all connections, and those to come.
func (c *conns) closeAll() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.closeIf(func(string) bool { return true })
}

// closeIf closes the connections with the peers that match names.
func (c *conns) closeIf(match func(peer string) bool) {
	c.mu.Lock()
	var chosen []*trackedConn
	for t := range c.open {
		chosen = append(chosen, t)
	}
	c.mu.Unlock()
	for _, t := range chosen {
		if match(t.peer) {
			t.Close()
		}
	}
}

// watchPeers closes the connections of whoever is no member any more, as soon as the
// tables say so: a key that was let in must not outlive its row. If that is this member
// itself, it has learned of its removal.
func (s *Store) watchPeers() {
	for {
		view := s.fsm.state.View()
		if r, removed := view.Removed(s.cfg.ID); removed {
			s.learnRemoval(r)
			return
		}
		s.moves.forget(view)
		s.conns.closeIf(func(peer string) bool {
			_, known := s.peer(peer)
			return !known
		})
		select {
		case <-view.WatchMembers():
		case <-s.closed:
			return
		}
	}
}

// serveStream answers an incoming connection until it ends.
func (s *Store) serveStream(st *stream, h hello) {
	conn := s.track(st, h.From)
	defer conn.Close()
	switch h.Purpose {
	case purposeRaft:
		select {
		case s.transport.streams.incoming <- conn:
			<-conn.done // the caller closes what is below when this returns
		case <-s.closed:
		}
	case purposeAdopt:
		s.serveAdoption(conn, st, h)
	case purposeCall:
		srv := rpc.NewServer()
		if err := srv.RegisterName(callService, &calls{store: s, from: h.From}); err != nil {
			panic(err) // it has the form that net/rpc wants
		}
		srv.ServeConn(&boundedConn{conn, s.cfg.Timing.Call})
	}
}

package raftstore

import (
	"net"
	"net/rpc"
	"sync"
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

func (s *Store) track(c net.Conn) *trackedConn {
	t := &trackedConn{Conn: c, owner: &s.conns, done: make(chan struct{})}
	s.conns.mu.Lock()
	closed := s.conns.closed
	if !closed {
		if s.conns.open == nil {
			s.conns.open = make(map[*trackedConn]bool)
		}
		s.conns.open[t] = true
	}
	s.conns.mu.Unlock()
	if closed {
		t.Close()
	}
	return t
}

func (c *conns) closeAll() {
	c.mu.Lock()
	c.closed = true
	all := make([]*trackedConn, 0, len(c.open))
	for t := range c.open {
		all = append(all, t)
	}
	c.mu.Unlock()
	for _, t := range all {
		t.Close()
	}
}

// serveStream answers an incoming connection until it ends.
func (s *Store) serveStream(st *stream, h hello) {
	conn := s.track(st)
	defer conn.Close()
	switch h.Purpose {
	case purposeRaft:
		select {
		case s.transport.streams.incoming <- conn:
			<-conn.done // the caller closes what is below when this returns
		case <-s.closed:
		}
	case purposeCall:
		srv := rpc.NewServer()
		if err := srv.RegisterName(callService, &calls{store: s, from: h.From}); err != nil {
			panic(err) // it has the form that net/rpc wants
		}
		srv.ServeConn(conn)
	}
}

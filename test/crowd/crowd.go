// Package crowd is what strangers do who keep a server busy: they open connections and
// give nothing for them. Tests and the benchmark let a crowd loose on a server of their
// own.
package crowd

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
)

// A Behaviour does what one of the crowd does with a new connection, which stays open
// afterwards. The server may hang up at any time, so it cannot fail.
type Behaviour func(net.Conn)

// Idle says nothing.
func Idle(net.Conn) {}

// IdleAfterHandshake is a client that has nothing to ask.
func IdleAfterHandshake(conn net.Conn) { _ = secure(conn).Handshake() }

// HalfHandshake begins a record of 512 bytes, of which two come.
func HalfHandshake(conn net.Conn) { _, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1, 0}) }

// SlowHeader is a request without an end.
func SlowHeader(conn net.Conn) {
	_, _ = io.WriteString(secure(conn), "GET /1.0 HTTP/1.1\r\nHost: x\r\nX-Slow: ")
}

// SlowBody promises a body of 60,000 bytes and sends one.
func SlowBody(conn net.Conn) {
	_, _ = io.WriteString(secure(conn), "POST /1.0/certificates HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{")
}

// SlowReader asks a hundred times and reads no answer.
func SlowReader(conn net.Conn) {
	c := secure(conn)
	for range 100 {
		if _, err := io.WriteString(c, "GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return
		}
	}
}

func secure(conn net.Conn) *tls.Conn {
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
}

// A Crowd keeps its connections until it goes.
type Crowd struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
}

// At returns a crowd of nobody, for the server at address.
func At(address string) *Crowd { return &Crowd{address: address} }

// Come adds n connections that behave so, opened side by side. It fails with the first
// connection that could not be opened.
func (c *Crowd) Come(n int, behave Behaviour) error {
	var wg sync.WaitGroup
	var failed sync.Once
	var first error
	places := make(chan struct{}, 32)
	for range n {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			conn, err := net.Dial("tcp", c.address)
			if err != nil {
				failed.Do(func() { first = err })
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			behave(conn)
		})
	}
	wg.Wait()
	return first
}

// ComeMixed adds a thousand idle and two hundred slow ones, of every kind.
func (c *Crowd) ComeMixed() error {
	for _, group := range []struct {
		n      int
		behave Behaviour
	}{{500, Idle}, {500, IdleAfterHandshake}, {50, SlowHeader}, {50, SlowBody}, {50, SlowReader}, {50, HalfHandshake}} {
		if err := c.Come(group.n, group.behave); err != nil {
			return err
		}
	}
	return nil
}

// Go ends all connections.
func (c *Crowd) Go() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

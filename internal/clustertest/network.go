package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Network carries connections between hosts in memory, so that it also works in a
// synctest bubble. Each direction between two hosts can be cut or delayed. What is
// sent into a cut is held, as TCP would send it again, and arrives when it is healed;
// what is under way to a host that died is lost.
type Network struct {
	mu sync.Mutex
	// changed wakes those who dial and accept; who reads and writes waits at its half.
	changed   *sync.Cond
	listeners map[string]*listener // by address
	links     map[[2]string]*link  // by sending and receiving host
	halves    map[*half]bool
	nextPort  int
}

type link struct {
	cut bool
	// blocked lets no new connection be opened in this direction.
	blocked bool
	delay   time.Duration
}

// NewNetwork returns a network without hosts or faults.
func NewNetwork() *Network {
	n := &Network{
		listeners: make(map[string]*listener),
		links:     make(map[[2]string]*link),
		halves:    make(map[*half]bool),
		nextPort:  40000,
	}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// Cut stops all traffic between two hosts, both ways.
func (n *Network) Cut(a, b string) { n.CutOneWay(a, b); n.CutOneWay(b, a) }

// CutOneWay stops what from sends to to.
func (n *Network) CutOneWay(from, to string) {
	n.change(func() { n.link(from, to).cut = true })
}

// Block drops what would open a connection from one host to another, as a firewall does.
// Connections that are open, and those that the other opens, go on.
func (n *Network) Block(from, to string) {
	n.change(func() { n.link(from, to).blocked = true })
}

// Isolate cuts a host from all others.
func (n *Network) Isolate(host string, others ...string) {
	for _, o := range others {
		if o != host {
			n.Cut(host, o)
		}
	}
}

// Delay makes what from sends to to arrive later by d.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.change(func() { n.link(from, to).delay = d })
}

// Heal removes all cuts and delays.
func (n *Network) Heal() {
	n.change(func() {
		for _, l := range n.links {
			*l = link{}
		}
	})
}

// Kill ends every connection and listener of a host, as its death would.
func (n *Network) Kill(host string) {
	n.change(func() {
		for h := range n.halves {
			if h.from == host || h.to == host {
				h.reset = true
				delete(n.halves, h)
			}
		}
		for addr, l := range n.listeners {
			if l.host == host {
				l.closed = true
				delete(n.listeners, addr)
			}
		}
	})
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for h := range n.halves { // before f, which may forget some; they look after the unlock
		h.moved.Broadcast()
	}
	f()
	n.changed.Broadcast()
}

// link returns the state of one direction. n.mu must be held.
func (n *Network) link(from, to string) *link {
	key := [2]string{from, to}
	l, ok := n.links[key]
	if !ok {
		l = &link{}
		n.links[key] = l
	}
	return l
}

// Listen listens on an address whose host part is the host's name.
func (n *Network) Listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.listeners[address]; ok {
		return nil, fmt.Errorf("listen %s: address already in use", address)
	}
	l := &listener{net: n, host: host, address: address}
	n.listeners[address] = l
	return l, nil
}

// Dialer returns the function by which host opens connections. A host that is cut off
// is not refused: the dial takes until its context ends, as packets that vanish do.
func (n *Network) Dialer(host string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		to, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { n.change(func() {}) })
		defer stop()
		n.mu.Lock()
		defer n.mu.Unlock()
		for n.link(host, to).cut || n.link(to, host).cut || n.link(host, to).blocked {
			if ctx.Err() != nil {
				return nil, &net.OpError{Op: "dial", Net: "mem", Err: ctx.Err()}
			}
			n.changed.Wait()
		}
		l, ok := n.listeners[address]
		if !ok || l.closed {
			return nil, &net.OpError{Op: "dial", Net: "mem", Err: fmt.Errorf("%s: %w", address, syscall.ECONNREFUSED)}
		}
		n.nextPort++
		near := &conn{net: n, local: memAddr(fmt.Sprintf("%s:%d", host, n.nextPort)), remote: memAddr(address)}
		far := &conn{net: n, local: near.remote, remote: near.local}
		out, in := n.newHalf(host, to), n.newHalf(to, host)
		near.out, near.in, far.out, far.in = out, in, in, out
		l.waiting = append(l.waiting, far)
		n.changed.Broadcast()
		return near, nil
	}
}

func (n *Network) newHalf(from, to string) *half {
	h := &half{from: from, to: to, link: n.link(from, to), moved: sync.NewCond(&n.mu)}
	n.halves[h] = true
	return h
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

type listener struct {
	net           *Network
	host, address string
	waiting       []*conn
	closed        bool
}

func (l *listener) Accept() (net.Conn, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for len(l.waiting) == 0 && !l.closed {
		l.net.changed.Wait()
	}
	if l.closed {
		return nil, net.ErrClosed
	}
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	return c, nil
}

func (l *listener) Close() error {
	l.net.change(func() {
		l.closed = true
		if l.net.listeners[l.address] == l {
			delete(l.net.listeners, l.address)
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return memAddr(l.address) }

// half is one direction of a connection. Network.mu guards it.
type half struct {
	from, to string
	link     *link
	moved    *sync.Cond // wakes the one who reads here and the one who writes
	chunks   []chunk
	ended    bool // the sender closed
	reset    bool // one of the two hosts died, or the receiver closed
}

type chunk struct {
	data  []byte
	ready time.Time
}

// maxBuffered bounds what a sender may have under way, in bytes.
const maxBuffered = 1 << 20

func (h *half) buffered() int {
	total := 0
	for _, c := range h.chunks {
		total += len(c.data)
	}
	return total
}

type conn struct {
	net           *Network
	local, remote memAddr
	in, out       *half
	closed        bool

	readDeadline, writeDeadline time.Time
	timers                      [2]*time.Timer
}

var errReset = errors.New("connection reset by peer")

func (c *conn) Read(p []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.in.reset:
			return 0, &net.OpError{Op: "read", Net: "mem", Err: errReset}
		case expired(c.readDeadline):
			return 0, &net.OpError{Op: "read", Net: "mem", Err: os.ErrDeadlineExceeded}
		case c.in.link.cut:
		case len(c.in.chunks) > 0:
			first := &c.in.chunks[0]
			if wait := time.Until(first.ready); wait > 0 {
				time.AfterFunc(wait, c.wake)
				break
			}
			n := copy(p, first.data)
			if first.data = first.data[n:]; len(first.data) == 0 {
				c.in.chunks = c.in.chunks[1:]
			}
			c.in.moved.Broadcast()
			return n, nil
		case c.in.ended:
			return 0, io.EOF
		}
		c.in.moved.Wait()
	}
}

func (c *conn) Write(p []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.out.reset:
			return 0, &net.OpError{Op: "write", Net: "mem", Err: errReset}
		case expired(c.writeDeadline):
			return 0, &net.OpError{Op: "write", Net: "mem", Err: os.ErrDeadlineExceeded}
		case c.out.buffered() < maxBuffered:
			c.out.chunks = append(c.out.chunks, chunk{data: append([]byte(nil), p...), ready: time.Now().Add(c.out.link.delay)})
			c.out.moved.Broadcast()
			return len(p), nil
		}
		c.out.moved.Wait()
	}
}

func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.out.ended = true
	c.in.reset = true
	for _, t := range c.timers {
		if t != nil {
			t.Stop()
		}
	}
	if c.out.reset {
		delete(c.net.halves, c.out)
	}
	delete(c.net.halves, c.in)
	c.in.moved.Broadcast()
	c.out.moved.Broadcast()
	return nil
}

// wake lets who waits at either half look again.
func (c *conn) wake() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.in.moved.Broadcast()
	c.out.moved.Broadcast()
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.setDeadline(0, &c.readDeadline, t)
	c.setDeadline(1, &c.writeDeadline, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.setDeadline(0, &c.readDeadline, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.setDeadline(1, &c.writeDeadline, t)
	return nil
}

func (c *conn) setDeadline(i int, field *time.Time, t time.Time) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	*field = t
	if c.timers[i] != nil {
		c.timers[i].Stop()
		c.timers[i] = nil
	}
	if !t.IsZero() && !c.closed {
		c.timers[i] = time.AfterFunc(time.Until(t), c.wake)
	}
	c.in.moved.Broadcast()
	c.out.moved.Broadcast()
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

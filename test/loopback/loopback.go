// Package loopback hands out addresses for servers that tests and benchmarks start on
// this machine. On Linux all of 127.0.0.0/8 is the machine itself, so that every server
// can have an address of its own and the usual port.
package loopback

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// Port is the port of every address: that of the product's HTTPS listener.
const Port = 8443

// A Book hands out each address once. It takes them from 127.128.0.0/9, out of the way of
// connections that use 127.0.0.1 with any port, and begins at a place that depends on the
// process, so that two runs at the same time seldom meet.
type Book struct {
	mu   sync.Mutex
	next int
}

// NewBook returns a book of which nothing is taken.
func NewBook() *Book { return &Book{next: os.Getpid() % 0x7f00 << 8} }

// Take returns an address, host:port, that was not given before and on which nothing listens.
func (b *Book) Take() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range 1000 {
		b.next++
		address := fmt.Sprintf("127.%d.%d.%d:%d", 128+b.next>>16&0x7f, b.next>>8&0xff, b.next&0xff, Port)
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no loopback address is free: this needs Linux, where all of 127.0.0.0/8 is this machine")
}

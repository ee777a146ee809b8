package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A ListenerKind says how a request reached the daemon.
type ListenerKind int

const (
	// TLSListener serves the network: callers are known by their certificates.
	TLSListener ListenerKind = iota
	// UnixListener serves the local socket: whoever may open it is an administrator.
	UnixListener
)

type peerKey struct{}

// A unixPeer names the process at the other end of a connection to the socket.
type unixPeer struct {
	name func() string // looked up once, and only when somebody asks
}

// A Guest is a connection whose listener wants to know when a request has shown that
// who is there belongs here.
type Guest interface{ Recognized() }

type guestKey struct{}

// ConnContext is for http.Server.ConnContext: it notes who has opened the connection of
// the unix listener, and the Guest under a TLS connection.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	switch conn := conn.(type) {
	case *tls.Conn:
		if g, ok := conn.NetConn().(Guest); ok {
			return context.WithValue(ctx, guestKey{}, g)
		}
	case *net.UnixConn:
		return withPeer(ctx, conn)
	}
	return ctx
}

// recognized tells the listener of a request's connection that the caller belongs here.
func recognized(ctx context.Context) {
	if g, ok := ctx.Value(guestKey{}).(Guest); ok {
		g.Recognized()
	}
}

func withPeer(ctx context.Context, socket *net.UnixConn) context.Context {
	uid, err := peerUID(socket)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, &unixPeer{name: sync.OnceValue(func() string { return userName(uid) })})
}

// peerUID asks the kernel who has opened the connection.
func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// userName is the user's name, or uid=N for one that has none.
func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return fmt.Sprintf("uid=%d", uid)
	}
	return u.Username
}

// unixUser names the user at the other end of a request on the socket. Listeners in
// memory, as tests use them, have none.
func unixUser(ctx context.Context) string {
	if peer, ok := ctx.Value(peerKey{}).(*unixPeer); ok {
		return peer.name()
	}
	return "unix"
}

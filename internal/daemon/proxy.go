package daemon

import (
	"net"
	"net/netip"
	"strings"

	"github.com/pires/go-proxyproto"

	restapi "incusd/internal/api"
	"incusd/internal/config"
)

// behindProxies is ln, where connections from the given proxies may begin with a header
// of the PROXY protocol that tells the client's address (rest-basics.md §1). Everybody else's
// first bytes are what they are.
func behindProxies(ln net.Listener, trusted func() string) net.Listener {
	return proxyListener{&proxyproto.Listener{
		Listener:          ln,
		ReadHeaderTimeout: headerTime,
		ConnPolicy: func(from proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if isProxy(from.Upstream, trusted()) {
				return proxyproto.USE, nil
			}
			return proxyproto.SKIP, nil
		},
	}}
}

type proxyListener struct{ *proxyproto.Listener }

func (l proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if behind, ok := conn.(*proxyproto.Conn); ok {
		return proxiedConn{behind}, err
	}
	return conn, err
}

// A proxiedConn is a connection that a proxy may have passed on.
type proxiedConn struct{ *proxyproto.Conn }

// Recognized tells the listener underneath, which counts the proxy's connection.
func (c proxiedConn) Recognized() {
	if g, ok := c.Raw().(restapi.Guest); ok {
		g.Recognized()
	}
}

// isProxy tells whether an address is in a comma list of IP addresses. What is none in the
// list is ignored, as the protocol has it.
func isProxy(address net.Addr, list string) bool {
	if list == "" || address == nil {
		return false
	}
	from, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return false
	}
	for text := range strings.SplitSeq(list, ",") {
		if ip, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil && ip.Unmap() == from.Addr().Unmap().WithZone("") {
			return true
		}
	}
	return false
}

// trustedProxies is the configured list.
func (d *Daemon) trustedProxies() string {
	view := d.current.Local()
	if view == nil {
		return ""
	}
	return config.Get(d.settings.Effective(view), "core.https_trusted_proxy")
}

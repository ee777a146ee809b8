package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
)

// Time-outs of the REST listeners (rest-basics.md §1).
const (
	headerTime = 3 * time.Second
	idleTime   = 30 * time.Second
)

// ListenFunc opens a listener, as net.Listen does.
type ListenFunc func(network, address string) (net.Listener, error)

// listeners are HTTPS listeners of one server that answer alike. They all show the same network
// certificate; those that clients and members use hand members' connections to the replicated store.
type listeners struct {
	listen ListenFunc
	// proxies is a comma list of those who may tell a client's address.
	proxies func() string
	server  *http.Server
	log     *slog.Logger

	mu   sync.Mutex
	open map[string]net.Listener // by configured address
	// held are addresses that a join under way needs besides the configured ones.
	held map[string]int
	// closed says that nothing may be opened any more.
	closed bool
	wg     sync.WaitGroup
}

// tlsIdentity says which certificates a listener shows.
type tlsIdentity struct {
	// network is what clients see: the cluster's certificate, or the server's own.
	network func() *tls.Certificate
	// own is what members see.
	own func() *tls.Certificate
}

// newListeners returns listeners that are not open yet. Without members they are for clients alone.
func newListeners(listen ListenFunc, proxies func() string, id tlsIdentity, members *raftstore.Endpoint, handler http.Handler, connContext func(context.Context, net.Conn) context.Context, logger *slog.Logger) *listeners {
	l := &listeners{listen: listen, proxies: proxies, log: logger, open: make(map[string]net.Listener), held: make(map[string]int)}
	l.server = newHTTPServer(handler, connContext, logger)
	// Each stream of one connection may hold a body.
	l.server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 64}
	l.server.Protocols = new(http.Protocols)
	l.server.Protocols.SetHTTP1(true)
	l.server.Protocols.SetHTTP2(true)
	l.server.TLSConfig = tlsConfig(id)
	if members == nil {
		return l
	}
	l.server.TLSConfig = forMembers(l.server.TLSConfig, id)
	// The function must not return before the connection ends: the server closes it then.
	l.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		raftstore.ALPN: func(_ *http.Server, conn *tls.Conn, _ http.Handler) { members.Serve(conn) },
	}
	return l
}

func tlsConfig(id tlsIdentity) *tls.Config {
	minVersion := uint16(tls.VersionTLS13)
	if on, _ := api.ParseBool(os.Getenv("INCUS_INSECURE_TLS")); on {
		minVersion = tls.VersionTLS12
	}
	return &tls.Config{
		MinVersion: minVersion,
		// Asked for, never required: who the caller is, and what for, is decided per request.
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == memberServerName {
				return id.own(), nil
			}
			return id.network(), nil
		},
	}
}

// forMembers is base, and takes connections to the replicated store besides.
func forMembers(base *tls.Config, id tlsIdentity) *tls.Config {
	toStore := raftstore.ServerTLS(id.own)
	withMembers := base.Clone()
	withMembers.NextProtos = append(withMembers.NextProtos, raftstore.ALPN)
	withMembers.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, raftstore.ALPN) {
			return toStore, nil
		}
		return base, nil
	}
	return withMembers
}

func newHTTPServer(handler http.Handler, connContext func(context.Context, net.Conn) context.Context, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       connContext,
		ErrorLog:          log.New(debugWriter{logger}, "", 0),
	}
}

// debugWriter takes the HTTP server's complaints about strangers' connections.
type debugWriter struct{ log *slog.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug("http", "err", strings.TrimSpace(string(p)))
	return len(p), nil
}

var _ io.Writer = debugWriter{}

// networkOf says that 0.0.0.0 means IPv4 only.
func networkOf(address string) string {
	if strings.HasPrefix(address, "0.0.0.0:") {
		return "tcp4"
	}
	return "tcp"
}

// set makes exactly the given addresses be listened on, besides those that a join
// holds. What is new is opened before what is old is closed; if one cannot be opened,
// nothing has changed. It fails with api.AddressInUse, and with api.ShuttingDown after
// close.
func (l *listeners) set(addresses ...string) error {
	return l.follow(func() []string { return addresses })
}

// follow is set with the addresses that are configured when its turn has come: of two that
// follow a change, the later one does not go back behind it.
func (l *listeners) follow(configured func() []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	want := needed(configured())
	opened := make(map[string]net.Listener)
	var gone []string
	for _, a := range want {
		if l.open[a] != nil {
			continue
		}
		ln, inTheWay, err := l.openOne(a, want)
		gone = append(gone, inTheWay...)
		if err != nil {
			for _, o := range opened {
				o.Close()
			}
			l.reopen(gone)
			return err
		}
		opened[a] = ln
	}
	for a, ln := range opened {
		l.serve(a, ln)
	}
	for a, ln := range l.open {
		if !slices.Contains(want, a) && l.held[a] == 0 {
			ln.Close()
			delete(l.open, a)
		}
	}
	return nil
}

// needed drops empty addresses and those that another one covers.
func needed(addresses []string) []string {
	var out []string
	for i, a := range addresses {
		covered := a == ""
		for j, b := range addresses {
			if i != j && b != "" && config.Covers(b, a) && (a != b || j < i) {
				covered = true
			}
		}
		if !covered {
			out = append(out, a)
		}
	}
	return out
}

// openOne opens one address. A wildcard cannot be opened while a listener of the same
// port is: those in the way are closed first. It returns which, also when it fails, so
// that the caller can reopen them.
func (l *listeners) openOne(address string, want []string) (ln net.Listener, gone []string, err error) {
	if l.closed {
		return nil, nil, api.ShuttingDown
	}
	if ln, err = l.listen(networkOf(address), address); err == nil {
		return ln, nil, nil
	}
	for a, old := range l.open {
		if !config.Covers(address, a) && !config.Covers(a, address) || slices.Contains(want, a) || l.held[a] > 0 {
			continue
		}
		old.Close()
		delete(l.open, a)
		gone = append(gone, a)
	}
	if len(gone) > 0 {
		ln, err = l.listen(networkOf(address), address)
	}
	var unknown *net.DNSError
	if errors.As(err, &unknown) {
		return nil, gone, api.Errorf(api.AddressInvalid, "Couldn't resolve %q: %v", unknown.Name, unknown.Err)
	}
	if err != nil {
		return nil, gone, api.Errorf(api.AddressInUse, "Cannot listen on %s: %v", address, err)
	}
	return ln, gone, nil
}

// reopen listens again on addresses that were closed for a change that came to nothing.
func (l *listeners) reopen(addresses []string) {
	for _, a := range addresses {
		ln, err := l.listen(networkOf(a), a)
		if err != nil {
			l.log.Error("cannot listen again", "address", a, "err", err)
			continue
		}
		l.serve(a, ln)
	}
}

func (l *listeners) serve(address string, ln net.Listener) {
	l.open[address] = ln
	l.wg.Go(func() {
		if err := l.server.ServeTLS(behindProxies(newCrowdLimit(ln), l.proxies), "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			l.log.Error("listener ended", "address", address, "err", err)
		}
	})
	l.log.Info("listening", "address", address)
}

// hold listens on an address for as long as a join needs it, unless it is covered.
// After release the next set closes it, if it is not configured by then.
func (l *listeners) hold(address string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := range l.open {
		if a != address && config.Covers(a, address) {
			return func() {}, nil
		}
	}
	if l.open[address] == nil {
		ln, gone, err := l.openOne(address, nil)
		if err != nil {
			l.reopen(gone)
			return nil, err
		}
		l.serve(address, ln)
	}
	l.held[address]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held[address]--; l.held[address] <= 0 {
			delete(l.held, address)
		}
	}), nil
}

// close stops all listeners, gives requests under way until ctx ends, and closes the rest.
func (l *listeners) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	for a, ln := range l.open {
		ln.Close()
		delete(l.open, a)
	}
	l.mu.Unlock()
	if err := l.server.Shutdown(ctx); err != nil {
		l.server.Close()
	}
	l.wg.Wait()
}

// listenUnix opens the unix socket. A socket file that nobody answers on is a dead
// daemon's and is replaced.
func listenUnix(path, group string) (net.Listener, error) {
	const maxPath = 107 // sockaddr_un on Linux
	if len(path) > maxPath {
		return nil, fmt.Errorf("the socket path %s has %d bytes, the system allows %d: choose a shorter INCUS_DIR, or set INCUS_SOCKET", path, len(path), maxPath)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("Incus is already running: %s is answered", path) //nolint // text of the protocol
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := setOwner(path, group); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func setOwner(path, group string) error {
	if err := os.Chmod(path, 0o660); err != nil {
		return err
	}
	if group == "" {
		return nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("group of the socket: %w", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group of the socket: %w", err)
	}
	return os.Chown(path, -1, gid)
}

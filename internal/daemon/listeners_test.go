package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
)

// machine is the addresses of one machine: a wildcard and an address of its port
// exclude each other, as the kernel has it.
type machine struct {
	mu   sync.Mutex
	used map[string]bool
}

type machineListener struct {
	machine *machine
	address string
	closed  chan struct{}
	once    sync.Once
}

func (m *machine) listen(_, address string) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for used := range m.used {
		if config.Covers(used, address) || config.Covers(address, used) {
			return nil, syscall.EADDRINUSE
		}
	}
	m.used[address] = true
	return &machineListener{machine: m, address: address, closed: make(chan struct{})}, nil
}

func (m *machine) addresses() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.used))
}

func (l *machineListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *machineListener) Close() error {
	l.once.Do(func() {
		l.machine.mu.Lock()
		delete(l.machine.used, l.address)
		l.machine.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *machineListener) Addr() net.Addr { return &net.TCPAddr{} }

// newMachine returns listeners on a machine where another program uses an address.
func newMachine(t *testing.T, taken string) (*machine, *listeners) {
	m := &machine{used: make(map[string]bool)}
	if _, err := m.listen("tcp", taken); err != nil {
		t.Fatal(err)
	}
	l := newListeners(m.listen, func() string { return "" }, tlsIdentity{}, &raftstore.Endpoint{}, http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { l.close(context.Background()) })
	return m, l
}

func TestFailedChangeOfListenersKeepsTheOldOnes(t *testing.T) {
	const taken = "10.0.0.1:9999"
	for name, want := range map[string][]string{
		"the second address is in use": {"0.0.0.0:8443", taken},
		"the wildcard is in use":       {"0.0.0.0:9999"},
	} {
		t.Run(name, func(t *testing.T) {
			m, l := newMachine(t, taken)
			if err := l.set("10.0.0.1:8443", "10.0.0.2:8443"); err != nil {
				t.Fatal(err)
			}
			before := m.addresses()
			if err := l.set(want...); !errors.Is(err, api.AddressInUse) {
				t.Fatalf("got %v", err)
			}
			if after := m.addresses(); !slices.Equal(after, before) {
				t.Errorf("listening on %v, before on %v", after, before)
			}
			if err := l.set("0.0.0.0:8443"); err != nil {
				t.Errorf("a wildcard in place of two addresses: %v", err)
			}
			if after := m.addresses(); !slices.Equal(after, []string{"0.0.0.0:8443", taken}) {
				t.Errorf("listening on %v", after)
			}
		})
	}
}

func TestNameThatNobodyKnowsIsNoAddressInUse(t *testing.T) {
	m, l := newMachine(t, "10.0.0.1:9999")
	l.listen = func(string, string) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Err: &net.DNSError{Name: "nowhere.invalid", Err: "no such host"}}
	}
	if err := l.set("nowhere.invalid:8443"); !errors.Is(err, api.AddressInvalid) || err.Error() != `Couldn't resolve "nowhere.invalid": no such host` {
		t.Errorf("got %v; listening on %v", err, m.addresses())
	}
}

func TestNothingIsOpenedAfterClose(t *testing.T) {
	m, l := newMachine(t, "10.0.0.1:9999")
	l.close(t.Context())
	if err := l.set("10.0.0.1:8443"); !errors.Is(err, api.ShuttingDown) {
		t.Errorf("set: %v", err)
	}
	if _, err := l.hold("10.0.0.1:8443"); !errors.Is(err, api.ShuttingDown) {
		t.Errorf("hold: %v", err)
	}
	if got := m.addresses(); len(got) != 1 {
		t.Errorf("listening on %v", got)
	}
}

// Whoever is in the group may open the socket, and nobody else.
func TestSocketIsForOneGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unix.socket")
	own, err := user.LookupGroupId(strconv.Itoa(os.Getgid()))
	if err != nil {
		t.Skip(err)
	}
	ln, err := listenUnix(path, own.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode().Perm() != 0o660 || int(gid) != os.Getgid() {
		t.Errorf("mode %v, group %d", info.Mode(), gid)
	}
	other := filepath.Join(t.TempDir(), "unix.socket")
	if _, err := listenUnix(other, "no such group"); err == nil {
		t.Error("a group that is not there was taken")
	}
	if _, err := net.Dial("unix", other); err == nil {
		t.Error("the socket is open all the same")
	}
}

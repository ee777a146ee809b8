// Package hosts runs the built binaries on hosts of their own: each daemon has a network
// namespace with an address in 192.0.2.0/24, the network of the documentation, and all are
// joined by one bridge. So bridges, storage and the documented preseeds are tried as an
// administrator meets them. It needs root; what the machine has no tool or kernel support
// for is skipped, with the reason.
package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"incusd/test/binaries"
)

// patience is how long a test waits for a daemon, or for a condition, before it fails.
const patience = 60 * time.Second

func TestMain(m *testing.M) { binaries.Main(m) }

// A lab is a network of hosts.
type lab struct {
	t   *testing.T
	dir string
	hub netns.NsHandle // has the bridge that joins the hosts
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir, err := os.MkdirTemp("/tmp", "incus-lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{t: t, dir: dir, hub: newNamespace(t)}
	hub := l.at(l.hub)
	l.must(hub.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "hub"}}))
	l.up(hub, "hub")
	return l
}

// newNamespace makes a network namespace that goes with the test.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	type result struct {
		handle netns.NsHandle
		err    error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		handle, err := netns.New()
		made <- result{handle, err}
	}()
	r := <-made
	if r.err != nil {
		t.Skipf("network namespaces cannot be made here: %v", r.err)
	}
	t.Cleanup(func() { r.handle.Close() })
	return r.handle
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) at(ns netns.NsHandle) *netlink.Handle {
	l.t.Helper()
	handle, err := netlink.NewHandleAt(ns)
	l.must(err)
	l.t.Cleanup(handle.Close)
	return handle
}

func (l *lab) up(in *netlink.Handle, name string) {
	l.t.Helper()
	link, err := in.LinkByName(name)
	l.must(err)
	l.must(in.LinkSetUp(link))
}

// A host is one machine of the lab.
type host struct {
	*lab
	name, address string
	ns            netns.NsHandle
	links         *netlink.Handle
	state         string // its INCUS_DIR
	daemon        *exec.Cmd
	ended         chan error
}

// host adds a machine with an address, such as 192.0.2.101, and starts its daemon.
func (l *lab) host(name, address string) *host {
	l.t.Helper()
	h := &host{lab: l, name: name, address: address, ns: newNamespace(l.t), state: filepath.Join(l.dir, name)}
	h.links = l.at(h.ns)
	hub := l.at(l.hub)
	port := "to-" + name
	l.must(hub.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(h.ns)),
	}))
	bridge, err := hub.LinkByName("hub")
	l.must(err)
	end, err := hub.LinkByName(port)
	l.must(err)
	l.must(hub.LinkSetMaster(end, bridge))
	l.up(hub, port)
	l.up(h.links, "lo")
	eth0, err := h.links.LinkByName("eth0")
	l.must(err)
	subnet, err := netlink.ParseAddr(address + "/24")
	l.must(err)
	l.must(h.links.AddrAdd(eth0, subnet))
	l.up(h.links, "eth0")
	l.must(os.MkdirAll(h.state, 0o711))
	l.t.Cleanup(h.end)
	h.start()
	return h
}

// end is how a host leaves the lab: its daemon stops and leaves no process. What a daemon has left
// that the test killed for good is ended, since its folder goes.
func (h *host) end() {
	running := h.daemon != nil
	h.stop()
	for pid, what := range h.processes() {
		if running {
			h.t.Errorf("%s stopped and left process %d: %s", h.name, pid, what)
		}
		h.must(syscall.Kill(pid, syscall.SIGKILL))
	}
	h.eventually("no process of "+h.name+" is left", func() error {
		if left := h.processes(); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	if h.t.Failed() {
		if log, err := os.ReadFile(filepath.Join(h.dir, h.name+".log")); err == nil {
			h.t.Logf("log of %s:\n%s", h.name, log)
		}
	}
}

// processes are those that name a file of the host, as its DHCP and DNS servers do, with their arguments.
func (h *host) processes() map[int]string {
	h.t.Helper()
	found := map[int]string{}
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	h.must(err)
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		h.must(err)
		if args, err := os.ReadFile(name); err == nil && bytes.Contains(args, []byte(h.state+"/")) {
			found[pid] = strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte(" "))))
		}
	}
	return found
}

// command prepares a program that will run on the host.
func (h *host) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "incus" {
		name = filepath.Join(binaries.Dir, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{
		"PATH=" + binaries.Dir + ":" + os.Getenv("PATH"), "INCUS_DIR=" + h.state, "HOME=" + h.state, "TZ=UTC",
		"INCUS_CONF=" + filepath.Join(h.dir, h.name+"-client"),
	}
	return cmd
}

// launch starts a program on the host.
func (h *host) launch(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread stays in the host's namespace
		if err := netns.Set(h.ns); err != nil {
			started <- err
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// start starts the daemon and waits until it is ready.
func (h *host) start() {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, h.name+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	h.must(err)
	defer log.Close()
	h.daemon, h.ended = h.command(context.Background(), filepath.Join(binaries.Dir, "incusd"), "--verbose"), make(chan error, 1)
	h.daemon.Stdout, h.daemon.Stderr = log, log
	h.must(h.launch(h.daemon))
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(h.daemon, h.ended)
	h.incus("admin", "waitready", "-t", "30")
}

func (h *host) signal(sig syscall.Signal) {
	if h.daemon == nil {
		return
	}
	_ = h.daemon.Process.Signal(sig)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.t.Errorf("%s does not end", h.name)
		_ = h.daemon.Process.Kill()
		<-h.ended
	}
	h.daemon = nil
}

// stop ends the daemon as a shutdown of the machine does.
func (h *host) stop() { h.signal(syscall.SIGTERM) }

// kill ends the daemon as a crash does.
func (h *host) kill() { h.signal(syscall.SIGKILL) }

// exec runs a program on the host, with input, and returns what it printed.
func (h *host) exec(input, name string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.command(ctx, name, args...)
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &problems
	if err := h.launch(cmd); err != nil {
		return "", "", err
	}
	err = cmd.Wait()
	return out.String(), problems.String(), err
}

// incus runs the command line, which must succeed.
func (h *host) incus(args ...string) string {
	h.t.Helper()
	return h.feed("", args...)
}

// feed is incus with standard input.
func (h *host) feed(input string, args ...string) string {
	h.t.Helper()
	out, problems, err := h.exec(input, "incus", args...)
	if err != nil {
		h.t.Fatalf("%s: incus %s: %v\n%s%s", h.name, strings.Join(args, " "), err, out, problems)
	}
	return out
}

// refused runs the command line, which must fail, and returns what it said.
func (h *host) refused(input string, args ...string) string {
	h.t.Helper()
	out, problems, err := h.exec(input, "incus", args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		h.t.Fatalf("%s: incus %s was not refused: %v\n%s%s", h.name, strings.Join(args, " "), err, out, problems)
	}
	return problems
}

// hasLink tells whether the host has an interface of that name.
func (h *host) hasLink(name string) bool {
	_, err := h.links.LinkByName(name)
	return err == nil
}

// eventually waits until f succeeds.
func (l *lab) eventually(what string, f func() error) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: %v", what, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// leftovers lists the mounts and loop devices that are below the lab's folder.
func (l *lab) leftovers() []string {
	l.t.Helper()
	var found []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	l.must(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.dir+"/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	l.must(err)
	for _, file := range files {
		if name, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(name), l.dir+"/") {
			found = append(found, file+": "+strings.TrimSpace(string(name)))
		}
	}
	return found
}

package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	leaseFile = "dnsmasq.leases"
	rawFile   = "dnsmasq.raw"
	// firstRetry and lastRetry are the pauses before a server that has ended is started again.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// stopTime is how long a server may take to end when it is asked to.
	stopTime = 5 * time.Second
)

// A server is the DHCP and DNS server of one bridge: a process that is started again when it ends.
type server struct {
	args    string // as they were given, to see a change
	stopped chan struct{}
	ended   chan struct{}
}

// serve runs the server of a bridge that has addresses to give.
func (m *Manager) serve(n Network) error {
	args, err := m.serverArgs(n)
	if err != nil {
		return err
	}
	key := strings.Join(args, "\x00") + n.Config["raw.dnsmasq"]
	if old, ok := m.servers[n.ID]; ok {
		if old.args == key {
			return nil
		}
		old.stop()
		delete(m.servers, n.ID)
	}
	if args == nil {
		return nil
	}
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		m.warnOnce("dnsmasq", "DHCP and DNS")
		return nil
	}
	if err := m.writeFile(n, rawFile, n.Config["raw.dnsmasq"]); err != nil {
		return err
	}
	if err := m.endLeftover(n); err != nil {
		return err
	}
	s := &server{args: key, stopped: make(chan struct{}), ended: make(chan struct{})}
	m.servers[n.ID] = s
	go s.run(args, m.cfg.Log.With("network", n.Name))
	return nil
}

// serverArgs are dnsmasq's; nil for a bridge without addresses.
func (m *Manager) serverArgs(n Network) ([]string, error) {
	v4, v6 := address(n, "ipv4.address"), address(n, "ipv6.address")
	if v4 == "" && v6 == "" {
		return nil, nil
	}
	domain := n.Config["dns.domain"]
	if domain == "" {
		domain = "incus"
	}
	args := []string{
		"--keep-in-foreground", "--conf-file=" + filepath.Join(m.folder(n), rawFile), "--pid-file=", "--no-ping", "--strict-order",
		"--bind-dynamic", "--except-interface=lo", "--interface=" + n.Name, "--dhcp-no-override", "--dhcp-authoritative",
		"--dhcp-leasefile=" + filepath.Join(m.folder(n), leaseFile), "--interface-name=_gateway." + domain + "," + n.Name,
	}
	if os.Geteuid() == 0 {
		args = append(args, "--user=nobody")
	}
	if n.Config["dns.mode"] == "none" {
		args = append(args, "--port=0")
	} else {
		args = append(args, "--domain="+domain, "--local=/"+domain+"/")
	}
	if v4 != "" {
		more, err := dhcp4(n, v4)
		if err != nil {
			return nil, err
		}
		args = append(args, more...)
	}
	if v6 != "" {
		args = append(args, dhcp6(n)...)
	}
	return args, nil
}

func dhcp4(n Network, cidr string) ([]string, error) {
	ip, subnet, err := net.ParseCIDR(cidr)
	if err != nil {
		return nil, err
	}
	args := []string{"--listen-address=" + ip.String()}
	if n.Config["ipv4.dhcp"] == "false" {
		return args, nil
	}
	expiry := n.Config["ipv4.dhcp.expiry"]
	if expiry == "" {
		expiry = "1h"
	}
	ranges := fields(n.Config["ipv4.dhcp.ranges"])
	if len(ranges) == 0 {
		first, last := hosts(subnet)
		ranges = []string{first.String() + "-" + last.String()}
	}
	for _, r := range ranges {
		args = append(args, "--dhcp-range="+strings.ReplaceAll(r, "-", ",")+","+expiry)
	}
	if gateway := n.Config["ipv4.dhcp.gateway"]; gateway != "" {
		args = append(args, "--dhcp-option-force=3,"+gateway)
	}
	if mtu := n.Config["bridge.mtu"]; mtu != "" {
		args = append(args, "--dhcp-option-force=26,"+mtu)
	}
	return args, nil
}

// hosts are the second and the last address of a subnet that a host can have: the first is
// commonly the bridge's.
func hosts(subnet *net.IPNet) (first, last net.IP) {
	base := binary.BigEndian.Uint32(subnet.IP.To4())
	ones, bits := subnet.Mask.Size()
	return ipv4(base + 2), ipv4(base + 1<<(bits-ones) - 2)
}

func ipv4(n uint32) net.IP { return binary.BigEndian.AppendUint32(nil, n) }

func dhcp6(n Network) []string {
	expiry := n.Config["ipv6.dhcp.expiry"]
	if expiry == "" {
		expiry = "1h"
	}
	args := []string{"--enable-ra"}
	switch {
	case n.Config["ipv6.dhcp"] == "false":
		return append(args, "--dhcp-range=::,constructor:"+n.Name+",ra-only")
	case n.Config["ipv6.dhcp.stateful"] == "true":
		return append(args, "--dhcp-range=::2,::ffff:ffff:ffff:ffff,constructor:"+n.Name+",64,"+expiry)
	}
	return append(args, "--dhcp-range=::,constructor:"+n.Name+",ra-stateless,ra-names")
}

// endLeftover ends a server of this network that a daemon which was killed has left. It is known by
// its lease file, which is this network's alone.
func (m *Manager) endLeftover(n Network) error {
	mark := []byte("\x00--dhcp-leasefile=" + filepath.Join(m.folder(n), leaseFile) + "\x00")
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, name := range processes {
		if args, err := os.ReadFile(name); err != nil || !bytes.Contains(args, mark) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return err
		}
		if err := endProcess(pid); err != nil {
			return fmt.Errorf("end the DHCP and DNS server %d that an earlier daemon has left: %w", pid, err)
		}
	}
	return nil
}

// endProcess ends a process that is no child, and waits until it is gone.
func endProcess(pid int) error {
	handle, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	} else if err != nil {
		return err
	}
	defer unix.Close(handle)
	if err := unix.PidfdSendSignal(handle, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, int(stopTime/time.Millisecond))
	if err == nil && ready == 0 {
		err = unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0)
	}
	return err
}

// run keeps the process running until stop is called.
func (s *server) run(args []string, log *slog.Logger) {
	defer close(s.ended)
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		said, err := s.once(args)
		select {
		case <-s.stopped:
			return
		default:
		}
		// Where several members share a bridge, the first one's server has its ports.
		log.Debug("the DHCP and DNS server ended; it is started again", "err", err, "said", said, "in", pause)
		select {
		case <-time.After(pause):
		case <-s.stopped:
			return
		}
	}
}

// once runs the process until it ends, or stop is called.
func (s *server) once(args []string) (said string, err error) {
	cmd := exec.Command("dnsmasq", args...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		return "", err
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-s.stopped:
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case <-done:
		}
	}()
	err = cmd.Wait()
	close(done)
	return strings.TrimSpace(problems.String()), err
}

// stop ends the process and waits until it has ended.
func (s *server) stop() {
	close(s.stopped)
	<-s.ended
}

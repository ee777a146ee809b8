package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A member is one daemon of its own process, with its own state directory.
type member struct {
	name string
	dir  string
	// address is host:port on the loopback network.
	address string
	bin     string
	cmd     *exec.Cmd
	// ended is closed when the process has ended.
	ended chan struct{}
	api   *restClient
}

// newMember prepares a member with an address of its own; it starts nothing.
func newMember(bin, dir, name, address string) (*member, error) {
	m := &member{name: name, dir: filepath.Join(dir, name), address: address, bin: bin}
	m.api = newRESTClient(filepath.Join(m.dir, "unix.socket"))
	return m, os.MkdirAll(m.dir, 0o711)
}

// start runs the daemon and returns how long it took until it answered GET /1.0.
func (m *member) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(m.bin, "incusd"))
	cmd.Env = m.env()
	cmd.Stdout, cmd.Stderr = log, log
	// The daemons must not outlive a bench that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	started := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	m.cmd, m.ended = cmd, make(chan struct{})
	go func() {
		defer close(m.ended)
		cmd.Wait() // how it ended is of no interest: most are killed
	}()
	err = m.firstAnswer(ctx)
	return time.Since(started), err
}

// firstAnswer waits until the daemon answers.
func (m *member) firstAnswer(ctx context.Context) error {
	return poll(ctx, 500*time.Microsecond, func() (bool, error) {
		select {
		case <-m.ended:
			return false, fmt.Errorf("%s ended while it was starting; its log is %s", m.name, m.logFile())
		default:
		}
		return m.api.get(ctx, "/1.0", nil) == nil, nil
	})
}

// incus runs the command line on this member and returns what it printed.
func (m *member) incus(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "incus"), args...)
	cmd.Env = m.env()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: incus %s: %w: %s", m.name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// env is the environment of the daemon and of the command line.
func (m *member) env() []string {
	return append(os.Environ(), "INCUS_DIR="+m.dir, "INCUS_CONF="+filepath.Join(m.dir, "client"), "INCUS_SOCKET=")
}

func (m *member) logFile() string { return filepath.Join(m.dir, "incusd.log") }

// kill ends the process at once, as a power cut would.
func (m *member) kill() {
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Kill()
	<-m.ended
	m.api.forget()
	m.cmd = nil
}

// signal sends sig to the process; SIGSTOP makes all its packets vanish.
func (m *member) signal(sig syscall.Signal) error { return m.cmd.Process.Signal(sig) }

// resident is the process's resident memory in bytes.
func (m *member) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS in the process's status")
}

// showLog copies the end of a daemon's log to w.
func showLog(w io.Writer, file string) {
	log, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	const end = 4 << 10
	fmt.Fprintf(w, "--- %s\n%s\n", file, log[max(0, len(log)-end):])
}

// poll calls done every interval until it says true, fails, or ctx ends.
func poll(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

package hosts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is a program on a host that a person talks to through a pseudo-terminal.
type terminal struct {
	host   *host
	master *os.File
	done   chan error

	mu     sync.Mutex
	screen bytes.Buffer
	wake   chan struct{} // closed and replaced when the screen changes
	read   int           // how much of the screen expect has gone past
}

// terminal starts incus with a controlling terminal.
func (h *host) terminal(args ...string) *terminal {
	h.t.Helper()
	master, slave, err := openPTY()
	h.must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	cmd := h.command(ctx, "incus", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	h.must(h.launch(cmd))
	slave.Close()
	t := &terminal{host: h, master: master, done: make(chan error, 1), wake: make(chan struct{})}
	go t.copy()
	go func() {
		t.done <- cmd.Wait()
		cancel()
	}()
	h.t.Cleanup(func() { cancel(); master.Close() })
	return t
}

func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	return master, slave, err
}

func (t *terminal) copy() {
	chunk := make([]byte, 4096)
	for {
		n, err := t.master.Read(chunk)
		t.mu.Lock()
		t.screen.Write(bytes.ReplaceAll(chunk[:n], []byte("\r"), nil))
		close(t.wake)
		t.wake = make(chan struct{})
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// text is all that was on the screen, what was typed included.
func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

// expect waits until the screen shows text, after what was expected before.
func (t *terminal) expect(text string) {
	t.host.t.Helper()
	late := time.After(patience)
	for {
		t.mu.Lock()
		at := strings.Index(t.screen.String()[t.read:], text)
		wake := t.wake
		if at >= 0 {
			t.read += at + len(text)
		}
		t.mu.Unlock()
		if at >= 0 {
			return
		}
		select {
		case <-wake:
		case err := <-t.done:
			t.done <- err
			t.host.t.Fatalf("%s: the program ended (%v) before %q; the screen:\n%s", t.host.name, err, text, t.text())
		case <-late:
			t.host.t.Fatalf("%s: no %q; the screen:\n%s", t.host.name, text, t.text())
		}
	}
}

// answer waits for a question, letter by letter, and types the answer.
func (t *terminal) answer(question, answer string) {
	t.host.t.Helper()
	t.expect(question)
	if _, err := t.master.WriteString(answer + "\n"); err != nil {
		t.host.t.Fatal(err)
	}
}

// end waits until the program has ended.
func (t *terminal) end() error {
	t.host.t.Helper()
	select {
	case err := <-t.done:
		return err
	case <-time.After(patience):
		t.host.t.Fatalf("%s: the program goes on; the screen:\n%s", t.host.name, t.text())
		return nil
	}
}

// interrupt types Ctrl-C.
func (t *terminal) interrupt() {
	t.host.t.Helper()
	if _, err := t.master.Write([]byte{3}); err != nil {
		t.host.t.Fatal(err)
	}
}

package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"incusd/test/binaries"
)

// patience is how long a story waits for a daemon, or for a condition, before it fails.
const patience = 30 * time.Second

// A daemon is one running incusd.
type daemon struct {
	cmd *exec.Cmd
	// ended is closed when the process has ended; err says how, and may be read then.
	ended chan struct{}
	err   error
}

// wait waits until the process has ended.
func (d *daemon) wait() error {
	select {
	case <-d.ended:
		return d.err
	case <-time.After(patience):
		return fmt.Errorf("still runs after %s", patience)
	}
}

// daemons are those of one story. The key is the member's name, which is also the name of
// its state directory in the story's folder.
type daemons struct {
	dir     string
	running map[string]*daemon
}

// daemonsKey is the key of a story's *daemons among its values.
type daemonsKey struct{}

func newDaemons(dir string) *daemons { return &daemons{dir: dir, running: map[string]*daemon{}} }

func of(ts *testscript.TestScript) *daemons { return ts.Value(daemonsKey{}).(*daemons) }

// stateDir is the member's INCUS_DIR.
func (d *daemons) stateDir(name string) string { return filepath.Join(d.dir, name) }

// launch runs the daemon of a member in the story's environment; it does not wait.
func (d *daemons) launch(name string, env []string) error {
	if _, runs := d.running[name]; runs {
		return fmt.Errorf("%s runs already", name)
	}
	if err := os.MkdirAll(d.stateDir(name), 0o711); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries.Dir, "incusd"), "--verbose")
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	started := &daemon{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(started.ended)
		started.err = cmd.Wait()
	}()
	d.running[name] = started
	return nil
}

// ready waits until the member says so, as incus admin waitready does, or has ended.
func (d *daemons) ready(name string, env []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	started := d.running[name]
	go func() {
		select {
		case <-started.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	wait := exec.CommandContext(ctx, filepath.Join(binaries.Dir, "incus"), "admin", "waitready")
	wait.Env = env
	if output, err := wait.CombinedOutput(); err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", name, err, output)
	}
	return nil
}

// signal sends sig to a member and waits until it has ended.
func (d *daemons) signal(name string, sig syscall.Signal) error {
	running, ok := d.running[name]
	if !ok {
		return fmt.Errorf("%s does not run", name)
	}
	if err := running.cmd.Process.Signal(sig); err != nil {
		return err
	}
	delete(d.running, name)
	return running.wait()
}

func (d *daemons) killAll() {
	for _, running := range d.running {
		running.cmd.Process.Kill()
		<-running.ended
	}
}

// deaths tells which daemons have ended without being asked to.
func (d *daemons) deaths() string {
	var b strings.Builder
	for name, running := range d.running {
		select {
		case <-running.ended:
			fmt.Fprintf(&b, "%s has ended by itself: %v\n", name, running.err)
		default:
		}
	}
	return b.String()
}

// logs are the ends of all daemons' logs.
func (d *daemons) logs() string {
	files, _ := filepath.Glob(filepath.Join(d.dir, "*.log")) // the pattern is valid
	var b strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a failed story has worse to tell
		}
		const end = 6 << 10
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(file), data[max(0, len(data)-end):])
	}
	return b.String()
}

// environ is the story's environment for the member called name.
func environ(ts *testscript.TestScript, name string) []string {
	return []string{
		"PATH=" + ts.Getenv("PATH"),
		"HOME=" + ts.Getenv("HOME"),
		"TZ=" + ts.Getenv("TZ"),
		"INCUS_CONF=" + ts.Getenv("INCUS_CONF"),
		"INCUS_DIR=" + of(ts).stateDir(name),
	}
}

// start MEMBER...: all are started before the first is waited for, since members that
// come back need each other.
func start(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "start", neg, len(args) > 0)
	for _, name := range args {
		ts.Check(of(ts).launch(name, environ(ts, name)))
	}
	for _, name := range args {
		ts.Check(of(ts).ready(name, environ(ts, name)))
	}
	use(ts, false, args[:1])
}

// use MEMBER
func use(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "use", neg, len(args) == 1)
	ts.Setenv("INCUS_DIR", of(ts).stateDir(args[0]))
}

// crash MEMBER...
func crash(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "crash", neg, len(args) > 0)
	for _, name := range args {
		if err := of(ts).signal(name, syscall.SIGKILL); err == nil {
			ts.Fatalf("%s ended cleanly although it was killed", name)
		}
	}
}

// halt MEMBER...: not called stop, which in testscript ends the story, as passed.
func halt(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "halt", neg, len(args) > 0)
	for _, name := range args {
		if err := of(ts).signal(name, syscall.SIGTERM); err != nil {
			ts.Fatalf("%s: %v", name, err)
		}
	}
}

// ended MEMBER
func ended(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "ended", neg, len(args) == 1)
	running, ok := of(ts).running[args[0]]
	if !ok {
		ts.Fatalf("%s was not started", args[0])
	}
	if err := running.wait(); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	delete(of(ts).running, args[0])
}

// until PATTERN CMD...
func until(ts *testscript.TestScript, neg bool, args []string) {
	positive(ts, "until", neg, len(args) >= 2)
	pattern := compile(ts, args[0])
	deadline := time.After(patience)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("%s does not print %q within %s", strings.Join(args[1:], " "), args[0], patience)
		case <-ticker.C:
		}
	}
}

// positive fails the story if a command that cannot be negated is, or has wrong arguments.
func positive(ts *testscript.TestScript, command string, neg, wellFormed bool) {
	if neg {
		ts.Fatalf("%s cannot be negated", command)
	}
	if !wellFormed {
		ts.Fatalf("%s: wrong number of arguments; see the comment on package cli", command)
	}
}

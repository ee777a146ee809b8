package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sdaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/internal/daemon"
	"incusd/internal/raftstore"
)

// options are the flags of the daemon (cli.md §8).
type options struct {
	group   string
	logfile string
	syslog  bool
	trace   []string
	debug   bool
	verbose bool
}

func rootCommand() *cobra.Command {
	var o options
	run := func(*cobra.Command, []string) error { return runDaemon(o) }
	root := &cobra.Command{
		Use:           "incusd",
		Short:         "The clustering daemon",
		Long:          "The clustering daemon.\n\nIt keeps its state below INCUS_DIR (default /var/lib/incus) and answers on the unix\nsocket there, and on core.https_address once that is set. Ask it with the command incus.",
		Version:       api.Version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          run,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&o.group, "group", "", "The group of users that may talk to the daemon")
	flags.StringVar(&o.logfile, "logfile", "", "File to write the log to, instead of standard error")
	flags.BoolVar(&o.syslog, "syslog", false, "Log to syslog")
	flags.StringArrayVar(&o.trace, "trace", nil, "Log tracing targets (any target switches debug messages on)")
	flags.BoolVarP(&o.debug, "debug", "d", false, "Show all debug messages")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "Show all information messages")
	root.AddCommand(
		&cobra.Command{Use: "daemon", Short: "Run the daemon", Hidden: true, Args: cobra.NoArgs, RunE: run},
		&cobra.Command{Use: "version", Short: "Show the version", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), api.Version)
		}},
		waitreadyCommand(), shutdownCommand(), clusterCommand(), adminCommand(),
	)
	return root
}

// runDaemon runs until a signal, a shutdown call or a failure ends it.
func runDaemon(o options) error {
	logger, closeLog, err := newLogger(o)
	if err != nil {
		return err
	}
	defer closeLog()
	timing, err := timingFromEnvironment()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPWR)
	signal.Ignore(syscall.SIGHUP)
	cfg := daemon.Config{Paths: daemon.DefaultPaths(), Group: o.group, Timing: timing, Logger: logger}
	if err := useActivation(&cfg); err != nil {
		return err
	}
	d, err := daemon.Start(cfg)
	if err != nil {
		return explain(err)
	}
	notify(logger, sdaemon.SdNotifyReady)
	select {
	case s := <-signals:
		logger.Info("stopping", "signal", s.String())
		notify(logger, sdaemon.SdNotifyStopping)
		stop(d, s, signals)
	case <-d.Done():
		notify(logger, sdaemon.SdNotifyStopping)
	}
	return explain(d.Err())
}

// useActivation takes the unix socket from systemd, if systemd opened one.
func useActivation(cfg *daemon.Config) error {
	listeners, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("sockets passed by systemd: %w", err)
	}
	for _, l := range listeners {
		if socket, ok := l.(*net.UnixListener); ok {
			cfg.ListenUnix = func() (net.Listener, error) { return socket, nil }
			return nil
		}
	}
	return nil
}

// stop ends the daemon. A polite signal waits for operations, a second signal or an
// impatient one does not.
func stop(d *daemon.Daemon, s os.Signal, more <-chan os.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch s {
	case syscall.SIGTERM, syscall.SIGPWR:
		var stopTimer context.CancelFunc
		ctx, stopTimer = context.WithTimeout(ctx, d.ShutdownTime())
		defer stopTimer()
		go func() {
			select {
			case <-more:
				cancel()
			case <-ctx.Done():
			}
		}()
	default:
		cancel()
	}
	d.Stop(ctx)
}

// explain adds the next step to a refusal.
func explain(err error) error {
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.NextStep() == "" {
		return err
	}
	return fmt.Errorf("%w\nHint: %s", err, refusal.NextStep())
}

// notify tells systemd, if it is there.
func notify(logger *slog.Logger, what string) {
	if _, err := sdaemon.SdNotify(false, what); err != nil {
		logger.Warn("tell systemd", "err", err)
	}
}

func newLogger(o options) (*slog.Logger, func(), error) {
	level := slog.LevelWarn
	switch {
	case o.debug, len(o.trace) > 0:
		level = slog.LevelDebug
	case o.verbose:
		level = slog.LevelInfo
	}
	var out io.Writer = os.Stderr
	closeLog := func() {}
	switch {
	case o.logfile != "":
		f, err := os.OpenFile(o.logfile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("open the log: %w", err)
		}
		out, closeLog = f, func() { f.Close() }
	case o.syslog:
		w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "incusd")
		if err != nil {
			return nil, nil, fmt.Errorf("open syslog: %w", err)
		}
		out, closeLog = w, func() { w.Close() }
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), closeLog, nil
}

// Bounds of INCUS_ELECTION_TIMEOUT: below, a busy machine flaps; above, nobody would
// call it fail-over.
const (
	minElection = 50 * time.Millisecond
	maxElection = 30 * time.Second
)

// timingFromEnvironment reads INCUS_ELECTION_TIMEOUT, in milliseconds: how long
// followers wait for the leader (see raftstore.Timing).
func timingFromEnvironment() (raftstore.Timing, error) {
	text := os.Getenv("INCUS_ELECTION_TIMEOUT")
	if text == "" {
		return raftstore.Timing{}, nil
	}
	ms, err := strconv.Atoi(text)
	d := time.Duration(ms) * time.Millisecond
	if err != nil || d < minElection || d > maxElection {
		return raftstore.Timing{}, fmt.Errorf("INCUS_ELECTION_TIMEOUT is %q, expected milliseconds from %d to %d", text, minElection.Milliseconds(), maxElection.Milliseconds())
	}
	return raftstore.Timing{Election: d}, nil
}

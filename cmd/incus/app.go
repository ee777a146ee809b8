package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/conf"
)

const (
	// operationLimit bounds the wait for a bootstrap or a join. A cluster gives a
	// joiner ten minutes before it takes the token back.
	operationLimit = 10 * time.Minute
	dateFormat     = "2006/01/02 15:04 MST"
)

// world is what the command line needs from outside its process.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	// Whether a person is at that end of the stream.
	stdinTerminal, stderrTerminal bool
	getenv                        func(string) string
	location                      *time.Location // in which times are printed
	// connect returns a client of the local daemon.
	connect func(client.Options) *client.Client
	// findMember looks for a member at the addresses of a join token.
	findMember func(context.Context, *api.ClusterMemberJoinToken) (string, *x509.Certificate, error)
	// remoteCertificate is what the server at an address shows, unverified.
	remoteCertificate func(ctx context.Context, address string) (*x509.Certificate, error)
	// preflight asks a member what is in the way of a join.
	preflight func(context.Context, string, *x509.Certificate, api.JoinRequest) (*api.JoinReport, error)
	// hidden asks, and reads a line from the terminal without showing it; nil where there is none.
	hidden func(ask func()) (string, error)
	// disk tells the type of the file system at a path and how many bytes are free on it.
	disk func(path string) (kind string, free uint64)
	// canListen tells why an address cannot be listened on.
	canListen func(address string) error
	// localAddress is an address under which other servers may reach this one, or "".
	localAddress func() string
	// edit lets a person change a text.
	edit func(ctx context.Context, text []byte) ([]byte, error)
}

// systemWorld is the real one.
func systemWorld() *world {
	w := &world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		stdinTerminal:  term.IsTerminal(int(os.Stdin.Fd())),
		stderrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		getenv:         os.Getenv,
		location:       time.Local,
		localAddress:   localAddress,
		findMember: func(ctx context.Context, token *api.ClusterMemberJoinToken) (string, *x509.Certificate, error) {
			return client.FindMember(ctx, nil, token)
		},
	}
	w.remoteCertificate = func(ctx context.Context, address string) (*x509.Certificate, error) {
		return client.RemoteCertificate(ctx, nil, address)
	}
	w.preflight = func(ctx context.Context, address string, cert *x509.Certificate, req api.JoinRequest) (*api.JoinReport, error) {
		req.Time = time.Now().UTC()
		return client.Preflight(ctx, nil, address, cert, req)
	}
	if w.stdinTerminal {
		w.hidden = hidden
	}
	w.disk, w.canListen = disk, canListen
	w.connect = func(opts client.Options) *client.Client {
		path, project := client.SocketPath("", w.getenv)
		return client.Unix(path, opts).WithProject(project)
	}
	w.edit = func(ctx context.Context, text []byte) ([]byte, error) { return runEditor(ctx, w.getenv, text) }
	return w
}

// hidden reads a line from the terminal. The echo is off before the question is there, so that who
// types fast is not read either; Ctrl-C leaves the terminal as it was.
func hidden(ask func()) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	restore := func() { _ = term.Restore(fd, before) }
	defer restore()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-interrupted:
			restore()
		case <-done:
		}
	}()
	quiet, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, quiet); err != nil {
		return "", err
	}
	ask()
	text, err := term.ReadPassword(fd)
	return string(text), err
}

// disk asks the kernel.
func disk(path string) (kind string, free uint64) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return "", 0
	}
	if s.Type == unix.BTRFS_SUPER_MAGIC {
		kind = "btrfs"
	}
	return kind, s.Bavail * uint64(s.Bsize)
}

// canListen tries it.
func canListen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// localAddress is the first global unicast address of this machine.
func localAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	return ""
}

// app is one run of the command line.
type app struct {
	*world
	project                           string
	forceLocal, debug, verbose, quiet bool
	// conf is what the user has set for the command line, kept in dirs; nil until it is read.
	conf *conf.Config
	dirs conf.Dirs
	// used is the remote that was connected to last.
	used         *usedRemote
	staleWarning sync.Once
	// stale is the first answer that was marked as stale; nil if none was.
	stale *client.Stale
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, w *world, args []string) int {
	a := &app{world: w, used: &usedRemote{}}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(w.stdin)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	err := root.ExecuteContext(ctx)
	a.remember()
	var said saidError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said):
		return said.code
	}
	a.report(a.explainTrust(ctx, err))
	return 1
}

func (a *app) rootCommand() *cobra.Command {
	root := parent("incus", "Form and manage a cluster of servers",
		a.adminCommand(), a.clusterCommand(), a.configCommand(), a.infoCommand(),
		a.listCommand(), a.monitorCommand(), a.networkCommand(), a.operationCommand(), a.profileCommand(), a.projectCommand(), a.queryCommand(),
		a.remoteCommand(), a.storageCommand(), a.versionCommand(), a.warningCommand())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.configure() }
	root.Version = api.Version
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "Print the version")

	flags := root.PersistentFlags()
	flags.StringVar(&a.project, "project", a.getenv("INCUS_PROJECT"), "Use the project called `NAME`")
	flags.BoolVar(&a.forceLocal, "force-local", false, "Use the local unix socket, and leave config.yml aside")
	flags.BoolVar(&a.debug, "debug", false, "Print every request to stderr")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "Print the reason code of an error, too")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "Print no progress and no confirmations")
	return root
}

// parent is a command that only has others below it.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.AddCommand(children...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := api.Errorf(api.BadRequest, "unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return err.WithHint("did you mean %s? See %s --help", strings.Join(near, " or "), cmd.CommandPath())
		}
		return err.WithHint("see %s --help", cmd.CommandPath())
	}
	return cmd
}

// argCount refuses any other number of arguments, and shows how it is done.
func argCount(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		return api.Errorf(api.BadRequest, "Invalid number of arguments").WithHint("usage: %s", cmd.UseLine())
	}
}

// logger prints what the client does, as far as the flags ask for it.
func (a *app) logger() *slog.Logger {
	if !a.debug {
		return nil
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// say confirms to a person what was done.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stdout, format+"\n", args...)
	}
}

// warn tells what a person should know although the command goes on.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "Warning: "+format+"\n", args...)
}

// warnStale says once per command that what follows may be out of date.
func (a *app) warnStale(s client.Stale) {
	a.staleWarning.Do(func() {
		a.stale = &s
		why := "this answer may be out of date"
		switch s.Reason {
		case api.NoQuorum:
			why = "this cluster has no quorum"
		case api.MemberRemoved:
			why = "this server was removed from the cluster"
		case api.MemberFenced:
			why = "this member was shut out when its cluster was recovered"
		}
		since := ""
		if !s.Since.IsZero() {
			since = ", since " + a.date(s.Since)
		}
		a.warn("%s (%s); showing what this member last knew (index %d%s)", why, string(s.Reason), s.Index, since)
		if s.Voters > 0 {
			a.warn("%s", missing(s))
		}
	})
}

// notThere says that what was looked for in a list is not there, or, if the list may be out of
// date, that the member does not know.
func (a *app) notThere(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if a.stale != nil {
		return refuse(a.stale.Reason, "%v: this member does not know whether it exists (%s)", a.stale.Reason, text)
	}
	return errors.New(text)
}

// missing says who must come back for the cluster to go on, and what to do.
func missing(s client.Stale) string {
	present := s.Voters - len(s.Missing)
	switch {
	case len(s.Missing) == 0:
		return fmt.Sprintf("all %d voters answer; a leader is being elected, try again in a moment", s.Voters)
	case present > s.Voters/2:
		return fmt.Sprintf("%d of %d voters answer (missing: %s); a leader is being elected, try again in a moment", present, s.Voters, strings.Join(s.Missing, ", "))
	}
	answer, needed := "answer", "are"
	if present == 1 {
		answer = "answers"
	}
	if s.Voters == 1 {
		needed = "is"
	}
	return fmt.Sprintf("%d of %d voters %s, %d %s needed; start those that are missing: %s. If they are lost for ever, see: incusd cluster recover-from-quorum-loss --help",
		present, s.Voters, answer, s.Voters/2+1, needed, strings.Join(s.Missing, ", "))
}

// date prints a time for people; the zero time as nothing.
func (a *app) date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(a.location).Format(dateFormat)
}

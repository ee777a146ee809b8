package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"incusd/api"
)

func (a *app) adminBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the cluster's whole state to a file",
		Long: "Write the cluster's whole state to a file, as of one moment, while the cluster runs.\n\n" +
			"Any member will do. The file holds the cluster's key and live join tokens: keep it\nlike a private key. What pools and networks hold on the members' disks is not in it.",
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := a.backup(cmd.Context(), args[0])
			if err == nil {
				a.say("Wrote %d bytes to %s. The file holds secrets: keep it like a private key.", size, args[0])
			}
			return err
		},
	}
}

// backup writes beside path first: a file under that name is a whole backup, whatever happens.
func (a *app) backup(ctx context.Context, path string) (int64, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return 0, notAFile(path)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part") // 0600
	if err != nil {
		return 0, notWritten(path, err)
	}
	defer os.Remove(file.Name())
	size, err := a.daemon().Backup(ctx, file)
	if err := cmp.Or(err, file.Sync()); err != nil {
		return 0, errors.Join(notWritten(path, err), file.Close())
	}
	if err := file.Close(); err != nil {
		return 0, notWritten(path, err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return 0, notWritten(path, err)
	}
	return size, nil
}

// notWritten says why there is no backup at path: not in the words of the file that is written beside it.
func notWritten(path string, err error) error {
	var number syscall.Errno
	switch {
	case !errors.As(err, &number) || errors.As(err, new(*api.Error)):
		return err // of the daemon
	case number == syscall.ENOSPC || number == syscall.EDQUOT:
		return api.Errorf(api.DiskFull, "No backup was written to %s: %v", path, number).WithHint("make room there, or name a file elsewhere")
	}
	return api.Errorf(api.BadRequest, "No backup was written to %s: %v", path, number).WithHint("name a file in a folder that is there and that you may write to")
}

func notAFile(path string) error {
	return api.Errorf(api.BadRequest, "%s is not a file", path).WithHint("name the file of the backup")
}

func (a *app) adminRestoreCommand() *cobra.Command {
	var name, address string
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a backup the state of this server, as a cluster of one",
		Long: "Make a backup the state of this server, as a cluster of one.\n\n" +
			"The server must be standalone and have no pools, networks or volumes. It becomes the\nmember of the backup that has its key or the given name; all other members are forgotten.",
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.restore(cmd.Context(), args[0], name, address, yes)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "Be the member called `NAME`, of the backup or new")
	cmd.Flags().StringVar(&address, "address", "", "Be reached by other servers at `ADDRESS`")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Ask nothing")
	return cmd
}

const restoreQuestion = `This drops the configuration and trusted certificates of this server, and makes it the
only member of a cluster with the state of the backup. If members of the old cluster
still run, there will be two clusters of which each believes to be the one.

Do you want to proceed? (yes/no): `

func (a *app) restore(ctx context.Context, path, name, address string, yes bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return notAFile(path)
	}
	if !yes {
		answer, err := a.prompter().line(ctx, restoreQuestion)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !strings.EqualFold(answer, "yes") {
			return api.Errorf(api.BadRequest, "Restore aborted")
		}
	}
	done, err := a.daemon().Restore(ctx, file, name, address)
	if err != nil {
		return err
	}
	a.say("Restored %q from the backup of %s.", done.ServerName, a.date(done.CreatedAt))
	if len(done.Forgotten) > 0 {
		a.say("Forgotten members: %s. Add new ones with: incus cluster add NAME", strings.Join(done.Forgotten, ", "))
	}
	if len(done.RevokedTokens) > 0 {
		a.say("Revoked join tokens: %s. Issue new ones with: incus cluster add NAME", strings.Join(done.RevokedTokens, ", "))
	}
	if len(done.Certificates) > 0 {
		a.say("These certificates are trusted as they were then. If one was removed since, remove it again: incus config trust remove FINGERPRINT")
		for _, c := range done.Certificates {
			a.say("  %s  %s  %s", c.Fingerprint, c.Type, c.Name)
		}
	}
	return nil
}

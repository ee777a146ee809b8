package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"incusd/api"
)

func (a *app) adminCommand() *cobra.Command {
	return parent("admin", "Set up, start and stop the daemon of this server",
		a.adminInitCommand(), a.adminWaitreadyCommand(), a.adminShutdownCommand(), a.adminUpdateCertificateCommand(), a.adminClusterCommand())
}

const (
	// defaultPatience bounds a wait for which the user gave no limit, in seconds.
	defaultPatience = 600
	readyInterval   = 500 * time.Millisecond
)

func (a *app) adminWaitreadyCommand() *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use:   "waitready",
		Short: "Wait until the daemon answers requests",
		Args:  argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.waitready(cmd.Context(), patience(timeout))
		},
	}
	timeoutFlag(cmd, &timeout)
	return cmd
}

func timeoutFlag(cmd *cobra.Command, timeout *int) {
	cmd.Flags().IntVarP(timeout, "timeout", "t", 0, fmt.Sprintf("Give up after `SECONDS`; 0 means %d", defaultPatience))
}

func patience(seconds int) time.Duration {
	if seconds <= 0 {
		seconds = defaultPatience
	}
	return time.Duration(seconds) * time.Second
}

// waitready asks again and again until the daemon is ready or limit has passed.
func (a *app) waitready(ctx context.Context, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := a.daemon()
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	last := errors.New("no answer")
	for {
		err := c.Ready(limited)
		if err == nil {
			return nil
		}
		if limited.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case limited.Err() != nil:
			return api.Errorf(api.Timeout, "Daemon still not running after %ds timeout (%v)", int(limit.Seconds()), last).
				WithHint("look into the daemon's log for what it is waiting for")
		}
	}
}

func (a *app) adminShutdownCommand() *cobra.Command {
	var timeout int
	var force bool
	cmd := &cobra.Command{
		Use:   "shutdown",
		Short: "Stop the daemon of this server",
		Args:  argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, limit := cmd.Context(), patience(timeout)
			limited, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			err := a.daemon().Shutdown(limited, force)
			if err != nil && limited.Err() != nil && ctx.Err() == nil {
				return api.Errorf(api.Timeout, "Daemon still running after %ds timeout", int(limit.Seconds())).
					WithHint("it may be waiting for operations: incus operation list; --force does not wait for them")
			}
			return err
		},
	}
	timeoutFlag(cmd, &timeout)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not wait for running operations")
	return cmd
}

package daemon

import (
	"context"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
)

// Done is closed when the daemon has stopped.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Err is why the daemon stopped by itself, nil if it was asked to.
func (d *Daemon) Err() error {
	if d.failed.Err() == nil {
		return nil
	}
	return context.Cause(d.failed)
}

// Stop ends the daemon: it waits for operations until ctx ends, hands leadership over,
// and closes all in reverse. When the store has failed it waits for nothing: to the
// other members this one looks healthy until its store is closed. It blocks until all
// is closed; more than one call is harmless, also before the start is done.
func (d *Daemon) Stop(ctx context.Context) {
	d.stopOnce.Do(func() { d.stop(ctx) })
	<-d.done
}

// Kill ends the daemon as a crash would, as far as one process can: nothing is handed
// over, no operation is waited for, nobody is told. It is for tests.
func (d *Daemon) Kill() {
	d.stopOnce.Do(func() {
		defer close(d.done)
		d.stopping.Store(true)
		d.close()
	})
	<-d.done
}

func (d *Daemon) stop(ctx context.Context) {
	defer close(d.done)
	d.quiesce(ctx)
	d.close()
}

// close ends everything, in reverse of start.
func (d *Daemon) close() {
	d.cancel()
	<-d.opened
	ended, cut := context.WithCancel(context.Background())
	cut()
	if err := d.operations.Shutdown(ended); err != nil {
		d.log.Debug("operations were cut off", "err", err)
	}
	d.joins.Wait()
	if d.rest != nil {
		d.rest.Close() // ends waits and WebSockets
	}
	// Members' connections count as requests of the HTTPS server: the store ends them.
	if s := d.current.store.Load(); s != nil {
		d.endpoint.Detach(s)
		if err := s.Close(); err != nil {
			d.log.Error("close the replicated store", "err", err)
		}
	}
	short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if d.https != nil {
		d.https.close(short)
		d.metrics.close(short)
	}
	if d.unix != nil {
		if err := d.unix.Shutdown(short); err != nil {
			d.unix.Close()
		}
	}
	d.peers.close()
	d.wg.Wait()
	d.closeMachine()
	if d.local != nil {
		if err := d.local.Close(); err != nil {
			d.log.Error("close the local store", "err", err)
		}
	}
}

// quiesce ends what clients asked for, and gives leadership away.
func (d *Daemon) quiesce(ctx context.Context) {
	d.stopping.Store(true)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.failed, cancel)()
	if err := d.operations.Shutdown(ctx); err != nil {
		d.log.Warn("operations were cut off", "err", err)
	}
	if s := d.current.store.Load(); s != nil && d.failed.Err() == nil {
		d.handOver(s)
	}
}

// handoverTime bounds how long a stop waits until another member has this one's vote and
// leadership. Usually it takes some milliseconds.
const handoverTime = 3 * time.Second

// handOver gives vote and leadership to whoever can take them, in bounded time.
func (d *Daemon) handOver(s *raftstore.Store) {
	ctx, cancel := context.WithTimeout(context.Background(), handoverTime)
	defer cancel()
	defer context.AfterFunc(d.failed, cancel)()
	if err := membership.StepDown(ctx, s, d.cfg.Now); err != nil {
		d.log.Warn("stopping with a database role that was not handed over", "err", err)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.Handover(short); err != nil {
		d.log.Warn("leadership was not handed over", "err", err)
	}
}

// comeBack takes back that this member is about to stop, which it said before it was
// started again, or before it was killed on its way down. A member that runs and seems to
// stop would never get a vote.
func (d *Daemon) comeBack() {
	const pause, patience = time.Second, 5 * time.Second
	for d.ctx.Err() == nil {
		swapped := d.swap()
		store, view := d.current.store.Load(), d.current.Local()
		m, ok := view.Member(store.ID())
		if !ok || !m.Stopping || d.stopping.Load() {
			select {
			case <-view.WatchMembers():
			case <-swapped:
			case <-d.ctx.Done():
			}
			continue
		}
		ctx, cancel := context.WithTimeout(d.ctx, patience)
		err := membership.ComeBack(ctx, store, d.cfg.Now)
		cancel()
		if err == nil {
			continue
		}
		d.log.Debug("the cluster does not know yet that this member is back", "err", err)
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
		}
	}
}

// lifecycle is the daemon as the REST API sees it.
type lifecycle Daemon

func (l *lifecycle) Started() <-chan struct{} { return l.started }

func (l *lifecycle) Ready() <-chan struct{} { return l.ready }

func (l *lifecycle) Stopping() bool { return l.stopping.Load() }

// Shutdown begins the end. The listeners are closed when its answer has been sent.
func (l *lifecycle) Shutdown(ctx context.Context, force bool) error {
	d := (*Daemon)(l)
	if !d.stopping.CompareAndSwap(false, true) {
		return api.Errorf(api.TooMany, "Shutdown already in progress")
	}
	if force {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.ShutdownTime())
		defer cancel()
	}
	d.quiesce(ctx)
	go d.Stop(context.Background())
	return nil
}

// ShutdownTime is core.shutdown_timeout: how long a clean stop waits for operations.
func (d *Daemon) ShutdownTime() time.Duration {
	v := d.current.Local()
	if v == nil {
		return time.Minute
	}
	return time.Duration(config.GetInt(v.Config(), "core.shutdown_timeout")) * time.Minute
}

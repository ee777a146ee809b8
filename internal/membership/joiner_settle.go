package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"incusd/internal/localstore"
	"incusd/internal/trust"
)

// undo ends an attempt that failed. It tells whether the server has become a member
// all the same, and else whether the cluster knows that it has not.
func (a *attempt) undo(ctx context.Context) (active, undone bool) {
	if a.rec == nil {
		return false, a.releaseClaim(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	active, err := a.settleOnce(ctx, a.rec)
	switch {
	case err == nil && active:
		replica := a.replica
		a.replica = nil
		if err := a.become(a.rec, replica); err != nil {
			a.cfg.Log.Error("this server is a member, and cannot take up its replica", "err", err)
			return false, false
		}
		return true, true
	case err != nil && a.rec.Activating:
		// It may have become a member: keep everything, and let Resume find out.
		a.cfg.Log.Warn("a join was interrupted and will be settled when the cluster answers", "err", err)
		a.closeReplica()
		return false, false
	}
	a.closeReplica()
	return false, a.forget(a.rec) == nil && err == nil
}

// releaseClaim gives the token back when the attempt ended before it was noted.
func (a *attempt) releaseClaim(ctx context.Context) bool {
	return a.ask(context.WithoutCancel(ctx), undoTime, func(ctx context.Context, cluster Cluster) error {
		_, err := cluster.Abort(ctx, "")
		return err
	}) == nil
}

func (a *attempt) closeReplica() {
	if a.replica != nil {
		a.closeNew(a.replica)
		a.replica = nil
	}
}

func (j *Joiner) closeNew(r Replica) {
	if err := r.Close(); err != nil {
		j.cfg.Log.Warn("close the new replica", "err", err)
	}
}

// settleOnce asks the cluster, at all addresses known side by side, whether the join of
// rec has made this server a member; if not, it never will. The question may be asked
// twice: the answer never changes.
func (j *Joiner) settleOnce(ctx context.Context, rec *localstore.JoinRecord) (active bool, err error) {
	cert, err := trust.ParseCertificate(rec.ClusterCert)
	if err != nil {
		return false, err
	}
	addresses := []string{rec.Contact}
	for _, p := range rec.Peers {
		if p.Address != rec.Contact {
			addresses = append(addresses, p.Address)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	type answer struct {
		active bool
		err    error
	}
	answers := make(chan answer, len(addresses))
	for _, addr := range addresses {
		go func() {
			res, err := j.cfg.Connect(addr, cert).Abort(ctx, rec.Replica.ID)
			if err != nil {
				err = fmt.Errorf("%s: %w", addr, err)
			}
			answers <- answer{res.Active, err}
		}()
	}
	var errs []error
	for range addresses {
		got := <-answers
		if got.err == nil {
			return got.active, nil
		}
		errs = append(errs, got.err)
	}
	return false, errors.Join(errs...)
}

// become takes up the replica of a join that succeeded, or closes it: the next try
// opens it again.
func (j *Joiner) become(rec *localstore.JoinRecord, r Replica) error {
	if r == nil {
		var err error
		if r, err = j.cfg.Open(rec); err != nil {
			return err
		}
	}
	if err := j.cfg.Adopt(rec, r); err != nil {
		j.closeNew(r)
		return err
	}
	return nil
}

// forget drops what a join that came to nothing has left here.
func (j *Joiner) forget(rec *localstore.JoinRecord) error {
	return errors.Join(j.cfg.Discard(rec.Replica), j.cfg.Notes.ClearJoin())
}

// Resume settles a join that was cut off, in this run of the server or an earlier one.
// It blocks until that is done or ctx ends; until then the server stays what it was. It
// does nothing if there is none.
func (j *Joiner) Resume(ctx context.Context) {
	if _, ok := j.cfg.Notes.Join(); !ok {
		return
	}
	j.busy.Lock()
	defer j.busy.Unlock()
	j.resuming.Store(true)
	defer j.resuming.Store(false)
	for {
		rec, ok := j.cfg.Notes.Join()
		if !ok {
			return
		}
		err := j.resumeOnce(ctx, rec)
		if err == nil {
			return
		}
		j.cfg.Log.Warn("an interrupted join is not settled yet", "err", err)
		select {
		case <-time.After(retryTime):
		case <-ctx.Done():
			return
		}
	}
}

func (j *Joiner) resumeOnce(ctx context.Context, rec *localstore.JoinRecord) error {
	bounded, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	active, err := j.settleOnce(bounded, rec)
	switch {
	case err != nil && rec.Activating:
		return err
	case err != nil:
		// It never asked to become a member, so it is none. The cluster's own sweep
		// removes what is left there.
		j.cfg.Log.Info("dropped an interrupted join; the cluster was not reached", "err", err)
		return j.forget(rec)
	case active:
		return j.become(rec, nil)
	}
	j.cfg.Log.Info("an interrupted join has come to nothing", "name", rec.Name)
	return j.forget(rec)
}

package membership

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// notes is the one record of a join.
type notes struct{ rec *localstore.JoinRecord }

func (n *notes) Join() (*localstore.JoinRecord, bool)     { return n.rec, n.rec != nil }
func (n *notes) SetJoin(rec *localstore.JoinRecord) error { n.rec = rec; return nil }
func (n *notes) ClearJoin() error                         { n.rec = nil; return nil }

// contact is a member that only settles joins.
type contact struct {
	Cluster
	abort func(ctx context.Context) (state.AbortResult, error)
}

func (c contact) Abort(ctx context.Context, _ string) (state.AbortResult, error) { return c.abort(ctx) }

func active(context.Context) (state.AbortResult, error) { return state.AbortResult{Active: true}, nil }

func silent(ctx context.Context) (state.AbortResult, error) {
	<-ctx.Done()
	return state.AbortResult{}, ctx.Err()
}

// replicaFake is open until it is closed.
type replicaFake struct {
	open   *int
	failed chan error
}

func (r *replicaFake) Ready(context.Context) error                   { return nil }
func (r *replicaFake) Read(context.Context) (*raftstore.View, error) { return nil, api.NoQuorum }
func (r *replicaFake) Failed() <-chan error                          { return r.failed }
func (r *replicaFake) Close() error                                  { *r.open--; return nil }
func (r *replicaFake) Propose(context.Context, state.Command) (state.Result, error) {
	return state.Result{}, api.NoQuorum
}

// interrupted returns a Joiner whose join was cut off while the cluster, reached at
// contacts, was asked to activate it; and how many replicas it has open.
func interrupted(t *testing.T, adopt func() error, contacts map[string]func(context.Context) (state.AbortResult, error)) (*Joiner, *notes, *int) {
	t.Helper()
	pair, err := trust.GenerateAt(time.Now(), trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{rec: &localstore.JoinRecord{ClusterCert: string(pair.CertPEM), Contact: "a", Activating: true}}
	for address := range contacts {
		n.rec.Peers = append(n.rec.Peers, localstore.Peer{Address: address})
	}
	open := new(int)
	return NewJoiner(JoinerConfig{
		Notes:   n,
		Own:     func() *trust.KeyPair { return pair },
		Connect: func(address string, _ *x509.Certificate) Cluster { return contact{abort: contacts[address]} },
		Open: func(*localstore.JoinRecord) (Replica, error) {
			*open++
			return &replicaFake{open: open}, nil
		},
		Discard: func(localstore.Replica) error { return nil },
		Adopt: func(*localstore.JoinRecord, Replica) error {
			if err := adopt(); err != nil {
				return err
			}
			n.rec = nil
			return nil
		},
		Now: time.Now,
		Log: slog.New(slog.DiscardHandler),
	}), n, open
}

func TestOneSilentMemberDoesNotDelayTheSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, n, open := interrupted(t, func() error { return nil }, map[string]func(context.Context) (state.AbortResult, error){
			"a": silent, "b": silent, "c": active, "d": silent,
		})
		began := time.Now()
		j.Resume(t.Context())
		if n.rec != nil || *open != 1 {
			t.Errorf("the note is %v, %d replicas are open", n.rec, *open)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
	})
}

func TestReplicaThatCannotBeAdoptedIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		j, n, open := interrupted(t, func() error {
			if tries++; tries < 3 {
				return api.DiskFull
			}
			return nil
		}, map[string]func(context.Context) (state.AbortResult, error){"a": active})
		j.Resume(t.Context())
		if n.rec != nil || tries != 3 || *open != 1 {
			t.Errorf("after %d tries the note is %v, and %d replicas are open", tries, n.rec, *open)
		}
	})
}

func TestNothingBeginsBesideAnUnsettledJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, _, _ := interrupted(t, func() error { return nil }, map[string]func(context.Context) (state.AbortResult, error){"a": silent})
		_, err := j.Begin()
		requireReason(t, err, api.JoinRunning)

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { j.Resume(ctx); close(ended) }()
		synctest.Wait()
		_, err = j.Begin()
		requireReason(t, err, api.JoinRunning)
		cancel()
		<-ended
	})
}

func TestFailedReplicaEndsTheFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, _, open := interrupted(t, nil, nil)
		*open = 1
		replica := &replicaFake{open: open, failed: make(chan error, 1)}
		a := &attempt{Joiner: j, replica: replica, rec: &localstore.JoinRecord{}}
		began := time.Now()
		err := a.watched(t.Context(), func(ctx context.Context) error {
			replica.failed <- api.DiskFull
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, api.DiskFull) || *open != 0 || a.replica != nil {
			t.Errorf("%v; %d replicas are open", err, *open)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

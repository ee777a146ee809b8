package membership

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// Bounds of a join's steps.
const (
	probeTime  = 5 * time.Second  // to find one member and its certificate
	stepTime   = 15 * time.Second // for one step, at whichever member answers
	callTime   = 8 * time.Second  // for one call to one member
	askPause   = 50 * time.Millisecond
	fillTime   = 10 * time.Minute // for the replica to fill
	buildTime  = 10 * time.Minute // for storage pools and networks to be made here
	undoTime   = 10 * time.Second // to tell the cluster that a join came to nothing
	settleTime = 2 * time.Second  // for the database roles to settle after a join
	retryTime  = time.Second      // between tries to settle an interrupted join
	watchTime  = time.Second      // between looks whether the cluster still wants the join
)

// Steps of a join that JoinerConfig.Reach is told of; each names what has just been done.
const (
	PointFound     = "join.found"
	PointPreflight = "join.preflight"
	PointClaimed   = "join.claimed"
	PointNoted     = "join.noted"
	PointAdmitted  = "join.admitted"
	PointOpened    = "join.opened"
	PointReady     = "join.ready"
	PointFilled    = "join.filled"
	PointBuilt     = "join.built"
	PointActivated = "join.activated"
	PointFinished  = "join.finished"
	PointAdopted   = "join.adopted"
)

// Cluster is one member of the cluster to join, called with this server's own key.
type Cluster interface {
	Preflight(ctx context.Context, req JoinRequest) (*JoinReport, error)
	Claim(ctx context.Context, req api.CertificatesPost) error
	Admit(ctx context.Context, req AdmitRequest) (*Admission, error)
	Abort(ctx context.Context, id string) (state.AbortResult, error)
}

// Replica is this server's copy of the cluster's store while it is being filled.
type Replica interface {
	Ready(ctx context.Context) error
	Read(ctx context.Context) (*raftstore.View, error)
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	// Failed yields the reason, once, when the replica had to stop.
	Failed() <-chan error
	Close() error
}

// JoinNotes keeps what a join that was interrupted must know at the next start.
type JoinNotes interface {
	Join() (*localstore.JoinRecord, bool)
	SetJoin(*localstore.JoinRecord) error
	ClearJoin() error
}

// A Builder makes the cluster's storage pools and networks on this server.
type Builder interface {
	// Check tells all that would keep them from being made here, with the given values of
	// member-specific keys; nothing is changed.
	Check(ctx context.Context, report *JoinReport, values []api.ClusterMemberConfigKey) []api.Error
	// Make makes those of view, in the name of the joining replica, and returns what this server
	// has of each, by ID. What stands in the way of something of this server's own is left for
	// after the join. When it fails it has removed what it made.
	Make(ctx context.Context, rec *localstore.JoinRecord, view *raftstore.View, values []api.ClusterMemberConfigKey) (map[string]state.EntityMember, error)
}

// JoinerConfig is what a Joiner works with; all but Reach are required.
type JoinerConfig struct {
	Notes JoinNotes
	// Own is this server's key pair, which stays the same from Begin to its end.
	Own func() *trust.KeyPair
	// Dial opens a plain connection to host:port.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Connect returns the member at address, which must show exactly cert.
	Connect func(address string, cert *x509.Certificate) Cluster
	// Listen makes this server reachable under address, until release is called.
	Listen func(address string) (release func(), err error)
	// Open opens the new replica, making it if it is not there, and lets members reach it.
	Open    func(rec *localstore.JoinRecord) (Replica, error)
	Builder Builder
	// Discard closes nothing and deletes the folder of a replica that came to nothing, and
	// what was made in its name.
	Discard func(r localstore.Replica) error
	// Adopt makes the filled replica this server's own: it finishes the notes in one
	// transaction, swaps the stores and drops the old one. It must not fail half-way.
	Adopt func(rec *localstore.JoinRecord, r Replica) error
	// Architecture is this machine's, such as "x86_64".
	Architecture string
	Now          func() time.Time
	Log          *slog.Logger
	// Reach, if set, is told of each step and may fail or stop it; for tests.
	Reach func(point string) error
}

// A Joiner brings this server into an existing cluster. The sequence can be cut off
// anywhere: what it has told the cluster runs out or is undone, its own old data stay
// until the cluster counts it as a member, and the command "member.abort", applied
// once for all members, decides which of the two it is.
type Joiner struct {
	cfg      JoinerConfig
	busy     sync.Mutex
	resuming atomic.Bool // Resume holds busy
}

// NewJoiner returns a Joiner.
func NewJoiner(cfg JoinerConfig) *Joiner { return &Joiner{cfg: cfg} }

func (j *Joiner) reach(point string) error {
	if j.cfg.Reach == nil {
		return nil
	}
	return j.cfg.Reach(point)
}

// attempt is one join under way.
type attempt struct {
	*Joiner
	req      api.ClusterPut
	token    *api.ClusterMemberJoinToken // nil when the client has redeemed it
	found    atomic.Pointer[foundMember] // the member that was found last
	rec      *localstore.JoinRecord
	replica  Replica
	progress func(string)
}

// foundMember is a member that a join speaks to, with the cluster's certificate that it has shown.
type foundMember struct {
	Cluster
	address string
	cert    *x509.Certificate
}

// Begin keeps every join off until end is called. It fails with api.JoinRunning while
// one, or the remains of one, is under way: then only the cluster can tell whether this
// server is a member of it.
func (j *Joiner) Begin() (end func(), err error) {
	if !j.busy.TryLock() {
		if j.resuming.Load() {
			return nil, errUnsettled()
		}
		return nil, api.JoinRunning
	}
	if _, ok := j.cfg.Notes.Join(); ok {
		j.busy.Unlock()
		return nil, errUnsettled()
	}
	return j.busy.Unlock, nil
}

func errUnsettled() error {
	return api.Errorf(api.JoinRunning, "An earlier join of this server was interrupted, and the cluster has not been reached yet to settle it").
		WithHint("make sure that this server can reach the cluster, and try again in a moment")
}

// Join makes this server a member, or leaves it what it was. It blocks until either
// is certain, or ctx ends, or the cluster is out of reach; then the outcome is settled
// by Resume, for which a note is left. It fails with api.JoinRunning as Begin does.
func (j *Joiner) Join(ctx context.Context, req api.ClusterPut, progress func(string)) error {
	end, err := j.Begin()
	if err != nil {
		return err
	}
	defer end()
	a := &attempt{Joiner: j, req: req, progress: progress}
	release, err := j.cfg.Listen(req.ServerAddress)
	if err != nil {
		return err
	}
	defer release()
	if err := a.prepare(ctx); err != nil {
		return err
	}
	err = a.enter(ctx)
	if err == nil {
		return nil
	}
	active, undone := a.undo(ctx)
	_, unsettled := j.cfg.Notes.Join()
	switch {
	case active:
		return nil // the answer was lost, and the server is a member
	case unsettled:
		return fmt.Errorf("%w (the join is not settled: this server goes on asking the cluster whether it is a member)", err)
	case !undone:
		return fmt.Errorf("%w (the cluster could not be told; it forgets this server within some minutes)", err)
	}
	return err
}

// prepare finds the cluster and asks it for all problems. Nothing is changed anywhere.
func (a *attempt) prepare(ctx context.Context) error {
	if err := a.readToken(); err != nil {
		return err
	}
	a.progress("Looking for the cluster")
	if err := a.find(ctx); err != nil {
		return err
	}
	if err := a.reach(PointFound); err != nil {
		return err
	}
	a.progress("Checking with the cluster")
	if err := a.preflight(ctx); err != nil {
		return err
	}
	return a.reach(PointPreflight)
}

func (a *attempt) readToken() error {
	if a.req.ClusterToken == "" {
		return nil
	}
	t, err := api.ParseJoinToken(a.req.ClusterToken)
	if err != nil {
		return err
	}
	if a.req.ServerName != "" && a.req.ServerName != t.ServerName {
		return api.Errorf(api.TokenWrongName, "The join token is for the name %q, this server was to be called %q", t.ServerName, a.req.ServerName)
	}
	a.token, a.req.ServerName = t, t.ServerName
	return nil
}

// preflight reports all problems in one error.
func (a *attempt) preflight(ctx context.Context) error {
	var report *JoinReport
	err := a.ask(ctx, stepTime, func(ctx context.Context, cluster Cluster) (err error) {
		report, err = cluster.Preflight(ctx, a.joinRequest())
		return err
	})
	if err != nil {
		return fmt.Errorf("check with the cluster: %w", err)
	}
	return joinProblems(append(report.Problems, a.cfg.Builder.Check(ctx, report, a.req.MemberConfig)...))
}

func (a *attempt) joinRequest() JoinRequest {
	return JoinRequest{
		Token:          a.req.ClusterToken,
		Password:       Secret(a.req.ClusterPassword),
		Name:           a.req.ServerName,
		Address:        a.req.ServerAddress,
		Certificate:    string(a.cfg.Own().CertPEM),
		Architecture:   a.cfg.Architecture,
		CommandVersion: state.CommandVersion,
		Time:           a.cfg.Now().UTC(),
	}
}

// enter claims, is admitted, fills the replica, and becomes a member.
func (a *attempt) enter(ctx context.Context) error {
	if err := a.claim(ctx); err != nil {
		return err
	}
	a.progress("Asking for admission")
	if err := a.admit(ctx); err != nil {
		return err
	}
	a.progress("Receiving the cluster's state")
	if err := a.open(); err != nil {
		return err
	}
	err := a.watched(ctx, func(ctx context.Context) error {
		view, err := a.fill(ctx)
		if err != nil {
			return err
		}
		a.progress("Making storage pools and networks")
		made, err := a.build(ctx, view)
		if err != nil {
			return err
		}
		a.progress("Becoming a member")
		return a.activate(ctx, made)
	})
	if err != nil {
		return err
	}
	return a.takeUp(ctx)
}

// claim binds the token to this server's key; the password gives one. The upstream client
// has done it before.
func (a *attempt) claim(ctx context.Context) error {
	if a.token == nil && a.req.ClusterPassword == "" {
		return nil
	}
	err := a.ask(ctx, stepTime, func(ctx context.Context, cluster Cluster) error {
		return cluster.Claim(ctx, api.CertificatesPost{
			Name:        a.req.ServerName,
			Type:        api.CertificateServer,
			Certificate: string(a.cfg.Own().CertPEM),
			TrustToken:  a.req.ClusterToken,
			Password:    a.req.ClusterPassword,
		})
	})
	if err != nil && a.token == nil {
		return fmt.Errorf("show the cluster's password: %w", err)
	} else if err != nil {
		return fmt.Errorf("redeem the join token: %w", err)
	}
	return a.reach(PointClaimed)
}

// admit notes the join first: whatever happens from here on, the next start of this
// server settles it.
func (a *attempt) admit(ctx context.Context) error {
	id, found := uuid.NewString(), a.found.Load()
	a.rec = &localstore.JoinRecord{
		Replica:     localstore.Replica{ID: id, Dir: id},
		Name:        a.req.ServerName,
		Address:     a.req.ServerAddress,
		ClusterCert: trust.EncodePEM(found.cert),
		Contact:     found.address,
		Started:     a.cfg.Now().UTC(),
	}
	if a.token != nil {
		for _, addr := range a.token.Addresses {
			a.rec.Peers = append(a.rec.Peers, localstore.Peer{Address: addr})
		}
	}
	if err := a.cfg.Notes.SetJoin(a.rec); err != nil {
		return err
	}
	if err := a.reach(PointNoted); err != nil {
		return err
	}
	var adm *Admission
	err := a.ask(ctx, stepTime, func(ctx context.Context, cluster Cluster) (err error) {
		adm, err = cluster.Admit(ctx, AdmitRequest{
			ID:             id,
			Name:           a.req.ServerName,
			Address:        a.req.ServerAddress,
			Architecture:   a.cfg.Architecture,
			CommandVersion: state.CommandVersion,
		})
		return err
	})
	if errors.Is(err, api.NotAuthorized) { // a key that claims nothing is a stranger's
		if lost := a.standing(ctx); claimLost(lost) {
			err = lost
		}
	}
	if err != nil {
		return fmt.Errorf("admission to the cluster: %w", err)
	}
	a.rec.Replica.ClusterID = adm.ClusterID
	a.rec.Peers = peersOf(adm.Peers)
	if err := a.cfg.Notes.SetJoin(a.rec); err != nil {
		return err
	}
	return a.reach(PointAdmitted)
}

func peersOf(peers []Peer) []localstore.Peer {
	out := make([]localstore.Peer, len(peers))
	for i, p := range peers {
		out[i] = localstore.Peer{ID: p.ID, Name: p.Name, Address: p.Address, Certificate: p.Certificate, Voter: p.Voter}
	}
	return out
}

// open opens the new replica beside the old one.
func (a *attempt) open() error {
	var err error
	if a.replica, err = a.cfg.Open(a.rec); err != nil {
		return fmt.Errorf("open the new replica: %w", err)
	}
	return a.reach(PointOpened)
}

// watched runs f, and ends its context when there is no point in going on: the new
// replica has failed, or the cluster has ended the join. A replica that has failed is
// closed, whatever f came to.
func (a *attempt) watched(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var failed, ended error
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case failed = <-a.replica.Failed():
			cancel()
		case <-ctx.Done():
		}
	})
	wg.Go(func() {
		if ended = a.watchStanding(ctx); ended != nil {
			cancel()
		}
	})
	err := f(ctx)
	cancel()
	wg.Wait()
	switch {
	case failed != nil:
		a.closeReplica()
		return fmt.Errorf("the new replica failed: %w", failed)
	case err != nil && ended != nil:
		return fmt.Errorf("the cluster ended the join: %w", ended)
	}
	return err
}

// watchStanding asks the cluster again and again whether this server's claim stands,
// and returns why it does not. It returns nil when ctx ends. Whom the cluster does not
// want any more is not told so by its replica: no member speaks to it then.
func (a *attempt) watchStanding(ctx context.Context) error {
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := a.standing(ctx); claimLost(err) {
			return err
		}
	}
}

// standing asks what has become of the claim of this server's key.
func (a *attempt) standing(ctx context.Context) error {
	req := a.joinRequest()
	req.Token, req.Password = "", "" // what counts is the key
	return a.ask(ctx, stepTime, func(ctx context.Context, cluster Cluster) error {
		_, err := cluster.Preflight(ctx, req)
		return err
	})
}

// claimLost tells whether err says that the claim of a join is gone, and the join with it.
func claimLost(err error) bool {
	return slices.ContainsFunc([]api.Reason{api.TokenRevoked, api.TokenExpired, api.TokenUsed, api.TokenNotClaimed},
		func(r api.Reason) bool { return errors.Is(err, r) })
}

// build makes the cluster's storage pools and networks on this server.
func (a *attempt) build(ctx context.Context, view *raftstore.View) (map[string]state.EntityMember, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	made, err := a.cfg.Builder.Make(ctx, a.rec, view, a.req.MemberConfig)
	if err != nil {
		return nil, err
	}
	return made, a.reach(PointBuilt)
}

// fill waits until the new replica holds all that the cluster had acknowledged.
func (a *attempt) fill(ctx context.Context) (*raftstore.View, error) {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	if err := a.replica.Ready(ctx); err != nil {
		return nil, fmt.Errorf("be added to the cluster: %w", err)
	}
	if err := a.reach(PointReady); err != nil {
		return nil, err
	}
	view, err := a.replica.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("receive the cluster's state: %w", err)
	}
	if _, ok := view.Member(a.rec.Replica.ID); !ok {
		return nil, api.Errorf(api.JoinAborted, "The join was aborted: the cluster does not know this server any more")
	}
	return view, a.reach(PointFilled)
}

// activate makes this server a member, in one entry.
func (a *attempt) activate(ctx context.Context, made map[string]state.EntityMember) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	a.rec.Activating = true
	if err := a.cfg.Notes.SetJoin(a.rec); err != nil {
		return err
	}
	body := state.MemberActivate{ID: a.rec.Replica.ID, Entities: made}
	if _, err := propose(ctx, a.replica, state.KindMemberActivate, a.cfg.Now(), nil, body); err != nil {
		return fmt.Errorf("become a member: %w", err)
	}
	return a.reach(PointActivated)
}

// takeUp makes the filled replica this server's own.
func (a *attempt) takeUp(ctx context.Context) error {
	if err := a.cfg.Adopt(a.rec, a.replica); err != nil {
		return err
	}
	settle(ctx, a.replica)
	return a.reach(PointAdopted)
}

// settle waits, within a bound, until the planner has nothing left to do after a join or a
// removal, so that what is listed next shows the roles as they stay.
func settle(ctx context.Context, r interface {
	Read(ctx context.Context) (*raftstore.View, error)
}) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		view, err := r.Read(ctx)
		if err != nil || rolesSettled(view.View) {
			return
		}
		select {
		case <-view.WatchMembers():
		case <-ctx.Done():
			return
		}
	}
}

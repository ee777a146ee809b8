package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// settings is the configuration as one map: the cluster's keys from the replicated
// state and this server's own from the local store.
type settings struct {
	daemon *Daemon
	mu     sync.Mutex // one change that may touch the local keys at a time
}

// Effective gives all keys that are set, as seen from v.
func (s *settings) Effective(v *raftstore.View) map[string]string {
	all := s.daemon.local.Config()
	maps.Copy(all, v.Config())
	return all
}

// Update changes keys: all of them, or none. This server's own part comes first, since only
// that can be taken back: the listeners are opened, it is noted, and then the cluster's part is
// committed. What is cut off in between has not been acknowledged, and is harmless to repeat.
func (s *settings) Update(ctx context.Context, set map[string]string, replace bool, match func(map[string]string) error, requestor *api.EventRequestor) error {
	if own, _ := config.Split(set); replace || len(own) > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	view, changes, err := s.plan(ctx, set, replace, match)
	if err != nil || len(changes) == 0 {
		return err
	}
	local, cluster := config.Split(changes)
	if err := s.checkLocal(view, local); err != nil {
		return err
	}
	undo, err := s.setLocal(local)
	if err != nil {
		return err
	}
	if err := s.commit(ctx, view, cluster, match != nil, requestor); err != nil {
		return takenBack(err, local, undo)
	}
	if len(cluster) == 0 { // else the applied entry tells it
		s.daemon.publishLifecycle(state.Event{Action: "config-updated", Source: "/1.0", Requestor: requestor})
	}
	return nil
}

// takenBack undoes this server's own part of a change whose other part was refused, and says in
// the error what stands. What the cluster may have taken is not known to be refused.
func takenBack(err error, local map[string]string, undo func() error) error {
	if len(local) == 0 {
		return err
	}
	keys := strings.Join(slices.Sorted(maps.Keys(local)), ", ")
	if errors.Is(err, api.OutcomeUnknown) {
		return fmt.Errorf("%w; on this server %s has changed", err, keys)
	}
	if undoErr := undo(); undoErr != nil {
		return fmt.Errorf("%w; on this server %s has changed and could not be changed back: %v", err, keys, undoErr)
	}
	return err
}

// plan finds what to change, and in which configuration. What is left out because it is
// so already, and what the caller judges, must be so in a linearizable view.
func (s *settings) plan(ctx context.Context, set map[string]string, replace bool, match func(map[string]string) error) (*raftstore.View, map[string]string, error) {
	if match == nil && !replace {
		view, err := s.daemon.current.Basis(ctx)
		if err != nil {
			return nil, nil, err
		}
		changes, err := changesOf(s.Effective(view), set, false)
		if err != nil || len(changes) == len(set) {
			return view, changes, err
		}
	}
	view, err := s.daemon.current.Read(ctx)
	if err != nil {
		return nil, nil, err
	}
	now := s.Effective(view)
	if match != nil {
		if err := match(now); err != nil {
			return nil, nil, err
		}
	}
	changes, err := changesOf(now, set, replace)
	return view, changes, err
}

// changesOf validates and keeps what differs from now; "" unsets.
func changesOf(now, set map[string]string, replace bool) (map[string]string, error) {
	want := maps.Clone(set)
	if want == nil {
		want = make(map[string]string)
	}
	if replace {
		for k := range now {
			if _, ok := want[k]; !ok {
				want[k] = ""
			}
		}
	}
	maps.DeleteFunc(want, func(k, v string) bool { return now[k] == v && v != "" })
	normal, err := config.Validate(now, want)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(normal, func(k, v string) bool { return now[k] == v })
	return normal, seal(now, normal)
}

// seal replaces new values that are stored as a hash, and drops those that came back as they are
// shown.
func seal(now, changes map[string]string) error {
	for key, value := range changes {
		switch {
		case !config.IsHashed(key) || value == "":
		case value != config.Masked:
			changes[key] = trust.HashPassword(value)
		case now[key] == "":
			return api.Errorf(api.ConfigInvalid, "cannot set '%s': %q stands for a password that is set, and none is", key, value).
				WithHint("choose another password")
		default:
			delete(changes, key)
		}
	}
	return nil
}

func (s *settings) checkLocal(view *raftstore.View, local map[string]string) error {
	if _, ok := local[keyClusterAddress]; ok && view.Cluster().Enabled {
		return api.Errorf(api.ConfigInvalid, "Changing cluster.https_address is currently not supported").WithCode(500).
			WithHint("move a member with this command on it: incus admin cluster set-address ADDRESS")
	}
	return nil
}

// setLocal makes the listeners follow this server's own keys and notes them, and returns how to
// go back. The caller holds s.mu if there are any.
func (s *settings) setLocal(local map[string]string) (undo func() error, err error) {
	d := s.daemon
	before := d.local.Config()
	back := make(map[string]string, len(local))
	for key := range local {
		back[key] = before[key]
	}
	listenAgain := func() {}
	if touches(local, keyCoreAddress, keyClusterAddress, keyMetricsAddress) {
		after := maps.Clone(before)
		maps.Copy(after, local)
		if err := d.listenOn(after); err != nil {
			return nil, err
		}
		listenAgain = d.listenAgain
	}
	// Also when it is noted: whoever changed the replica meanwhile followed what was noted then.
	defer listenAgain()
	if err := d.local.SetConfig(local); err != nil {
		return nil, err
	}
	return func() error {
		defer listenAgain()
		return d.local.SetConfig(back)
	}, nil
}

func touches(set map[string]string, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { _, ok := set[key]; return ok })
}

// commit changes the cluster's keys. If the caller judged the configuration, it must
// still be the one that was judged.
func (s *settings) commit(ctx context.Context, view *raftstore.View, cluster map[string]string, judged bool, requestor *api.EventRequestor) error {
	if len(cluster) == 0 {
		return nil
	}
	body := state.ConfigSet{Set: cluster}
	if judged {
		body.Expect = view.ConfigHash()
	}
	return s.daemon.propose(ctx, state.KindConfigSet, requestor, body)
}

// trustStore changes the replicated list of clients' certificates.
type trustStore Daemon

func (t *trustStore) AddCertificate(ctx context.Context, cert state.Certificate, requestor *api.EventRequestor) error {
	return (*Daemon)(t).propose(ctx, state.KindCertificateAdd, requestor, state.CertificateAdd{Certificate: cert})
}

func (t *trustStore) UpdateCertificate(ctx context.Context, fingerprint string, cert state.Certificate, expect string, requestor *api.EventRequestor) error {
	return (*Daemon)(t).propose(ctx, state.KindCertificateUpdate, requestor, state.CertificateUpdate{Fingerprint: fingerprint, Certificate: cert, Expect: expect})
}

func (t *trustStore) RemoveCertificate(ctx context.Context, fingerprint string, requestor *api.EventRequestor) error {
	return (*Daemon)(t).propose(ctx, state.KindCertificateRemove, requestor, state.CertificateRemove{Fingerprint: fingerprint})
}

// propose makes one change of the replicated state. It blocks until the change is committed or ctx ends.
func (d *Daemon) propose(ctx context.Context, kind string, requestor *api.EventRequestor, body any) error {
	cmd, err := state.NewCommand(kind, uuid.NewString(), d.cfg.Now().UTC(), requestor, body)
	if err != nil {
		return err
	}
	_, err = d.current.Propose(ctx, cmd)
	return err
}

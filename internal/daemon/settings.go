package daemon

import (
	"context"
	"maps"
	"slices"
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

// Update changes keys: all of them, or none. The listeners are opened first, since
// that can fail; then the cluster's part is committed, and the local part noted.
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
	undo, err := s.listen(local)
	if err != nil {
		return err
	}
	if err := s.commit(ctx, view, cluster, match != nil, requestor); err != nil {
		undo()
		return err
	}
	if len(local) == 0 {
		return nil
	}
	if err := s.daemon.local.SetConfig(local); err != nil {
		undo()
		return err
	}
	if len(cluster) == 0 { // else the applied entry tells it
		s.daemon.publishLifecycle(state.Event{Action: "config-updated", Source: "/1.0", Requestor: requestor})
	}
	return nil
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
	if _, ok := local["cluster.https_address"]; ok && view.Cluster().Enabled {
		return api.Errorf(api.ConfigInvalid, "Changing cluster.https_address is currently not supported").WithCode(500).
			WithHint("move a member with this command on it: incus admin cluster set-address ADDRESS")
	}
	return nil
}

// listen makes the listeners follow the local keys, and returns how to go back.
func (s *settings) listen(local map[string]string) (undo func(), err error) {
	keys := []string{"core.https_address", "cluster.https_address"}
	if !slices.ContainsFunc(keys, func(k string) bool { _, ok := local[k]; return ok }) {
		return func() {}, nil
	}
	d := s.daemon
	before := d.addresses()
	after := d.local.Config()
	maps.Copy(after, local)
	if err := d.https.set(listenAddresses(after)...); err != nil {
		return nil, err
	}
	return func() {
		if err := d.https.set(before...); err != nil {
			d.log.Error("go back to the former addresses", "err", err)
		}
	}, nil
}

// useAddress listens on address and notes it as cluster.https_address, and returns how
// to go back. The caller holds s.mu.
func (s *settings) useAddress(address string) (undo func(), err error) {
	const key = "cluster.https_address"
	d := s.daemon
	before := d.local.Config()[key]
	unlisten, err := s.listen(map[string]string{key: address})
	if err != nil {
		return nil, err
	}
	if err := d.local.SetConfig(map[string]string{key: address}); err != nil {
		unlisten()
		return nil, err
	}
	return func() {
		if err := d.local.SetConfig(map[string]string{key: before}); err != nil {
			d.log.Error("go back to the former address", "key", key, "err", err)
			return
		}
		unlisten()
	}, nil
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

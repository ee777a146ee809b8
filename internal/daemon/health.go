package daemon

import (
	"context"
	"crypto/x509"
	"sync"
	"syscall"
	"time"

	"incusd/api"
	"incusd/internal/health"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

const (
	// probeTime bounds the tries to reach the other members, all side by side.
	probeTime = 700 * time.Millisecond
	// probedMembers is the size of a cluster up to which every member tries all others. Each
	// try is a TLS handshake, and all together grow with the square of the members.
	probedMembers = 16
)

// checkup is the daemon as the health calls see it.
type checkup Daemon

// Report is how this member is. It works without a quorum, and before the store is open.
func (c *checkup) Report(ctx context.Context, asker string) api.MemberReport {
	d, began := (*Daemon)(c), time.Now()
	report := api.MemberReport{
		Version: api.Version, CommandVersion: state.CommandVersion, UptimeSeconds: int64(time.Since(d.begun).Seconds()),
		Certificates: d.certificates(), Peers: []api.PeerReach{},
	}
	report.Disk.FreeBytes, report.Disk.TotalBytes = space(d.cfg.Paths.Dir)
	if store := d.current.store.Load(); store != nil {
		view := store.Local()
		if m, ok := view.Member(store.ID()); ok && view.Cluster().Enabled {
			report.Name, report.ID, report.Address = m.Name, m.ID, m.Address
		}
		if out := store.ShutOutReason(); out != nil {
			report.ShutOut = out.Message
		}
		report.Peers = probe(ctx, store, probed(view, store.ID(), asker))
		describe(&report, view, store.Health())
	}
	report.Time, report.TookMS = d.cfg.Now(), ms(time.Since(began))
	return report
}

// Contacts are what the leader knows of the members.
func (c *checkup) Contacts(ctx context.Context) (raftstore.Contacts, error) {
	store, err := c.current.get()
	if err != nil {
		return raftstore.Contacts{}, err
	}
	return store.Contacts(ctx), nil
}

func describe(report *api.MemberReport, view *raftstore.View, h raftstore.Health) {
	report.Raft = &api.MemberRaft{
		State: h.State, Term: h.Term, LastIndex: h.LastIndex, CommitIndex: h.CommitIndex, AppliedIndex: h.AppliedIndex,
		SnapshotIndex: h.SnapshotIndex, NoLeaderMS: h.NoLeader.Milliseconds(),
	}
	if h.Leader != "" {
		report.Raft.Leader = h.Leader // a member that has come while this one was away has no name here
		if m, ok := view.Member(h.Leader); ok {
			report.Raft.Leader = m.Name
		}
	}
	w, disk := h.Writes, &report.Disk
	disk.Writes, disk.P50MS, disk.P99MS, disk.MaxMS, disk.StalledMS = w.Count, ms(w.P50), ms(w.P99), ms(w.Max), ms(w.Stalled)
}

// probed are the members to try: all others, or, in a large cluster, those that the store
// rests on, and the one that asks.
func probed(view *raftstore.View, own, asker string) []*state.Member {
	all := view.Members()
	var out []*state.Member
	for _, m := range all {
		switch {
		case m.ID == own:
		case len(all) <= probedMembers, m.ID == asker, view.IsVoter(m.ID), m.Role != state.RoleSpare:
			out = append(out, m)
		}
	}
	return out
}

// probe connects to all members at once, anew.
func probe(ctx context.Context, store *raftstore.Store, members []*state.Member) []api.PeerReach {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	out := make([]api.PeerReach, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			took, err := store.Probe(ctx, m.ID)
			out[i] = api.PeerReach{Name: m.Name, ID: m.ID, Address: m.Address, Reached: err == nil, TookMS: ms(took)}
			if err != nil {
				out[i].Problem, out[i].Detail = health.Problem(err), err.Error()
			}
		})
	}
	wg.Wait()
	return out
}

// certificates are this server's own and, in a cluster, the one that all members show.
func (d *Daemon) certificates() []api.MemberCertificate {
	out := []api.MemberCertificate{certificate(api.ServerCertificate, d.own.pair().Cert)}
	if pair := d.network.cluster(); pair != nil {
		out = append(out, certificate(api.ClusterCertificate, pair.Cert))
	}
	return out
}

func certificate(kind string, cert *x509.Certificate) api.MemberCertificate {
	return api.MemberCertificate{Kind: kind, Fingerprint: trust.Fingerprint(cert), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
}

// space asks the file system of a folder; zeros if it does not tell.
func space(dir string) (free, total uint64) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize)
}

func ms(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

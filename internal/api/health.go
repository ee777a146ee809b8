package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/health"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// reportTime is how long the members may take for their reports. They take less than a
	// second; the rest is for the way.
	reportTime = 1200 * time.Millisecond
	// contactsTime is how long the leader may take to tell what it knows.
	contactsTime = 800 * time.Millisecond
)

// pathReport is where a member tells how it is.
const pathReport = "/internal/cluster/report"

// reportGet tells how this member is: GET /internal/cluster/report. It needs no quorum.
func (s *Server) reportGet(c *call) (reply, error) {
	asker := ""
	if view := s.cfg.Store.Local(); view != nil {
		if m, ok := view.MemberByFingerprint(c.caller.fingerprint); ok {
			asker = m.ID
		}
	}
	return reply{metadata: s.cfg.Health.Report(c.Context(), asker)}, nil
}

// doctorGet says what is wrong with the cluster: GET /internal/cluster/doctor. Any member
// answers, within two seconds, whatever the others do.
func (s *Server) doctorGet(c *call) (reply, error) {
	view, err := clustered(s.cfg.Store.ReadOrStale(c.Context()))
	if err != nil {
		return reply{}, err
	}
	seen := s.examine(c.Context(), view)
	evidence := evidenceOf(view, s.cfg.Now(), s.cfg.Store.ID(), seen)
	return reply{metadata: diagnosisOf(evidence)}, nil
}

// An examination is what one member answered.
type examination struct {
	report          *api.MemberReport
	problem, detail string
	// offset is how far its clock is ahead of this one's, give or take uncertain.
	offset, uncertain time.Duration
	clockKnown        bool
}

// examine asks all members for their reports at the same time.
func (s *Server) examine(ctx context.Context, view *raftstore.View) map[string]examination {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := make(map[string]examination)
	for _, m := range view.Members() {
		wg.Go(func() {
			result := s.examineOne(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			seen[m.ID] = result
		})
	}
	wg.Wait()
	return seen
}

func (s *Server) examineOne(ctx context.Context, m *state.Member) examination {
	if m.ID == s.cfg.Store.ID() {
		report := s.cfg.Health.Report(ctx, "")
		return examination{report: &report, clockKnown: true}
	}
	sent := s.cfg.Now()
	report, date, err := askReport(ctx, s.cfg.Peer(m), m.Address)
	received := s.cfg.Now()
	switch {
	case err != nil:
		out := examination{problem: health.Problem(err), detail: err.Error()}
		if !date.IsZero() { // of a refusal: which a wrong clock may be the cause of
			out.offset, out.uncertain, out.clockKnown = date.Sub(received), received.Sub(sent)+time.Second, true
		}
		return out
	case report.ID != m.ID: // all members show the same certificate
		return examination{problem: api.ReachWrongServer, detail: fmt.Sprintf("the member there is %s", report.Name)}
	}
	out := examination{report: report, clockKnown: true}
	out.offset, out.uncertain = clockOffset(sent, received, report.Time, time.Duration(report.TookMS*float64(time.Millisecond)))
	return out
}

// clockOffset estimates how far another clock, which said answered after it had worked for
// took, is ahead of the one that said sent and received; as NTP does.
func clockOffset(sent, received, answered time.Time, took time.Duration) (offset, uncertain time.Duration) {
	there := answered.Add(-took).Sub(sent)
	back := answered.Sub(received)
	return (there + back) / 2, max(received.Sub(sent)-took, 0) / 2
}

// askReport gets a member's report. With a refusal it returns the time that the member has.
func askReport(ctx context.Context, peer http.RoundTripper, address string) (*api.MemberReport, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+pathReport, nil)
	if err != nil {
		return nil, time.Time{}, err
	}
	req.Header.Set("User-Agent", agentNotifier)
	resp, err := peer.RoundTrip(req)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer resp.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&envelope); err != nil {
		return nil, time.Time{}, fmt.Errorf("the report of %s: %w", address, err)
	}
	if envelope.Type != api.SyncResponse {
		if envelope.Code != http.StatusForbidden {
			return nil, time.Time{}, fmt.Errorf("no report: %s", envelope.Error)
		}
		date, _ := http.ParseTime(resp.Header.Get("Date")) // zero if there is none
		return nil, date, &api.Error{Reason: api.NotAuthorized, Message: envelope.Error, Code: envelope.Code}
	}
	var report api.MemberReport
	if err := json.Unmarshal(envelope.Metadata, &report); err != nil {
		return nil, time.Time{}, fmt.Errorf("the report of %s: %w", address, err)
	}
	return &report, time.Time{}, nil
}

// evidenceOf joins what the state says and what the members said.
func evidenceOf(view *raftstore.View, now time.Time, own string, seen map[string]examination) health.Evidence {
	e := health.Evidence{Now: now, By: "this server", Stale: view.Stale != nil, Wanted: membership.WantedVoters(view)}
	if e.Stale && view.Stale.Reason != api.NoQuorum {
		e.Out = view.Stale.Reason
	}
	for _, m := range view.Members() {
		if m.ID == own {
			e.By = m.Name
		}
		x := seen[m.ID]
		row := health.Member{
			Name: m.Name, ID: m.ID, Address: m.Address, Role: membership.RoleOf(view, m), Voter: view.IsVoter(m.ID),
			Offline: m.Offline, Maintenance: m.Maintenance, MaintenanceSince: m.MaintenanceSince, Stopping: m.Stopping, Fenced: m.Fenced != 0, Rival: view.Rivals[m.ID],
			Report: x.report, Problem: x.problem, Detail: x.detail, Offset: x.offset, Error: x.uncertain, ClockKnown: x.clockKnown,
		}
		if m.Offline {
			row.Since = m.Since
		}
		if m.Removal != nil {
			row.Removing = m.Removal.Since
		}
		e.Members = append(e.Members, row)
	}
	for _, u := range entities.AllUnfinished(view) {
		e.Entities = append(e.Entities, health.Entity{
			Kind: entityWords[u.Kind], Name: u.Name, Member: u.Member.Name, Errored: u.Errored, Reason: u.Reason,
		})
	}
	return e
}

// entityWords are the kinds of entities as people call them.
var entityWords = map[string]string{
	state.EntityPool: "storage pool", state.EntityNetwork: "network", state.EntityVolume: "storage volume",
}

func diagnosisOf(e health.Evidence) api.Diagnosis {
	out := api.Diagnosis{
		CheckedAt: e.Now.UTC(), By: e.By, Stale: e.Stale, Checked: health.Checked(),
		Findings: append([]api.Finding{}, health.Diagnose(e)...), Members: []api.DiagnosedMember{},
	}
	for _, m := range e.Members {
		row := api.DiagnosedMember{
			Name: m.Name, ID: m.ID, Address: m.Address, Role: m.Role, Offline: m.Offline, OfflineSince: m.Since,
			Report: m.Report, Problem: m.Problem, Detail: m.Detail,
		}
		if m.ClockKnown {
			offset := milliseconds(m.Offset)
			row.ClockOffsetMS, row.ClockErrorMS = &offset, milliseconds(m.Error)
		}
		out.Members = append(out.Members, row)
	}
	return out
}

func milliseconds(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

// healthGet tells what the leader knows of each member: GET /internal/cluster/health. Without
// a leader it is what this member knows, and marked as stale.
func (s *Server) healthGet(c *call) (reply, error) {
	view, err := clustered(s.cfg.Store.ReadOrStale(c.Context()))
	if err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithTimeout(c.Context(), contactsTime)
	defer cancel()
	contacts, err := s.cfg.Health.Contacts(ctx)
	if err != nil {
		return reply{}, err
	}
	return ok(view, healthOf(view, contacts)), nil
}

func healthOf(view *raftstore.View, contacts raftstore.Contacts) api.ClusterHealth {
	out := api.ClusterHealth{Term: contacts.Term, LastIndex: contacts.LastIndex, Members: []api.MemberHealth{}}
	known := make(map[string]raftstore.Contact)
	for _, contact := range contacts.Members {
		known[contact.ID] = contact
	}
	for _, m := range view.Members() {
		row := api.MemberHealth{Name: m.Name, Role: membership.RoleOf(view, m)}
		if m.Offline {
			row.OfflineSince = m.Since
		}
		contact, isKnown := known[m.ID]
		switch {
		case m.ID == contacts.From:
			out.From = m.Name
			if contacts.Leads {
				out.Leader, row.Role = m.Name, "leader"
				row.LastContactMS, row.MatchIndex, row.Lag = new(int64), &out.LastIndex, new(uint64)
			}
		case isKnown:
			fillContact(&row, contact, contacts)
		}
		out.Members = append(out.Members, row)
	}
	return out
}

// fillContact says of a member what a leader, or somebody who may have led, knows of it.
func fillContact(row *api.MemberHealth, contact raftstore.Contact, contacts raftstore.Contacts) {
	if contact.Heard {
		ago := contact.Ago.Milliseconds()
		row.LastContactMS = &ago
	}
	if contacts.Leads && contact.Match > 0 {
		match, lag := contact.Match, contacts.LastIndex-min(contact.Match, contacts.LastIndex)
		row.MatchIndex, row.Lag = &match, &lag
	}
}

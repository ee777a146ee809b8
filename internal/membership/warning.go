package membership

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

const (
	// warnBefore is how long before its end a certificate is worth a warning. What this program
	// made it renews earlier.
	warnBefore = 60 * 24 * time.Hour
	// seenAgain is after how long a warning whose cause lasts counts as seen once more.
	seenAgain = 24 * time.Hour
)

// keepWarnings keeps the replicated warnings equal to what the state gives cause for. All that it
// looks at is replicated, so that a change of leader changes nothing.
func (t *term) keepWarnings(ctx context.Context) {
	ends := make(certificateEnds)
	for {
		wait := t.set.SweepInterval
		view := t.store.Local()
		if report := t.warningReport(view, ends); report != nil {
			switch err := t.propose(ctx, state.KindWarningReport, report); {
			case err == nil:
				t.logWarnings(view, report)
			case ctx.Err() == nil:
				t.log.Warn("Warnings were not written; trying again", "err", err)
				wait = t.set.RetryInterval
			}
		}
		if !sleep(ctx, wait, view.WatchEntities()) {
			return
		}
	}
}

func (t *term) logWarnings(view *raftstore.View, report *state.WarningReport) {
	for _, r := range report.Raise {
		if r.Type != state.WarnOffline { // the log has it already
			t.log.Warn(r.Message, "warning", r.Type, "member", memberName(view, r.Member))
		}
	}
}

// warningReport is what is to be written; nil if that is nothing.
func (t *term) warningReport(view *raftstore.View, ends certificateEnds) *state.WarningReport {
	if view.Cluster().Leader != t.store.ID() {
		return nil
	}
	now := t.now()
	return compareWarnings(view.View, sightings(view.View, ends, now), now)
}

// compareWarnings tells which of the things seen are news, and which warnings have no cause any
// more. Beyond state.MaxWarnings it leaves out the last ones.
func compareWarnings(view *state.View, seen []state.Sighting, now time.Time) *state.WarningReport {
	var report state.WarningReport
	lasting := make(map[string]bool)
	for _, s := range seen {
		if w, ok := view.WarningOf(s); ok {
			lasting[w.UUID] = true
		}
	}
	open := 0
	for _, w := range view.Warnings() {
		switch {
		case w.Status == api.WarningResolved:
		case lasting[w.UUID]:
			open++
		default:
			report.Resolve = append(report.Resolve, w.UUID)
		}
	}
	for _, s := range seen {
		w, ok := view.WarningOf(s)
		switch isOpen := ok && w.Status != api.WarningResolved; {
		case isOpen && w.Severity == s.Severity && now.Sub(w.LastSeen).Abs() < seenAgain:
			continue
		case !isOpen && open == state.MaxWarnings:
			continue
		case !isOpen:
			open++
		}
		report.Raise = append(report.Raise, state.WarningRaise{UUID: uuid.NewString(), Sighting: s})
	}
	if len(report.Raise)+len(report.Resolve) == 0 {
		return nil
	}
	return &report
}

// sightings are the things to warn of, the most important first.
func sightings(view *state.View, ends certificateEnds, now time.Time) []state.Sighting {
	var seen []state.Sighting
	certificate := func(s state.Sighting, what, pem, effect string) {
		if end, known := ends.of(pem); known {
			if severity, message := expiry(what, end, effect, now); severity != "" {
				s.Severity, s.Message = severity, message
				seen = append(seen, s)
			}
		}
	}
	if c := view.Cluster(); c.Enabled {
		certificate(state.Sighting{Type: state.WarnClusterCertificate}, "The cluster's certificate", c.Certificate,
			"clients that look at dates refuse the cluster; replace it: incus cluster update-certificate")
	}
	for _, m := range view.Members() {
		if m.Offline && m.Fenced == 0 {
			seen = append(seen, state.Sighting{Type: state.WarnOffline, Member: m.ID, Severity: api.WarningLow, Message: offlineMessage(m)})
		}
		certificate(state.Sighting{Type: state.WarnMemberCertificate, Member: m.ID}, "The certificate of "+m.Name, m.Certificate,
			"the other members do not take requests that it passes on")
	}
	seen = append(seen, unavailable(view, state.EntityPool, state.WarnPool)...)
	seen = append(seen, unavailable(view, state.EntityNetwork, state.WarnNetwork)...)
	for _, c := range view.Certificates() {
		certificate(state.Sighting{Type: state.WarnClientCertificate, Entity: c.Fingerprint}, fmt.Sprintf("The trusted certificate %q", c.Name), c.PEM,
			"it opens nothing any more")
	}
	return seen
}

func offlineMessage(m *state.Member) string {
	return fmt.Sprintf("Member %s is offline since %s: %s", m.Name, stamp(m.Since), m.Reason)
}

// unavailable are the members on which a pool or network is not what it should be.
func unavailable(view *state.View, kind, warning string) []state.Sighting {
	var seen []state.Sighting
	members := view.Members()
	for _, e := range view.Entities(kind) {
		for _, m := range members {
			part, has := e.Members[m.ID]
			fails := part.Status == state.EntityErrored || part.Status == state.EntityUnavailable && part.Revision == e.Revision
			if has && fails && e.Made && !e.Deleting {
				seen = append(seen, state.Sighting{Type: warning, Member: m.ID, Project: e.Project, Entity: e.ID, Severity: api.WarningHigh,
					Message: fmt.Sprintf("%s on %s: %s", e.Name, m.Name, part.Reason)})
			}
		}
	}
	return seen
}

// expiry judges the end of a certificate; severity is empty if it is not worth a word.
func expiry(what string, end time.Time, effect string, now time.Time) (severity, message string) {
	switch {
	case !now.Before(end):
		return api.WarningHigh, fmt.Sprintf("%s expired on %s: %s", what, stamp(end), effect)
	case now.After(end.Add(-warnBefore)):
		return api.WarningModerate, fmt.Sprintf("%s expires on %s; then %s", what, stamp(end), effect)
	}
	return "", ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime + " MST") }

// certificateEnds remembers when certificates end, by their PEM: the members change often, and there
// may be thousands of clients. One that cannot be read has no end. It begins anew at maxEnds, so that
// what is gone is not kept.
type certificateEnds map[string]time.Time

const maxEnds = 20000

func (e certificateEnds) of(pem string) (end time.Time, known bool) {
	end, seen := e[pem]
	if !seen {
		if cert, err := trust.ParseCertificate(pem); err == nil {
			end = cert.NotAfter
		}
		if len(e) >= maxEnds {
			clear(e)
		}
		e[pem] = end
	}
	return end, !end.IsZero()
}

// Warnings are all warnings as the wire has them, by UUID.
func Warnings(view *raftstore.View) []api.Warning {
	out := []api.Warning{}
	for _, w := range view.Warnings() {
		out = append(out, warningOf(view, w))
	}
	return out
}

// Warning is the warning with that UUID. It fails with NotFound.
func Warning(view *raftstore.View, id string) (api.Warning, error) {
	w, ok := view.Warning(id)
	if !ok {
		return api.Warning{}, api.Errorf(api.NotFound, "Warning not found")
	}
	return warningOf(view, w), nil
}

func warningOf(view *raftstore.View, w *state.Warning) api.Warning {
	out := api.Warning{
		WarningPut: api.WarningPut{Status: w.Status}, UUID: w.UUID, Project: w.Project, Type: w.Type, Count: w.Count,
		FirstSeenAt: w.FirstSeen, LastSeenAt: w.LastSeen, LastMessage: w.Message, Severity: w.Severity,
	}
	if m, ok := view.Member(w.Member); ok {
		out.Location = m.Name
	}
	out.EntityURL = entityURL(view, w, out.Location)
	return out
}

// entityURL is where to find what a warning is about; empty if that is not there any more, or has no URL.
func entityURL(view *raftstore.View, w *state.Warning, member string) string {
	path := ""
	switch e, isEntity := view.Entity(w.Entity); {
	case isEntity && e.Kind == state.EntityPool:
		path = "storage-pools/" + url.PathEscape(e.Name)
	case isEntity && e.Project != api.DefaultProject:
		path = "networks/" + url.PathEscape(e.Name) + "?project=" + url.QueryEscape(e.Project)
	case isEntity:
		path = "networks/" + url.PathEscape(e.Name)
	case w.Type == state.WarnClientCertificate:
		path = "certificates/" + w.Entity
	case w.Entity == "" && member != "" && view.Cluster().Enabled:
		path = "cluster/members/" + url.PathEscape(member)
	default:
		return ""
	}
	return "/" + api.APIVersion + "/" + path
}

// SetWarning acknowledges a warning, or makes it new again. It fails with NotFound, BadRequest for what
// is no status, and NotAuthorized for that which only the cluster gives. Like DeleteWarning it blocks
// until the change is committed or ctx ends.
func (s *Admissions) SetWarning(ctx context.Context, id, status string, requestor *api.EventRequestor) error {
	switch {
	case !slices.Contains([]string{api.WarningNew, api.WarningAcknowledged, api.WarningResolved}, status):
		return api.Errorf(api.BadRequest, "Invalid warning type %q", status).WithHint("the status of a warning is set to new or acknowledged")
	case status == api.WarningResolved:
		return api.Errorf(api.NotAuthorized, `Status may only be set to "acknowledge" or "new"`).
			WithHint("a warning is resolved by itself when its cause is gone; until then acknowledge it")
	}
	return s.propose(ctx, state.KindWarningStatus, requestor, state.WarningStatus{UUID: id, Status: status}, nil)
}

// DeleteWarning forgets a warning; one whose cause lasts comes back. It fails with NotFound.
func (s *Admissions) DeleteWarning(ctx context.Context, id string, requestor *api.EventRequestor) error {
	return s.propose(ctx, state.KindWarningDelete, requestor, state.WarningDelete{UUID: id}, nil)
}

package state

import (
	"slices"
	"strings"
	"time"

	"incusd/api"
)

// Types of warnings. The first three are the protocol's.
const (
	WarnOffline            = "Offline cluster member"
	WarnPool               = "Storage pool unavailable"
	WarnNetwork            = "Network unavailable"
	WarnClusterCertificate = "Cluster certificate expires"
	WarnMemberCertificate  = "Member certificate expires"
	WarnClientCertificate  = "Client certificate expires"
)

const (
	// MaxWarnings bounds the warnings. Where there are so many, the oldest resolved one makes room.
	MaxWarnings = 1000
	// ResolvedTime is for how long a resolved warning can still be looked at.
	ResolvedTime = 24 * time.Hour
)

// A Sighting is what a warning was raised for. There is one warning for each Type, Member, Project
// and Entity.
type Sighting struct {
	Type string `json:"type"`
	// Member is the ID of the member that it is about; empty for the whole cluster.
	Member string `json:"member,omitempty"`
	// Project is that of the entity; empty for those that are in none.
	Project string `json:"project,omitempty"`
	// Entity is the ID of a pool or network, or the fingerprint of a client's certificate.
	Entity   string `json:"entity,omitempty"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
}

// A Warning is kept until ResolvedTime after its cause is gone, or somebody deletes it.
type Warning struct {
	UUID string `json:"uuid"`
	Sighting
	// Status is api.WarningNew, WarningAcknowledged or WarningResolved, since Updated.
	Status  string    `json:"status"`
	Updated time.Time `json:"updated"`
	// Count is how often it was seen, first and last at these times.
	Count     int       `json:"count"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
}

// WarningReport is the body of "warning.report", version 1: what the leader saw. Harmless when what
// it is about is gone meanwhile.
type WarningReport struct {
	Raise   []WarningRaise `json:"raise,omitempty"`
	Resolve []string       `json:"resolve,omitempty"` // UUIDs
}

// WarningRaise says that something was seen; UUID is that of the warning, if there is none of it yet.
type WarningRaise struct {
	UUID string `json:"uuid"`
	Sighting
}

// WarningStatus is the body of "warning.status", version 1: somebody acknowledges a warning, or wants
// it to be new again. NotFound if it is not there.
type WarningStatus struct {
	UUID   string `json:"uuid"`
	Status string `json:"status"`
}

// WarningDelete is the body of "warning.delete", version 1. NotFound if it is not there.
type WarningDelete struct {
	UUID string `json:"uuid"`
}

var warningTable = &table[Warning]{
	name:  "warning",
	topic: topicOther,
	indexes: []index[Warning]{
		{name: primary, key: func(w *Warning) string { return w.UUID }},
		{name: "place", key: func(w *Warning) string { return w.place() }},
	},
	count: func(c *counts, _ *Warning, n int) { c.warnings += n },
}

// place is what there is one warning of.
func (s *Sighting) place() string {
	return strings.Join([]string{s.Type, s.Member, s.Project, s.Entity}, "\x01")
}

// Warning returns the warning with that UUID, a resolved one too.
func (v *View) Warning(uuid string) (*Warning, bool) { return warningTable.get(v.txn, primary, uuid) }

// WarningOf returns the warning for what was seen.
func (v *View) WarningOf(s Sighting) (*Warning, bool) {
	return warningTable.get(v.txn, "place", s.place())
}

// Warnings returns all warnings, resolved ones too, by UUID.
func (v *View) Warnings() []*Warning { return warningTable.list(v.txn, primary) }

func applyWarningReport(tx *transaction, b *WarningReport) (any, error) {
	for _, uuid := range b.Resolve {
		if w, ok := warningTable.get(tx.Txn, primary, uuid); ok && w.Status != api.WarningResolved {
			tx.setWarning(w, api.WarningResolved)
		}
	}
	for _, r := range b.Raise {
		if err := tx.raise(r); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// raise counts what was seen. An acknowledged warning stays that as long as its cause lasts and gets no
// worse.
func (tx *transaction) raise(r WarningRaise) error {
	if err := checkKey("warning UUID", r.UUID); err != nil {
		return err
	}
	if len(r.place()) > 4*maxKeyText {
		return badRequest("what a warning is about has %d bytes, the limit is %d", len(r.place()), 4*maxKeyText)
	}
	if _, ok := activeMember(tx.Txn, r.Member); r.Member != "" && !ok {
		return nil // removed meanwhile
	}
	w := &Warning{UUID: r.UUID, Status: api.WarningNew, Updated: tx.now, FirstSeen: tx.now}
	if old, ok := warningTable.get(tx.Txn, "place", r.place()); ok {
		c := *old
		w = &c
	} else if _, taken := warningTable.get(tx.Txn, primary, r.UUID); taken {
		return badRequest("warning %s is about something else", r.UUID)
	} else if !tx.roomForWarning() {
		return nil
	}
	if w.Status == api.WarningResolved || w.Severity != r.Severity {
		w.Status, w.Updated = api.WarningNew, tx.now
	}
	w.Sighting = r.Sighting
	w.Message = ShortReason(r.Message)
	w.Count++
	w.LastSeen = tx.now
	warningTable.put(tx, w)
	return nil
}

// roomForWarning makes room for another warning, or tells that there is none.
func (tx *transaction) roomForWarning() bool {
	if tx.counts.warnings < MaxWarnings {
		return true
	}
	resolved := slices.DeleteFunc(warningTable.list(tx.Txn, primary), func(w *Warning) bool { return w.Status != api.WarningResolved })
	if len(resolved) == 0 {
		return false
	}
	warningTable.drop(tx, slices.MinFunc(resolved, func(a, b *Warning) int { return a.Updated.Compare(b.Updated) }))
	return true
}

func (tx *transaction) setWarning(w *Warning, status string) {
	c := *w
	c.Status, c.Updated = status, tx.now
	warningTable.put(tx, &c)
}

// sweepWarnings forgets those that have been resolved for long enough.
func (tx *transaction) sweepWarnings() {
	for _, w := range warningTable.list(tx.Txn, primary) {
		if w.Status == api.WarningResolved && !tx.now.Before(w.Updated.Add(ResolvedTime)) {
			warningTable.drop(tx, w)
		}
	}
}

// dropWarnings forgets those about a member that is no more.
func (tx *transaction) dropWarnings(member string) {
	for _, w := range warningTable.list(tx.Txn, primary) {
		if w.Member == member {
			warningTable.drop(tx, w)
		}
	}
}

func applyWarningStatus(tx *transaction, b *WarningStatus) (any, error) {
	w, ok := warningTable.get(tx.Txn, primary, b.UUID)
	if !ok {
		return nil, warningNotFound()
	}
	action := "warning-acknowledged"
	switch b.Status {
	case api.WarningAcknowledged:
	case api.WarningNew:
		action = "warning-reset"
	default:
		return nil, badRequest("a warning is not set to %q", b.Status)
	}
	tx.setWarning(w, b.Status)
	tx.emit(action, source("/1.0/warnings", w.UUID), nil)
	return nil, nil
}

func applyWarningDelete(tx *transaction, b *WarningDelete) (any, error) {
	w, ok := warningTable.get(tx.Txn, primary, b.UUID)
	if !ok {
		return nil, warningNotFound()
	}
	warningTable.drop(tx, w)
	tx.emit("warning-deleted", source("/1.0/warnings", w.UUID), nil)
	return nil, nil
}

func warningNotFound() error {
	return api.Errorf(api.NotFound, "Warning not found").WithHint("see incus warning list --all for those that there are")
}

package entities

import (
	"slices"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Unfinished is an entity that is not yet on a member what it should be there.
type Unfinished struct {
	// Kind is one of state's Entity kinds.
	Kind, Name string
	Member     *state.Member
	// Errored is true if the member tried, and Reason says what came of it.
	Errored bool
	Reason  string
}

// AllUnfinished lists them by kind and name, each with its members in the order of the cluster.
// What is defined and not created yet, and what is being removed, is not meant to be there.
func AllUnfinished(view *raftstore.View) []Unfinished {
	var out []Unfinished
	for _, kind := range []string{state.EntityPool, state.EntityNetwork, state.EntityVolume} {
		for _, e := range view.Entities(kind) {
			if e.Made && !e.Deleting {
				out = slices.Concat(out, unfinishedOf(view, e))
			}
		}
	}
	return out
}

func unfinishedOf(view *raftstore.View, e *state.Entity) []Unfinished {
	var out []Unfinished
	for _, m := range view.Members() {
		part, ok := e.Members[m.ID]
		if !ok {
			continue
		}
		switch partStatus(e, part) {
		case api.EntityErrored, state.EntityUnavailable:
			out = append(out, Unfinished{Kind: e.Kind, Name: e.Name, Member: m, Errored: true, Reason: part.Reason})
		case api.EntityPending:
			out = append(out, Unfinished{Kind: e.Kind, Name: e.Name, Member: m})
		}
	}
	return out
}

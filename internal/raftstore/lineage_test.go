package raftstore

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"incusd/internal/raftstore/state"
)

func TestLineages(t *testing.T) {
	// lineage is what began with the recoveries of those IDs, one after the other.
	lineage := func(ids ...string) Lineage {
		l := Lineage{Incarnation: 1}
		for _, id := range ids {
			if l.Recovery != "" {
				l.Before = append([]string{l.Recovery}, l.Before...)
			}
			l.Incarnation, l.Recovery = l.Incarnation+1, id
		}
		return l
	}
	root := lineage()
	many := lineage("a", "b", "c", "d")
	many.Before = many.Before[:2] // it remembers b and c
	tests := []struct {
		name       string
		own, other Lineage
		want       kin
		heeded     bool // what other says of own's removal counts
	}{
		{"the first incarnation", root, root, kinSame, true},
		{"the same recovery", lineage("r"), lineage("r"), kinSame, true},
		{"an empty replica asks", lineage("r"), Lineage{}, kinSame, false},
		{"an empty replica is asked", Lineage{}, lineage("r"), kinSame, true},
		{"one from before the recovery", lineage("r"), root, kinOlder, false},
		{"one from after it", root, lineage("r"), kinNewer, true},
		{"one from before the second recovery", lineage("r", "s"), lineage("r"), kinOlder, false},
		{"one from after the second", lineage("r"), lineage("r", "s"), kinNewer, true},
		{"one from after the third", lineage("r"), lineage("r", "s", "t"), kinNewer, true},
		{"two recoveries of one incarnation", lineage("r"), lineage("q"), kinRival, false},
		{"a higher number of another descent", lineage("r"), lineage("q", "s"), kinRival, false},
		{"a lower number of another descent", lineage("q", "s"), lineage("r"), kinRival, false},
		{"the same recovery is only the last but one", lineage("r"), lineage("q", "r", "s"), kinRival, false},
		{"only a number", lineage("r"), Lineage{Incarnation: 999}, kinRival, false},
		{"only a number, of one that was never recovered", root, Lineage{Incarnation: 999}, kinNewer, true},
		{"one that does not say what was before", lineage("r"), Lineage{Incarnation: 3, Recovery: "s"}, kinRival, false},
		{"only a number, and lower", lineage("r", "s"), Lineage{Incarnation: 2}, kinRival, false},
		{"as far back as is remembered", lineage("a", "b"), many, kinNewer, true},
		{"further back than is remembered", lineage("a"), many, kinRival, false},
		{"the root is before all that is remembered", root, many, kinNewer, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.own.of(tt.other); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			back := map[kin]kin{kinSame: kinSame, kinOlder: kinNewer, kinNewer: kinOlder, kinRival: kinRival}
			if got := tt.other.of(tt.own); got != back[tt.want] {
				t.Errorf("the other way round: got %d, want %d", got, back[tt.want])
			}
			if got := tt.own.heeds(tt.other); got != tt.heeded {
				t.Errorf("heeded: %v", got)
			}
		})
	}
}

// Whatever was recovered how often, an opening message holds the lineage.
func TestALongLineageFitsIntoAnOpeningMessage(t *testing.T) {
	tables := state.New()
	apply := func(index uint64, kind string, body any) {
		entry, err := state.EncodeEntry([]state.Command{newCommand(t, kind, body)})
		if err != nil {
			t.Fatal(err)
		}
		if results, _, err := tables.Apply(index, 1, entry); err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
	}
	m := state.Member{ID: "id1", Name: "none", Certificate: "c", Fingerprint: "f", CommandVersion: state.CommandVersion}
	apply(1, state.KindClusterInit, state.ClusterInit{ClusterID: "c1", Member: m})
	apply(2, state.KindClusterEnable, state.ClusterEnable{MemberID: "id1", Name: "m1", Address: "m1:8443", Certificate: "c", Key: "k"})
	var before Lineage
	for i := range uint64(3 * state.MaxRecoveries) {
		before = LineageOf(tables.View())
		apply(3+i, state.KindClusterRecover, state.ClusterRecover{ID: uuid.NewString(), MemberID: "id1", Incarnation: before.Incarnation + 1})
	}
	l := LineageOf(tables.View())
	if len(l.Before) != state.MaxRecoveries-1 || l.of(before) != kinOlder || before.of(l) != kinNewer {
		t.Fatalf("lineage %+v, before the last recovery %+v", l, before)
	}
	h := hello{Cluster: uuid.NewString(), From: uuid.NewString(), To: uuid.NewString(), Purpose: purposeAdopt, Lineage: l}
	w := welcome{Lineage: l, Error: refuseRival(l, tables.View(), l), Removed: &state.Removed{ID: uuid.NewString(), Name: fmt.Sprintf("%063d", 1), Fingerprint: fmt.Sprintf("%064d", 1), Former: fmt.Sprintf("%064d", 2)}}
	for _, v := range []any{h, w} {
		data, err := json.Marshal(v)
		if err != nil || len(data) >= maxHello/2 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	}
}

func newCommand(t *testing.T, kind string, body any) state.Command {
	t.Helper()
	cmd, err := state.NewCommand(kind, uuid.NewString(), time.Now(), nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

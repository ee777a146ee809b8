package daemon

import (
	"testing"

	"incusd/internal/raftstore/state"
)

func TestPlanIdentityTakesOneStepAfterTheOther(t *testing.T) {
	for _, test := range []struct {
		name      string
		row       state.Member
		own, next string
		due       bool
		want      identityStep
	}{
		{name: "nothing to do", row: state.Member{Fingerprint: "a"}, own: "a", want: identityRest},
		{name: "due", row: state.Member{Fingerprint: "a"}, own: "a", due: true, want: identityRenew},
		{name: "noted", row: state.Member{Fingerprint: "a"}, own: "a", next: "b", due: true, want: identityPropose},
		{name: "noted, and not due by another clock", row: state.Member{Fingerprint: "a"}, own: "a", next: "b", want: identityPropose},
		{name: "in the row", row: state.Member{Fingerprint: "b", Former: "a"}, own: "a", next: "b", due: true, want: identityAdopt},
		{name: "shown, a crash before the notes were dropped", row: state.Member{Fingerprint: "b", Former: "a"}, own: "b", next: "b", want: identityDrop},
		{name: "shown", row: state.Member{Fingerprint: "b", Former: "a"}, own: "b", want: identityConfirm},
		{name: "another noted before the row has forgotten", row: state.Member{Fingerprint: "b", Former: "a"}, own: "b", next: "c", want: identityPropose},
		{name: "confirmed", row: state.Member{Fingerprint: "b"}, own: "b", want: identityRest},
		{name: "the files were exchanged by hand", row: state.Member{Fingerprint: "a"}, own: "x", due: true, want: identityRest},
		{name: "the noted pair belongs to nothing", row: state.Member{Fingerprint: "a"}, own: "x", next: "b", want: identityRest},
	} {
		if got := planIdentity(&test.row, test.own, test.next, test.due); got != test.want {
			t.Errorf("%s: step %d, want %d", test.name, got, test.want)
		}
	}
}

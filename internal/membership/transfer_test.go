package membership

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

func TestSuccessorIsAVoterThatStays(t *testing.T) {
	for _, tt := range []struct{ name, members, want string }{
		{"the first other voter", "1:voter*,leader 2:voter* 3:voter*", "m2"},
		{"not one that is offline or slow", "1:voter*,leader 2:voter*,off 3:voter*,slow 4:voter*", "m4"},
		{"not a stand-by", "1:voter*,leader 2:stand-by", ""},
		{"rather one that stays", "1:voter*,leader 2:voter*,evac 3:spare* 4:voter*", "m4"},
		{"or one that goes", "1:voter*,leader 2:voter*,evac 3:stand-by", "m2"},
		{"never a fenced one", "1:voter*,leader 2:voter*,fenced 3:stand-by", ""},
		{"nobody", "1:voter*,leader", ""},
	} {
		if got := successor(parseMembers(t, tt.members)); got != tt.want {
			t.Errorf("%s: %q, expected %q", tt.name, got, tt.want)
		}
	}
}

func TestTransferWaitsForAMemberThatAnswersSoon(t *testing.T) {
	for _, to := range []string{"id-2", ""} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t)
			b.join(2)
			b.setServer("id-2", true)
			b.apply(state.KindMemberRole, state.MemberRole{Changes: []state.RoleChange{{ID: "id-2", Role: state.RoleVoter}}})
			delete(b.answers, "id-2") // the leader is new and has heard of nobody
			time.AfterFunc(time.Second, func() { b.answer(2) })
			start := time.Now()
			if next, err := awaitNext(t.Context(), b, Settings{}.withDefaults(), to); err != nil || next != "id-2" || time.Since(start) < time.Second {
				t.Errorf("to %q: %q, %v", to, next, err)
			}
			b.setLagging(2, true)
			start = time.Now()
			if _, err := awaitNext(t.Context(), b, Settings{}.withDefaults(), to); !errors.Is(err, api.CannotLead) {
				t.Errorf("to %q, which lags: %v", to, err)
			}
			if waited := time.Since(start); waited < time.Second || waited > 3*time.Second {
				t.Errorf("to %q: gave up after %v", to, waited)
			}
		})
	}
}

func TestChooseNextWaitsOnlyForWhoMayLead(t *testing.T) {
	for _, tt := range []struct {
		name, members, to, want string
		soon                    bool
	}{
		{"any, the one that is ready", "1:voter*,leader 2:voter*,slow 3:voter*", "", "m3", false},
		{"any, none is ready yet", "1:voter*,leader 2:voter*,slow 3:voter*,off", "", "", true},
		{"any, and none votes", "1:voter*,leader 2:stand-by,slow", "", "", false},
		{"any, and none is online", "1:voter*,leader 2:voter*,off", "", "", false},
		{"one that is not ready yet", "1:voter*,leader 2:voter*,slow", "m2", "m2", true},
		{"one that is offline", "1:voter*,leader 2:voter*,off", "m2", "m2", false},
	} {
		next, soon, err := chooseNext(parseMembers(t, tt.members), tt.to, "node")
		if next != tt.want || soon != tt.soon || (err == nil) != (tt.name == "any, the one that is ready") {
			t.Errorf("%s: %q, soon %v, %v", tt.name, next, soon, err)
		}
	}
}

func TestMayLeadSaysWhatSpeaksAgainst(t *testing.T) {
	members := parseMembers(t, "1:voter*,leader 2:voter* 3:voter*,off 4:stand-by 5:spare* 6:voter*,slow 7:voter*,evac 8:voter*,fenced,off")
	for _, tt := range []struct {
		id   string
		want api.Reason
		says string
	}{
		{"m2", "", ""},
		{"m3", api.MemberOffline, `"node" is offline`},
		{"m4", api.CannotLead, "it has no vote"},
		{"m5", api.CannotLead, "it has no vote"},
		{"m6", api.CannotLead, "does not answer"},
		{"m7", api.CannotLead, "evacuated"},
		{"m8", api.CannotLead, "shut out by a recovery"},
		{"m9", api.MemberNotFound, "not found"},
	} {
		soon, err := mayLead(members, tt.id, "node")
		if soon != (tt.says == "does not answer") {
			t.Errorf("%s: soon is %v", tt.id, soon)
		}
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, expected %s with %q", tt.id, err, tt.want, tt.says)
		}
	}
}

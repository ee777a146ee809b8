package membership

import (
	"errors"
	"strings"
	"testing"

	"incusd/api"
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
		err := mayLead(members, tt.id, "node")
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, expected %s with %q", tt.id, err, tt.want, tt.says)
		}
	}
}

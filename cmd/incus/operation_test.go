package main

import (
	"strings"
	"testing"
)

func TestOperationShowAndDelete(t *testing.T) {
	s := clustered(t)
	s.Reply("GET /1.0/operations/9e871762", task("Joining cluster"))
	if got := s.mustRun(t, "", "operation", "show", "9e871762"); !strings.HasPrefix(got, "id: 9e871762\nclass: task\ndescription: Joining cluster\n") {
		t.Errorf("got %q", got)
	}
	s.Reply("DELETE /1.0/operations/9e871762", struct{}{})
	if got := s.mustRun(t, "", "operation", "delete", "9e871762"); got != "Operation 9e871762 deleted\n" {
		t.Errorf("got %q", got)
	}
	if got := s.mustRun(t, "", "operation", "cancel", "9e871762", "-q"); got != "" {
		t.Errorf("got %q", got)
	}
}

package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

func TestQuery(t *testing.T) {
	s := clustered(t)
	for args, file := range map[string]string{
		"query /1.0/cluster":                       "query-cluster.out",
		"query local:/1.0/cluster":                 "query-cluster.out",
		"query --raw /1.0/cluster":                 "query-cluster-raw.out",
		"query -X get /1.0/operations?recursion=1": "query-operations.out",
	} {
		if diff := cmp.Diff(golden(t, file), s.mustRun(t, "", strings.Fields(args)...)); diff != "" {
			t.Errorf("%s: %s", args, diff)
		}
	}
	s.Reply("PATCH /1.0", struct{}{})
	if got := s.mustRun(t, "", "query", "-X", "PATCH", "-d", `{"config": {"user.x": "<1>"}}`, "/1.0"); got != "" {
		t.Errorf("got %q", got)
	}
	if body := s.body(t, "PATCH /1.0"); !strings.Contains(body, `"user.x"`) {
		t.Errorf("sent %s", body)
	}
	s.mustRun(t, `{"a":1}`, "query", "-X", "PATCH", "--data-file", "-", "/1.0")
	if body := s.body(t, "PATCH /1.0"); body != `{"a":1}` {
		t.Errorf("sent %s", body)
	}
	s.Handle("GET /1.0/metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up 1\n")) })
	if got := s.mustRun(t, "", "query", "/1.0/metrics"); got != "up 1\n" {
		t.Errorf("got %q", got)
	}
	s.mustFail(t, "Error: The request body is not valid JSON\n", "", "query", "-d", "{", "/1.0")
	s.mustFail(t, "Error: Query path must start with /\nHint: for example: incus query /1.0\n", "", "query", "1.0")
}

func TestQueryWaits(t *testing.T) {
	s := standalone(t, nil)
	got := s.mustRun(t, "", "query", "-X", "PUT", "--wait", "/1.0/cluster")
	var op api.Operation
	if err := json.Unmarshal([]byte(got), &op); err != nil || op.StatusCode != api.Success {
		t.Errorf("got %q", got)
	}
	failed := task("x")
	failed.StatusCode, failed.Err = api.Failure, "no disk"
	s.ReplyAsync("PUT /1.0/cluster", failed)
	s.mustFail(t, "Error: no disk\n", "", "query", "-X", "PUT", "--wait", "/1.0/cluster")
}

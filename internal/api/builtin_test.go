package api

import (
	"testing"

	"incusd/api"
)

func TestBuiltInObjectsCanBeSetToWhatTheyAre(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	const group = "/1.0/cluster/groups/default"
	tests := []struct {
		method, path, body string
		changes            bool
	}{
		{"PUT", group, `{"description":"Default cluster group","members":["node1","node2"],"config":{}}`, false},
		{"PUT", group, `{"description":"Default cluster group","members":["node1"]}`, true},
		{"PATCH", group, `{"members":["node1","node2"]}`, false},
		{"PATCH", group, `{"members":["node2","node1","node3"]}`, true},
	}
	for _, test := range tests {
		w := b.do(request{method: test.method, path: test.path, body: test.body})
		if test.changes {
			wantRefusal(t, w, 501, api.NotImplemented, "is not implemented yet: it can only be set to what it is")
		} else if w.Code != 200 {
			t.Errorf("%s %s %s: %s", test.method, test.path, test.body, w.Body)
		}
	}
	for _, path := range []string{group} {
		tag := b.do(request{method: "GET", path: path}).Header().Get("ETag")
		if w := b.do(request{method: "PATCH", path: path, body: `{}`, header: map[string]string{"If-Match": tag}}); w.Code != 200 {
			t.Errorf("%s: %s", path, w.Body)
		}
		wantRefusal(t, b.do(request{method: "PATCH", path: path, body: `{}`, header: map[string]string{"If-Match": "old"}}), 412, api.PreconditionFail, "ETag doesn't match: ")
	}
	wantRefusal(t, b.do(request{method: "PUT", path: "/1.0/cluster/groups/x", body: `{}`}), 404, api.NotFound, "Cluster_group not found")
}

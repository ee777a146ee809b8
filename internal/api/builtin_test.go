package api

import (
	"testing"

	"incusd/api"
)

func TestBuiltInObjectsCanBeSetToWhatTheyAre(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	const (
		features = `"features.images":true,"features.networks":"true","features.networks.zones":"true",` +
			`"features.profiles":"true","features.storage.buckets":"true","features.storage.volumes":"true"`
		profile = "/1.0/profiles/default?project=default"
		project = "/1.0/projects/default"
		group   = "/1.0/cluster/groups/default"
	)
	tests := []struct {
		method, path, body string
		changes            bool
	}{
		{"PUT", profile, `{"config":{},"description":"Default Incus profile","devices":{}}`, false},
		{"PUT", profile, `{"config":null,"description":"Default Incus profile","name":"default"}`, false},
		{"PUT", profile, `{"config":{},"description":"","devices":{}}`, true},
		{"PUT", profile, `{}`, true},
		{"PUT", profile, `{"config":{"user.a":"b"},"description":"Default Incus profile"}`, true},
		{"PATCH", profile, `{}`, false},
		{"PATCH", profile, `{"config":null,"devices":{}}`, false},
		{"PATCH", profile, `{"devices":{"root":{"type":"disk"}}}`, true},
		{"PATCH", profile, `{"description":""}`, true},
		{"PUT", project, `{"config":{` + features + `},"description":"Default Incus project"}`, false},
		{"PUT", project, `{"config":{},"description":"Default Incus project"}`, true},
		{"PATCH", project, `{"config":{"features.images":"true"}}`, false},
		{"PATCH", project, `{"config":{"features.images":"false"}}`, true},
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
	for _, path := range []string{profile, project, group} {
		tag := b.do(request{method: "GET", path: path}).Header().Get("ETag")
		if w := b.do(request{method: "PATCH", path: path, body: `{}`, header: map[string]string{"If-Match": tag}}); w.Code != 200 {
			t.Errorf("%s: %s", path, w.Body)
		}
		wantRefusal(t, b.do(request{method: "PATCH", path: path, body: `{}`, header: map[string]string{"If-Match": "old"}}), 412, api.PreconditionFail, "ETag doesn't match: ")
	}
	for path, text := range map[string]string{
		"/1.0/profiles/x": "Fetch profile: Profile not found", "/1.0/projects/x": "Project not found", "/1.0/cluster/groups/x": "Cluster_group not found",
	} {
		wantRefusal(t, b.do(request{method: "PUT", path: path, body: `{}`}), 404, api.NotFound, text)
	}
	wantRefusal(t, b.do(request{method: "PUT", path: profile, body: `{"config":[]}`}), 400, api.BadRequest, "Invalid JSON")
}

package api

import (
	"encoding/base64"
	"net/http"
	"slices"
	"testing"

	"incusd/api"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// These are the requests that the unmodified upstream command line was seen to send,
// command by command (cli.md §9), and what it needs to find in the answers.

// ask sends a request and checks the status of its answer.
func (b *bed) ask(method, path string, body any, status int) api.Response {
	b.t.Helper()
	w := b.do(request{method: method, path: path, body: body})
	if w.Code != status {
		b.t.Fatalf("%s %s: %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	return envelope(b.t, w)
}

func TestTraceOfListAndShow(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.ask("GET", "/1.0", nil, 200)
	b.ask("GET", "/1.0/projects", nil, 200)
	b.ask("GET", "/1.0/cluster", nil, 200)
	if members := get[[]api.ClusterMember](b, "/1.0/cluster/members?filter=&recursion=1"); len(members) != 2 {
		t.Errorf("got %+v", members)
	}
	found := get[[]api.ClusterMember](b, "/1.0/cluster/members?filter=server_name+eq+%28%5Enode1%24%7C%5Enode1.%2A%29&recursion=1")
	if len(found) != 1 || found[0].ServerName != "node1" {
		t.Errorf("got %+v", found)
	}
	if none := get[[]api.ClusterMember](b, "/1.0/cluster/members?filter=server_name+eq+node1+and+config.user.x+eq+1&recursion=1"); len(none) != 0 {
		t.Errorf("got %+v", none)
	}
	if urls := get[[]string](b, "/1.0/cluster/members?filter=server_name+eq+node2"); len(urls) != 1 || urls[0] != "/1.0/cluster/members/node2" {
		t.Errorf("got %v", urls)
	}
	wantRefusal(t, b.do(request{method: "GET", path: "/1.0/cluster/members?filter=server_name"}), 400, api.BadRequest, "Invalid filter: ")
	b.ask("GET", "/1.0/cluster/members/node2", nil, 200)
}

func TestTraceOfTokens(t *testing.T) {
	b := newCluster(t, "node1")
	started := metadata[api.Operation](t, b.do(request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"node3"}`}), 202)
	if _, err := started.JoinToken(); err != nil {
		t.Error(err)
	}
	b.ask("GET", "/1.0/operations/"+started.ID, nil, 200)
	b.ask("GET", "/1.0/cluster", nil, 200)
	listed := get[map[string][]api.Operation](b, "/1.0/operations?project=default&recursion=1")["running"]
	if len(listed) != 1 || listed[0].ID != started.ID || listed[0].Class != "token" {
		t.Fatalf("got %+v", listed)
	}
	b.ask("DELETE", "/1.0/operations/"+started.ID, `""`, 200)
	if left := get[map[string][]api.Operation](b, "/1.0/operations?project=default&recursion=1")["running"]; len(left) != 0 {
		t.Errorf("got %+v", left)
	}
}

func TestTraceOfEnable(t *testing.T) {
	b := newBed(t)
	b.settings.values["core.https_address"] = "10.0.0.1:8443"
	b.ask("GET", "/1.0", nil, 200)
	etag := b.do(request{method: "GET", path: "/1.0/cluster"}).Header().Get("ETag")
	put := `{"server_name":"node1","enabled":true,"member_config":null,"cluster_address":"","cluster_certificate":"","server_address":"","cluster_token":""}`
	w := b.do(request{method: "PUT", path: "/1.0/cluster", body: put, header: map[string]string{"If-Match": etag}})
	op := metadata[api.Operation](t, w, 202)
	if ended := get[api.Operation](b, "/1.0/operations/"+op.ID+"/wait?timeout=-1"); ended.Status != "Success" {
		t.Errorf("got %+v", ended)
	}
}

// The dialogue with the answer no to the questions about storage and networks.
func TestTraceOfBootstrapByDialogue(t *testing.T) {
	b := newBed(t)
	b.ask("GET", "/1.0", nil, 200)
	b.ask("GET", "/1.0/storage-pools/local", nil, 404)
	b.ask("GET", "/1.0/networks/incusbr0", nil, 404)
	tag := map[string]string{"If-Match": b.do(request{method: "GET", path: "/1.0"}).Header().Get("ETag")}
	settings := `{"config":{"cluster.https_address":"10.0.0.1:8443","core.https_address":"10.0.0.1:8443"}}`
	if w := b.do(request{method: "PUT", path: "/1.0", body: settings, header: tag}); w.Code != 200 {
		t.Fatalf("got %s", w.Body)
	}
	if pools := get[[]string](b, "/1.0/storage-pools"); pools == nil {
		t.Error("no list of pools")
	}
	// The profile is sent back as it came, even where nothing is to change.
	w := b.do(request{method: "GET", path: "/1.0/profiles/default?project=default"})
	profile := metadata[api.Profile](t, w, 200)
	put := map[string]any{"config": profile.Config, "description": profile.Description, "devices": profile.Devices}
	tag = map[string]string{"If-Match": w.Header().Get("ETag")}
	if w := b.do(request{method: "PUT", path: "/1.0/profiles/default?project=default", body: put, header: tag}); w.Code != 200 {
		t.Fatalf("got %s", w.Body)
	}
	w = b.do(request{method: "GET", path: "/1.0/cluster"})
	conn, _, err := b.listen(UnixListener, "?project=default", nil)
	if err != nil {
		t.Fatal(err)
	}
	op := metadata[api.Operation](t, b.do(request{
		method: "PUT", path: "/1.0/cluster", header: map[string]string{"If-Match": w.Header().Get("ETag")},
		body: `{"server_name":"node1","enabled":true,"member_config":null,"cluster_address":"","cluster_certificate":"","server_address":"","cluster_token":""}`,
	}), 202)
	if ended := lastOf(t, conn, op.ID); ended.Status != "Success" {
		t.Errorf("got %+v", ended)
	}
	if cluster := get[api.Cluster](b, "/1.0/cluster"); !cluster.Enabled || cluster.ServerName != "node1" {
		t.Errorf("got %+v", cluster)
	}
	// The answer yes, which is the default, leads here.
	if w := b.do(request{method: "POST", path: "/1.0/storage-pools", body: `{"config":{},"description":"","name":"local","driver":"dir"}`}); w.Code != 201 {
		t.Fatalf("got %s", w.Body)
	}
	if pool := get[api.StoragePool](b, "/1.0/storage-pools/local"); pool.Status != api.EntityCreated || pool.Driver != "dir" {
		t.Errorf("got %+v", pool)
	}
}

// Upstream's client waits for the operation of the answer, and knows no other answer.
func TestTraceOfProjectRename(t *testing.T) {
	b := newCluster(t, "node1")
	b.ask("POST", "/1.0/projects", `{"name":"web"}`, 201)
	op := metadata[api.Operation](t, b.do(request{method: "POST", path: "/1.0/projects/web", body: `{"name":"shop"}`}), 202)
	if ended := get[api.Operation](b, "/1.0/operations/"+op.ID+"/wait?timeout=-1"); ended.Status != "Success" || ended.Description != "Renaming project" {
		t.Errorf("got %+v", ended)
	}
	b.ask("GET", "/1.0/projects/shop", nil, 200)
	b.ask("POST", "/1.0/projects/default", `{"name":"x"}`, 403)
}

func TestTraceOfRoleAdd(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	w := b.do(request{method: "GET", path: "/1.0/cluster/members/node1"})
	member := metadata[api.ClusterMember](t, w, 200)
	member.Roles = append(member.Roles, "event-hub") // beside database-leader and database
	put := request{method: "PUT", path: "/1.0/cluster/members/node1", body: member.ClusterMemberPut, header: map[string]string{"If-Match": w.Header().Get("ETag")}}
	if w := b.do(put); w.Code != 200 {
		t.Fatalf("got %s", w.Body)
	}
	if roles := get[api.ClusterMember](b, "/1.0/cluster/members/node1").Roles; !slices.Equal(roles, []string{"event-hub", "database-leader", "database"}) {
		t.Errorf("got %v", roles)
	}
}

func TestTraceOfJoinByDialogue(t *testing.T) {
	cluster := newCluster(t, "node1")
	token := tokens.Text(cluster.issue("node2")).String()
	joiner := newBed(t)

	// To the cluster, first as a stranger, then with the server's key.
	stranger := request{method: "GET", path: "/", stranger: true}
	metadata[[]string](t, cluster.do(stranger), 200)
	stranger.path = "/1.0"
	if seen := metadata[api.ServerUntrusted](t, cluster.do(stranger), 200); seen.Auth != "untrusted" || !slices.Contains(seen.AuthMethods, "tls") {
		t.Errorf("got %+v", seen)
	}
	post := `{"name":"node2","type":"server","restricted":false,"projects":null,"certificate":"` +
		base64.StdEncoding.EncodeToString(joiner.own.Cert.Raw) + `","description":"","trust_token":"` + token + `","token":false}`
	if w := cluster.do(request{method: "POST", path: "/1.0/certificates", body: post, stranger: true}); w.Code != 201 {
		t.Fatalf("got %s", w.Body)
	}
	own := request{method: "GET", path: "/1.0", cert: joiner.own.Cert}
	if seen := metadata[api.Server](t, cluster.do(own), 200); seen.Auth != "trusted" || !slices.Contains(seen.APIExtensions, "clustering") {
		t.Errorf("got %+v", seen)
	}
	own.path = "/1.0/cluster"
	if seen := metadata[api.Cluster](t, cluster.do(own), 200); !seen.Enabled || seen.MemberConfig == nil {
		t.Errorf("got %+v", seen)
	}

	// To the server itself; the token has been redeemed by then.
	for range 3 {
		joiner.ask("GET", "/1.0", nil, 200)
	}
	op := joiner.put(map[string]any{
		"server_name": "node2", "enabled": true, "member_config": []any{}, "cluster_address": "10.0.0.1:8443",
		"cluster_certificate": string(cluster.pair.CertPEM), "server_address": "10.0.0.2:8443", "cluster_token": "",
	})
	if ended := get[api.Operation](joiner, "/1.0/operations/"+op.ID()+"/wait?timeout=-1"); ended.Status != "Success" {
		t.Errorf("got %+v", ended)
	}
}

func TestTraceOfJoinByPreseed(t *testing.T) {
	cluster := newCluster(t, "node1")
	metadata[[]string](t, cluster.do(request{method: "GET", path: "/", stranger: true}), 200)
	joiner := newBed(t)
	op := joiner.put(map[string]any{
		"server_name": "node2", "enabled": true, "member_config": nil, "cluster_address": "10.0.0.1:8443",
		"cluster_certificate": string(cluster.pair.CertPEM), "server_address": "10.0.0.2:8443",
		"cluster_token": tokens.Text(cluster.issue("node2")).String(),
	})
	if ended := get[api.Operation](joiner, "/1.0/operations/"+op.ID()+"/wait?timeout=-1"); ended.Status != "Success" {
		t.Errorf("got %+v", ended)
	}
}

func TestTraceOfTheRest(t *testing.T) {
	b := newCluster(t, "node1")
	wantRefusal(t, b.do(request{method: "DELETE", path: "/1.0/cluster/members/node1?force=1"}), 400, api.LastMember, "Member is the only member in the cluster")
	evacuation := metadata[api.Operation](t, b.do(request{method: "POST", path: "/1.0/cluster/members/node1/state", body: `{"action":"evacuate","mode":""}`}), 202)
	if ended := get[api.Operation](b, "/1.0/operations/"+evacuation.ID+"/wait?timeout=-1"); ended.Status != "Success" {
		t.Errorf("got %+v", ended)
	}
	metadata[api.Operation](t, b.do(request{method: "POST", path: "/1.0/certificates", body: `{"name":"laptop","type":"client","projects":null,"token":true}`}), 202)
	b.ask("GET", "/1.0/instances?recursion=1", `""`, 200)
	b.ask("GET", "/internal/ready", nil, 200)
	b.ask("PUT", "/internal/shutdown?force=false", nil, 200)

	// A remote's client has its certificate added by an administrator.
	client := newPair(t, trust.Client)
	if w := newCluster(t, "node1").do(request{method: "GET", path: "/1.0/projects", cert: client.Cert}); w.Code != http.StatusForbidden {
		t.Errorf("an unknown client sees projects: %s", w.Body)
	}
}

package api

import (
	"net/http"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// ofProjects says, apart from the code, which routes are about what projects have.
var ofProjects = map[string]string{
	"GET /1.0/storage-pools/{name}/volumes":                    "list",
	"GET /1.0/storage-pools/{name}/volumes/{type}":             "list",
	"POST /1.0/storage-pools/{name}/volumes":                   "change",
	"POST /1.0/storage-pools/{name}/volumes/{type}":            "change",
	"GET /1.0/storage-pools/{name}/volumes/{type}/{volume}":    "view",
	"PUT /1.0/storage-pools/{name}/volumes/{type}/{volume}":    "change",
	"PATCH /1.0/storage-pools/{name}/volumes/{type}/{volume}":  "change",
	"POST /1.0/storage-pools/{name}/volumes/{type}/{volume}":   "change",
	"DELETE /1.0/storage-pools/{name}/volumes/{type}/{volume}": "change",
	"GET /1.0/networks":               "list",
	"POST /1.0/networks":              "change",
	"GET /1.0/networks/{name}":        "view",
	"PUT /1.0/networks/{name}":        "change",
	"PATCH /1.0/networks/{name}":      "change",
	"POST /1.0/networks/{name}":       "change",
	"DELETE /1.0/networks/{name}":     "change",
	"GET /1.0/networks/{name}/state":  "view",
	"GET /1.0/networks/{name}/leases": "view",
	"GET /1.0/profiles":               "list",
	"POST /1.0/profiles":              "change",
	"GET /1.0/profiles/{name}":        "view",
	"PUT /1.0/profiles/{name}":        "change",
	"PATCH /1.0/profiles/{name}":      "change",
	"POST /1.0/profiles/{name}":       "change",
	"DELETE /1.0/profiles/{name}":     "change",
}

const (
	restricted = "Certificate is restricted"
	notDefault = `User does not have permission for project "default"`
)

// confinement says for each kind of such a route what the query of a client of the projects web and lean,
// of which lean has nothing of its own, is answered: "" if the handler is reached.
var confinement = map[string]struct{ list, view, change string }{
	"":                              {notDefault, notDefault, notDefault},
	"project=web":                   {},
	"project=default":               {notDefault, notDefault, notDefault},
	"project=shop":                  {`for project "shop"`, `for project "shop"`, `for project "shop"`},
	"project=nowhere":               {`for project "nowhere"`, `for project "nowhere"`, `for project "nowhere"`},
	"project=lean":                  {"", notDefault, notDefault},
	"all-projects=true":             {restricted, restricted, restricted},
	"all-projects=true&project=web": {"Cannot specify a project", "Cannot specify a project", "Cannot specify a project"},
	"all-projects=perhaps":          {"Invalid value", "Invalid value", "Invalid value"},
	"project=web&target=node1":      {"", "", restricted},
	"project=web&target=none":       {"", "", restricted},
	"project=shop&project=web":      {`for project "shop"`, `for project "shop"`, `for project "shop"`},
}

func TestRestrictedClientIsConfinedToItsProjectsOnEveryRoute(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	for _, p := range []state.Project{
		{Name: "web", Config: map[string]string{"features.networks": "true", "features.profiles": "true", "features.storage.volumes": "true"}},
		{Name: "shop"}, {Name: "lean"},
	} {
		b.mustPropose(state.KindProjectCreate, state.ProjectCreate{Project: p})
	}
	routes := b.stubRoutes()
	callers := b.callers()
	callers[RestrictedClient] = request{cert: b.trustClient(true, "web", "lean")}
	seen := make(map[string]bool)
	for _, route := range routes {
		name := route.Method + " " + route.Path
		seen[name] = true
		for query, want := range confinement {
			for _, kind := range []Callers{RestrictedClient, Client, UnixSocket} {
				text := map[string]string{"list": want.list, "view": want.view, "change": want.change}[ofProjects[name]]
				switch {
				case mayCall[name]&kind == 0 && kind == RestrictedClient:
					text = restricted // whatever the query says
				case mayCall[name]&kind == 0:
					text = "not authorized"
				case kind != RestrictedClient:
					text = ""
				}
				if strings.Contains(query, "target=none") && route.Scope == thisMember && text == "" {
					text = "Cluster member not found"
				}
				req := callers[kind]
				req.method, req.path = route.Method, pathOf(route)+"?"+query
				w := b.do(req)
				if text == "" && w.Code != http.StatusAccepted || !strings.Contains(w.Body.String(), strings.ReplaceAll(text, `"`, `\"`)) || text != "" && w.Code < 400 {
					t.Errorf("%s?%s: %s gets %d %s, want %q", name, query, kind, w.Code, w.Body, text)
				}
			}
		}
	}
	for name := range ofProjects {
		if !seen[name] {
			t.Errorf("%s is not a route", name)
		}
	}
}

// inEachProject makes the projects web, shop and lean, which has nothing of its own, and in each that can
// have them a profile and a volume.
func (b *bed) inEachProject() {
	b.send("POST", "/1.0/storage-pools", `{"name":"local","driver":"dir"}`, 201)
	b.send("POST", "/1.0/projects", `{"name":"web"}`, 201)
	b.send("POST", "/1.0/projects", `{"name":"shop"}`, 201)
	b.send("POST", "/1.0/projects", `{"name":"lean","config":{"features.profiles":"false","features.storage.volumes":"false"}}`, 201)
	for _, project := range []string{"web", "shop", "default"} {
		b.send("POST", "/1.0/profiles?project="+project, `{"name":"p"}`, 201)
		b.send("POST", "/1.0/storage-pools/local/volumes?project="+project, `{"name":"v","type":"custom"}`, 201)
	}
	b.send("POST", "/1.0/networks", `{"name":"br0"}`, 201)
}

func TestRestrictedClientChangesWhatIsInItsProjects(t *testing.T) {
	b := newBed(t)
	b.inEachProject()
	web := b.trustClient(true, "web", "lean")
	const volumes = "/1.0/storage-pools/local/volumes"
	for _, step := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/1.0/profiles", `{"name":"q"}`, 201},
		{"GET", "/1.0/profiles/q", "", 200},
		{"PUT", "/1.0/profiles/q", `{"config":{"user.a":"b"}}`, 200},
		{"PATCH", "/1.0/profiles/q", `{"description":"d"}`, 200},
		{"POST", "/1.0/profiles/q", `{"name":"r"}`, 201},
		{"DELETE", "/1.0/profiles/r", "", 200},
		{"POST", volumes, `{"name":"w","type":"custom"}`, 201},
		{"GET", volumes + "/custom/w", "", 200},
		{"PUT", volumes + "/custom/w", `{"config":{"user.a":"b"}}`, 200},
		{"PATCH", volumes + "/custom/w", `{"description":"d"}`, 200},
		{"POST", volumes + "/custom/w", `{"name":"x"}`, 201},
		{"DELETE", volumes + "/custom/x", "", 200},
	} {
		for project, text := range map[string]string{"default": notDefault, "lean": notDefault, "shop": `User does not have permission for project "shop"`} {
			w := b.do(request{method: step.method, path: step.path + "?project=" + project, body: step.body, cert: web})
			wantRefusal(t, w, 403, api.NotAuthorized, text)
		}
		w := b.do(request{method: step.method, path: step.path + "?project=web", body: step.body, cert: web})
		if w.Code != step.status {
			t.Errorf("%s %s: %d %s", step.method, step.path, w.Code, w.Body)
		}
	}
	for path, want := range map[string]string{
		"/1.0/profiles?project=web":         "/1.0/profiles/default?project=web /1.0/profiles/p?project=web",
		"/1.0/profiles?project=lean":        "",
		volumes + "?project=web":            volumes + "/custom/v?project=web",
		volumes + "?project=lean":           "",
		"/1.0/networks?project=web":         "",
		"/1.0/instances?project=web":        "",
		"/1.0/storage-pools?project=web":    "/1.0/storage-pools/local",
		"/1.0/projects":                     "/1.0/projects/lean /1.0/projects/web",
		"/1.0/certificates?project=default": "/1.0/certificates/" + trust.Fingerprint(web),
	} {
		got := metadata[[]string](t, b.do(request{method: "GET", path: path, cert: web}), 200)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %q", path, got, want)
		}
	}
	if got := get[[]string](b, "/1.0/profiles?all-projects=true"); len(got) != 6 {
		t.Errorf("an administrator sees %v", got)
	}
}

func TestRestrictedClientChangesNetworksButNotTheMachine(t *testing.T) {
	b := newBed(t)
	b.inEachProject()
	client := b.trustClient(true, "default")
	const one = "/1.0/networks/br1"
	b.send("POST", "/1.0/networks", `{"name":"br1","config":{"bridge.external_interfaces":"eth9","raw.dnsmasq":"log-dhcp"}}`, 201)
	for _, step := range []struct{ method, path, body string }{
		{"POST", "/1.0/networks", `{"name":"br2","config":{"bridge.external_interfaces":"eth0"}}`},
		{"POST", "/1.0/networks", `{"name":"br2","config":{"raw.dnsmasq":"dhcp-script=/tmp/x"}}`},
		{"POST", "/1.0/networks", `{"name":"br2","type":"physical","config":{"parent":"eth0"}}`},
		{"POST", "/1.0/networks?target=none", `{"name":"br2"}`},
		{"PUT", one, `{"config":{"user.a":"b"}}`}, // it would take both keys away
		{"PATCH", one, `{"config":{"raw.dnsmasq":"dhcp-script=/tmp/x"}}`},
		{"PATCH", one, `{"config":{"bridge.external_interfaces":""}}`},
		{"PATCH", one + "?target=none", `{"config":{"user.a":"b"}}`},
	} {
		w := b.do(request{method: step.method, path: step.path, body: step.body, cert: client})
		wantRefusal(t, w, 403, api.NotAuthorized, restricted)
	}
	if n := get[api.Network](b, one); n.Config["bridge.external_interfaces"] != "eth9" || n.Config["raw.dnsmasq"] != "log-dhcp" {
		t.Errorf("%+v", n.Config)
	}
	for _, step := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/1.0/networks", `{"name":"br2","config":{"ipv4.address":"none"}}`, 201},
		{"PATCH", one, `{"config":{"user.a":"b"}}`, 200},
		{"DELETE", "/1.0/networks/br2", "", 200},
	} {
		w := b.do(request{method: step.method, path: step.path, body: step.body, cert: client})
		if w.Code != step.status {
			t.Errorf("%s %s: %d %s", step.method, step.path, w.Code, w.Body)
		}
	}
}

func TestRestrictedClientSeesNoConfigurationOfTheCluster(t *testing.T) {
	b := newCluster(t, "node1", "node2")
	b.send("PATCH", "/1.0/cluster/members/node1", `{"config":{"user.secret":"x"}}`, 200)
	b.send("POST", "/1.0/cluster/groups", `{"name":"g","config":{"user.secret":"x"}}`, 201)
	cert := b.trustClient(true, "default")
	for _, path := range []string{"/1.0/cluster", "/1.0/cluster/members/node1", "/1.0/cluster/members?recursion=1", "/1.0/cluster/groups/g", "/1.0/cluster/groups?recursion=1"} {
		w := b.do(request{method: "GET", path: path, cert: cert})
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if tag := b.do(request{method: "GET", path: "/1.0/cluster/members/node1", cert: cert}).Header().Get("ETag"); tag != "" {
		t.Error("the ETag of the configuration is shown")
	}
	if got := metadata[[]string](t, b.do(request{method: "GET", path: "/1.0/cluster/members?filter=config.user.secret+eq+x", cert: cert}), 200); len(got) != 0 {
		t.Errorf("a filter finds %v", got)
	}
	if got := get[api.ClusterMember](b, "/1.0/cluster/members/node1"); got.Config["user.secret"] != "x" {
		t.Errorf("an administrator sees %v", got.Config)
	}
}

package api

import (
	"regexp"
	"slices"
	"testing"

	"incusd/api"
)

// guarded are the calls that the upstream client makes only where GET /1.0 names their
// extension (rest-basics.md §9). Without its name a call is there for everybody but the
// unmodified command line.
var guarded = map[string][]string{
	"clustering":                 {"GET /1.0/cluster", "PUT /1.0/cluster", "GET /1.0/cluster/members", "GET /1.0/cluster/members/{}", "POST /1.0/cluster/members/{}", "DELETE /1.0/cluster/members/{}"},
	"clustering_join":            {"PUT /1.0/cluster"},
	"clustering_join_token":      {"POST /1.0/cluster/members"},
	"clustering_edit_roles":      {"PUT /1.0/cluster/members/{}"},
	"clustering_failure_domains": {"PUT /1.0/cluster/members/{}"},
	"clustering_update_cert":     {"PUT /1.0/cluster/certificate"},
	"clustering_evacuation":      {"POST /1.0/cluster/members/{}/state"},
	"cluster_member_state":       {"GET /1.0/cluster/members/{}/state"},
	"clustering_groups": {
		"GET /1.0/cluster/groups", "POST /1.0/cluster/groups", "GET /1.0/cluster/groups/{}", "PUT /1.0/cluster/groups/{}",
		"POST /1.0/cluster/groups/{}", "DELETE /1.0/cluster/groups/{}",
	},
	"certificate_update":                {"PUT /1.0/certificates/{}"},
	"certificate_token":                 {"POST /1.0/certificates"},
	"operations_get_query_all_projects": {"GET /1.0/operations"},
	"projects":                          {"GET /1.0/projects", "POST /1.0/projects", "GET /1.0/projects/{}", "PUT /1.0/projects/{}", "POST /1.0/projects/{}", "DELETE /1.0/projects/{}"},
	"project_usage":                     {"GET /1.0/projects/{}/state"},
	"project_access":                    {"GET /1.0/projects/{}/access"},
	"storage":                           {"GET /1.0/storage-pools", "POST /1.0/storage-pools", "GET /1.0/storage-pools/{}", "PUT /1.0/storage-pools/{}", "DELETE /1.0/storage-pools/{}"},
	"resources":                         {"GET /1.0/resources", "GET /1.0/storage-pools/{}/resources"},
	"network":                           {"GET /1.0/networks", "POST /1.0/networks", "GET /1.0/networks/{}", "PUT /1.0/networks/{}", "POST /1.0/networks/{}", "DELETE /1.0/networks/{}"},
	"network_state":                     {"GET /1.0/networks/{}/state"},
	"network_leases":                    {"GET /1.0/networks/{}/leases"},
	"networks_all_projects":             {"GET /1.0/networks"},
	"profiles_all_projects":             {"GET /1.0/profiles"},
	"storage_volumes_all_projects":      {"GET /1.0/storage-pools/{}/volumes"},
	"warnings":                          {"GET /1.0/warnings", "GET /1.0/warnings/{}", "PUT /1.0/warnings/{}", "DELETE /1.0/warnings/{}"},
	"metrics":                           {"GET /1.0/metrics"},
	"metadata_configuration":            {"GET /1.0/metadata/configuration"},
}

func TestExtensionIsNamedWhereItsCallsAreThere(t *testing.T) {
	there := make(map[string]bool)
	parameter := regexp.MustCompile(`\{[^}]*\}`)
	for _, route := range Routes() {
		there[route.Method+" "+parameter.ReplaceAllString(route.Path, "{}")] = true
	}
	for extension, calls := range guarded {
		missing := slices.DeleteFunc(slices.Clone(calls), func(call string) bool { return there[call] })
		if named := slices.Contains(api.Extensions(), extension); named != (len(missing) == 0) {
			t.Errorf("%s: named %t, calls that are not there: %v", extension, named, missing)
		}
	}
}

func TestExtensionsAreNamedOnce(t *testing.T) {
	names := api.Extensions()
	slices.Sort(names)
	if unique := slices.Compact(slices.Clone(names)); !slices.Equal(unique, names) {
		t.Errorf("got %v", names)
	}
}

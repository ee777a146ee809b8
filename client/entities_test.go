package client_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/client"
)

// value drops what a call returns beside its error.
func value[T any](_ T, err error) error { return err }

// tagged is value of a call that also returns an ETag.
func tagged[T any](_ T, _ string, err error) error { return err }

func TestCallsOfEntitiesAreThoseOfTheProtocol(t *testing.T) {
	put := api.ConfigMap{"k": "v"}
	for _, tt := range []struct {
		line, body string
		call       func(context.Context, *client.Client) error
	}{
		{"GET /1.0/storage-pools?recursion=1", "", func(ctx context.Context, c *client.Client) error { return value(c.StoragePools(ctx)) }},
		{"GET /1.0/storage-pools/a%2Fb?target=m1", "", func(ctx context.Context, c *client.Client) error {
			return tagged(c.WithTarget("m1").StoragePool(ctx, "a/b"))
		}},
		{"POST /1.0/storage-pools?target=m1", `{"config":{"k":"v"},"description":"d","name":"p","driver":"dir"}`,
			func(ctx context.Context, c *client.Client) error {
				return c.WithTarget("m1").CreateStoragePool(ctx, api.StoragePoolsPost{StoragePoolPut: api.StoragePoolPut{Config: put, Description: "d"}, Name: "p", Driver: "dir"})
			}},
		{"PUT /1.0/storage-pools/p", `{"config":{},"description":""}`, func(ctx context.Context, c *client.Client) error {
			return c.UpdateStoragePool(ctx, "p", api.StoragePoolPut{}, `"e"`)
		}},
		{"DELETE /1.0/storage-pools/p", "", func(ctx context.Context, c *client.Client) error { return c.DeleteStoragePool(ctx, "p") }},
		{"GET /1.0/storage-pools/p/resources?target=m1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithTarget("m1").StoragePoolResources(ctx, "p"))
		}},

		{"GET /1.0/storage-pools/p/volumes/custom?project=web&recursion=1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithProject("web").StorageVolumes(ctx, "p", false))
		}},
		{"GET /1.0/storage-pools/p/volumes/custom?all-projects=true&recursion=1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithProject("web").StorageVolumes(ctx, "p", true))
		}},
		{"GET /1.0/storage-pools/p/volumes/custom/v?project=web", "", func(ctx context.Context, c *client.Client) error {
			return tagged(c.WithProject("web").StorageVolume(ctx, "p", "v"))
		}},
		{"POST /1.0/storage-pools/p/volumes/custom?target=m1", `{"config":{},"description":"","name":"v","type":"custom","content_type":"block","source":null}`,
			func(ctx context.Context, c *client.Client) error {
				return c.WithTarget("m1").CreateStorageVolume(ctx, "p", api.StorageVolumesPost{Name: "v", Type: api.VolumeCustom, ContentType: api.VolumeBlock})
			}},
		{"PUT /1.0/storage-pools/p/volumes/custom/v", `{"config":{},"description":""}`, func(ctx context.Context, c *client.Client) error {
			return c.UpdateStorageVolume(ctx, "p", "v", api.StorageVolumePut{}, `"e"`)
		}},
		{"POST /1.0/storage-pools/p/volumes/custom/v", `{"name":"w"}`, func(ctx context.Context, c *client.Client) error { return c.RenameStorageVolume(ctx, "p", "v", "w") }},
		{"DELETE /1.0/storage-pools/p/volumes/custom/v", "", func(ctx context.Context, c *client.Client) error { return c.DeleteStorageVolume(ctx, "p", "v") }},

		{"GET /1.0/networks?recursion=1&target=m1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithTarget("m1").Networks(ctx, false))
		}},
		{"GET /1.0/networks?all-projects=true&recursion=1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithProject("web").Networks(ctx, true))
		}},
		{"GET /1.0/networks/n", "", func(ctx context.Context, c *client.Client) error { return tagged(c.Network(ctx, "n")) }},
		{"POST /1.0/networks?project=web", `{"config":{"k":"v"},"description":"","name":"n","type":"bridge"}`, func(ctx context.Context, c *client.Client) error {
			return c.WithProject("web").CreateNetwork(ctx, api.NetworksPost{NetworkPut: api.NetworkPut{Config: put}, Name: "n", Type: "bridge"})
		}},
		{"PUT /1.0/networks/n", `{"config":{},"description":""}`, func(ctx context.Context, c *client.Client) error {
			return c.UpdateNetwork(ctx, "n", api.NetworkPut{}, `"e"`)
		}},
		{"POST /1.0/networks/n", `{"name":"o"}`, func(ctx context.Context, c *client.Client) error { return c.RenameNetwork(ctx, "n", "o") }},
		{"DELETE /1.0/networks/n", "", func(ctx context.Context, c *client.Client) error { return c.DeleteNetwork(ctx, "n") }},
		{"GET /1.0/networks/n/state?target=m1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithTarget("m1").NetworkState(ctx, "n"))
		}},
		{"GET /1.0/networks/n/leases", "", func(ctx context.Context, c *client.Client) error { return value(c.NetworkLeases(ctx, "n")) }},

		{"GET /1.0/profiles?recursion=1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithProject("default").Profiles(ctx, false))
		}},
		{"GET /1.0/profiles?all-projects=true&recursion=1", "", func(ctx context.Context, c *client.Client) error {
			return value(c.WithProject("web").Profiles(ctx, true))
		}},
		{"GET /1.0/profiles/x", "", func(ctx context.Context, c *client.Client) error { return tagged(c.Profile(ctx, "x")) }},
		{"POST /1.0/profiles", `{"config":{},"description":"","devices":{"root":{"type":"disk"}},"name":"x"}`, func(ctx context.Context, c *client.Client) error {
			devices := map[string]api.ConfigMap{"root": {"type": "disk"}}
			return c.CreateProfile(ctx, api.ProfilesPost{ProfilePut: api.ProfilePut{Devices: devices}, Name: "x"})
		}},
		{"PUT /1.0/profiles/x", `{"config":{},"description":"","devices":null}`, func(ctx context.Context, c *client.Client) error {
			return c.UpdateProfile(ctx, "x", api.ProfilePut{}, `"e"`)
		}},
		{"POST /1.0/profiles/x", `{"name":"y"}`, func(ctx context.Context, c *client.Client) error { return c.RenameProfile(ctx, "x", "y") }},
		{"DELETE /1.0/profiles/x", "", func(ctx context.Context, c *client.Client) error { return c.DeleteProfile(ctx, "x") }},

		{"GET /1.0/projects?recursion=1", "", func(ctx context.Context, c *client.Client) error { return value(c.Projects(ctx)) }},
		{"GET /1.0/projects/x", "", func(ctx context.Context, c *client.Client) error { return tagged(c.Project(ctx, "x")) }},
		{"POST /1.0/projects", `{"config":{},"description":"d","name":"x"}`, func(ctx context.Context, c *client.Client) error {
			return c.CreateProject(ctx, api.ProjectsPost{ProjectPut: api.ProjectPut{Description: "d"}, Name: "x"})
		}},
		{"PUT /1.0/projects/x", `{"config":{},"description":""}`, func(ctx context.Context, c *client.Client) error {
			return c.UpdateProject(ctx, "x", api.ProjectPut{}, `"e"`)
		}},
		{"POST /1.0/projects/x", `{"name":"y"}`, func(ctx context.Context, c *client.Client) error { return c.RenameProject(ctx, "x", "y") }},
		{"DELETE /1.0/projects/x", "", func(ctx context.Context, c *client.Client) error { return c.DeleteProject(ctx, "x") }},
		{"GET /1.0/projects/x/state", "", func(ctx context.Context, c *client.Client) error { return value(c.ProjectState(ctx, "x")) }},
		{"GET /1.0/resources?target=m1", "", func(ctx context.Context, c *client.Client) error { return value(c.WithTarget("m1").Resources(ctx)) }},
	} {
		t.Run(tt.line, func(t *testing.T) {
			// Nothing is there on this server: every call comes back with that.
			server, c := connect(t, client.Options{})
			if err := tt.call(t.Context(), c); !errors.Is(err, api.NotFound) {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff([]string{tt.line}, server.Lines()); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			sent := server.Requests()[0]
			if sent.Body != tt.body {
				t.Errorf("sent %s, want %s", sent.Body, tt.body)
			}
			if isUpdate := sent.Line[:4] == "PUT "; (sent.IfMatch == `"e"`) != isUpdate {
				t.Errorf("If-Match %q", sent.IfMatch)
			}
		})
	}
}

func TestEntitiesArriveWhole(t *testing.T) {
	server, c := connect(t, client.Options{})
	pool := api.StoragePool{Name: "p", Status: api.EntityErrored, Message: "m2: no", Locations: []string{"m1", "m2"}, UsedBy: []string{}}
	pool.Config = api.ConfigMap{"size": "1GiB"}
	server.Reply("GET /1.0/storage-pools", []api.StoragePool{pool})
	server.Reply("GET /1.0/storage-pools/p", pool)
	server.Reply("GET /1.0/networks/n/leases", []api.NetworkLease{{Hostname: "h", Address: "10.0.0.2"}})
	server.Reply("GET /1.0/projects/x/state", map[string]any{"resources": map[string]any{"cpu": map[string]int{"Limit": -1, "Usage": 3}}})
	server.Reply("GET /1.0/networks", nil)
	ctx := t.Context()
	if pools, err := c.StoragePools(ctx); err != nil || !cmp.Equal(pools, []api.StoragePool{pool}) {
		t.Errorf("got %v, %v", pools, err)
	}
	if got, _, err := c.StoragePool(ctx, "p"); err != nil || !cmp.Equal(*got, pool) {
		t.Errorf("got %v, %v", got, err)
	}
	if leases, err := c.NetworkLeases(ctx, "n"); err != nil || len(leases) != 1 || leases[0].Address != "10.0.0.2" {
		t.Errorf("got %v, %v", leases, err)
	}
	state, err := c.ProjectState(ctx, "x")
	if err != nil || state.Resources["cpu"] != (api.ProjectStateResource{Limit: -1, Usage: 3}) {
		t.Errorf("got %v, %v", state, err)
	}
	if networks, err := c.Networks(ctx, false); err != nil || len(networks) != 0 {
		t.Errorf("got %v, %v", networks, err)
	}
}

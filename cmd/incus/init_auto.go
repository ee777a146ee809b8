package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"incusd/api"
	"incusd/client"
)

// automatic is the set-up that --auto and --minimal mean: what is there stays as it is.
func (a *app) automatic(ctx context.Context, c *client.Client, f *initFlags) (*preseed, error) {
	p := &preseed{}
	if f.networkAddress != "" {
		address := client.CanonicalAddress(f.networkAddress)
		if f.networkPort != 0 {
			address = net.JoinHostPort(strings.Trim(f.networkAddress, "[]"), strconv.Itoa(f.networkPort))
		}
		p.Config = api.ConfigMap{"core.https_address": address}
	}
	profile, _, err := c.Profile(ctx, api.DefaultProfile)
	if err != nil {
		return nil, err
	}
	pool, err := a.autoPool(ctx, c, f, p)
	if err != nil {
		return nil, err
	}
	if hasDevice(profile, func(d api.ConfigMap) bool { return d["type"] == "disk" && d["path"] == "/" }) {
		pool = ""
	}
	var nic api.ConfigMap
	if !hasDevice(profile, func(d api.ConfigMap) bool { return d["type"] == "nic" }) {
		bridge, err := autoBridge(ctx, c, p)
		if err != nil {
			return nil, err
		}
		nic = firstNIC(&api.Network{Name: bridge, Managed: true})
	}
	p.addDevices(pool, nic)
	return p, nil
}

func hasDevice(p *api.Profile, is func(api.ConfigMap) bool) bool {
	for _, device := range p.Devices {
		if is(device) {
			return true
		}
	}
	return false
}

// autoPool adds the pool "default", unless there is a pool, and returns the one for root disks.
func (a *app) autoPool(ctx context.Context, c *client.Client, f *initFlags, p *preseed) (string, error) {
	pools, err := c.StoragePools(ctx)
	if err != nil {
		return "", err
	}
	if len(pools) > 0 {
		if f.storageBackend != "" {
			return "", errors.New("Storage has already been configured")
		}
		return pools[0].Name, nil
	}
	server, _, err := c.Server(ctx)
	if err != nil {
		return "", err
	}
	driver, config := f.storageBackend, api.ConfigMap{"source": ""}
	if driver == "" {
		driver = "dir"
		if kind, _ := a.disk(a.stateDir()); kind == "btrfs" && supports(server, "btrfs") {
			driver, config["source"] = "btrfs", a.stateDir()+"/storage-pools/default"
		}
	}
	switch {
	case !slices.Contains([]string{"dir", "btrfs", "lvm", "zfs"}, driver):
		return "", api.Errorf(api.BadRequest, "The requested backend '%s' isn't supported by init", driver)
	case !supports(server, driver):
		return "", api.Errorf(api.DriverUnavailable, "The requested backend '%s' isn't available on your system (missing tools)", driver)
	case f.storageDevice != "":
		config["source"] = f.storageDevice
	case f.storageLoop != 0:
		config["size"] = fmt.Sprintf("%dGiB", f.storageLoop)
	case f.storagePool != "":
		config["source"] = f.storagePool
	}
	p.StoragePools = []api.StoragePoolsPost{{Name: "default", Driver: driver, StoragePoolPut: api.StoragePoolPut{Config: config}}}
	return "default", nil
}

func supports(server *api.Server, driver string) bool {
	return slices.Contains(drivers(server), driver)
}

// drivers are the storage drivers that work on the server's machine, in order.
func drivers(server *api.Server) []string {
	names := namesOf(server.Environment.StorageSupportedDrivers, func(d api.StorageDriverInfo) string { return d.Name })
	slices.Sort(names)
	return names
}

// autoBridge returns a managed bridge that is there, or adds one under the first free name.
func autoBridge(ctx context.Context, c *client.Client, p *preseed) (string, error) {
	networks, err := c.Networks(ctx, false)
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, n := range networks {
		if n.Managed && n.Type == "bridge" {
			return n.Name, nil
		}
		taken[n.Name] = true
	}
	for n := 0; ; n++ {
		name := "incusbr" + strconv.Itoa(n)
		if !taken[name] {
			p.Networks = []preseedNetwork{{NetworksPost: api.NetworksPost{Name: name}}}
			return name, nil
		}
	}
}

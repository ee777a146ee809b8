package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"incusd/api"
	"incusd/client"
)

const gibibyte = 1 << 30

// machine asks what a server that does not join shall have: storage, a network, and how it is
// reached.
func (d *dialogue) machine(ctx context.Context, p *preseed, clustered bool) error {
	root, err := d.storage(ctx, p, clustered)
	if err != nil {
		return err
	}
	nic, err := d.network(ctx, p, clustered)
	if err != nil {
		return err
	}
	p.addDevices(root, nic)
	if !clustered {
		if err := d.listen(ctx, p); err != nil {
			return err
		}
	}
	update, err := d.yesNo(ctx, "Would you like stale cached images to be updated automatically? (yes/no) [default=yes]: ", true)
	if err != nil || update {
		return err
	}
	p.set("images.auto_update_interval", "0")
	return nil
}

// set sets a key of the section config.
func (p *preseed) set(key, value string) {
	if p.Config == nil {
		p.Config = api.ConfigMap{}
	}
	p.Config[key] = value
}

// addDevices gives the default profile a root disk on a pool, and a nic, as far as there are any.
func (p *preseed) addDevices(pool string, nic api.ConfigMap) {
	devices := map[string]api.ConfigMap{}
	if pool != "" {
		devices["root"] = api.ConfigMap{"type": "disk", "path": "/", "pool": pool}
	}
	if nic != nil {
		devices["eth0"] = nic
	}
	if len(devices) > 0 {
		p.Profiles = []preseedProfile{{ProfilesPost: api.ProfilesPost{Name: api.DefaultProfile, ProfilePut: api.ProfilePut{Devices: devices}}}}
	}
}

// firstNIC is the device eth0 on a network.
func firstNIC(n *api.Network) api.ConfigMap {
	nic := nicOn(n)
	nic["name"] = "eth0"
	return nic
}

// storage asks for storage pools and returns the one for root disks.
func (d *dialogue) storage(ctx context.Context, p *preseed, clustered bool) (root string, err error) {
	if !clustered {
		yes, err := d.yesNo(ctx, "Do you want to configure a new storage pool? (yes/no) [default=yes]: ", true)
		if err != nil || !yes {
			return "", err
		}
		name, err := d.text(ctx, "Name of the new storage pool [default=default]: ", "default", func(name string) error { return d.isNewPool(ctx, name) })
		if err != nil {
			return "", err
		}
		return name, d.pool(ctx, p, name, false)
	}
	for _, kind := range []struct {
		name, fallback string
		remote         bool
	}{{"local", "yes", false}, {"remote", "no", true}} {
		question := fmt.Sprintf("Do you want to configure a new %s storage pool? (yes/no) [default=%s]: ", kind.name, kind.fallback)
		yes, err := d.yesNo(ctx, question, kind.fallback == "yes")
		if err != nil {
			return "", err
		}
		if !yes {
			continue
		}
		if len(d.backends(kind.remote)) == 0 {
			fmt.Fprintf(d.err, "No storage backends available for a %s storage pool on this machine\n", kind.name)
			continue
		}
		if err := d.pool(ctx, p, kind.name, kind.remote); err != nil {
			return "", err
		}
		if root == "" {
			root = kind.name
		}
	}
	return root, nil
}

// isNewPool refuses the name of a pool that is there.
func (d *dialogue) isNewPool(ctx context.Context, name string) error {
	if err := api.ValidateName(name); err != nil {
		return err
	}
	_, _, err := d.client.StoragePool(ctx, name)
	return isNew("storage pool", name, err)
}

// isNew refuses the name of something that is there: reading it ended with err. A name of which
// the daemon can say nothing is not asked for again.
func isNew(what, name string, err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("The requested %s %q already exists. Please choose another name.", what, name)
	case errors.Is(err, api.NotFound):
		return nil
	}
	return unanswered{err}
}

// backends are the drivers that work on the server's machine.
func (d *dialogue) backends(remote bool) []string {
	var names []string
	for _, driver := range d.server.Environment.StorageSupportedDrivers {
		if driver.Remote == remote {
			names = append(names, driver.Name)
		}
	}
	slices.Sort(names)
	return names
}

// stateDir is the server's directory, which is on this machine.
func (d *dialogue) stateDir() string { return d.app.stateDir() }

func (a *app) stateDir() string { return client.StateDir(a.getenv) }

// bestBackend is what is offered first.
func (a *app) bestBackend(names []string) string {
	if kind, _ := a.disk(a.stateDir()); kind == "btrfs" && slices.Contains(names, "btrfs") {
		return "btrfs"
	}
	for _, name := range []string{"zfs", "btrfs", "dir"} {
		if slices.Contains(names, name) {
			return name
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// pool asks what a new pool is made of.
func (d *dialogue) pool(ctx context.Context, p *preseed, name string, remote bool) error {
	backends := d.backends(remote)
	if len(backends) == 0 {
		return refuse(api.DriverUnavailable, "No storage backends available")
	}
	driver := backends[0]
	if len(backends) > 1 {
		best := d.app.bestBackend(backends)
		question := fmt.Sprintf("Name of the storage backend to use (%s) [default=%s]: ", strings.Join(backends, ", "), best)
		var err error
		driver, err = d.text(ctx, question, best, func(text string) error {
			if !slices.Contains(backends, text) {
				return fmt.Errorf("%q is not one of %s", text, strings.Join(backends, ", "))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	config, err := d.poolConfig(ctx, name, driver)
	if err != nil {
		return err
	}
	p.StoragePools = append(p.StoragePools, api.StoragePoolsPost{Name: name, Driver: driver, StoragePoolPut: api.StoragePoolPut{Config: config}})
	return nil
}

func (d *dialogue) poolConfig(ctx context.Context, name, driver string) (api.ConfigMap, error) {
	config := api.ConfigMap{}
	place := filepath.Join(d.stateDir(), "storage-pools", name)
	if driver == "dir" {
		source, err := d.line(ctx, "Where should this storage pool store its data? [default="+place+"]: ")
		if source != "" && source != place {
			config["source"] = source
		}
		return config, err
	}
	if kind, _ := d.app.disk(d.stateDir()); driver == "btrfs" && kind == "btrfs" {
		yes, err := d.yesNo(ctx, "Would you like to create a new btrfs subvolume under "+d.stateDir()+"? (yes/no) [default=yes]: ", true)
		if err != nil || yes {
			config["source"] = place
			return config, err
		}
	}
	return config, d.poolSource(ctx, config, driver)
}

// poolSource asks for a device, a file or what is there.
func (d *dialogue) poolSource(ctx context.Context, config api.ConfigMap, driver string) error {
	upper := strings.ToUpper(driver)
	fresh, err := d.yesNo(ctx, "Create a new "+upper+" pool? (yes/no) [default=yes]: ", true)
	if err != nil {
		return err
	}
	if !fresh {
		config["source"], err = d.text(ctx, "Name of the existing "+upper+" pool or dataset: ", "", notEmpty)
		return err
	}
	device, err := d.yesNo(ctx, "Would you like to use an existing empty block device (e.g. a disk or partition)? (yes/no) [default=no]: ", false)
	if err != nil {
		return err
	}
	if device {
		config["source"], err = d.text(ctx, "Path to the existing block device: ", "", notEmpty)
		return err
	}
	_, free := d.app.disk(d.stateDir())
	fallback := min(max(free/5/gibibyte, 5), 30)
	question := fmt.Sprintf("Size in GiB of the new loop device (1GiB minimum) [default=%dGiB]: ", fallback)
	size, err := d.text(ctx, question, strconv.FormatUint(fallback, 10), checkGiB)
	config["size"] = strings.TrimSuffix(size, "GiB") + "GiB"
	return err
}

func notEmpty(text string) error {
	if text == "" {
		return errors.New("An answer is needed")
	}
	return nil
}

func checkGiB(text string) error {
	if n, err := strconv.ParseUint(strings.TrimSuffix(text, "GiB"), 10, 32); err != nil || n < 1 {
		return errors.New("The minimum size is 1GiB; give a whole number")
	}
	return nil
}

// network asks for a bridge, or for what takes its place, and returns the default profile's nic.
func (d *dialogue) network(ctx context.Context, p *preseed, clustered bool) (api.ConfigMap, error) {
	if !clustered {
		yes, err := d.yesNo(ctx, "Would you like to create a new local network bridge? (yes/no) [default=yes]: ", true)
		if err != nil {
			return nil, err
		}
		if yes {
			return d.bridge(ctx, p)
		}
	}
	yes, err := d.yesNo(ctx, "Would you like to configure Incus to use an existing bridge or host interface? (yes/no) [default=no]: ", false)
	if err != nil || !yes {
		return nil, err
	}
	var found *api.Network
	_, err = d.text(ctx, "Name of the existing bridge or host interface: ", "", func(name string) (err error) {
		if err := notEmpty(name); err != nil {
			return err
		}
		found, _, err = d.client.Network(ctx, name)
		if errors.Is(err, api.NotFound) {
			return errors.New("The requested interface doesn't exist. Please choose another one.")
		}
		if err != nil {
			return unanswered{err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return firstNIC(found), nil
}

// bridge asks for a new bridge.
func (d *dialogue) bridge(ctx context.Context, p *preseed) (api.ConfigMap, error) {
	name, err := d.text(ctx, "What should the new bridge be called? [default=incusbr0]: ", "incusbr0", func(name string) error {
		if err := checkBridgeName(name); err != nil {
			return err
		}
		_, _, err := d.client.Network(ctx, name)
		return isNew("network bridge", name, err)
	})
	if err != nil {
		return nil, err
	}
	config := api.ConfigMap{}
	for _, family := range []string{"4", "6"} {
		if err := d.subnet(ctx, config, family); err != nil {
			return nil, err
		}
	}
	p.Networks = append(p.Networks, preseedNetwork{NetworksPost: api.NetworksPost{Name: name, NetworkPut: api.NetworkPut{Config: config}}})
	return firstNIC(&api.Network{Name: name, Managed: true}), nil
}

// checkBridgeName refuses what the kernel would.
func checkBridgeName(name string) error {
	if len(name) < 2 || len(name) > 15 {
		return errors.New("The name of a bridge has 2 to 15 characters")
	}
	return api.ValidateName(name)
}

// subnet asks for a bridge's address of one family.
func (d *dialogue) subnet(ctx context.Context, config api.ConfigMap, family string) error {
	key := "ipv" + family
	question := "What IPv" + family + " address should be used? (CIDR subnet notation, “auto” or “none”) [default=auto]: "
	address, err := d.text(ctx, question, "auto", func(text string) error {
		if text == "auto" || text == "none" {
			return nil
		}
		ip, _, err := net.ParseCIDR(text)
		if err != nil || (ip.To4() != nil) != (family == "4") {
			return fmt.Errorf("%q is no IPv%s address with a prefix", text, family)
		}
		return nil
	})
	if err != nil {
		return err
	}
	config[key+".address"] = address
	if address == "auto" || address == "none" {
		return nil
	}
	nat, err := d.yesNo(ctx, "Would you like to NAT IPv"+family+" traffic on your bridge? [default=yes]: ", true)
	config[key+".nat"] = strconv.FormatBool(nat)
	return err
}

// listen asks whether the server shall be reached from elsewhere.
func (d *dialogue) listen(ctx context.Context, p *preseed) error {
	yes, err := d.yesNo(ctx, "Would you like the server to be available over the network? (yes/no) [default=no]: ", false)
	if err != nil || !yes {
		return err
	}
	host, err := d.text(ctx, "Address to bind to (not including port) [default=all]: ", "all", func(text string) error {
		if text != "all" && net.ParseIP(text) == nil {
			return fmt.Errorf("%q is no IP address", text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if host == "all" {
		host = "::"
	}
	var address string
	_, err = d.text(ctx, "Port to bind to [default=8443]: ", "8443", func(text string) error {
		if port, err := strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return fmt.Errorf("%q is no port", text)
		}
		address = net.JoinHostPort(host, text)
		if slices.Contains(d.server.Environment.Addresses, address) || d.server.Config["core.https_address"] == address {
			return nil // the server listens there itself
		}
		return d.app.canListen(address)
	})
	if err != nil {
		return err
	}
	p.set("core.https_address", address)
	return nil
}

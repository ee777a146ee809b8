package entities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// CreateProfile makes a profile in the project that owns those of project.
func (s *Service) CreateProfile(ctx context.Context, project string, post api.ProfilesPost, by *api.EventRequestor) error {
	if err := checkProfile(post.ProfilePut); err != nil {
		return err
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	_, err = s.decide(ctx, state.KindProfileCreate, state.ProfileCreate{
		Profile: profileRow(view.Owner(project, state.FeatureProfiles), post.Name, post.ProfilePut),
	}, by)
	return err
}

func profileRow(project, name string, put api.ProfilePut) state.Profile {
	row := state.Profile{Project: project, Name: name, Description: put.Description, Config: set(put.Config), Devices: map[string]map[string]string{}}
	for device, config := range put.Devices {
		row.Devices[device] = set(config)
	}
	return row
}

// set is a configuration without the keys that are unset.
func set(config map[string]string) map[string]string {
	out := maps.Clone(config)
	maps.DeleteFunc(out, func(_, value string) bool { return value == "" })
	return out
}

// UpdateProfile changes a profile; see UpdatePool.
func (s *Service) UpdateProfile(ctx context.Context, project, name string, change func(api.Profile) (api.ProfilePut, error), by *api.EventRequestor) error {
	return repeat(func() error {
		view, err := s.store.Read(ctx)
		if err != nil {
			return err
		}
		row, ok := view.Profile(view.Owner(project, state.FeatureProfiles), name)
		if !ok {
			return api.Errorf(api.NotFound, "Failed to retrieve profile %q: Profile not found", name)
		}
		put, err := change(profileOf(row))
		if err != nil {
			return err
		}
		if err := checkProfile(put); err != nil {
			return err
		}
		_, err = s.decide(ctx, state.KindProfileUpdate, state.ProfileUpdate{Profile: profileRow(row.Project, name, put), Expect: row.Hash()}, by)
		return basis(err)
	})
}

// RenameProfile gives a profile another name.
func (s *Service) RenameProfile(ctx context.Context, project, name, newName string, by *api.EventRequestor) error {
	owner, err := s.owner(ctx, project, state.FeatureProfiles)
	if err != nil {
		return err
	}
	_, err = s.decide(ctx, state.KindProfileRename, state.ProfileRename{Project: owner, Name: name, NewName: newName}, by)
	return err
}

// DeleteProfile removes a profile.
func (s *Service) DeleteProfile(ctx context.Context, project, name string, by *api.EventRequestor) error {
	owner, err := s.owner(ctx, project, state.FeatureProfiles)
	if err != nil {
		return err
	}
	_, err = s.decide(ctx, state.KindProfileDelete, state.ProfileDelete{Project: owner, Name: name}, by)
	return err
}

func (s *Service) owner(ctx context.Context, project, feature string) (string, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return "", err
	}
	return view.Owner(project, feature), nil
}

// deviceTypes are all that there are.
var deviceTypes = []string{
	"none", "nic", "disk", "unix-char", "unix-block", "usb", "gpu", "infiniband", "proxy", "unix-hotplug", "tpm", "pci",
}

// nicTypes are the values of nictype.
var nicTypes = []string{"bridged", "macvlan", "physical", "sriov", "ipvlan", "p2p", "routed", "ovn"}

// checkProfile checks what can be said of a profile without looking at others' rows.
func checkProfile(put api.ProfilePut) error {
	for _, key := range slices.Sorted(maps.Keys(put.Config)) {
		if err := checkInstanceKey(key); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(put.Devices)) {
		if err := api.ValidateName(name); err != nil {
			return api.Errorf(api.BadRequest, "Invalid device name %q: %v", name, err)
		}
		if err := checkDevice(put.Devices[name]); err != nil {
			return api.Errorf(api.BadRequest, "Device validation failed for %q: %v", name, err)
		}
	}
	return checkRootDisks(put.Devices)
}

// checkDevice has the rules of entities.md §3.
func checkDevice(device map[string]string) error {
	kind := device["type"]
	switch {
	case kind == "":
		return fmt.Errorf("Missing device type; one of %s", strings.Join(deviceTypes, ", "))
	case !slices.Contains(deviceTypes, kind):
		return fmt.Errorf("Invalid device type %q; one of %s", kind, strings.Join(deviceTypes, ", "))
	case kind == "nic":
		return checkNIC(device)
	case kind == "disk":
		return checkDisk(device)
	}
	return nil
}

func checkNIC(device map[string]string) error {
	switch nicType := device["nictype"]; {
	case device["network"] != "" && nicType != "":
		return fmt.Errorf(`Cannot use "nictype" property in conjunction with "network" property`)
	case device["network"] != "":
		return nil
	case nicType == "":
		return fmt.Errorf(`A nic needs "network", the name of a managed network, or "nictype"`)
	case !slices.Contains(nicTypes, nicType):
		return fmt.Errorf("Invalid nictype %q; one of %s", nicType, strings.Join(nicTypes, ", "))
	case device["parent"] == "" && slices.Contains([]string{"bridged", "macvlan", "physical", "sriov"}, nicType):
		return fmt.Errorf(`A nic of type %q needs "parent"`, nicType)
	}
	return nil
}

func checkDisk(device map[string]string) error {
	isRoot := device["path"] == "/"
	switch {
	case isRoot && device["source"] != "":
		return fmt.Errorf(`Root disk entry may not have a "source" property set`)
	case isRoot && device["pool"] == "":
		return fmt.Errorf(`Root disk entry must have a "pool" property set`)
	case !isRoot && device["source"] == "" && device["pool"] == "":
		return fmt.Errorf(`Disk entry is missing the required "source" or "path" property`)
	}
	return nil
}

func checkRootDisks(devices map[string]api.ConfigMap) error {
	roots := 0
	for _, device := range devices {
		if device["type"] == "disk" && device["path"] == "/" {
			roots++
		}
	}
	if roots > 1 {
		return api.Errorf(api.BadRequest, "Device validation failed: a profile can have one root disk, this one would have %d", roots)
	}
	return nil
}

// instanceKeys are the configuration keys of instances, or, ending with a dot, where they begin.
var instanceKeys = []string{
	"agent.nic_config", "boot.", "cloud-init.", "cluster.evacuate", "environment.", "limits.", "linux.", "migration.", "nvidia.",
	"oci.", "raw.", "security.", "smbios11.", "snapshots.", "systemd.", "ubuntu_pro.guest_attach", "user.",
}

// isAmong tells whether a key is one of known, or begins with one that ends with a dot.
func isAmong(known []string, key string) bool {
	return slices.ContainsFunc(known, func(k string) bool {
		return key == k || strings.HasSuffix(k, ".") && strings.HasPrefix(key, k) && len(key) > len(k)
	})
}

// checkInstanceKey refuses keys that no instance can have from a profile.
func checkInstanceKey(key string) error {
	switch {
	case strings.HasPrefix(key, "volatile."):
		return api.Errorf(api.ConfigInvalid, "Volatile keys can only be set on instances")
	case strings.HasPrefix(key, "image."):
		return api.Errorf(api.ConfigInvalid, "Image keys can only be set on instances")
	case isAmong(instanceKeys, key):
		return nil
	}
	return api.Errorf(api.ConfigInvalid, "Unknown configuration key: %s", key).
		WithHint("keys of your own begin with user.")
}

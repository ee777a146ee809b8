package entities

import (
	"context"
	"slices"
	"strings"

	"incusd/api"
	"incusd/internal/network"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// defaultNetworkType is what a network is that does not say.
const defaultNetworkType = "bridge"

// CreateNetwork makes a managed network, or does one of the two steps: with target, it defines the
// network for that member.
func (s *Service) CreateNetwork(ctx context.Context, project string, post api.NetworksPost, target string, by *api.EventRequestor) error {
	if post.Type == "" {
		post.Type = defaultNetworkType
	}
	config, err := s.networkConfig(post.Type, post.Name, post.Config)
	if err != nil {
		return err
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	owner := view.Owner(project, state.FeatureNetworks)
	if owner != api.DefaultProject {
		return api.Errorf(api.BadRequest, "Network type %q doesn't support being in a project other than %q", post.Type, api.DefaultProject).
			WithHint("make it in project %q, or give the project features.networks=false", api.DefaultProject)
	}
	if target == "" && isNew(view, owner, post.Name) {
		if config, err = s.machine.cfg.Network.FillIn(post.Type, config); err != nil {
			return err
		}
	}
	return s.create(ctx, view, state.Entity{
		Kind: state.EntityNetwork, Project: owner, Name: post.Name, Type: post.Type, Description: post.Description, Config: config,
	}, target, by)
}

// networkConfig checks the type, the name and the configuration of a network.
func (s *Service) networkConfig(kind, name string, config map[string]string) (map[string]string, error) {
	if err := network.ValidateName(kind, name); err != nil {
		return nil, err
	}
	return network.Validate(kind, name, config)
}

// OfTheMachine tells whether a key of a network reaches past it into the machine: what each member has
// of its own, such as the interfaces that it gives away, and what a program is told in its own words.
func OfTheMachine(key string) bool {
	return network.MemberSpecific("", key) || strings.HasPrefix(key, "raw.")
}

// isNew tells whether a network is not made yet, so that its addresses may be chosen.
func isNew(view *raftstore.View, project, name string) bool {
	row, ok := view.Network(project, name)
	return !ok || !row.Made || row.Deleting
}

// UpdateNetwork changes a network; see UpdatePool.
func (s *Service) UpdateNetwork(ctx context.Context, project, name, target string, change func(api.Network) (api.NetworkPut, error), by *api.EventRequestor) error {
	return repeat(func() error {
		view, err := s.store.Read(ctx)
		if err != nil {
			return err
		}
		now, err := Network(view, project, name, target)
		if err != nil {
			return err
		}
		row, _ := view.Network(now.Project, name)
		put, err := change(*now)
		if err != nil {
			return err
		}
		config, err := s.networkConfig(row.Type, row.Name, put.Config)
		if err != nil {
			return err
		}
		if target == "" && row.Made {
			if config, err = s.refill(row, config); err != nil {
				return err
			}
		}
		return s.update(ctx, row, view, target, put.Description, config, by)
	})
}

// refill chooses the addresses that a change sets to "auto"; one that is left out is none.
func (s *Service) refill(row *state.Entity, config map[string]string) (map[string]string, error) {
	auto := false
	asked := merged(config, nil)
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if asked[key] == "auto" {
			auto = true
		} else if asked[key] == "" {
			asked[key] = "none"
		}
	}
	if !auto {
		return config, nil
	}
	return s.machine.cfg.Network.FillIn(row.Type, asked)
}

// RenameNetwork gives a network another name.
func (s *Service) RenameNetwork(ctx context.Context, project, name, newName string, by *api.EventRequestor) error {
	row, err := s.network(ctx, project, name)
	if err != nil {
		return err
	}
	if err := network.ValidateName(row.Type, newName); err != nil {
		return err
	}
	return s.rename(ctx, row, newName, by)
}

// DeleteNetwork removes a network that nothing uses.
func (s *Service) DeleteNetwork(ctx context.Context, project, name string, by *api.EventRequestor) error {
	row, err := s.network(ctx, project, name)
	if err != nil {
		return err
	}
	return s.remove(ctx, row, by)
}

func (s *Service) network(ctx context.Context, project, name string) (*state.Entity, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	return networkRow(view, project, name)
}

// Interfaces lists this member's interfaces that are no managed networks, by name.
func (s *Service) Interfaces(context.Context) ([]api.Network, error) {
	all, err := s.machine.cfg.Network.Interfaces()
	if err != nil {
		return nil, err
	}
	managed := map[string]bool{}
	for _, e := range s.store.Local().Entities(state.EntityNetwork) {
		managed[e.Name] = e.Type == defaultNetworkType
	}
	return slices.DeleteFunc(all, func(n api.Network) bool { return managed[n.Name] }), nil
}

// NetworkState tells what an interface is doing on this member.
func (s *Service) NetworkState(_ context.Context, name string) (*api.NetworkState, error) {
	row, ok := s.store.Local().Network(api.DefaultProject, name)
	if ok && row.Type != defaultNetworkType {
		if parent := row.Members[s.store.ID()].Config["parent"]; parent != "" {
			name = parent
		}
	}
	return s.machine.cfg.Network.State(name)
}

// NetworkLeases lists the addresses that a network has given on this member.
func (s *Service) NetworkLeases(_ context.Context, project, name string) ([]api.NetworkLease, error) {
	view := s.store.Local()
	row, err := networkRow(view, project, name)
	if err != nil {
		return nil, err
	}
	note, err := s.here(row)
	if err != nil {
		return nil, err
	}
	leases, err := s.machine.cfg.Network.Leases(networkFrom(note))
	if err != nil {
		return nil, err
	}
	where := state.Standalone
	if m, ok := view.Member(s.store.ID()); ok {
		where = m.Name
	}
	for i := range leases {
		leases[i].Location, leases[i].Project = where, row.Project
	}
	return leases, nil
}

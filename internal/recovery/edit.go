package recovery

import (
	"fmt"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/localstore"
	"incusd/internal/raftstore/state"
)

// CheckEdit tells why what an administrator made of the list of members cannot be done; nil if it
// can. Its texts are those of the protocol (cli.md §8).
func CheckEdit(old, edited []api.ClusterDatabaseMember) error {
	switch {
	case len(edited) == 0:
		return invalid("Removing cluster members is not supported").
			WithHint("no member was given: give the list of incusd cluster show, with other addresses, on standard input or in the editor")
	case len(edited) < len(old):
		return invalid("Removing cluster members is not supported").
			WithHint("give all members that incusd cluster show lists; one is removed with incus cluster remove, while the cluster runs")
	case len(edited) > len(old):
		return invalid("Adding cluster members is not supported")
	}
	voters, roles := 0, false
	for i, was := range old {
		is := edited[i]
		switch {
		case is.ID != was.ID:
			return invalid("Changing cluster member ID is not supported")
		case is.Name != was.Name:
			return invalid("Changing cluster member name is not supported")
		case is.Role != state.RoleVoter && is.Role != state.RoleStandby && is.Role != state.RoleSpare:
			return invalid("unknown raft role: %q", is.Role)
		case was.Role == state.RoleSpare && is.Role == state.RoleVoter:
			return invalid("A %q cluster member cannot become a %q", state.RoleSpare, state.RoleVoter)
		}
		if is.Role == state.RoleVoter {
			voters++
		}
		roles = roles || is.Role != was.Role
	}
	const never = "roles cannot be edited at all; if most of the voters will not come back, run on the member with the freshest copy: incusd cluster recover-from-quorum-loss"
	switch {
	case !roles:
		return checkAddresses(edited)
	case voters == 0:
		return invalid("At least one member must be a %q", state.RoleVoter).WithHint(never)
	case voters < 2 && len(edited) > 2:
		return invalid("Number of %q must be 2 or more", state.RoleVoter).WithHint(never)
	}
	return invalid("Roles cannot be edited: the members give them to each other as soon as a majority of voters runs").WithHint(never)
}

func checkAddresses(edited []api.ClusterDatabaseMember) error {
	owner := make(map[string]string, len(edited))
	for i, m := range edited {
		var err error
		if edited[i].Address, err = checkAddress(m.Name, m.Address); err != nil {
			return err
		}
		if other, taken := owner[edited[i].Address]; taken {
			return api.Errorf(api.AddressTaken, "Members %q and %q have the same address %s", other, m.Name, edited[i].Address)
		}
		owner[edited[i].Address] = m.Name
	}
	return nil
}

// checkCircle refuses to give members each other's addresses: each tells the cluster its own, which
// takes it once nobody has it any more. edited has the members in the same order.
func checkCircle(members []*state.Member, edited []api.ClusterDatabaseMember) error {
	owner := make(map[string]int, len(members))
	for i, m := range members {
		owner[m.Address] = i
	}
	for i, m := range members {
		var circle []string
		at, ok := i, edited[i].Address != m.Address
		for ok && len(circle) < len(members) {
			circle = append(circle, members[at].Name)
			if edited[at].Address == m.Address {
				return api.Errorf(api.AddressTaken, "Members %s exchange their addresses: none can take its own before another has moved away", list(circle)).
					WithHint("write another port for %s; when the cluster runs, on %s: incus admin cluster set-address %s", m.Name, m.Name, edited[i].Address)
			}
			at, ok = owner[edited[at].Address]
		}
	}
	return nil
}

// checkAddress makes a member's address canonical.
func checkAddress(name, address string) (string, error) {
	if address == "" || config.IsWildcard(address) {
		return "", api.Errorf(api.AddressInvalid, "Member %q needs an address that others can reach, not %q", name, address)
	}
	address = config.CanonicalAddress(address, config.DefaultPort)
	if err := config.ValidateListenAddress(address, config.AddressOptions{AllowDNS: true}); err != nil {
		return "", api.Errorf(api.AddressInvalid, "Member %q: %v", name, err)
	}
	return address, nil
}

func invalid(format string, args ...any) *api.Error {
	return api.Errorf(api.BadRequest, format, args...)
}

// Edit notes other addresses of members, and this server's own in its configuration. They count
// from the daemon's next start on: each member reaches the others there, and tells the cluster its
// own. Every member must be given the same list.
func (s *Server) Edit(edited []api.ClusterDatabaseMember) error {
	view := s.copy.Tables.View()
	if !view.Cluster().Enabled {
		return api.Errorf(api.NotClustered, "Can't edit cluster configuration as server isn't clustered (missing \"cluster.https_address\" config)")
	}
	if err := CheckEdit(s.Database().Members, edited); err != nil {
		return err
	}
	if err := checkCircle(view.Members(), edited); err != nil {
		return err
	}
	moved := make(map[string]localstore.Move)
	set := make(map[string]string)
	for i, m := range view.Members() {
		if m.ID == s.replica.ID {
			set = config.MovedAddresses(s.local.Config(), m.Address, edited[i].Address)
		}
		if edited[i].Address != m.Address {
			moved[m.ID] = localstore.Move{From: m.Address, To: edited[i].Address}
		}
	}
	if err := s.local.SetMoved(moved, set); err != nil {
		return fmt.Errorf("note the addresses: %w", err)
	}
	return nil
}

// SetAddress notes another address of this member alone. It tells the cluster at the daemon's
// next start, which the others must be able to reach there.
func (s *Server) SetAddress(address string) error {
	view := s.copy.Tables.View()
	m, ok := view.Member(s.replica.ID)
	if !ok || !view.Cluster().Enabled {
		return notClustered()
	}
	address, err := checkAddress(m.Name, address)
	if err != nil {
		return err
	}
	if err := s.local.SetConfig(config.MovedAddresses(s.local.Config(), m.Address, address)); err != nil {
		return fmt.Errorf("note the address: %w", err)
	}
	return nil
}

package api

import (
	"context"
	"maps"
	"net"
	"os"
	"strings"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// unclusteredName is a server's name as a member while it is none.
	unclusteredName = "none"
	// defaultName is the name of the built-in project, profile and group.
	defaultName = "default"
)

// read is a linearizable view, or 503 within readTimeout.
func (s *Server) read(ctx context.Context) (*raftstore.View, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return s.cfg.Store.Read(ctx)
}

// self is this server's own row.
func (s *Server) self(view *raftstore.View) (*state.Member, bool) {
	return view.Member(s.cfg.Store.ID())
}

// rootGet lists the versions of the API: GET /.
func (s *Server) rootGet(*call) (reply, error) {
	return reply{metadata: []string{"/" + api.APIVersion}}, nil
}

// serverGet shows the server: GET /1.0. Strangers and joiners have faces of their own,
// without configuration. It is answered from stale data too.
func (s *Server) serverGet(c *call) (reply, error) {
	switch c.caller.kind {
	case Stranger, Metrics:
		return reply{metadata: s.publicFace()}, nil
	case Joiner:
		return s.joinerFace(c)
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	settings := s.cfg.Settings.Effective(view)
	face := api.Server{
		ServerUntrusted: trustedFace(),
		AuthUserName:    c.caller.username,
		AuthUserMethod:  c.caller.protocol,
		Environment:     s.environment(view, settings, c.param("project")),
	}
	shown := config.Visible(settings)
	if !c.caller.admin() {
		return ok(view, face), nil // without ETag: it would tell when the configuration is as guessed
	}
	face.Config = shown
	return ok(view, face).tag(shown), nil
}

// publicFace is GET /1.0 for strangers: enough to know what to ask for, no more.
func (s *Server) publicFace() api.ServerUntrusted {
	face := api.ServerUntrusted{
		APIStatus: "stable", APIVersion: api.APIVersion, Auth: "untrusted", AuthMethods: []string{"tls"},
	}
	if view := s.cfg.Store.Local(); view != nil {
		face.Config = config.Visible(s.cfg.Settings.Effective(view))
		maps.DeleteFunc(face.Config, func(key, _ string) bool { return !strings.HasPrefix(key, "user.ui.") })
	}
	return face
}

func trustedFace() api.ServerUntrusted {
	return api.ServerUntrusted{
		APIExtensions: api.Extensions(), APIStatus: "stable", APIVersion: api.APIVersion, Auth: "trusted", AuthMethods: []string{"tls"},
	}
}

// joinerFace is GET /1.0 for a server whose token was redeemed: what makes an upstream
// client go on with the join, and nothing about this server but its name.
func (s *Server) joinerFace(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	name, clustered := s.name(view)
	return ok(view, api.Server{
		ServerUntrusted: trustedFace(),
		AuthUserName:    c.caller.username,
		AuthUserMethod:  c.caller.protocol,
		Environment: api.ServerEnvironment{
			Addresses: []string{}, Architectures: []string{}, KernelFeatures: map[string]string{}, LXCFeatures: map[string]string{},
			Project: defaultName, Server: "incus", ServerClustered: clustered, ServerName: name, ServerVersion: api.Version,
			StorageSupportedDrivers: []api.StorageDriverInfo{},
		},
	}), nil
}

// name is the member's name in a cluster, and the host's while there is none.
func (s *Server) name(view *raftstore.View) (name string, clustered bool) {
	if m, ok := s.self(view); ok && view.Cluster().Enabled {
		return m.Name, true
	}
	return s.cfg.Facts.Hostname, false
}

// environment is what the server is and runs on.
func (s *Server) environment(view *raftstore.View, settings map[string]string, project string) api.ServerEnvironment {
	name, clustered := s.name(view)
	pem, fingerprint := s.cfg.Certificate()
	if project == "" {
		project = defaultName
	}
	facts := &s.cfg.Facts
	drivers := s.cfg.StorageDrivers()
	storage, versions := storageInUse(view, drivers)
	return api.ServerEnvironment{
		Addresses:     expand(config.Get(settings, "core.https_address")),
		Architectures: facts.Architectures,
		Certificate:   pem, CertificateFingerprint: fingerprint,
		Driver: facts.Driver, DriverVersion: facts.DriverVersion, Firewall: facts.Firewall,
		Kernel: facts.Kernel, KernelArchitecture: facts.KernelArchitecture, KernelFeatures: map[string]string{},
		KernelVersion: facts.KernelVersion, LXCFeatures: map[string]string{},
		OSName: facts.OSName, OSVersion: facts.OSVersion,
		Project: project, Server: "incus", ServerClustered: clustered, ServerEventMode: "full-mesh",
		ServerName: name, ServerPid: os.Getpid(), ServerVersion: api.Version,
		Storage: storage, StorageVersion: versions, StorageSupportedDrivers: drivers,
	}
}

// storageInUse joins the drivers of the pools, and their versions, as the protocol does.
func storageInUse(view *raftstore.View, supported []api.StorageDriverInfo) (names, versions string) {
	used := map[string]bool{}
	for _, pool := range view.Entities(state.EntityPool) {
		used[pool.Type] = true
	}
	var inUse, theirs []string
	for _, d := range supported {
		if used[d.Name] {
			inUse, theirs = append(inUse, d.Name), append(theirs, d.Version)
		}
	}
	return strings.Join(inUse, " | "), strings.Join(theirs, " | ")
}

// expand gives the addresses under which a listen address is reached: itself, or for
// a wildcard those of all interfaces that lead somewhere.
func expand(listen string) []string {
	addresses := []string{}
	if listen == "" {
		return addresses
	}
	canonical := config.CanonicalAddress(listen, config.DefaultPort)
	if !config.IsWildcard(canonical) {
		return append(addresses, canonical)
	}
	host, port, err := net.SplitHostPort(canonical)
	if err != nil {
		return addresses
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return addresses
	}
	for _, a := range interfaces {
		network, ok := a.(*net.IPNet)
		if !ok || !network.IP.IsGlobalUnicast() || host == "0.0.0.0" && network.IP.To4() == nil {
			continue // 0.0.0.0 listens to IPv4 only
		}
		addresses = append(addresses, net.JoinHostPort(network.IP.String(), port))
	}
	return addresses
}

// serverPut replaces the configuration: PUT /1.0. Keys that are left out go back to
// their defaults, those of this member too.
func (s *Server) serverPut(c *call) (reply, error) {
	req, err := decode[api.ServerPut](c)
	if err != nil {
		return reply{}, err
	}
	return s.configure(c, req.Config, true)
}

// serverPatch changes some keys: PATCH /1.0.
func (s *Server) serverPatch(c *call) (reply, error) {
	req, err := decode[api.ServerPut](c)
	if err != nil {
		return reply{}, err
	}
	if len(req.Config) == 0 {
		return empty, nil
	}
	return s.configure(c, req.Config, false)
}

func (s *Server) configure(c *call, set map[string]string, replace bool) (reply, error) {
	if err := await(c.Context(), s.cfg.Daemon.Ready(), "Daemon not ready yet"); err != nil {
		return reply{}, err
	}
	var match func(map[string]string) error // none: concurrent changes do not refuse each other
	if c.givenETag() != "" {
		match = func(current map[string]string) error { return c.ifMatch(config.Visible(current)) }
	}
	return empty, s.cfg.Settings.Update(c.Context(), set, replace, match, c.caller.requestor())
}

package api

import (
	"context"
	"errors"
	"strings"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/entities"
	"incusd/internal/operations"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// clusterGet tells whether there is a cluster: GET /1.0/cluster. Clients ask it before
// every other call about the cluster, so it is answered from stale data too.
func (s *Server) clusterGet(c *call) (reply, error) {
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return reply{}, err
	}
	cluster := api.Cluster{MemberConfig: entities.MemberConfig(view, s.cfg.Store.ID())}
	if c.caller.kind == RestrictedClient {
		cluster.MemberConfig = []api.ClusterMemberConfigKey{} // names of networks; they are asked for by who joins
	}
	if m, ok := s.self(view); ok && view.Cluster().Enabled {
		cluster.ServerName, cluster.Enabled = m.Name, true
	}
	return ok(view, cluster).tag(cluster), nil
}

// clusterPut bootstraps a cluster, joins or leaves one: PUT /1.0/cluster. What can be known
// to fail is refused at once; the rest is an operation.
func (s *Server) clusterPut(c *call) (reply, error) {
	req, err := decode[api.ClusterPut](c)
	if err != nil {
		return reply{}, err
	}
	if !req.Enabled {
		return s.leave(c, &req)
	}
	joins := req.ClusterAddress != "" || req.ClusterToken != ""
	if err := checkName(&req); err != nil {
		return reply{}, err
	}
	if s.isMember() {
		if _, err := s.read(c.Context()); errors.Is(err, api.MemberRemoved) {
			return reply{}, err
		}
		return reply{}, api.Errorf(api.AlreadyClustered, "This server is already clustered")
	}
	if joins {
		return s.join(req)
	}
	return s.bootstrap(c, req.ServerName)
}

// leave makes this server a standalone one. The last member keeps what it has; any other is
// removed from its cluster first.
func (s *Server) leave(c *call, req *api.ClusterPut) (reply, error) {
	if req.ServerName != "" {
		return reply{}, api.Errorf(api.BadRequest, "ServerName must be empty when disabling clustering")
	}
	return empty, s.cfg.Members.Leave(c.Context(), c.caller.requestor())
}

// checkName finds the name under which this server becomes a member; a token brings
// one along. It is written into URLs and certificates, so all its characters count.
func checkName(req *api.ClusterPut) error {
	if req.ClusterToken != "" {
		token, err := api.ParseJoinToken(req.ClusterToken)
		if err != nil {
			return err
		}
		if req.ServerName == "" {
			req.ServerName = token.ServerName
		}
		if req.ServerName != token.ServerName {
			return api.Errorf(api.TokenWrongName, "Join token is for the member name %q, not for %q", token.ServerName, req.ServerName)
		}
	}
	switch {
	case req.ServerName == "":
		return api.Errorf(api.BadRequest, "ServerName is required when enabling clustering")
	case strings.HasPrefix(req.ServerName, "@"):
		return api.Errorf(api.NameInvalid, `ServerName may not start with "@"`)
	}
	return api.ValidateMemberName(req.ServerName)
}

// isMember tells whether this server is a full member of a cluster. A join that was
// not finished leaves it none: the same request goes on with it.
func (s *Server) isMember() bool {
	view := s.cfg.Store.Local()
	m, ok := s.self(view)
	return ok && m.State == state.MemberActive && view.Cluster().Enabled
}

// bootstrap makes this server the first of a new cluster.
func (s *Server) bootstrap(c *call, name string) (reply, error) {
	if err := checkBootstrapAddress(s.settings()); err != nil {
		return reply{}, err
	}
	requestor := c.caller.requestor()
	return s.form("Creating bootstrap node", "bootstrap_progress", func(ctx context.Context, op *operations.Op, progress func(string)) error {
		if err := s.cfg.Bootstrap(ctx, name, requestor, progress); err != nil {
			return err
		}
		pem, _ := s.cfg.Certificate()
		op.SetMetadata(map[string]any{"certificate": pem})
		return nil
	})
}

// checkBootstrapAddress looks for the address under which others will reach this server.
func checkBootstrapAddress(settings map[string]string) error {
	if config.Get(settings, "cluster.https_address") != "" {
		return nil
	}
	address := config.Get(settings, "core.https_address")
	if address == "" {
		return api.Errorf(api.NoAddress, "No cluster.https_address config is set on this member")
	}
	if config.IsWildcard(address) {
		return api.Errorf(api.AddressInvalid, "Cannot use wildcard core.https_address %q for cluster.https_address. "+
			"Please specify a new cluster.https_address or core.https_address", address)
	}
	return nil
}

// join makes this server a member of another's cluster.
func (s *Server) join(req api.ClusterPut) (reply, error) {
	if err := checkJoin(s.settings(), &req); err != nil {
		return reply{}, err
	}
	return s.form("Joining cluster", "join_progress", func(ctx context.Context, _ *operations.Op, progress func(string)) error {
		return s.cfg.Join(ctx, req, progress)
	})
}

// checkJoin finds what is wrong with a request to join, as far as this server alone
// can tell (cluster-api.md §2b).
func checkJoin(settings map[string]string, req *api.ClusterPut) error {
	if req.ClusterCertificate == "" && req.ClusterToken == "" {
		return api.Errorf(api.BadRequest, "No target cluster member certificate provided")
	}
	if req.ClusterCertificate != "" {
		if _, err := trust.ParseCertificate(req.ClusterCertificate); err != nil {
			return err
		}
	}
	if req.ServerAddress == "" {
		return api.Errorf(api.BadRequest, "No server address provided for this member")
	}
	address := config.CanonicalAddress(req.ServerAddress, config.DefaultPort)
	if err := config.ValidateListenAddress(address, config.AddressOptions{AllowDNS: true}); err != nil {
		return api.Errorf(api.AddressInvalid, "Invalid server address %q: %v", req.ServerAddress, err)
	}
	if listen := config.Get(settings, "cluster.https_address"); listen != "" && !config.Covers(listen, address) {
		return api.Errorf(api.AddressInvalid, "Server address %q is not covered by %q from %q", req.ServerAddress, listen, "cluster.https_address").
			WithHint("join with an address that it covers, or change it first: incus config set cluster.https_address=%s", address)
	}
	return nil
}

// settings is the configuration as this member alone knows it.
func (s *Server) settings() map[string]string {
	return s.cfg.Settings.Effective(s.cfg.Store.Local())
}

// form runs the one operation by which this server may become a member. What it does
// stands in its metadata under key, where clients look for progress.
func (s *Server) form(description, key string, work func(context.Context, *operations.Op, func(string)) error) (reply, error) {
	if !s.forming.CompareAndSwap(false, true) {
		return reply{}, api.Errorf(api.JoinRunning, "Another bootstrap or join is running on this server")
	}
	op, err := s.cfg.Operations.Run(description, map[string][]string{"cluster": nil}, false, func(ctx context.Context, op *operations.Op) error {
		defer s.forming.Store(false)
		return work(ctx, op, func(text string) { op.SetMetadata(map[string]any{key: text}) })
	})
	if err != nil {
		s.forming.Store(false)
		return reply{}, err
	}
	return accepted(op.API()), nil
}

// clustered is the view that calls about members work with; they make no sense
// without a cluster.
func clustered(view *raftstore.View, err error) (*raftstore.View, error) {
	if err != nil {
		return nil, err
	}
	if !view.Cluster().Enabled {
		return nil, api.Errorf(api.NotClustered, "This server is not clustered")
	}
	return view, nil
}

// unlessStale is missing, or, where nobody can know at present, that there is no quorum:
// who is told that something does not exist acts on it.
func unlessStale(view *raftstore.View, missing *api.Error) error {
	if view.Stale == nil {
		return missing
	}
	return api.Errorf(api.NoQuorum, "No quorum: this member does not know whether it exists (%s)", missing.Message)
}

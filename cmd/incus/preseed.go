package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"incusd/api"
	"incusd/client"
)

// A preseed says what "incus admin init" shall make of the server.
type preseed struct {
	Config         api.ConfigMap           `yaml:"config,omitempty"`
	StoragePools   []api.StoragePoolsPost  `yaml:"storage_pools,omitempty"`
	StorageVolumes []preseedVolume         `yaml:"storage_volumes,omitempty"`
	Networks       []preseedNetwork        `yaml:"networks,omitempty"`
	Profiles       []preseedProfile        `yaml:"profiles,omitempty"`
	Projects       []api.ProjectsPost      `yaml:"projects,omitempty"`
	ClusterGroups  []api.ClusterGroupsPost `yaml:"cluster_groups,omitempty"`
	Certificates   []api.CertificatesPost  `yaml:"certificates,omitempty"`
	Cluster        *preseedCluster         `yaml:"cluster,omitempty"`

	// token is the decoded join token, if there is one.
	token *api.ClusterMemberJoinToken
}

// preseedVolume is a volume of the section storage_volumes.
type preseedVolume struct {
	api.StorageVolumesPost `yaml:",inline"`
	Pool                   string `yaml:"pool"`
	Project                string `yaml:"project,omitempty"`
}

// preseedNetwork is a network of the section networks.
type preseedNetwork struct {
	api.NetworksPost `yaml:",inline"`
	Project          string `yaml:"project,omitempty"`
}

// preseedProfile is a profile of the section profiles.
type preseedProfile struct {
	api.ProfilesPost `yaml:",inline"`
	Project          string `yaml:"project,omitempty"`
}

// preseedCluster is the section cluster.
type preseedCluster struct {
	api.ClusterPut `yaml:",inline"`
}

// joins tells whether the server is to join an existing cluster.
func (p *preseed) joins() bool {
	return p.Cluster != nil && (p.Cluster.ClusterToken != "" || p.Cluster.ClusterAddress != "")
}

// sections lists the sections besides cluster that have something in them.
func (p *preseed) sections() []string {
	var names []string
	for _, section := range []struct {
		name    string
		entries int
	}{
		{"config", len(p.Config)}, {"storage_pools", len(p.StoragePools)}, {"storage_volumes", len(p.StorageVolumes)},
		{"networks", len(p.Networks)}, {"profiles", len(p.Profiles)}, {"projects", len(p.Projects)}, {"cluster_groups", len(p.ClusterGroups)},
		{"certificates", len(p.Certificates)},
	} {
		if section.entries > 0 {
			names = append(names, section.name)
		}
	}
	return names
}

// enables tells whether the server is to become the first member of a cluster.
func (p *preseed) enables() bool {
	return p.Cluster != nil && p.Cluster.Enabled && !p.joins()
}

// configFor is the configuration to write on a server that is clustered already or
// not. A first member is reached by the others at the address that it listens on,
// unless another one is given; a member's address stays as it is.
func (p *preseed) configFor(clustered bool) api.ConfigMap {
	config := maps.Clone(p.Config)
	address, isSet := config["cluster.https_address"]
	if p.enables() && !clustered && (!isSet || address == "") && config["core.https_address"] != "" {
		config["cluster.https_address"] = config["core.https_address"]
	}
	return config
}

// parsePreseed reads and checks a preseed. What it refuses it names, and nothing
// has been touched then.
func parsePreseed(data []byte) (*preseed, error) {
	p, err := decodeStrict[preseed](data)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "Failed to parse the preseed: %v", suggested(err)).
			WithHint("correct the file; keys are listed in docs/form-a-cluster.md")
	}
	if err := p.checkSections(); err != nil {
		return nil, err
	}
	if p.Cluster == nil {
		return &p, nil
	}
	return &p, p.checkCluster()
}

// checkSections refuses entries without a name, and certificates that are none.
func (p *preseed) checkSections() error {
	nameless := func(section, name string) error {
		if name == "" {
			return api.Errorf(api.BadRequest, "%s: an entry has no name; nothing was changed", section)
		}
		return nil
	}
	var errs []error
	for _, pool := range p.StoragePools {
		errs = append(errs, nameless("storage_pools", pool.Name))
	}
	for _, v := range p.StorageVolumes {
		errs = append(errs, nameless("storage_volumes", v.Name), nameless("storage_volumes, key pool", v.Pool))
	}
	for _, n := range p.Networks {
		errs = append(errs, nameless("networks", n.Name))
	}
	for _, profile := range p.Profiles {
		errs = append(errs, nameless("profiles", profile.Name))
	}
	for _, project := range p.Projects {
		errs = append(errs, nameless("projects", project.Name))
	}
	for _, g := range p.ClusterGroups {
		errs = append(errs, nameless("cluster_groups", g.Name))
	}
	for _, c := range p.Certificates {
		errs = append(errs, checkCertificateEntry(c))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkCertificateEntry refuses an entry of the section certificates that adds no client: a preseed
// has nowhere to print a token, and no connection to redeem one.
func checkCertificateEntry(c api.CertificatesPost) error {
	refused := func(format string, args ...any) error {
		return api.Errorf(api.CertInvalid, "certificates: "+format+"; nothing was changed", args...).
			WithHint("give name, type (client or metrics) and certificate: what incus remote get-client-certificate prints on the client")
	}
	switch {
	case c.Token || c.TrustToken != "" || c.Password != "":
		return refused("the entry %q is about a token", c.Name)
	case c.Type != api.CertificateClient && c.Type != api.CertificateMetrics:
		return refused("the entry %q has type %q", c.Name, c.Type)
	}
	if _, err := certificateMaterial(c.Certificate); err != nil {
		return refused("the entry %q: %v", c.Name, err)
	}
	return nil
}

// certificateMaterial reads a certificate as requests may have it: PEM, or the base64 of its DER.
func certificateMaterial(text string) (*x509.Certificate, error) {
	if der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err == nil {
		return x509.ParseCertificate(der)
	}
	return parseCertificate(text)
}

// fingerprintOf is that of a certificate that was checked.
func fingerprintOf(c api.CertificatesPost) string {
	cert, err := certificateMaterial(c.Certificate)
	if err != nil {
		return quoted(c.Name)
	}
	return client.Fingerprint(cert)
}

// checkCluster checks the section cluster as far as that needs no server.
func (p *preseed) checkCluster() error {
	c := p.Cluster
	switch {
	case p.joins():
		return p.checkJoin()
	case !c.Enabled && c.ServerName != "":
		return api.Errorf(api.BadRequest, "cluster: server_name %q is given, but enabled is not true", c.ServerName)
	case !c.Enabled:
		return nil
	case c.ServerAddress != "" || c.ClusterCertificate != "" || c.ClusterCertificatePath != "":
		return api.Errorf(api.BadRequest, "cluster: there is neither cluster_token nor cluster_address, but other keys of a join").
			WithHint("to join, add the token from incus cluster add NAME; to bootstrap, leave those keys out")
	case c.ClusterPassword != "":
		return api.Errorf(api.BadRequest, "cluster: cluster_password is given without cluster_address and cluster_certificate, which say of which cluster it is")
	case c.ServerName == "":
		return api.Errorf(api.BadRequest, "ServerName is required when enabling clustering").WithHint("add server_name to the section cluster")
	}
	if err := api.ValidateMemberName(c.ServerName); err != nil {
		return explained(err)
	}
	return nil
}

// checkJoin checks the keys of a join, reads the certificate file and the token.
func (p *preseed) checkJoin() error {
	c := p.Cluster
	switch {
	case !c.Enabled:
		return api.Errorf(api.BadRequest, "cluster: a join needs enabled: true")
	case c.ClusterPassword != "" && c.ClusterToken != "":
		return api.Errorf(api.BadRequest, "cluster: give cluster_token or cluster_password, not both")
	case c.ClusterPassword != "" && c.ServerName == "":
		return api.Errorf(api.BadRequest, "cluster: a join with cluster_password needs server_name, the name under which this server joins")
	case c.ServerAddress == "":
		return api.Errorf(api.AddressInvalid, "cluster: a join needs server_address, the address under which members reach this server")
	}
	if c.ClusterCertificatePath != "" {
		data, err := os.ReadFile(c.ClusterCertificatePath)
		if err != nil {
			return fmt.Errorf("cluster_certificate_path: %w", err)
		}
		c.ClusterCertificate = string(data)
	}
	if c.ClusterToken != "" {
		token, err := api.ParseJoinToken(c.ClusterToken)
		if err != nil {
			return explained(err)
		}
		p.token = token
		c.ClusterToken = strings.Join(strings.Fields(c.ClusterToken), "")
	}
	return p.checkCertificate()
}

// checkCertificate checks the certificate that the cluster must show: without a
// token there must be one, and with a token it must be the token's.
func (p *preseed) checkCertificate() error {
	c := p.Cluster
	if c.ClusterCertificate == "" {
		if p.token == nil {
			return api.Errorf(api.BadRequest, "cluster: a join needs cluster_token, or cluster_address and cluster_certificate").
				WithHint("issue a token on a member: incus cluster add NAME")
		}
		return nil
	}
	if c.ClusterAddress == "" {
		return api.Errorf(api.BadRequest, "cluster: cluster_certificate is given without cluster_address")
	}
	block, _ := pem.Decode([]byte(c.ClusterCertificate))
	if block == nil {
		return refuse(api.CertInvalid, "cluster_certificate: not PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return refuse(api.CertInvalid, "cluster_certificate: %v", err)
	}
	if p.token != nil && !strings.EqualFold(client.Fingerprint(certificate), p.token.Fingerprint) {
		return refuse(api.FingerprintMatch, "cluster_certificate is not the certificate that the token names")
	}
	return nil
}

// specificKeys are the keys that each member has for itself, by kind of entity.
var specificKeys = map[string][]string{
	"storage-pool": {
		"source", "source.wipe", "volatile.initial_source", "zfs.pool_name", "lvm.thinpool_name", "lvm.vg_name",
		"lvm.vg.force_reuse", "size",
	},
	"network": {"parent", "bridge.external_interfaces", "bgp.ipv4.nexthop", "bgp.ipv6.nexthop"},
}

// memberSpecific leaves out, with a warning, the keys that are the cluster's own.
// Files in the wild have them: the documentation's example sets a pool's driver.
func (a *app) memberSpecific(keys []api.ClusterMemberConfigKey) []api.ClusterMemberConfigKey {
	var specific []api.ClusterMemberConfigKey
	for _, k := range keys {
		isTunnel := k.Entity == "network" && strings.HasPrefix(k.Key, "tunnel.") &&
			(strings.HasSuffix(k.Key, ".interface") || strings.HasSuffix(k.Key, ".local"))
		if !isTunnel && !slices.Contains(specificKeys[k.Entity], k.Key) {
			a.warn("member_config: key %q of %s %q is ignored: it is not member-specific", k.Key, k.Entity, k.Name)
			continue
		}
		specific = append(specific, k)
	}
	return specific
}

func certificatePEM(certificate *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}

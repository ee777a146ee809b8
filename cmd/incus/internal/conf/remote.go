package conf

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"incusd/api"
)

const (
	// Local is the remote that is always there: the daemon behind the unix socket of this machine.
	Local = "local"
	// localAddress is that of the remote Local: the socket is looked for at the usual places.
	localAddress = "unix://"

	// ProtocolIncus is the protocol of all remotes but image servers.
	ProtocolIncus = "incus"
	// ProtocolSimpleStreams and ProtocolOCI are those of image servers, which only Incus uses.
	ProtocolSimpleStreams = "simplestreams"
	ProtocolOCI           = "oci"
)

// A Remote is a server, or a cluster of them, and how it is reached.
type Remote struct {
	// Addrs are URLs, tried in turn. One that begins with unix: is a socket's.
	Addrs []string
	// LastWorking is the one of several that answered last; empty if it is not known.
	LastWorking string
	// AuthType is how the server knows the client: tls, or empty, which means the same.
	AuthType string
	// KeepAlive and CredHelper are for Incus only.
	KeepAlive  int
	Project    string
	Protocol   string
	CredHelper string
	// Public is true for a server that serves anybody, without certificates.
	Public bool
	// Global is true for a remote from the administrator's file.
	Global bool
	// Static is true for the remote that cannot be changed.
	Static bool
}

// Unix tells whether the remote is reached over a socket.
func (r Remote) Unix() bool { return len(r.Addrs) > 0 && strings.HasPrefix(r.Addrs[0], "unix:") }

// Rolling are the addresses in the order in which they are to be tried: from the one that answered
// last, all around.
func (r Remote) Rolling() []string {
	for i, addr := range r.Addrs {
		if addr == r.LastWorking {
			return append(append([]string{}, r.Addrs[i:]...), r.Addrs[:i]...)
		}
	}
	return r.Addrs
}

// entry is a remote as the file has it. Several addresses stand in one string, with commas between
// them: what Incus from 7.0 on reads and writes. A list in addrs is read, too.
type entry struct {
	Addr        string   `yaml:"addr"`
	Addrs       []string `yaml:"addrs"`
	LastWorking string   `yaml:"last_working_address"`
	AuthType    string   `yaml:"auth_type"`
	KeepAlive   int      `yaml:"keepalive"`
	Project     string   `yaml:"project"`
	Protocol    string   `yaml:"protocol"`
	CredHelper  string   `yaml:"credentials_helper"`
	Public      bool     `yaml:"public"`
}

func (e entry) remote() Remote {
	r := Remote{
		Addrs: e.Addrs, LastWorking: e.LastWorking, AuthType: e.AuthType, KeepAlive: e.KeepAlive,
		Project: e.Project, Protocol: e.Protocol, CredHelper: e.CredHelper, Public: e.Public,
	}
	if e.Addr != "" {
		r.Addrs = nil
		for addr := range strings.SplitSeq(e.Addr, ",") {
			if addr = strings.TrimSpace(addr); addr != "" {
				r.Addrs = append(r.Addrs, addr)
			}
		}
	}
	if r.Protocol == "" {
		r.Protocol = ProtocolIncus
	}
	return r
}

// write puts the remote into its mapping of the file. A value that has not changed is not touched;
// an empty one is left out, as Incus does.
func (r Remote) write(mapping *yaml.Node) {
	remove(mapping, "addrs") // all addresses are in addr now
	for _, v := range []struct{ key, value string }{
		{"last_working_address", r.LastWorking}, {"auth_type", r.AuthType}, {"keepalive", number(r.KeepAlive)},
		{"project", r.Project}, {"protocol", r.Protocol}, {"credentials_helper", r.CredHelper},
	} {
		if v.value == "" {
			remove(mapping, v.key)
			continue
		}
		value := word(v.value)
		if v.key == "keepalive" {
			value.Tag = "!!int"
		}
		put(mapping, v.key, value)
	}
	put(mapping, "public", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(r.Public)})
	put(mapping, "addr", word(strings.Join(r.Addrs, ",")))
}

// number is n as a text; nothing is empty.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// localRemote is the remote Local. Of what the file says of it only the project counts.
func localRemote(project string) Remote {
	return Remote{Addrs: []string{localAddress}, Protocol: ProtocolIncus, Project: project, Static: true}
}

// imagesRemote is the image server that Incus knows where there is no file.
func imagesRemote() Remote {
	return Remote{Addrs: []string{"https://images.linuxcontainers.org"}, Protocol: ProtocolSimpleStreams, Public: true}
}

// CheckName refuses a name that no remote can have. A part of the file names of its certificates is
// made of it.
func CheckName(name string) error {
	switch {
	case name == "":
		return api.Errorf(api.NameInvalid, "Remote names may not be empty")
	case strings.Contains(name, ":"):
		return api.Errorf(api.NameInvalid, "Remote names may not contain colons")
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == '=' || r == ',' }), strings.HasPrefix(name, "."), strings.HasPrefix(name, "-"):
		return api.Errorf(api.NameInvalid, "Invalid remote name %q", name).
			WithHint("use a name without white space, slashes, commas and equals signs, that begins with neither a dot nor a dash")
	}
	return nil
}

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is the port of an HTTPS address that names none.
const DefaultPort = 8443

// CanonicalAddress gives an address the form host:port, with the given port if it names
// none. IPv6 addresses may stand with or without brackets; no host means all of them.
// The empty address stays empty, and what is no address is returned with a port or as
// it is: ValidateListenAddress is what refuses it.
func CanonicalAddress(addr string, port int) string {
	if addr == "" {
		return ""
	}
	host, p := splitAddress(addr)
	if p == "" {
		p = strconv.Itoa(port)
	}
	if host == "" {
		host = "::"
	} else if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return net.JoinHostPort(host, p)
}

// splitAddress parts an address; the port is empty if there is none.
func splitAddress(addr string) (host, port string) {
	if _, err := netip.ParseAddr(addr); err == nil {
		return addr, ""
	}
	if host, port, err := net.SplitHostPort(addr); err == nil {
		return host, port
	}
	if bare, ok := strings.CutPrefix(addr, "["); ok {
		if bare, ok := strings.CutSuffix(bare, "]"); ok {
			return bare, ""
		}
	}
	return addr, ""
}

// IsWildcard tells whether an address stands for all of a machine's addresses.
func IsWildcard(addr string) bool {
	host, _ := splitAddress(addr)
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsUnspecified()
	}
	return host == ""
}

// AddressOptions says what an address to listen on may be. The zero value asks for the
// strictest: an IP address of one interface, with or without a port.
type AddressOptions struct {
	AllowDNS, AllowWildcard, RequirePort bool
	// Resolve, if not nil, finds out whether a DNS name exists.
	Resolve func(host string) error
}

// ValidateListenAddress judges the form of an address. Its error is a reason in words.
func ValidateListenAddress(addr string, o AddressOptions) error {
	host, port := splitAddress(addr)
	if port == "" && o.RequirePort {
		return errors.New("A port is required as part of the address")
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return fmt.Errorf("Invalid port %q", port)
	}
	if ip, err := netip.ParseAddr(host); err == nil && !isZone(ip.Zone()) {
		return fmt.Errorf("Invalid interface %q in address", ip.Zone())
	}
	if IsWildcard(addr) {
		if !o.AllowWildcard {
			return errors.New("Wildcard addresses aren't allowed")
		}
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if !o.AllowDNS {
		return errors.New("DNS names not allowed in address")
	}
	if !isHostName(host) || o.Resolve != nil && o.Resolve(host) != nil {
		return fmt.Errorf("Couldn't resolve %q", host)
	}
	return nil
}

// isHostName tells whether DNS could have such a name.
func isHostName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	// Digits and dots alone are an IP address gone wrong.
	return strings.Trim(host, "0123456789.") != ""
}

// Covers tells whether who listens on one address also answers on the other: they are
// the same, or the first is a wildcard with the same port. 0.0.0.0 stands for IPv4
// addresses, and for names, which are not resolved here. Without a port 8443 counts.
func Covers(listen, addr string) bool {
	if listen == "" || addr == "" {
		return false
	}
	listenHost, listenPort := splitAddress(CanonicalAddress(listen, DefaultPort))
	host, port := splitAddress(CanonicalAddress(addr, DefaultPort))
	if listenPort != port {
		return false
	}
	if strings.EqualFold(listenHost, host) {
		return true
	}
	wildcard, err := netip.ParseAddr(listenHost)
	if err != nil || !wildcard.IsUnspecified() {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return wildcard.Is6() || err != nil || ip.Is4()
}

// isZone tells whether an IPv6 zone, which may be empty, can be the name of a network
// interface and stand between the brackets of an address.
func isZone(zone string) bool {
	const longest = 15 // IFNAMSIZ on Linux
	return len(zone) <= longest && !strings.ContainsFunc(zone, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("[]%:/", r)
	})
}

// MovedAddresses are the local keys of a member that moves to address. core.https_address, where
// clients reach it, moves along if it was the member's address: the configured one, or known,
// the one that the cluster has. One that was never set, or is another, is somebody's choice.
func MovedAddresses(local map[string]string, known, address string) map[string]string {
	const cluster, core = "cluster.https_address", "core.https_address"
	set := map[string]string{cluster: address}
	switch was := CanonicalAddress(local[core], DefaultPort); was {
	case "":
	case CanonicalAddress(local[cluster], DefaultPort), CanonicalAddress(known, DefaultPort):
		set[core] = address
	}
	return set
}

package main

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/conf"
)

// normalized are addresses as people type them as the URLs that config.yml has. All are HTTPS, or all
// are sockets.
func normalized(args []string) ([]string, error) {
	var addrs []string
	for _, arg := range args {
		// One argument may hold several, as config.yml does.
		for part := range strings.SplitSeq(arg, ",") {
			addr, err := normalizeAddress(strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			if !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	unix := func(addr string) bool { return strings.HasPrefix(addr, "unix:") }
	if slices.ContainsFunc(addrs, unix) && slices.ContainsFunc(addrs, func(addr string) bool { return !unix(addr) }) {
		return nil, api.Errorf(api.AddressInvalid, "Cannot mix HTTPS and Unix URLs").WithHint("make them two remotes")
	}
	return addrs, nil
}

// normalizeAddress writes host, host:port, an HTTPS URL or the path of a socket as a URL.
func normalizeAddress(text string) (string, error) {
	scheme, rest, hasScheme := strings.Cut(text, "://")
	switch {
	case text == "":
		return "", api.Errorf(api.AddressInvalid, "Addresses cannot be empty").WithHint("give the address of a server: HOST, HOST:PORT or https://HOST:PORT")
	case strings.HasPrefix(text, "unix:"):
		return socketURL(strings.TrimPrefix(strings.TrimPrefix(text, "unix:"), "//"))
	case filepath.IsAbs(text):
		return socketURL(text)
	case hasScheme && scheme != "https":
		return "", api.Errorf(api.AddressInvalid, "Invalid URL scheme %q in %q", scheme, text).WithHint("use https://HOST:PORT, or unix://PATH")
	case hasScheme:
		text = rest
	}
	text, _, _ = strings.Cut(text, "/")
	address := client.CanonicalAddress(text)
	if err := checkAddress(text); err != nil {
		return "", api.Errorf(api.AddressInvalid, "Invalid address %q: %v", text, err).WithHint("give the address of a server: HOST, HOST:PORT or https://HOST:PORT")
	}
	if u, err := url.Parse("https://" + address); err != nil || u.Host != address || u.User != nil {
		return "", api.Errorf(api.AddressInvalid, "Invalid address %q", text).WithHint("give the address of a server: HOST, HOST:PORT or https://HOST:PORT")
	}
	return "https://" + address, nil
}

// socketURL is the URL of a socket; without a path that of the usual one.
func socketURL(path string) (string, error) {
	if path != "" && !filepath.IsAbs(path) {
		return "", api.Errorf(api.AddressInvalid, "Invalid address unix://%s: the path of a socket begins with a slash", path)
	}
	return "unix://" + path, nil
}

// imageURLs checks the addresses of an image server, which may have paths and passwords in them.
func imageURLs(args []string) ([]string, error) {
	for _, arg := range args {
		if u, err := url.Parse(arg); err != nil || u.Scheme != "https" || u.Host == "" || strings.Contains(arg, ",") {
			return nil, api.Errorf(api.AddressInvalid, "Only https URLs are supported for %s and %s", conf.ProtocolOCI, conf.ProtocolSimpleStreams)
		}
	}
	return args, nil
}

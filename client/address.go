package client

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultPort is the port of an address that names none.
const DefaultPort = 8443

// CanonicalAddress writes address as host:port, with port 8443 if it has none. An
// IPv6 address may stand with or without brackets.
func CanonicalAddress(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil {
		if port == "" {
			port = strconv.Itoa(DefaultPort)
		}
		return net.JoinHostPort(host, port)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	return net.JoinHostPort(host, strconv.Itoa(DefaultPort))
}

// Directories in which a daemon's socket is looked for when the environment names
// none, in this order.
const (
	runDir   = "/run/incus"
	stateDir = "/var/lib/incus"
)

// SocketPath finds the daemon's unix socket as rest-basics.md §1 orders it:
// explicit, INCUS_SOCKET, INCUS_DIR, /run/incus, /var/lib/incus. Where that socket
// may not be written but a restricted one beside it may, it returns the latter and
// the caller's own project.
func SocketPath(explicit string, getenv func(string) string) (path, project string) {
	path = socketPath(explicit, getenv)
	if user := path + ".user"; !writable(path) && writable(user) {
		return user, fmt.Sprintf("user-%d", os.Geteuid())
	}
	return path, ""
}

func socketPath(explicit string, getenv func(string) string) string {
	if explicit != "" {
		return explicit
	}
	if path := getenv("INCUS_SOCKET"); path != "" {
		return path
	}
	if dir := getenv("INCUS_DIR"); dir != "" {
		return filepath.Join(dir, "unix.socket")
	}
	if path := filepath.Join(runDir, "unix.socket"); exists(path) {
		return path
	}
	return filepath.Join(stateDir, "unix.socket")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// StateDir is the state directory of the daemon on this machine.
func StateDir(getenv func(string) string) string {
	if dir := getenv("INCUS_DIR"); dir != "" {
		return dir
	}
	return stateDir
}

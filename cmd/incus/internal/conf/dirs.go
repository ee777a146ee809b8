package conf

import "path/filepath"

// Dirs are the folders that a configuration lies in.
type Dirs struct {
	// User is the user's own; empty if there is no place for one.
	User string
	// Global is the administrator's, for all users of this machine. It is only read.
	Global string
}

// globalDir is where the administrator's configuration is, unless INCUS_GLOBAL_CONF says otherwise.
const globalDir = "/etc/incus"

// FindDirs returns the folders that Incus uses.
func FindDirs(getenv func(string) string) Dirs {
	d := Dirs{User: getenv("INCUS_CONF"), Global: getenv("INCUS_GLOBAL_CONF")}
	if d.User == "" && getenv("HOME") != "" {
		d.User = filepath.Join(getenv("HOME"), ".config", "incus")
	}
	if d.Global == "" {
		d.Global = globalDir
	}
	return d
}

const configFile = "config.yml"

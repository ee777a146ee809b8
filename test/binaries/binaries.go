// Package binaries finds the programs that a test package runs, or builds them: once for all of its
// tests. It is for tests only.
package binaries

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Dir is the folder of incus and incusd, set by Main. Nobody else changes it.
var Dir string

// Main is what a TestMain calls: it runs the tests with the binaries of the folder that INCUS_BIN_DIR
// names, or builds them, and ends the process.
func Main(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if given := os.Getenv("INCUS_BIN_DIR"); given != "" {
		if Dir, err = filepath.Abs(given); err != nil {
			return 0, err
		}
		return m.Run(), nil
	}
	if Dir, err = os.MkdirTemp("", "incus-bin"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(Dir)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", Dir, "incusd/cmd/incusd", "incusd/cmd/incus")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the binaries: %w\n%s", err, bytes.TrimSpace(output))
	}
	return m.Run(), nil
}

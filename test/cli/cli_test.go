// Package cli runs the stories of the command line: each testdata/*.txtar starts real
// daemons, calls the real incus, and reads like a page of the manual, failures included.
//
// A story has these commands beside testscript's own:
//
//	start MEMBER...        start daemons, wait until they are ready, and use the first
//	use MEMBER             talk to that member from now on
//	crash MEMBER...        kill -9 them
//	halt MEMBER...         send them SIGTERM and wait for a clean end
//	ended MEMBER           wait until a daemon has ended by itself, cleanly
//	subst FILE...          replace $NAME in files by the variable's value
//	let NAME               set a variable to what the last command printed
//	forge TOKEN KEY=VALUE  change one field of the join token in a variable
//	until PATTERN CMD...   run a command until what it prints matches; it must do so soon
//
// and these variables: ADDR1 to ADDR5, free loopback addresses with a port, and HOST1 to
// HOST5, the same without it; ARCH is the machine's architecture in the protocol's words.
package cli

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"incusd/test/binaries"
	"incusd/test/loopback"
)

var (
	update = flag.Bool("update", false, "rewrite the outputs that stories compare with")
	work   = flag.Bool("work", false, "keep the folders of the stories")
)

func TestMain(m *testing.M) {
	flag.Parse()
	binaries.Main(m)
}

func TestStories(t *testing.T) {
	book := loopback.NewBook()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		WorkdirRoot:         workRoot(t),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup:               func(env *testscript.Env) error { return setup(env, book) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": start,
			"use":   use,
			"crash": crash,
			"halt":  halt,
			"ended": ended,
			"subst": subst,
			"let":   let,
			"forge": forge,
			"until": until,
		},
	})
}

// workRoot is the folder of the stories' own folders. Its path is short, because that of
// a unix socket may have 107 bytes.
func workRoot(t *testing.T) string {
	parent := os.TempDir()
	if len(parent) > 40 {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "incus-cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if *work {
			t.Log("the stories' folders are in", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// architectures are the protocol's names of those that differ from Go's.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}

// setup gives a story its variables, and ends its daemons with it.
func setup(env *testscript.Env, book *loopback.Book) error {
	env.Setenv("PATH", binaries.Dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("INCUS_CONF", filepath.Join(env.WorkDir, "client"))
	env.Setenv("INCUS_GLOBAL_CONF", filepath.Join(env.WorkDir, "global")) // not that of this machine
	env.Setenv("TZ", "UTC")
	env.Setenv("ARCH", cmp.Or(architectures[runtime.GOARCH], runtime.GOARCH))
	for i := 1; i <= 5; i++ {
		address, err := book.Take()
		if err != nil {
			return err
		}
		host, _, _ := strings.Cut(address, ":")
		env.Setenv(fmt.Sprintf("ADDR%d", i), address)
		env.Setenv(fmt.Sprintf("HOST%d", i), host)
	}
	daemons := newDaemons(env.WorkDir)
	env.Values[daemonsKey{}] = daemons
	env.Defer(func() {
		deaths := daemons.deaths()
		daemons.killAll()
		if t, ok := env.T().(interface{ Failed() bool }); ok && t.Failed() {
			env.T().Log(deaths + daemons.logs())
		}
	})
	return nil
}

package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const reference = "../../docs/configuration.md"

func TestConfigurationReferenceIsCurrent(t *testing.T) {
	want := Markdown()
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("docs/configuration.md is not what the table says; write it with: go test ./internal/config -run TestConfigurationReferenceIsCurrent -update")
	}
}

func TestTheReferenceHasEveryKeyOnce(t *testing.T) {
	page := Markdown()
	for _, k := range Keys() {
		if n := strings.Count(page, "\n| `"+k.Name+"` |"); n != 1 {
			t.Errorf("%s stands %d times on the page", k.Name, n)
		}
	}
}

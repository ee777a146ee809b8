// Package docs holds the documents to the code: what they list is complete, and what
// they point at is there.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"incusd/api"
	"incusd/internal/health"
)

// root is the project's folder, seen from this one.
const root = "../.."

func TestEveryReasonIsDocumented(t *testing.T) {
	page := read(t, "docs/reasons.md")
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d+) \\|")
	documented := map[string]string{}
	for _, match := range row.FindAllStringSubmatch(page, -1) {
		documented[match[1]] = match[2]
	}
	for _, reason := range api.Reasons() {
		status, ok := documented[string(reason)]
		switch {
		case !ok:
			t.Errorf("docs/reasons.md has no row for %s", reason)
		case status != fmt.Sprint(reason.Status()):
			t.Errorf("docs/reasons.md gives %s the status %s; it has %d", reason, status, reason.Status())
		}
		delete(documented, string(reason))
	}
	for reason := range documented {
		t.Errorf("docs/reasons.md describes %s, which does not exist", reason)
	}
}

func TestEveryFindingIsDocumented(t *testing.T) {
	page := read(t, "docs/doctor.md")
	documented := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(page, -1) {
		documented[match[1]] = true
	}
	for _, code := range health.Codes() {
		if !documented[string(code)] {
			t.Errorf("docs/doctor.md has no row for %s", code)
		}
		delete(documented, string(code))
	}
	for code := range documented {
		t.Errorf("docs/doctor.md describes %s, which nothing finds", code)
	}
}

func TestEveryTokenReasonIsInTheTokensPage(t *testing.T) {
	page := read(t, "docs/tokens.md")
	for _, reason := range api.Reasons() {
		if strings.HasPrefix(string(reason), "token_") && !strings.Contains(page, "| `"+string(reason)+"` |") {
			t.Errorf("docs/tokens.md does not explain %s", reason)
		}
	}
}

func TestEveryReasonHasANextStep(t *testing.T) {
	for _, reason := range api.Reasons() {
		if reason.Hint() == "" {
			t.Errorf("%s has no hint", reason)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(read(t, page), -1) {
			target := match[1]
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(page), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, target)
			}
		}
	}
}

// pages are all documents, relative to root.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range found {
			rel, err := filepath.Rel(root, page)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rel)
		}
	}
	return all
}

func read(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

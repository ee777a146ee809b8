package table

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

var memberHeader = []string{"NAME", "URL", "ROLES", "ARCHITECTURE", "FAILURE DOMAIN", "DESCRIPTION", "STATUS", "MESSAGE"}

func members(roles ...[]string) []api.ClusterMember {
	list := []api.ClusterMember{}
	for i, name := range []string{"node1", "node2", "node3"} {
		list = append(list, api.ClusterMember{
			ClusterMemberPut: api.ClusterMemberPut{Roles: roles[i], FailureDomain: "default", Config: api.ConfigMap{}, Groups: []string{"default"}},
			ServerName:       name, URL: "https://127.0.0.1" + name[4:] + ":8443", Database: true,
			Status: "Online", Message: "Fully operational", Architecture: "x86_64",
		})
	}
	return list
}

func memberRows(f Format, list []api.ClusterMember) [][]string {
	var rows [][]string
	for _, m := range list {
		rows = append(rows, []string{
			m.ServerName, m.URL, strings.Join(m.Roles, f.Separator()), m.Architecture, m.FailureDomain,
			m.Description, strings.ToUpper(m.Status), m.Message,
		})
	}
	slices.Reverse(rows) // sorting is the renderer's work
	return rows
}

func golden(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func render(t *testing.T, format string, header []string, rows func(Format) [][]string, objects any) string {
	t.Helper()
	f, err := Parse(format)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, f, header, rows(f), objects); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestMemberListsLookAsScriptsKnowThem(t *testing.T) {
	leader, voter := []string{"database-leader", "database"}, []string{"database"}
	for file, format := range map[string]string{
		"table": "table", "compact": "compact", "markdown": "markdown", "csv": "csv",
		"csv-header": "csv,header", "csv-noheader": "csv,noheader", "json": "json", "yaml": "yaml",
	} {
		t.Run(file, func(t *testing.T) {
			list := members(leader, voter, voter)
			got := render(t, format, memberHeader, func(f Format) [][]string { return memberRows(f, list) }, list)
			if diff := cmp.Diff(golden(t, "cluster-list."+file+".out"), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("several rows of roles", func(t *testing.T) {
		list := members(leader, []string{"event-hub", "database"}, voter)
		got := render(t, "table", memberHeader, func(f Format) [][]string { return memberRows(f, list) }, list)
		if diff := cmp.Diff(golden(t, "cluster-list.event-hub.out"), got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestOtherListsLookAsScriptsKnowThem(t *testing.T) {
	groups := func(Format) [][]string { return [][]string{{"default", "Default cluster group", "3"}} }
	none := func(Format) [][]string { return nil }
	for _, tt := range []struct {
		file, format string
		header       []string
		rows         func(Format) [][]string
	}{
		{"cluster-group-list.table.out", "table", []string{"NAME", "DESCRIPTION", "MEMBERS"}, groups},
		{"cluster-group-list.compact.out", "compact", []string{"NAME", "DESCRIPTION", "MEMBERS"}, groups},
		{"cluster-group-list.csv.out", "csv", []string{"NAME", "DESCRIPTION", "MEMBERS"}, groups},
		{"cluster-list-tokens.empty.out", "table", []string{"NAME", "TOKEN", "EXPIRES AT"}, none},
	} {
		t.Run(tt.file, func(t *testing.T) {
			if diff := cmp.Diff(golden(t, tt.file), render(t, tt.format, tt.header, tt.rows, nil)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestHeaderCanBeLeftOut(t *testing.T) {
	rows := func(Format) [][]string { return [][]string{{"a", "日本"}, {"b", "c"}} }
	got := render(t, "table,noheader", []string{"LONG NAME", "X"}, rows, nil)
	want := "+---+------+\n| a | 日本 |\n+---+------+\n| b | c    |\n+---+------+\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := render(t, "table,noheader", []string{"X"}, func(Format) [][]string { return nil }, nil); got != "" {
		t.Errorf("an empty list without a header is drawn as %q", got)
	}
}

func TestUnknownFormatsAreRefused(t *testing.T) {
	for _, text := range []string{"", "xml", "table,", "csv,headers", "TABLE"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) succeeded", text)
		}
	}
}

func TestRowsAreSortedAsPeopleCount(t *testing.T) {
	want := []string{"-", "01", "1", "2", "08e59216", "28ef8420", "0560092f", "node", "node1", "node1a", "node2", "node10", "node10.b", "node99999999999999999999999", ""}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, func(a, b string) int { return compareRows([]string{a}, []string{b}) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

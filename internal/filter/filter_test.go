package filter

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"incusd/api"
)

var node1 = api.ClusterMember{
	ClusterMemberPut: api.ClusterMemberPut{
		Roles:         []string{"database", "database-leader"},
		FailureDomain: "rack 1, left",
		Description:   "Über  groß",
		Config:        api.ConfigMap{"user.x": "1", "user.rack.row": "b", "scheduler.instance": "all"},
	},
	ServerName: "node1", URL: "https://10.0.0.1:8443", Database: true, Status: "Online", Architecture: "x86_64",
}

// thing has what no struct of the wire has.
type thing struct {
	Small     int8              `json:"small"`
	Count     uint64            `json:"count"`
	Load      []float64         `json:"load"`
	Ratio     float64           `json:"ratio"`
	Hidden    string            `json:"-"`
	Untagged  string            //
	Yaml      string            `yaml:"from_yaml"`
	Link      *inner            `json:"link"`
	Nothing   *inner            `json:"nothing"`
	Any       map[string]any    `json:"any"`
	Deep      map[string]inner  `json:"deep"`
	Numbers   map[int]string    `json:"numbers"`
	Kind      kind              `json:"kind"`
	At        time.Time         `json:"at"`
	NilConfig map[string]string `json:"nil_config"`
	secret    string
}

type inner struct {
	Name string `json:"name"`
}

type kind string

var something = &thing{
	Small: -3, Count: 1 << 63, Load: []float64{1}, Ratio: 0.5, Hidden: "h", Untagged: "u", Yaml: "y", Link: &inner{"in"},
	Any: map[string]any{"text": "t", "flag": true, "object": map[string]string{"a.b": "c"}}, Deep: map[string]inner{"d": {"dn"}},
	Numbers: map[int]string{1: "one"}, Kind: "special", secret: "s",
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		expr string
		obj  any
		want bool
	}{
		{``, node1, true},
		{" \t ", node1, true},
		{`server_name eq node1`, node1, true},
		{`server_name eq node2`, node1, false},
		{`server_name ne node2`, node1, true},
		{`not server_name eq node1`, node1, false},
		{`NOT server_name eq node2`, node1, true},
		// Strings: regular expressions, anchored unless they say otherwise, in any case.
		{`server_name eq NODE1`, node1, true},
		{`server_name eq node`, node1, false},
		{`server_name eq node.`, node1, true},
		{`server_name eq ^node`, node1, true},
		{`server_name eq 1$`, node1, true},
		{`server_name eq (^node1$|^node1.*)`, node1, true},
		{`server_name eq node2|node1`, node1, true},
		{`server_name eq node1x|node`, node1, false},
		{`server_name ne ^node`, node1, false},
		{`description eq über.*`, node1, true},
		// Lists.
		{`server_name eq node2,NODE1`, node1, true},
		{`server_name eq node2,node3`, node1, false},
		{`server_name eq node.,node3`, node1, false},
		{`server_name ne node2,node1`, node1, false},
		{`server_name ne node2,node3`, node1, true},
		{`failure_domain eq "rack 1, left"`, node1, true},
		// Quotes.
		{`server_name eq "node1"`, node1, true},
		{`description eq "Über  groß"`, node1, true},
		{`description eq "Über groß"`, node1, false},
		{`message eq ""`, node1, true},
		{`server_name eq "" or status eq online`, node1, true},
		{`server_name eq "a"b and c" or status eq x`, node1, false},
		// Booleans and lists of strings.
		{`database eq true`, node1, true},
		{`database ne 1`, node1, false},
		{`roles eq ["database","database-leader"]`, node1, true},
		{`roles eq "["database", "database-leader"]"`, node1, true},
		{`roles eq ["database-leader","database"]`, node1, false},
		{`roles ne ["database"]`, node1, true},
		{`groups eq []`, node1, true},
		{`groups eq null`, node1, true},
		// Maps.
		{`config.user.x eq 1`, node1, true},
		{`config.user.rack.row eq b`, node1, true},
		{`config.user.y eq ""`, node1, true},
		{`config.user.y ne 1`, node1, true},
		{`config.u.x eq 1`, node1, true},
		{`config.u.rack.row eq b`, node1, true},
		{`config.user.r.row eq b`, node1, false},
		{`config.sched.instance eq all`, node1, true},
		{`nil_config.a eq ""`, something, true},
		{`numbers.1 eq one`, something, false},
		{`any.text eq t and any.flag eq true and any.object.a.b eq c and any.gone eq ""`, something, true},
		{`deep.d.name eq dn`, something, true},
		// Other structs.
		{`url eq https://10.0.0.1:8443`, &node1, true},
		{`link.name eq in`, something, true},
		{`from_yaml eq y and Untagged eq u and kind eq SPECIAL`, something, true},
		{`Name eq dir`, api.StorageDriverInfo{Name: "dir"}, true},
		{`name eq dir`, api.StorageDriverInfo{Name: "dir"}, true},
		// Numbers.
		{`small eq -3`, something, true},
		{`small ne -3`, something, false},
		{`small lt 300`, something, true},
		{`small gt -3`, something, false},
		{`small ge -3 and small le -3`, something, true},
		{`count gt 9223372036854775807`, something, true},
		{`count le 0`, something, false},
		// From left to right, without precedence.
		{`status eq online or status eq x and server_name eq node2`, node1, false},
		{`status eq x and server_name eq node2 or database eq true`, node1, true},
		{`status eq x AND server_name EQ node2 Or database eq true`, node1, true},
		{`not status eq x and not status eq y`, node1, true},
	} {
		f, err := Parse(test.expr)
		if err != nil {
			t.Errorf("%s: %v", test.expr, err)
			continue
		}
		got, err := f.Match(test.obj)
		if err != nil || got != test.want {
			t.Errorf("%s: got %t, %v, want %t", test.expr, got, err, test.want)
		}
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ expr, want string }{
		{`not`, "incomplete not clause"},
		{`server_name`, "clause has no operator"},
		{`not server_name `, "clause has no operator"},
		{`server_name eq`, "clause has no value"},
		{`a eq b and c`, "clause has no operator"},
		{`a eq "b`, "unterminated quote"},
		{`a eq "`, "unterminated quote"},
		{`a eq "b"c`, "unterminated quote"},
		{`a eq b c eq d`, "invalid clause composition"},
		{`a eq b xor c eq d`, "invalid clause composition"},
		{`a eq b and`, "unterminated compound clause"},
		{`a eq b or  `, "unterminated compound clause"},
		{`a like b`, `unsupported operator "like"`},
		{strings.Repeat("x", MaxLength+1), "longer than 8192 bytes"},
		{strings.Repeat("a eq b or ", MaxClauses) + "a eq b", "more than 128 clauses"},
		{`a eq "` + strings.Repeat("x", MaxValue+1) + `"`, "value longer than 512 bytes"},
		{`a eq (x{101})`, "regular expression repeats more than 100 times"},
		{`a eq (\pL{1000}x880)`, "regular expression repeats more than 100 times"},
		{`a eq (x{100}){10}`, "regular expression too large"},
		{`a eq ` + strings.Repeat(`\pL`, 50), "regular expression too large"},
		{strings.Repeat(`a eq \w{90} or `, 12) + "a eq b", "regular expression too large"},
	} {
		_, err := Parse(test.expr)
		if want := "Invalid filter: " + test.want; !errors.Is(err, api.BadRequest) || err.Error() != want {
			t.Errorf("%.40s: got %v, want %s", test.expr, err, want)
		}
	}
}

func TestOrdinaryExpressionsAreSmallEnough(t *testing.T) {
	names := strings.TrimSuffix(strings.Repeat("server_name eq (^node1$|^node1.*) or ", 30), " or ")
	for _, expr := range []string{names, `a eq [a-z0-9.-]{64}`, `a eq "` + strings.Repeat("node1|", 80) + `"`} {
		if _, err := Parse(expr); err != nil {
			t.Errorf("%.40s: %v", expr, err)
		}
	}
}

func TestMatchNamesWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		expr string
		obj  any
		want string
	}{
		{`x eq 1`, node1, `Invalid type "invalid" for field "x"`},
		{`server_name.x eq 1`, node1, `Invalid type "invalid" for field "server_name.x"`},
		{`. eq 1`, node1, `Invalid type "invalid" for field "."`},
		{`config. eq 1`, node1, `Invalid type "invalid" for field "config."`},
		{`config eq 1`, node1, `Invalid type "map" for field "config"`},
		{`ClusterMemberPut eq 1`, node1, `Invalid type "invalid" for field "ClusterMemberPut"`},
		{`Hidden eq h`, something, `Invalid type "invalid" for field "Hidden"`},
		{`secret eq s`, something, `Invalid type "invalid" for field "secret"`},
		{`nothing.name eq x`, something, `Invalid type "invalid" for field "nothing.name"`},
		{`link eq x`, something, `Invalid type "struct" for field "link"`},
		{`ratio eq 0.5`, something, `Invalid type "float64" for field "ratio"`},
		{`load eq [1]`, something, `Invalid slice type "float64" for field "load"`},
		{`server_name gt a`, node1, `Invalid operator "gt" for field "server_name"`},
		{`database le true`, node1, `Invalid operator "le" for field "database"`},
		{`roles lt []`, node1, `Invalid operator "lt" for field "roles"`},
		{`database eq maybe`, node1, `Failed to parse value: strconv.ParseBool: parsing "maybe": invalid syntax`},
		{`small eq one`, something, `Failed to parse value: strconv.ParseInt: parsing "one": invalid syntax`},
		{`count eq -1`, something, `Failed to parse value: strconv.ParseUint: parsing "-1": invalid syntax`},
		{`roles eq database`, node1, `Failed to parse value: invalid character 'd' looking for beginning of value`},
		{`server_name eq (`, node1, "Invalid filter: error parsing regexp: missing closing ): `(?i)^(?:()$`"},
		{`server_name eq node1 or x eq 1`, node1, `Invalid type "invalid" for field "x"`},
		{`x eq 1`, nil, `Invalid type "invalid" for field "x"`},
		{`x eq 1`, 5, `Invalid type "invalid" for field "x"`},
	} {
		f, err := Parse(test.expr)
		if err != nil {
			t.Errorf("%s: %v", test.expr, err)
			continue
		}
		if _, err = f.Match(test.obj); !errors.Is(err, api.BadRequest) || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.expr, err, test.want)
		}
	}
}

func TestAFilterMayBeUsedByManyAtOnce(t *testing.T) {
	f, err := Parse(`server_name eq ^node and config.u.x eq 1,2`)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if ok, err := f.Match(node1); !ok || err != nil {
					t.Errorf("%t, %v", ok, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzParse(f *testing.F) {
	for _, expr := range []string{
		``, `server_name eq (^node1$|^node1.*) and config.user.x eq 1`, `not database eq true or roles eq "["a", "b"]"`,
		`a eq "b" c"`, `small ge -3`, `config. ne ""`, `.. eq .`, `description eq [[:alpha:]]+`, "a\u2028eq\u00a0\"\xff\" \xff",
	} {
		f.Add(expr)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		filter, err := Parse(expr)
		if err != nil {
			if !errors.Is(err, api.BadRequest) {
				t.Fatalf("error without its reason: %v", err)
			}
			return
		}
		if len(filter.clauses) == 0 && strings.TrimSpace(expr) != "" {
			t.Fatalf("%q has no clauses and yet no mistake", expr)
		}
		for _, obj := range []any{node1, something} {
			once, err := filter.Match(obj)
			if err != nil && !errors.Is(err, api.BadRequest) {
				t.Fatalf("error without its reason: %v", err)
			}
			if again, errAgain := filter.Match(obj); again != once || fmt.Sprint(err) != fmt.Sprint(errAgain) {
				t.Fatalf("%q does not always answer the same", expr)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	f, err := Parse(`server_name eq (^node1$|^node1.*) and config.user.x eq 1`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := f.Match(&node1); err != nil {
			b.Fatal(err)
		}
	}
}

package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"incusd/api"
)

// The files in testdata/upstream are whole answers of Incus 7.3. Ours must be the same
// but for what differs from run to run, and for the metadata of errors, which upstream
// leaves null.

// upstream reads one whole HTTP answer.
func upstream(t *testing.T, name string) *http.Response {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "upstream", name))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte("HTTP/2 "), []byte("HTTP/1.1 "), 1)
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// variable is what differs between two runs of the same thing.
var variable = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`"[0-9a-f]{64}"`), `"HEX"`},
	{regexp.MustCompile(`"addresses":\[[^\]]*\]`), `"addresses":[]`},
	{regexp.MustCompile(`,"metadata":\{"reason":.*\}\}`), `,"metadata":null}`},
}

func normal(text string) string {
	for _, v := range variable {
		text = v.pattern.ReplaceAllString(text, v.text)
	}
	return text
}

func TestAnswersAreThoseOfUpstream(t *testing.T) {
	const tokenPath = "the path of a token's operation"
	tests := map[string]struct {
		req request
		// status is ours where we differ on purpose.
		status int
	}{
		"http-get-root.out":               {request{method: "GET", path: "/"}, 0},
		"http-get-404.out":                {request{method: "GET", path: "/1.0/nope"}, 0},
		"http-get-cluster.out":            {request{method: "GET", path: "/1.0/cluster"}, 0},
		"http-delete-token-op.out":        {request{method: "DELETE", path: tokenPath}, 0},
		"http-get-token-op.out":           {request{method: "GET", path: tokenPath}, 0},
		"http-patch-server-badkey.out":    {request{method: "PATCH", path: "/1.0", body: `{"config":{"nokey":"1"}}`}, 0},
		"http-patch-server.out":           {request{method: "PATCH", path: "/1.0", body: `{"config":{"user.bench":"1"}}`}, 0},
		"http-post-members.out":           {request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"goldC"}`}, 0},
		"http-post-members-existing.out":  {request{method: "POST", path: "/1.0/cluster/members", body: `{"server_name":"node2"}`}, http.StatusConflict},
		"https-get-1.0-untrusted.out":     {request{method: "GET", path: "/1.0", stranger: true}, 0},
		"https-get-members-untrusted.out": {request{method: "GET", path: "/1.0/cluster/members", stranger: true}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newCluster(t, "node1", "node2", "node3")
			if test.req.path == tokenPath {
				test.req.path = operationURL(b.issue("goldC").Operation)
			}
			want := upstream(t, name)
			got := b.do(test.req)
			status := want.StatusCode
			if test.status != 0 {
				status = test.status
			}
			if got.Code != status {
				t.Errorf("status %d, want %d", got.Code, status)
			}
			compareAnswers(t, got, want, test.status != 0)
		})
	}
}

// compareAnswers compares headers and bodies. Where the status is ours, so is the code
// in the envelope.
func compareAnswers(t *testing.T, got *httptest.ResponseRecorder, want *http.Response, ownStatus bool) {
	t.Helper()
	for _, header := range []string{"Content-Type", "X-Content-Type-Options"} {
		if got.Header().Get(header) != want.Header.Get(header) {
			t.Errorf("%s: %q, want %q", header, got.Header().Get(header), want.Header.Get(header))
		}
	}
	for _, header := range []string{"Etag", "Location"} {
		if (got.Header().Get(header) == "") != (want.Header.Get(header) == "") {
			t.Errorf("%s: %q, want one like %q", header, got.Header().Get(header), want.Header.Get(header))
		}
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(want.Body); err != nil && body.Len() == 0 {
		t.Fatal(err)
	}
	ours, theirs := normal(got.Body.String()), normal(strings.TrimRight(body.String(), "\n")+"\n")
	if ownStatus {
		code := regexp.MustCompile(`"error_code":\d+`)
		ours, theirs = code.ReplaceAllString(ours, ""), code.ReplaceAllString(theirs, "")
	}
	if ours != theirs {
		t.Errorf("body\n%swant\n%s", ours, theirs)
	}
}

// shape reduces a JSON value to its keys and the kinds of its values. Null fits any.
func shape(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := make(map[string]any)
		for k, v := range value {
			out[k] = shape(v)
		}
		return out
	case []any:
		if len(value) == 0 {
			return "list"
		}
		return []any{shape(value[0])}
	case string:
		return "text"
	case float64:
		return "number"
	case bool:
		return "bool"
	}
	return "null"
}

// fits tells what of want is missing or of another kind in got.
func fits(t *testing.T, path string, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is %v, not an object", path, got)
			return
		}
		for k, v := range want {
			if _, ok := object[k]; !ok {
				t.Errorf("%s.%s is missing", path, k)
				continue
			}
			fits(t, path+"."+k, object[k], v)
		}
		for k := range object {
			if _, ok := want[k]; !ok {
				t.Errorf("%s.%s is not upstream's", path, k)
			}
		}
	case []any:
		list, ok := got.([]any)
		if !ok {
			t.Errorf("%s is %v, not a list", path, got)
			return
		}
		fits(t, path+"[0]", list[0], want[0])
	default:
		if list, ok := got.([]any); want == "list" && ok && len(list) > 0 || want == "null" {
			return
		}
		if got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

func TestObjectsHaveTheKeysOfUpstream(t *testing.T) {
	b := newCluster(t, "node1", "node2", "node3")
	b.issue("goldA")
	b.settings.values["images.auto_update_interval"] = "0"
	b.secondServer("node2")
	tests := map[string]string{
		"query-server.out":             "/1.0",
		"query-members.out":            "/1.0/cluster/members?recursion=1",
		"query-member-node2.out":       "/1.0/cluster/members/node2",
		"query-member-node2-state.out": "/1.0/cluster/members/node2/state",
		"query-groups.out":             "/1.0/cluster/groups?recursion=1",
		"query-certificates.out":       "/1.0/certificates?recursion=1",
	}
	for file, path := range tests {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "upstream", file))
			if err != nil {
				t.Fatal(err)
			}
			var want any
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			fits(t, path, shape(get[any](b, path)), shape(want))
		})
	}
	t.Run("query-operations.out", func(t *testing.T) {
		data, err := os.ReadFile(filepath.Join("testdata", "upstream", "query-operations.out"))
		if err != nil {
			t.Fatal(err)
		}
		var want map[string][]any
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		got := get[map[string][]any](b, "/1.0/operations?recursion=1")
		fits(t, "running", shape(got["running"]), shape(want["running"]))
	})
	t.Run("query-members-raw.out", func(t *testing.T) {
		got := get[[]string](b, "/1.0/cluster/members")
		if strings.Join(got, " ") != "/1.0/cluster/members/node1 /1.0/cluster/members/node2 /1.0/cluster/members/node3" {
			t.Errorf("got %v", got)
		}
	})
}

func TestEnvelopesAlwaysHaveAllKeysInOrder(t *testing.T) {
	tests := map[string]struct {
		body api.Response
		meta any
		want string
	}{
		"nothing": {
			api.Response{Type: api.SyncResponse, Status: "Success", StatusCode: 200}, struct{}{},
			`{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":{}}` + "\n",
		},
		"created": {
			api.Response{Type: api.SyncResponse, Status: "Success", StatusCode: 200}, nil,
			`{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":null}` + "\n",
		},
		"HTML": {
			api.Response{Type: api.ErrorResponse, Code: 404, Error: "<&>"}, []string{"<&>"},
			`{"type":"error","status":"","status_code":0,"operation":"","error_code":404,"error":"<&>","metadata":["<&>"]}` + "\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := encode(test.body, test.meta)
			if err != nil || string(got) != test.want {
				t.Errorf("got %s (%v), want %s", got, err, test.want)
			}
		})
	}
}

func TestETagIsTheHashOfTheProtocol(t *testing.T) {
	// printf '{"a":"\\u003c"}\n' | sha256sum
	const want = "fb10b3ade30efa375d543011ef6b825461a807623b2cd0f377ffb6245412795c"
	if got := ETag(map[string]string{"a": "<"}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

package api

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"incusd/api"
)

// fakeRecovery has one member, and takes a backup to be whatever text it is given.
type fakeRecovery struct{ restored string }

func (*fakeRecovery) Database() (api.ClusterDatabase, error) {
	return api.ClusterDatabase{LastIndex: 7, Members: []api.ClusterDatabaseMember{{ID: 1, Name: "node1", Address: "10.0.0.1:8443", Role: "voter"}}}, nil
}

func (*fakeRecovery) RemoveRaftNode(_ context.Context, address string) error {
	return api.Errorf(api.NotFound, "No raft node with address %q", address)
}

func (*fakeRecovery) Backup(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "a backup")
	return err
}

func (f *fakeRecovery) Restore(_ context.Context, r io.Reader, name, address string) (api.ClusterRestored, error) {
	data, err := io.ReadAll(r)
	f.restored = name + " " + address + " " + string(data)
	return api.ClusterRestored{ServerName: name, Address: address}, err
}

func TestDatabaseIsShownSavedAndRestored(t *testing.T) {
	b := newBed(t)
	ask := func(method, path, body string, status int, says string) {
		t.Helper()
		got := b.do(request{method: method, path: path, body: body})
		if got.Code != status || !strings.Contains(got.Body.String(), says) {
			t.Errorf("%s %s: %d %s", method, path, got.Code, got.Body)
		}
	}
	ask("GET", "/internal/cluster/database", "", http.StatusOK, `{"last_index":7,"members":[{"id":1,"name":"node1","address":"10.0.0.1:8443","role":"voter"}]}`)
	ask("DELETE", "/internal/cluster/raft-node/10.0.0.9:8443", "", http.StatusNotFound, `No raft node with address \"10.0.0.9:8443\"`)
	ask("GET", "/internal/cluster/backup", "", http.StatusOK, "a backup")
	large := strings.Repeat("x", 2*maxBody)
	ask("PUT", "/internal/cluster/restore?name=node9&address=10.0.0.9", large, http.StatusOK, `"server_name":"node9"`)
	if want := "node9 10.0.0.9 " + large; b.recovery.restored != want {
		t.Errorf("restored %d bytes, want %d", len(b.recovery.restored), len(want))
	}
	b.store.down = true
	ask("GET", "/internal/cluster/backup", "", http.StatusServiceUnavailable, "No quorum")
}

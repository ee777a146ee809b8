package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// What keeps a backup from being written is said of the file that was named, and leaves nothing.
func TestBackupThatCannotBeWritten(t *testing.T) {
	s := newShell(t)
	s.Handle("GET /internal/cluster/backup", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write([]byte("all of it"))
	})
	missing, folder, good := s.Dir+"/nowhere/a.backup", s.Dir+"/folder", s.Dir+"/a.backup"
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s.mustFail(t, "Error: No backup was written to "+missing+": no such file or directory\n"+
		"Hint: name a file in a folder that is there and that you may write to\n", "", "admin", "cluster", "backup", missing)
	s.mustFail(t, "Error: "+folder+" is not a file\nHint: name the file of the backup\n", "", "admin", "cluster", "backup", folder)
	s.mustFail(t, "Error: "+folder+" is not a file\nHint: name the file of the backup\n", "", "admin", "cluster", "restore", folder, "--yes")
	s.mustRun(t, "", "admin", "cluster", "backup", good)
	if got, err := os.ReadFile(good); err != nil || string(got) != "all of it" {
		t.Errorf("the backup is %q, %v", got, err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".part") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

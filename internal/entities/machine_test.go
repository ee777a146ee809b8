package entities

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/storage"
)

// memory is Notes without a file.
type memory map[string]localstore.Made

func (m memory) Made() []localstore.Made {
	var all []localstore.Made
	for _, n := range m {
		all = append(all, n)
	}
	return all
}
func (m memory) SetMade(n localstore.Made) error { m[n.ID] = n; return nil }
func (m memory) ClearMade(id string) error       { delete(m, id); return nil }

// onDisk returns a Machine with real folders, below dir; it is cut off at the point that *cut names.
func onDisk(t *testing.T) (m *Machine, notes memory, dir string, cut *string) {
	t.Helper()
	dir, notes, cut = t.TempDir(), memory{}, new(string)
	return NewMachine(MachineConfig{Notes: notes, Storage: storage.New(storage.Config{Dir: dir}), Reach: func(point string) error {
		if point == *cut {
			return errors.New("cut off")
		}
		return nil
	}}), notes, dir, cut
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	aPool   = localstore.Made{ID: "p", Owner: "me", Kind: state.EntityPool, Name: "local", Type: "dir", Config: map[string]string{}, Revision: 1}
	aVolume = localstore.Made{ID: "v", Owner: "me", Kind: state.EntityVolume, Project: "default", Pool: "local", Name: "data", Type: api.VolumeFilesystem, Revision: 1}
)

func mine(t *testing.T, elem ...string) (path string, isThere func() bool) {
	t.Helper()
	path = filepath.Join(append(elem, "mine")...)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	return path, func() bool { _, err := os.Lstat(path); return err == nil }
}

func TestPoolThatWasCutOffIsMadeAgainAndTakesNothingOfAUsers(t *testing.T) {
	for _, point := range []string{PointMakeNoted, PointMade, PointMakeFinished} {
		t.Run(point, func(t *testing.T) {
			m, notes, dir, cut := onDisk(t)
			*cut = point
			if _, err := m.make(t.Context(), aPool); err == nil || len(notes) != 1 {
				t.Fatalf("%v, %v", err, notes)
			}
			*cut = ""
			if point == PointMakeNoted { // nothing is made: what is there is somebody else's
				path, isThere := mine(t, dir, "storage-pools", "local")
				if _, err := m.make(t.Context(), aPool); !errors.Is(err, api.ConfigInvalid) {
					t.Errorf("over a user's folder: %v", err)
				}
				if !isThere() || len(notes) != 0 {
					t.Errorf("it is there: %v; notes %v", isThere(), notes)
				}
				must(t, os.Remove(path))
			}
			made, err := m.make(t.Context(), aPool)
			must(t, err)
			must(t, m.start(t.Context(), made))
			must(t, m.remove(t.Context(), made))
			if entries, _ := os.ReadDir(filepath.Join(dir, "storage-pools")); len(entries) > 0 || len(notes) != 0 {
				t.Errorf("left: %v, %v", entries, notes)
			}
		})
	}
}

func TestVolumeThatCannotBeMadeLeavesNoNoteAndTouchesNothing(t *testing.T) {
	m, notes, dir, _ := onDisk(t)
	pool, err := m.make(t.Context(), aPool)
	must(t, err)
	root := filepath.Join(dir, "storage-pools", "local")
	path, isThere := mine(t, root, "custom", "default_data")
	if _, err := m.make(t.Context(), aVolume); !errors.Is(err, api.Conflict) {
		t.Errorf("over a folder: %v", err)
	}
	if _, noted := notes["v"]; noted || !isThere() {
		t.Errorf("noted: %v; the folder is there: %v", noted, isThere())
	}
	must(t, os.RemoveAll(filepath.Dir(path)))
	must(t, os.Rename(root, root+"-away"))
	must(t, os.Mkdir(root, 0o755))
	if _, err := m.make(t.Context(), aVolume); !errors.Is(err, api.Unavailable) {
		t.Errorf("on a pool that is not mounted: %v", err)
	}
	if _, noted := notes["v"]; noted {
		t.Error("it is noted, and cannot be taken back")
	}
	must(t, os.Remove(root))
	must(t, os.Rename(root+"-away", root))
	_, err = m.make(t.Context(), aVolume)
	must(t, err)
	must(t, m.start(t.Context(), pool))
}

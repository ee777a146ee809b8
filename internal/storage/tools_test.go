package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"incusd/api"
)

// recorder answers as a tool that always works, and keeps what was called. The longest beginning of
// a call that it has an answer for counts.
type recorder struct {
	calls   []string
	answers map[string]string
	fail    map[string]bool
}

func (r *recorder) run(_ context.Context, name string, args ...string) (string, error) {
	call := strings.Join(append([]string{name}, args...), " ")
	r.calls = append(r.calls, call)
	for start := range r.fail {
		if strings.HasPrefix(call, start) {
			return "", fmt.Errorf("%s: no such thing", name)
		}
	}
	best := ""
	for start := range r.answers {
		if strings.HasPrefix(call, start) && len(start) > len(best) {
			best = start
		}
	}
	return r.answers[best], nil
}

// were fails unless exactly these calls were made, in that order, since it was asked last.
func (r *recorder) were(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(r.calls, want) {
		t.Errorf("called:\n\t%s\nwanted:\n\t%s", strings.Join(r.calls, "\n\t"), strings.Join(want, "\n\t"))
	}
	r.calls = nil
}

// refused fails unless err has the reason and says what.
func refused(t *testing.T, err error, reason api.Reason, what string) {
	t.Helper()
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), what) {
		t.Errorf("wanted %s with %q: %v", reason, what, err)
	}
}

// The next tests do not run the tools: they show what would be called.

func TestWhatZFSIsAskedForAPoolInAFile(t *testing.T) {
	t.Parallel()
	r := &recorder{fail: map[string]bool{"zpool list": true}, answers: map[string]string{
		"zfs get -H -s local -o value incus:pool": "m1-id1\n", "zfs get -H -s local -o value incus:made": "m1-id1\n", "zfs get -H -p": "10\n20\n",
	}}
	d := &zfsDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "zfs", Config: map[string]string{"size": "1GiB"}}
	must(t, d.check(t.Context(), p))
	r.were(t, "zpool list local")
	chosen, err := d.create(t.Context(), p)
	if err != nil || chosen["zfs.pool_name"] != "local" || chosen["size"] != "1GiB" || chosen["source"] != d.loopFile(p) {
		t.Fatalf("%v, %v", chosen, err)
	}
	r.were(t, "zpool create -m none -O compression=on -O incus:pool=m1-id1 -O incus:made=m1-id1 local "+d.loopFile(p),
		"zfs create -o mountpoint=none -o incus:made=m1-id1 local/custom")
	if space, err := d.resources(t.Context(), p); err != nil || space.Space.Used != 10 || space.Space.Total != 30 {
		t.Errorf("%+v, %v", space, err)
	}
	r.calls = nil
	removed(t, d, p, "")
	r.were(t, "zfs get -H -s local -o value incus:pool local", "zfs get -H -s local -o value incus:made local", "zpool destroy -f local")
	if _, err := os.Lstat(d.loopFile(p)); err == nil {
		t.Error("the loop file is left")
	}
}

// removed removes the pool, and fails unless it says that it has kept what contains kept.
func removed(t *testing.T, d driver, p Pool, kept string) {
	t.Helper()
	got, err := d.remove(t.Context(), p)
	if err != nil || (got == "") != (kept == "") || !strings.Contains(got, kept) {
		t.Errorf("wanted that it keeps %q: it keeps %q, %v", kept, got, err)
	}
}

func TestZFSRemovesOnlyTheDatasetsThatItHasMade(t *testing.T) {
	t.Parallel()
	get := "zfs get -H -s local -o value "
	for name, c := range map[string]struct {
		answers map[string]string // of the properties
		fail    string
		kept    string
		want    []string
	}{
		"made by the pool": {
			answers: map[string]string{get + usedBy: "m1-id1", get + madeBy: "m1-id1"},
			want:    []string{get + "incus:pool tank/x", get + "incus:made tank/x", "zfs destroy -r tank/x"},
		},
		"there before": {
			answers: map[string]string{get + usedBy: "m1-id1", get + madeBy + " tank/x/custom": "m1-id1"},
			want: []string{get + "incus:pool tank/x", get + "incus:made tank/x", get + "incus:made tank/x/custom",
				"zfs destroy -r tank/x/custom", "zfs inherit incus:pool tank/x"},
		},
		"there before, with a dataset of somebody else's": {
			answers: map[string]string{get + usedBy: "m1-id1"}, kept: "tank/x/custom",
			want: []string{get + "incus:pool tank/x", get + "incus:made tank/x", get + "incus:made tank/x/custom", "zfs inherit incus:pool tank/x"},
		},
		"of another pool": {
			answers: map[string]string{get + usedBy: "m1-id10", get + madeBy: "m1-id10"}, kept: "tank/x", want: []string{get + "incus:pool tank/x"},
		},
		"nobody's":   {kept: "tank/x", want: []string{get + "incus:pool tank/x"}},
		"not there":  {fail: get, want: []string{get + "incus:pool tank/x"}},
		"half of it": {answers: map[string]string{get + usedBy: "m1-id1"}, fail: get + madeBy + " tank/x/custom", want: []string{get + "incus:pool tank/x", get + "incus:made tank/x", get + "incus:made tank/x/custom", "zfs inherit incus:pool tank/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{answers: c.answers, fail: map[string]bool{}}
			if c.fail != "" {
				r.fail[c.fail] = true
			}
			p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "zfs", Config: map[string]string{"source": "tank/x"}}
			removed(t, &zfsDriver{place{t.TempDir()}, r.run}, p, c.kept)
			r.were(t, c.want...)
		})
	}
}

func TestZPoolOfThatNameThatIsNotOursStays(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{"zfs get": "-\n"}}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "zfs", Config: map[string]string{"size": "1GiB"}}
	removed(t, &zfsDriver{place{t.TempDir()}, r.run}, p, "local")
	r.were(t, "zfs get -H -s local -o value incus:pool local")
}

func TestWhatZFSIsAskedForADataset(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{"zfs get -H -o value incus:pool": "-\n"}, fail: map[string]bool{"zfs list": true}}
	d := &zfsDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "zfs", Config: map[string]string{"source": "tank/x"}}
	must(t, d.check(t.Context(), p))
	r.were(t, "zfs list -H -r -o name tank/x", "zfs get -H -o value incus:pool tank")
	if _, err := d.create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.were(t, "zfs list -H tank/x", "zfs create -o mountpoint=legacy -o incus:pool=m1-id1 -o incus:made=m1-id1 tank/x",
		"zfs create -o mountpoint=none -o incus:made=m1-id1 tank/x/custom")

	r.fail, r.answers["zfs list -H -r"] = nil, "tank/x\n" // it is there, and empty
	must(t, d.check(t.Context(), p))
	r.were(t, "zfs list -H -r -o name tank/x", "zfs get -H -o value incus:pool tank/x")
	if _, err := d.create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.were(t, "zfs list -H tank/x", "zfs set incus:pool=m1-id1 tank/x", "zfs create -o mountpoint=none -o incus:made=m1-id1 tank/x/custom")

	r.answers["zfs get -H -o value incus:pool"] = "m1-other\n" // its own, or of the dataset above it
	refused(t, d.check(t.Context(), p), api.Conflict, "m1-other")
	r.answers["zfs list -H -r"] = "tank/x\ntank/x/y\n"
	refused(t, d.check(t.Context(), p), api.ConfigInvalid, "isn't empty")
}

func TestZFSPoolIsPresentOnlyWithItsProperty(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{"zfs get -H -s local -o value incus:pool": "m2-id1\n"}, fail: map[string]bool{"zfs list": true}}
	d := &zfsDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "zfs", Config: map[string]string{"source": "tank/x", "zfs.pool_name": "tank/x"}}
	refused(t, d.mount(t.Context(), p), api.Unavailable, "isn't the storage pool")
	r.were(t, "zfs list -H tank/x", "zpool import tank", "zfs get -H -s local -o value incus:pool tank/x", "zpool export tank")
	r.fail["zfs get"] = true
	refused(t, d.present(t.Context(), p), api.Unavailable, "isn't there")
	r.fail, r.answers["zfs get -H -s local -o value incus:pool"] = nil, "m1-id1\n"
	must(t, d.present(t.Context(), p))
}

func TestZFSVolumeThatIsNotOursStays(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{}}
	d := &zfsDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "zfs", Config: map[string]string{}}
	v := Volume{Project: "default", Name: "v", ContentType: api.VolumeBlock, Config: map[string]string{"size": "1MiB"}}
	refused(t, d.checkVolume(t.Context(), p, v), api.Conflict, "local/custom/default_v")
	r.calls = nil
	must(t, d.createVolume(t.Context(), p, v))
	r.were(t, "zfs create -s -o incus:made=m1-id1 -V 1048576 local/custom/default_v")
	v.ContentType = api.VolumeFilesystem
	must(t, d.createVolume(t.Context(), p, v))
	r.were(t, "zfs create -o mountpoint=legacy -o incus:made=m1-id1 local/custom/default_v", "zfs set quota=1048576 local/custom/default_v")
	if kept, err := d.removeVolume(t.Context(), p, v); err != nil || !strings.Contains(kept, "default_v") {
		t.Errorf("kept %q, %v", kept, err)
	}
	r.were(t, "zfs get -H -s local -o value incus:made local/custom/default_v")
	r.answers["zfs get"] = "m1-id1\n"
	if kept, err := d.removeVolume(t.Context(), p, v); err != nil || kept != "" {
		t.Errorf("kept %q, %v", kept, err)
	}
	r.were(t, "zfs get -H -s local -o value incus:made local/custom/default_v", "zfs destroy -r local/custom/default_v")
}

func TestWhatLVMIsAskedForAGroupThatIsThere(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{"vgs --noheadings -o lv_count": "  3\n", "lvs --noheadings --nosuffix": "1000 25.0"}, fail: map[string]bool{"lvs --noheadings -o lv_attr": true}}
	d := &lvmDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "lvm", Config: map[string]string{"source": "vg0"}}
	refused(t, d.check(t.Context(), p), api.ConfigInvalid, "isn't empty")
	r.were(t, "vgs --noheadings -o vg_tags vg0", "vgs --noheadings -o lv_count vg0")
	r.answers["vgs --noheadings -o lv_count"] = "  0\n"
	must(t, d.check(t.Context(), p))
	r.calls = nil
	chosen, err := d.create(t.Context(), p)
	if err != nil || chosen["lvm.vg_name"] != "vg0" || chosen["lvm.thinpool_name"] != defaultThinPool {
		t.Fatalf("%v, %v", chosen, err)
	}
	r.were(t, "vgchange --addtag incus-m1-id1 vg0", "lvs --noheadings -o lv_attr vg0/IncusThinPool",
		"lvcreate --yes --wipesignatures y --addtag incus-m1-id1 --thinpool vg0/IncusThinPool --extents 100%FREE")
	if space, err := d.resources(t.Context(), p); err != nil || space.Space.Used != 250 || space.Space.Total != 1000 {
		t.Errorf("%+v, %v", space, err)
	}
	r.answers["vgs --noheadings -o vg_tags"] = "  a,incus-m1-id2\n"
	p.Config["lvm.vg.force_reuse"] = "true"
	refused(t, d.check(t.Context(), p), api.Conflict, "incus-m1-id2")
}

func TestThinPoolThatWasThereBeforeIsUsedAndStays(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{"vgs --noheadings -o lv_count": "1", "lvs --noheadings -o lv_attr": "  twi-a-tz--\n"}}
	d := &lvmDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "lvm", Config: map[string]string{"source": "vg0", "lvm.vg.force_reuse": "true", "lvm.thinpool_name": "theirs"}}
	must(t, d.check(t.Context(), p))
	r.calls = nil
	if _, err := d.create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.were(t, "vgchange --addtag incus-m1-id1 vg0", "lvs --noheadings -o lv_attr vg0/theirs")
	r.answers["vgs --noheadings -o vg_tags"] = "incus-m1-id1"
	removed(t, d, p, "vg0/theirs")
	r.were(t, "vgs --noheadings -o vg_tags vg0", "lvs --noheadings -o lv_tags vg0/theirs", "vgchange --deltag incus-m1-id1 vg0")
	r.answers = map[string]string{"vgs --noheadings -o lv_count": "1", "lvs --noheadings -o lv_attr": "  -wi-a-----\n"}
	refused(t, d.check(t.Context(), p), api.ConfigInvalid, "no thin pool")
}

func TestLVMRemovesOnlyWhatItHasMade(t *testing.T) {
	t.Parallel()
	tags, thin := "vgs --noheadings -o vg_tags vg0", "lvs --noheadings -o lv_tags vg0/IncusThinPool"
	for name, c := range map[string]struct {
		source  string
		answers map[string]string
		fail    string
		kept    string
		want    []string
	}{
		"a group of its own on a disk": {
			source: "/dev/sdx", answers: map[string]string{tags: "incus-m1-id1,incus-made-m1-id1"},
			want: []string{tags, "vgremove --force vg0", "pvs --noheadings -o vg_name /dev/sdx", "pvremove --yes /dev/sdx"},
		},
		"a disk that was cut off before the group": {
			source: "/dev/sdx", fail: "vgs", want: []string{tags, "pvs --noheadings -o vg_name /dev/sdx", "pvremove --yes /dev/sdx"},
		},
		"a disk that is another group's": {
			source: "/dev/sdx", fail: "vgs", answers: map[string]string{"pvs": "  vg1\n"}, want: []string{tags, "pvs --noheadings -o vg_name /dev/sdx"},
		},
		"a group that was there": {
			source: "vg0", answers: map[string]string{tags: "x,incus-m1-id1", thin: "incus-m1-id1"},
			want: []string{tags, thin, "lvremove --force vg0/IncusThinPool", "vgchange --deltag incus-m1-id1 vg0"},
		},
		"a thin pool that is not there": {
			source: "vg0", answers: map[string]string{tags: "incus-m1-id1"}, fail: "lvs", want: []string{tags, thin, "vgchange --deltag incus-m1-id1 vg0"},
		},
		"a group of another pool": {
			source: "vg0", answers: map[string]string{tags: "incus-m1-id10,incus-made-m1-id10"}, kept: "vg0", want: []string{tags},
		},
		"nobody's group": {source: "vg0", kept: "vg0", want: []string{tags}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{answers: c.answers, fail: map[string]bool{}}
			if c.fail != "" {
				r.fail[c.fail] = true
			}
			p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "lvm", Config: map[string]string{"source": c.source, "lvm.vg_name": "vg0"}}
			removed(t, &lvmDriver{place{t.TempDir()}, r.run}, p, c.kept)
			r.were(t, c.want...)
		})
	}
}

func TestLVMGroupIsMarkedFromItsBeginning(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	d := &lvmDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "lvm", Config: map[string]string{"source": "/dev/sdx", "source.wipe": "true", "lvm.use_thinpool": "false"}}
	if _, err := d.create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r.were(t, "wipefs --all /dev/sdx", "vgcreate --addtag incus-m1-id1 --addtag incus-made-m1-id1 local /dev/sdx")
	refused(t, d.present(t.Context(), p), api.Unavailable, "lacks the tag")
	r.answers = map[string]string{"vgs": "  incus-m1-id1,incus-made-m1-id1\n"}
	must(t, d.present(t.Context(), p))
	r.fail = map[string]bool{"vgs": true}
	refused(t, d.present(t.Context(), p), api.Unavailable, "isn't there")
}

func TestLVMVolumeThatIsNotOursStays(t *testing.T) {
	t.Parallel()
	r := &recorder{answers: map[string]string{}}
	d := &lvmDriver{place{t.TempDir()}, r.run}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Driver: "lvm", Config: map[string]string{"source": "vg0"}}
	v := Volume{Project: "default", Name: "a-b", ContentType: api.VolumeFilesystem, Config: map[string]string{"size": "1MiB"}}
	refused(t, d.checkVolume(t.Context(), p, v), api.Conflict, "vg0/custom_default_a--b")
	r.were(t, "lvs --noheadings -o lv_tags vg0/custom_default_a--b")
	must(t, d.createVolume(t.Context(), p, v))
	r.were(t, "lvcreate --yes --wipesignatures y --addtag incus-m1-id1 --name custom_default_a--b --virtualsize 1048576B --thinpool vg0/IncusThinPool",
		"mkfs.ext4 -q -E nodiscard /dev/vg0/custom_default_a--b")
	if kept, err := d.removeVolume(t.Context(), p, v); err != nil || !strings.Contains(kept, "custom_default_a--b") {
		t.Errorf("kept %q, %v", kept, err)
	}
	r.were(t, "lvs --noheadings -o lv_tags vg0/custom_default_a--b")
	r.answers["lvs"] = "incus-m1-id1"
	if kept, err := d.removeVolume(t.Context(), p, v); err != nil || kept != "" {
		t.Errorf("kept %q, %v", kept, err)
	}
	r.were(t, "lvs --noheadings -o lv_tags vg0/custom_default_a--b", "lvremove --force vg0/custom_default_a--b")
}

func TestToolThatWasCutOffHasNotSaidThatNothingIsThere(t *testing.T) {
	t.Parallel()
	slow := func(context.Context, string, ...string) (string, error) {
		return "", fmt.Errorf("it took too long: %w", context.DeadlineExceeded)
	}
	at := place{t.TempDir()}
	p := Pool{ID: "id1", Owner: "m1", Name: "local", Config: map[string]string{"source": "x"}}
	for _, d := range []driver{&lvmDriver{at, slow}, &zfsDriver{at, slow}} {
		if _, err := d.remove(t.Context(), p); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%T: %v", d, err)
		}
		if _, err := d.removeVolume(t.Context(), p, Volume{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%T, a volume: %v", d, err)
		}
	}
}

package hosts

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What follows are the documentation's own files, letter by letter.
const (
	bootstrapPreseed = `config:
  core.https_address: 192.0.2.101:8443
  images.auto_update_interval: 15
storage_pools:
- name: default
  driver: dir
- name: my-pool
  driver: zfs
networks:
- name: incusbr0
  type: bridge
profiles:
- name: default
  devices:
    root:
      path: /
      pool: my-pool
      type: disk
    eth0:
      name: eth0
      nictype: bridged
      parent: incusbr0
      type: nic
cluster:
  server_name: server1
  enabled: true
`
	joinPreseed = `cluster:
  enabled: true
  server_address: 192.0.2.102:8443
  cluster_token: TOKEN
  member_config:
  - entity: storage-pool
    name: default
    key: source
    value: ""
  - entity: storage-pool
    name: my-pool
    key: source
    value: ""
  - entity: storage-pool
    name: my-pool
    key: driver
    value: "zfs"
`
)

// hasDriver tells whether the machine can make pools of that driver, as the daemon sees it.
func (h *host) hasDriver(name string) bool {
	h.t.Helper()
	return strings.Contains(h.incus("query", "/1.0"), `"Name": "`+name+`"`)
}

// secondDriver is what stands in for zfs on this machine.
func (h *host) secondDriver() string {
	h.t.Helper()
	for _, name := range []string{"zfs", "btrfs"} {
		if h.hasDriver(name) {
			return name
		}
	}
	h.t.Log("neither zfs nor btrfs works on this machine; dir stands in for both")
	return "dir"
}

func (h *host) token(name string) string {
	h.t.Helper()
	return strings.TrimSpace(h.incus("cluster", "add", name, "--quiet"))
}

func TestDocumentedPreseedsFormACluster(t *testing.T) {
	l := newLab(t)
	one, two := l.host("server1", "192.0.2.101"), l.host("server2", "192.0.2.102")
	driver := one.secondDriver()
	one.feed(strings.ReplaceAll(bootstrapPreseed, "driver: zfs", "driver: "+driver), "admin", "init", "--preseed")
	join := strings.ReplaceAll(joinPreseed, "TOKEN", one.token("server2"))
	join = strings.ReplaceAll(join, `"zfs"`, `"`+driver+`"`)
	_, warnings, err := two.exec(join, "incus", "admin", "init", "--preseed")
	if err != nil || !strings.Contains(warnings, "driver") {
		t.Fatalf("join: %v; it says %q, and should warn of the key driver", err, warnings)
	}
	for _, h := range []*host{one, two} {
		if list := h.incus("cluster", "list", "-f", "csv", "-c", "ns"); list != "server1,ONLINE\nserver2,ONLINE\n" {
			t.Errorf("%s lists the members %q", h.name, list)
		}
		if list := h.incus("storage", "list", "-f", "csv", "-c", "nDs"); !strings.Contains(list, "default,dir,CREATED") || !strings.Contains(list, "my-pool,"+driver+",CREATED") {
			t.Errorf("%s lists the pools %q", h.name, list)
		}
		if !h.hasLink("incusbr0") {
			t.Errorf("%s has no bridge", h.name)
		}
		for _, pool := range []string{"default", "my-pool"} {
			if show := one.incus("storage", "show", pool, "--target", h.name); !strings.Contains(show, "status: Created") || !strings.Contains(show, h.state) {
				t.Errorf("%s on %s: %s", pool, h.name, show)
			}
		}
	}
	profile := two.incus("profile", "show", "default")
	for _, line := range []string{"pool: my-pool", "parent: incusbr0", "nictype: bridged"} {
		if !strings.Contains(profile, line) {
			t.Errorf("the profile lacks %q:\n%s", line, profile)
		}
	}
	// The bridge survives the daemon, and is there again after a start.
	for _, end := range []func(){two.kill, two.stop} {
		end()
		if !two.hasLink("incusbr0") {
			t.Error("the bridge went with the daemon")
		}
		two.start()
	}
	// What is not used any more can be removed, and leaves nothing.
	one.incus("profile", "device", "remove", "default", "root")
	one.incus("profile", "device", "remove", "default", "eth0")
	one.incus("network", "delete", "incusbr0")
	one.incus("storage", "delete", "my-pool")
	one.incus("storage", "delete", "default")
	for _, h := range []*host{one, two} {
		if h.hasLink("incusbr0") {
			t.Errorf("%s still has the bridge", h.name)
		}
	}
	if left := l.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, "\n"))
	}
}

func TestPreseedWithADriverThatTheMachineLacksChangesNothing(t *testing.T) {
	l := newLab(t)
	h := l.host("server1", "192.0.2.101")
	if h.hasDriver("zfs") {
		t.Skip("this machine has zfs")
	}
	before := h.incus("admin", "init", "--dump")
	said := h.refused(bootstrapPreseed, "admin", "init", "--preseed")
	if !strings.Contains(said, "zfs") {
		t.Errorf("it does not say why: %s", said)
	}
	if after := h.incus("admin", "init", "--dump"); after != before {
		t.Errorf("it has changed something:\n%s", after)
	}
	if h.hasLink("incusbr0") {
		t.Error("it has made the bridge")
	}
}

func TestDumpMakesAnotherServerTheSame(t *testing.T) {
	l := newLab(t)
	one, two := l.host("server1", "192.0.2.101"), l.host("server2", "192.0.2.102")
	preseed := strings.ReplaceAll(bootstrapPreseed, "driver: zfs", "driver: dir")
	preseed, _, _ = strings.Cut(preseed, "cluster:")
	preseed += "projects:\n- name: web\n  config: {features.networks: \"false\"}\n"
	one.feed(strings.ReplaceAll(preseed, "  core.https_address: 192.0.2.101:8443\n", ""), "admin", "init", "--preseed")
	dump := one.incus("admin", "init", "--dump")
	// Each has its own place for its pools.
	two.feed(strings.ReplaceAll(dump, one.state, two.state), "admin", "init", "--preseed")
	if again := two.incus("admin", "init", "--dump"); strings.ReplaceAll(again, two.state, one.state) != dump {
		t.Errorf("the dump of the second server:\n%s\nof the first:\n%s", again, dump)
	}
}

var fingerprint = regexp.MustCompile(`Cluster fingerprint: ([0-9a-f]{64})`)

// bootstrapByHand leads the documentation's dialogue on the first server.
func bootstrapByHand(h *host, password string) *terminal {
	h.t.Helper()
	say := h.terminal("admin", "init")
	say.answer("Would you like to use Incus clustering? (yes/no) [default=no]: ", "yes")
	say.answer("What IP address or DNS name should be used to reach this server? [default="+h.address+"]: ", "")
	say.answer("Are you joining an existing cluster? (yes/no) [default=no]: ", "no")
	say.answer("What member name should be used to identify this server in the cluster? [default=", h.name)
	if password == "" {
		say.answer("Setup password authentication on the cluster? (yes/no) [default=no]: ", "no")
	} else {
		say.answer("Setup password authentication on the cluster? (yes/no) [default=no]: ", "yes")
		say.answer("Trust password for new clients: ", password)
		say.answer("Again: ", password)
	}
	say.answer("Do you want to configure a new local storage pool? (yes/no) [default=yes]: ", "")
	if strings.Count(h.incus("query", "/1.0"), `"Remote"`) > 1 {
		say.answer("Name of the storage backend to use (", "dir")
	}
	say.answer("Where should this storage pool store its data? [default=", "")
	say.answer("Do you want to configure a new remote storage pool? (yes/no) [default=no]: ", "no")
	say.answer("Would you like to configure Incus to use an existing bridge or host interface? (yes/no) [default=no]: ", "no")
	say.answer("Would you like stale cached images to be updated automatically? (yes/no) [default=yes]: ", "")
	say.answer(`Would you like a YAML "incus admin init" preseed to be printed? (yes/no) [default=no]: `, "yes")
	if err := say.end(); err != nil {
		h.t.Fatalf("the dialogue on %s: %v\n%s", h.name, err, say.text())
	}
	return say
}

func TestDialogueWithATokenOnATerminal(t *testing.T) {
	l := newLab(t)
	one, two := l.host("server1", "192.0.2.101"), l.host("server2", "192.0.2.102")
	bootstrapByHand(one, "")
	token := one.token("server2")

	// Whoever changes their mind at the last question leaves the token and the server as they were.
	say := two.terminal("admin", "init")
	joinQuestions(say, two, token)
	say.expect(`Would you like a YAML "incus admin init" preseed to be printed? (yes/no) [default=no]: `)
	say.interrupt()
	if err := say.end(); err == nil {
		t.Error("Ctrl-C counts as success")
	}
	if list := one.incus("cluster", "list-tokens", "-f", "csv"); !strings.Contains(list, "server2") {
		t.Errorf("after Ctrl-C the token is gone: %q", list)
	}

	say = two.terminal("admin", "init")
	joinQuestions(say, two, token)
	say.answer(`Would you like a YAML "incus admin init" preseed to be printed? (yes/no) [default=no]: `, "yes")
	if err := say.end(); err != nil {
		t.Fatalf("join: %v\n%s", err, say.text())
	}
	requireJoined(t, one, two)
}

func joinQuestions(say *terminal, h *host, token string) {
	say.answer("Would you like to use Incus clustering? (yes/no) [default=no]: ", "yes")
	say.answer("What IP address or DNS name should be used to reach this server? [default="+h.address+"]: ", "")
	say.answer("Are you joining an existing cluster? (yes/no) [default=no]: ", "yes")
	say.answer("Do you have a join token? (yes/no/[token]) [default=no]: ", "yes")
	say.answer("Please provide join token: ", token)
	say.answer("All existing data is lost when joining a cluster, continue? (yes/no) [default=no] ", "yes")
	say.answer(`Choose "source" property for storage pool "local": `, "")
}

func requireJoined(t *testing.T, one, two *host) {
	t.Helper()
	if list := two.incus("cluster", "list", "-f", "csv", "-c", "ns"); list != one.name+",ONLINE\n"+two.name+",ONLINE\n" {
		t.Errorf("members: %q", list)
	}
	for _, h := range []*host{one, two} {
		if show := one.incus("storage", "show", "local", "--target", h.name); !strings.Contains(show, "status: Created") {
			t.Errorf("the pool on %s: %s", h.name, show)
		}
	}
}

func TestDialogueWithAPasswordOnATerminal(t *testing.T) {
	const password = "correct horse battery"
	l := newLab(t)
	one, two := l.host("server1", "192.0.2.101"), l.host("server2", "192.0.2.102")
	printed := bootstrapByHand(one, password).text()
	if shown := one.incus("config", "get", "core.trust_password"); shown != "true\n" {
		t.Errorf("core.trust_password is shown as %q", shown)
	}
	if n := strings.Count(printed, password); n > 1 { // the preseed has it, so that it reproduces the session
		t.Errorf("the password is on the screen %d times:\n%s", n, printed)
	}
	info := one.incus("info")
	say := two.terminal("admin", "init")
	say.answer("Would you like to use Incus clustering? (yes/no) [default=no]: ", "yes")
	say.answer("What IP address or DNS name should be used to reach this server? [default=192.0.2.102]: ", "")
	say.answer("Are you joining an existing cluster? (yes/no) [default=no]: ", "yes")
	say.answer("Do you have a join token? (yes/no/[token]) [default=no]: ", "no")
	say.answer("What member name should be used to identify this server in the cluster? [default=", "server2")
	say.answer("IP address or FQDN of an existing cluster member (may include port): ", "192.0.2.101:8443")
	say.expect(`You can validate this fingerprint by running "incus info" locally on an existing cluster member.`)
	shown := fingerprint.FindStringSubmatch(say.text())
	if shown == nil || !strings.Contains(info, shown[1]) {
		t.Fatalf("the fingerprint is not that of incus info:\n%s", say.text())
	}
	say.answer("Is this the correct fingerprint? (yes/no/[fingerprint]) [default=no]: ", shown[1])
	say.answer("Cluster trust password: ", "wrong"+password)
	say.answer("Cluster trust password: ", password)
	say.answer("All existing data is lost when joining a cluster, continue? (yes/no) [default=no] ", "yes")
	say.answer(`Choose "source" property for storage pool "local": `, "")
	say.answer(`Would you like a YAML "incus admin init" preseed to be printed? (yes/no) [default=no]: `, "no")
	if err := say.end(); err != nil {
		t.Fatalf("join: %v\n%s", err, say.text())
	}
	if strings.Contains(say.text(), password) {
		t.Errorf("the password was echoed:\n%s", say.text())
	}
	requireJoined(t, one, two)
}

func TestThreeMembersHaveThreeSourcesOnTwoDrivers(t *testing.T) {
	l := newLab(t)
	members := []*host{l.host("server1", "192.0.2.101"), l.host("server2", "192.0.2.102"), l.host("server3", "192.0.2.103")}
	one := members[0]
	one.feed("config: {core.https_address: 192.0.2.101:8443}\ncluster: {server_name: server1, enabled: true}\n", "admin", "init", "--preseed")
	for _, h := range members[1:] {
		h.feed("cluster: {enabled: true, server_address: "+h.address+", cluster_token: "+one.token(h.name)+"}\n", "admin", "init", "--preseed")
	}
	drivers := map[string]string{"slow": "dir"}
	if one.hasDriver("btrfs") {
		drivers["fast"] = "btrfs"
	} else {
		t.Log("btrfs does not work on this machine: one driver only")
	}
	for pool, driver := range drivers {
		for i, h := range members {
			source := h.dir + "/" + h.name + "-" + pool
			if driver == "dir" {
				one.exec("", "mkdir", source)
				one.incus("storage", "create", pool, driver, "source="+source, "--target", h.name)
			} else {
				one.incus("storage", "create", pool, driver, "size="+[]string{"256MiB", "320MiB", "384MiB"}[i], "--target", h.name)
			}
		}
		members[2].incus("storage", "create", pool, driver)
		seen := map[string]bool{}
		for _, h := range members {
			seen[members[1].incus("storage", "get", pool, "source", "--target", h.name)] = true
		}
		if len(seen) != 3 {
			t.Errorf("%s has the sources %v", pool, seen)
		}
		one.incus("storage", "delete", pool)
	}
	if left := l.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, "\n"))
	}
}

func TestFullDiskIsErroredAndMendedWithOneCommand(t *testing.T) {
	l := newLab(t)
	one, two := l.host("server1", "192.0.2.101"), l.host("server2", "192.0.2.102")
	one.feed("config: {core.https_address: 192.0.2.101:8443}\ncluster: {server_name: server1, enabled: true}\n", "admin", "init", "--preseed")
	two.feed("cluster: {enabled: true, server_address: 192.0.2.102, cluster_token: "+one.token("server2")+"}\n", "admin", "init", "--preseed")
	disk := l.dir + "/small"
	l.must(exec.Command("mkdir", disk).Run())
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "small", disk).CombinedOutput(); err != nil {
		t.Skipf("no small disk can be mounted: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", disk).Run() })
	l.must(exec.Command("sh", "-c", "mkdir "+disk+"/pool; cat /dev/zero > "+disk+"/fill 2>/dev/null; true").Run())
	one.incus("storage", "create", "local", "dir", "--target", "server1")
	one.incus("storage", "create", "local", "dir", "source="+disk+"/pool", "--target", "server2")
	if said := one.refused("", "storage", "create", "local", "dir"); !strings.Contains(said, "server2") || !strings.Contains(said, "space") {
		t.Errorf("it says %q", said)
	}
	if show := one.incus("storage", "show", "local", "--target", "server2"); !strings.Contains(show, "status: Errored") || !strings.Contains(show, "space") {
		t.Errorf("the member shows %s", show)
	}
	if show := one.incus("storage", "show", "local", "--target", "server1"); !strings.Contains(show, "status: Created") {
		t.Errorf("the other one shows %s", show)
	}
	l.must(exec.Command("rm", disk+"/fill").Run())
	one.incus("storage", "create", "local", "dir")
	if list := one.incus("storage", "list", "-f", "csv", "-c", "ns"); list != "local,CREATED\n" {
		t.Errorf("then: %q", list)
	}
	one.incus("storage", "delete", "local")
}

func TestKilledWhileMakingLeavesNothing(t *testing.T) {
	l := newLab(t)
	h := l.host("server1", "192.0.2.101")
	driver, option := "dir", "user.x=1"
	if h.hasDriver("btrfs") {
		driver, option = "btrfs", "size=256MiB"
	}
	// Killed at many moments of the making, some before and some after.
	for i := range 8 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.exec("", "incus", "storage", "create", "local", driver, option)
		}()
		killAfter(h, i)
		<-done
		h.start()
		l.eventually("the pool is made, or not there", func() error {
			_, _, err := h.exec("", "incus", "storage", "delete", "local")
			_ = err // not there, or still being made: the list tells
			return emptyList(h)
		})
		if left := l.leftovers(); len(left) > 0 {
			t.Fatalf("round %d left: %s", i, strings.Join(left, "\n"))
		}
	}
}

// killAfter kills the daemon a little later in each round: there is no event to wait for, since
// any moment may be the one.
func killAfter(h *host, round int) {
	<-time.After(time.Duration(round) * 12 * time.Millisecond)
	h.kill()
}

// emptyList fails as long as the server lists a storage pool.
func emptyList(h *host) error {
	if list := h.incus("storage", "list", "-f", "csv"); list != "" {
		return fmt.Errorf("it lists %q", list)
	}
	return nil
}

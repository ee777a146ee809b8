package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"incusd/api"
	"incusd/internal/clustertest"
)

func rename(by *clustertest.Server, name, newName string) error {
	return by.Do(by.C.Context(), "POST", "/1.0/cluster/members/"+name, api.ClusterMemberPost{ServerName: newName}, nil)
}

// A load writes through members until it is stopped, each key once.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	keys []string // acknowledged
	errs []error
}

func startLoad(c *clustertest.Cluster, through ...*clustertest.Server) *load {
	ctx, stop := context.WithCancel(c.Context())
	l := &load{stop: stop}
	for _, s := range through {
		l.done.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("user.%s-%d", s.Host, i)
				err := set(s, key, "1")
				l.mu.Lock()
				if err == nil {
					l.keys = append(l.keys, key)
				} else {
					l.errs = append(l.errs, err)
				}
				l.mu.Unlock()
			}
		})
	}
	c.T.Cleanup(stop)
	return l
}

// written waits until n keys are acknowledged.
func (l *load) written(c *clustertest.Cluster, n int) {
	c.T.Helper()
	c.Eventually(fmt.Sprintf("%d writes", n), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.keys) < n {
			return fmt.Errorf("%d are done, %d failed", len(l.keys), len(l.errs))
		}
		return nil
	})
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys)
}

// end stops the load. Nothing of it may have failed, and all must be there.
func (l *load) end(c *clustertest.Cluster) {
	c.T.Helper()
	l.stop()
	l.done.Wait()
	for _, err := range l.errs {
		c.T.Errorf("a write failed: %v", err)
	}
	var server api.Server
	if err := c.Running()[0].Do(c.Context(), "GET", "/1.0", nil, &server); err != nil {
		c.T.Fatal(err)
	}
	for _, key := range l.keys {
		if server.Config[key] != "1" {
			c.T.Errorf("the write of %s is lost", key)
		}
	}
}

// requireName waits until all running members call the member with that ID by its new name, wherever
// a name is shown.
func requireName(c *clustertest.Cluster, s *clustertest.Server, id, name, operation string) {
	c.T.Helper()
	for _, other := range c.Running() {
		c.Eventually(other.Host+" calls "+s.Host+" "+name, func() error {
			if m, ok := other.View().MemberByName(name); !ok || m.ID != id {
				return errors.New("it has another name there")
			}
			var server api.Server
			if err := other.Do(c.Context(), "GET", "/1.0?target="+name, nil, &server); err != nil {
				return err
			}
			if got := server.Environment.ServerName; got != name {
				return fmt.Errorf("by target= it calls itself %q", got)
			}
			var op api.Operation
			if err := other.Do(c.Context(), "GET", "/1.0/operations/"+operation, nil, &op); err != nil {
				return err
			}
			if op.Location != name {
				return fmt.Errorf("its token is at %q", op.Location)
			}
			var group api.ClusterGroup
			if err := other.Do(c.Context(), "GET", "/1.0/cluster/groups/gpu", nil, &group); err != nil {
				return err
			}
			if len(group.Members) != 1 || group.Members[0] != name {
				return fmt.Errorf("the group has %v", group.Members)
			}
			var pool api.StoragePool
			if err := other.Do(c.Context(), "GET", "/1.0/storage-pools/local?target="+name, nil, &pool); err != nil {
				return err
			}
			if pool.Status != api.EntityCreated || pool.Config["source"] != "/srv/"+s.Host {
				return fmt.Errorf("its pool is %s, %v", pool.Status, pool.Config)
			}
			return nil
		})
	}
}

// A rename takes nothing from the cluster: no write fails, nobody restarts, and all that belongs to
// the member follows, also when it was away and after all were killed.
func TestMemberIsRenamedUnderLoad(t *testing.T) {
	for _, who := range []string{"leader", "follower", "member that is away"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 3)
			all, leader := c.Servers(), c.Leader()
			member := leader
			for _, s := range all {
				if who != "leader" && s != leader {
					member = s
					break
				}
			}
			by := all[0]
			if by == member {
				by = all[1]
			}
			define(t, by, "local", all...)
			mustCreate(t, by, "local")
			row, _ := by.View().MemberByName(member.Host)
			var op api.Operation
			if err := member.Do(c.Context(), "POST", "/1.0/cluster/members", api.ClusterMembersPost{ServerName: "late"}, &op); err != nil {
				t.Fatal(err)
			}
			post := api.ClusterGroupsPost{Name: "gpu", ClusterGroupPut: api.ClusterGroupPut{Members: []string{member.Host}}}
			if err := by.Do(c.Context(), "POST", "/1.0/cluster/groups", post, nil); err != nil {
				t.Fatal(err)
			}
			through := all
			if who == "member that is away" {
				member.Kill()
				through = c.Running()
			}

			l := startLoad(c, through...)
			l.written(c, 10)
			if err := rename(by, member.Host, "other"); err != nil {
				t.Fatal(err)
			}
			if !member.Runs() {
				member.MustStart()
			}
			requireName(c, member, row.ID, "other", op.ID)
			c.Leader() // whatever it is called
			l.written(c, l.count()+10)
			l.end(c)
			c.RequireConverged()

			restartAll(c)
			requireName(c, member, row.ID, "other", op.ID)
			if err := rename(member, "other", member.Host); err != nil {
				t.Fatal(err)
			}
			requireName(c, member, row.ID, member.Host, op.ID)
			c.RequireConverged()
		})
	}
}

// A name is given once, whichever of two requests on two members comes first.
func TestRenameAndJoinTokenRaceForAName(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	all := c.Servers()
	for i := range 5 {
		name := fmt.Sprintf("n%d", i)
		current, _ := all[0].View().Member(idOf(c, all[2]))
		var renamed, issued error
		var both sync.WaitGroup
		both.Go(func() { renamed = rename(all[0], current.Name, name) })
		both.Go(func() { _, issued = all[1].Token(c.Context(), name) })
		both.Wait()
		if (renamed == nil) == (issued == nil) {
			t.Errorf("%s: renamed: %v, issued: %v", name, renamed, issued)
		}
		for _, err := range []error{renamed, issued} {
			if err != nil && !errors.Is(err, api.NameTaken) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	c.RequireConverged()
}

// idOf is the ID of a server's member.
func idOf(c *clustertest.Cluster, s *clustertest.Server) string {
	c.T.Helper()
	for _, m := range s.View().Members() {
		if m.Address == s.Address() {
			return m.ID
		}
	}
	c.T.Fatalf("%s is no member", s.Host)
	return ""
}

package clustertest_test

import (
	"context"
	"encoding/json"
	"testing"

	"incusd/api"
	"incusd/internal/clustertest"
)

// A client may listen on one member and ask another, as through a load balancer: it hears
// the end of its operation all the same, and where everything happened.
func TestEveryMemberTellsWhatHappensOnTheOthers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		all := c.Servers()
		ctx, cancel := context.WithCancel(c.Context())
		defer cancel()
		heard := make(map[*clustertest.Server]<-chan api.Event)
		for _, s := range all {
			events, err := s.Listen(ctx, "operation,lifecycle")
			if err != nil {
				t.Fatal(err)
			}
			heard[s] = events
		}
		if err := all[0].Run(ctx, "POST", "/1.0/cluster/members/m3/state", map[string]string{"action": "evacuate"}); err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			var evacuated, ended bool
			for !evacuated || !ended {
				e, open := <-heard[s]
				if !open {
					t.Fatalf("%s: the event of the evacuation %t, the end of its operation %t", s.Host, evacuated, ended)
				}
				var what struct{ Action, Description, Status, Location string }
				if err := json.Unmarshal(e.Metadata, &what); err != nil {
					t.Fatal(err)
				}
				if what.Action != "cluster-member-evacuated" && what.Description != "Evacuating cluster member" {
					continue // of the joins, perhaps
				}
				if e.Location != "m1" {
					t.Errorf("%s says that %s%s happened on %q, it was m1", s.Host, what.Action, what.Status, e.Location)
				}
				evacuated = evacuated || what.Action != ""
				ended = ended || what.Status == "Success"
			}
		}
		cancel()
		for _, events := range heard {
			for range events { // until the listener has gone
			}
		}
	})
}

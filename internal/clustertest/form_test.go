package clustertest_test

import (
	"slices"
	"testing"

	"incusd/api"
	"incusd/internal/clustertest"
)

func TestThreeServersFormACluster(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		for _, s := range c.Servers() {
			members, err := s.Members(c.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(members) != 3 {
				t.Fatalf("%s lists %d members", s.Host, len(members))
			}
			for _, m := range members {
				if m.Status != "Online" || !slices.Contains(m.Roles, api.RoleDatabase) {
					t.Errorf("%s shows %+v", s.Host, m)
				}
			}
		}
		c.RequireConverged()
	})
}

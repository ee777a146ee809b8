package membership

import (
	"context"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// A Forming store is what Bootstrap works on: this server's own, of which it is the
// only member.
type FormingStore interface {
	ID() string
	Read(ctx context.Context) (*raftstore.View, error)
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
}

// Bootstrap makes a standalone server the first member of a cluster: in one entry it
// gets its name and address, and the cluster its key pair. What the server holds stays.
// It fails with api.AlreadyClustered, unless the cluster is the one that this server
// formed under the same name and address: then an answer was lost, and it succeeds.
func Bootstrap(ctx context.Context, store FormingStore, name, address string, now func() time.Time, requestor *api.EventRequestor) error {
	if err := api.ValidateMemberName(name); err != nil {
		return err
	}
	if address == "" {
		return api.NoAddress
	}
	view, err := store.Read(ctx)
	if err != nil {
		return err
	}
	if view.Cluster().Enabled {
		self, ok := view.Member(store.ID())
		if ok && self.Name == name && self.Address == address && self.Token == "" {
			return nil // who joined has a token
		}
		return api.AlreadyClustered
	}
	pair, err := trust.GenerateAt(now(), trust.Server, trust.LocalHosts()...)
	if err != nil {
		return err
	}
	_, err = propose(ctx, store, state.KindClusterEnable, now(), requestor, state.ClusterEnable{
		MemberID:    store.ID(),
		Name:        name,
		Address:     address,
		Certificate: string(pair.CertPEM),
		Key:         string(pair.KeyPEM),
	})
	return err
}

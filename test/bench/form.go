package main

import (
	"context"
	"fmt"
	"time"
)

// formed is how long each step of forming a cluster took; joins begin with the second member.
type formed struct {
	starts    []time.Duration
	bootstrap time.Duration
	adds      []time.Duration
	joins     []time.Duration
}

// form starts n new members below folder and forms a cluster of them with the command line.
func (b *bench) form(ctx context.Context, folder string, n int) (formed, error) {
	var f formed
	var first *member
	for i := range n {
		m, err := b.newMember(folder, fmt.Sprintf("m%d", i+1))
		if err != nil {
			return f, err
		}
		took, err := m.start(ctx)
		if err != nil {
			return f, err
		}
		f.starts = append(f.starts, took)
		if first == nil {
			first = m
			f.bootstrap, err = m.bootstrap(ctx)
		} else {
			err = f.add(ctx, first, m)
		}
		if err != nil {
			return f, err
		}
	}
	list, err := first.api.members(ctx)
	if err == nil && len(list) != n {
		err = fmt.Errorf("the cluster has %d members after %d have joined", len(list), n)
	}
	return f, err
}

// add issues a token on first and joins m with it.
func (f *formed) add(ctx context.Context, first, m *member) error {
	started := time.Now()
	token, err := first.incus(ctx, "", "cluster", "add", "-q", m.name)
	if err != nil {
		return err
	}
	f.adds = append(f.adds, time.Since(started))

	started = time.Now()
	preseed := fmt.Sprintf("cluster: {enabled: true, server_address: %q, cluster_token: %q}", m.address, token)
	if _, err := m.incus(ctx, preseed, "admin", "init", "--preseed"); err != nil {
		return err
	}
	f.joins = append(f.joins, time.Since(started))
	return nil
}

// bootstrap makes m the first member of a cluster and returns how long that took.
func (m *member) bootstrap(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	preseed := fmt.Sprintf("config: {core.https_address: %q}\ncluster: {server_name: %s, enabled: true}", m.address, m.name)
	_, err := m.incus(ctx, preseed, "admin", "init", "--preseed")
	return time.Since(started), err
}

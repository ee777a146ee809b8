package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"incusd/api"
)

// waitStatus waits until m's member list says status for the member called name.
func (m *member) waitStatus(ctx context.Context, name, status string) error {
	err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
		list, err := m.api.members(ctx)
		return err == nil && slices.ContainsFunc(list, func(c api.ClusterMember) bool {
			return c.ServerName == name && c.Status == status
		}), nil
	})
	if err != nil {
		return fmt.Errorf("wait until %s is %s: %w", name, status, err)
	}
	return nil
}

// leader returns the running member that leads, and the others.
func (b *bench) leader(ctx context.Context) (*member, []*member, error) {
	list, err := b.running[0].api.members(ctx)
	if err != nil {
		return nil, nil, err
	}
	var leader *member
	var others []*member
	for _, m := range b.running {
		leads := slices.ContainsFunc(list, func(c api.ClusterMember) bool {
			return c.ServerName == m.name && slices.Contains(c.Roles, api.RoleDatabaseLeader)
		})
		if leads {
			leader = m
		} else {
			others = append(others, m)
		}
	}
	if leader == nil {
		return nil, nil, errors.New("no member leads")
	}
	return leader, others, nil
}

// settle waits until every member takes a write and sees all members online and voting.
func (b *bench) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, m := range b.running {
		err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
			return m.settled(ctx, len(b.running)), nil
		})
		if err != nil {
			return fmt.Errorf("wait until %s sees %d voters online: %w", m.name, len(b.running), err)
		}
	}
	return nil
}

// settled says whether m takes a write and sees n voters online.
func (m *member) settled(ctx context.Context, n int) bool {
	if m.api.trySetConfig(ctx, 5*time.Second, "user.settled", m.name) != nil {
		return false
	}
	list, err := m.api.members(ctx)
	if err != nil {
		return false
	}
	voters := 0
	for _, c := range list {
		if c.Status == "Online" && slices.Contains(c.Roles, api.RoleDatabase) {
			voters++
		}
	}
	return voters == n
}

// newMember prepares a member below folder and remembers to end it.
func (b *bench) newMember(folder, name string) (*member, error) {
	address, err := b.addresses.Take()
	if err != nil {
		return nil, err
	}
	m, err := newMember(b.bin, filepath.Join(b.dir, folder), name, address)
	if err != nil {
		return nil, err
	}
	b.running = append(b.running, m)
	return m, nil
}

// stopAll kills every member. Their logs stay until the bench ends.
func (b *bench) stopAll() {
	for _, m := range b.running {
		m.kill()
	}
	b.running = nil
}

// showLogs copies the ends of all logs to w.
func (b *bench) showLogs(w io.Writer) {
	logs, _ := filepath.Glob(filepath.Join(b.dir, "*", "*", "incusd.log")) // the pattern is valid
	for _, log := range logs {
		showLog(w, log)
	}
}

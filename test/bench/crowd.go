package main

import (
	"context"
	"path/filepath"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/internal/trust"
	"incusd/test/crowd"
)

// crowded measures what an administrator waits for, on a new connection for each request,
// while strangers from the same address keep the leader busy.
func (b *bench) crowded(ctx context.Context) error {
	leader, _, err := b.leader(ctx)
	if err != nil {
		return err
	}
	admin, err := trust.Generate(trust.Client)
	if err != nil {
		return err
	}
	local := client.Unix(filepath.Join(leader.dir, "unix.socket"), client.Options{})
	defer local.Close()
	post := api.CertificatesPost{Name: "bench", Type: api.CertificateClient, Certificate: string(admin.CertPEM)}
	if err := local.CreateCertificate(ctx, post); err != nil {
		return err
	}
	shown, err := client.RemoteCertificate(ctx, nil, leader.address)
	if err != nil {
		return err
	}
	strangers := crowd.At(leader.address)
	defer strangers.Go()
	if err := strangers.ComeMixed(); err != nil {
		return err
	}
	samples, err := oneByOne(min(b.calls, 100), func(int) error {
		c := client.HTTPS(leader.address, client.Pin(shown, &admin.TLS), client.Options{Timeout: time.Minute})
		defer c.Close()
		_, err := c.Query(ctx, "GET", membersPath, nil, "")
		return err
	})
	b.table.durations("administrator's request, in a crowd of 1,200", samples)
	return err
}

package daemon

import (
	"errors"
	"time"

	"incusd/internal/config"
)

// addresses are the configured ones to listen on.
func (d *Daemon) addresses() []string {
	local := d.local.Config()
	return listenAddresses(local)
}

// listenAddresses are those of the local keys, with their ports.
func listenAddresses(local map[string]string) []string {
	var out []string
	for _, key := range []string{"core.https_address", "cluster.https_address"} {
		if a := local[key]; a != "" {
			out = append(out, config.CanonicalAddress(a, config.DefaultPort))
		}
	}
	return out
}

// metricsAddress is the configured one of the listener that is for metrics alone; empty for none.
func metricsAddress(local map[string]string) string {
	const defaultPort = 9100
	if a := local[keyMetricsAddress]; a != "" {
		return config.CanonicalAddress(a, defaultPort)
	}
	return ""
}

// listen makes all listeners follow the configuration.
func (d *Daemon) listen() error {
	return errors.Join(d.https.follow(d.addresses), d.metrics.follow(func() []string { return []string{metricsAddress(d.local.Config())} }))
}

// listenOn makes all listeners follow local keys that are not noted yet; where they cannot, nothing
// has changed.
func (d *Daemon) listenOn(local map[string]string) error {
	if err := d.https.set(listenAddresses(local)...); err != nil {
		return err
	}
	if err := d.metrics.set(metricsAddress(local)); err != nil {
		d.listenAgain()
		return err
	}
	return nil
}

// listenAtStart opens the listeners. A clustered server whose addresses are not all there yet (a
// network comes up late, or not at all) listens on those that are, so that clients' network keeps
// no voter out, and tries again until it is stopped.
func (d *Daemon) listenAtStart() error {
	err := d.listen()
	if err == nil {
		return nil
	}
	if v := d.current.Local(); v == nil || !v.Cluster().Enabled {
		d.log.Error("the server is not available on the network", "err", err)
		return nil
	}
	d.log.Warn("cannot listen yet, trying again", "err", err)
	d.listenOnSome()
	d.wg.Go(d.retryListening)
	return nil
}

func (d *Daemon) retryListening() {
	const pause = time.Second
	for {
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
			return
		}
		if err := d.listen(); err == nil {
			d.log.Info("listening on all addresses")
			return
		}
		d.listenOnSome()
	}
}

// listenOnSome listens on the configured addresses that are there.
func (d *Daemon) listenOnSome() {
	var there []string
	for _, a := range d.addresses() {
		if err := d.https.set(append(there, a)...); err == nil {
			there = append(there, a)
		}
	}
}

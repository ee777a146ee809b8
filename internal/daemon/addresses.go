package daemon

import (
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

// listenAtStart opens the listeners. A clustered server whose address is not there yet
// (the network comes up late) tries again for a minute, and meanwhile answers on its socket.
func (d *Daemon) listenAtStart() error {
	err := d.https.set(d.addresses()...)
	if err == nil {
		return nil
	}
	if v := d.current.Local(); v == nil || !v.Cluster().Enabled {
		d.log.Error("the server is not available on the network", "err", err)
		return nil
	}
	d.log.Warn("cannot listen yet, trying again", "err", err)
	d.wg.Go(d.retryListening)
	return nil
}

func (d *Daemon) retryListening() {
	const pause, tries = time.Second, 60
	for range tries {
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
			return
		}
		if err := d.https.set(d.addresses()...); err == nil {
			return
		}
	}
	d.log.Error("the server is not available on the network: giving up; change core.https_address or restart the daemon")
}

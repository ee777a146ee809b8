package daemon

import (
	"crypto/tls"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// networkCertificate is what clients see: the cluster's certificate as the replicated
// state has it, or the server's own while it is standalone. The state is asked at each
// handshake, so that all listeners switch with the entry that is applied.
type networkCertificate struct {
	own   *identity
	local func() *raftstore.View
	log   *slog.Logger

	files sync.Mutex // one writer of the files at a time
	now   func() time.Time

	cache chainCache
}

// A chainCache keeps the last pair that was made of the state's texts: they are looked at in each
// handshake, and seldom change.
type chainCache struct {
	mu     sync.Mutex
	shown  string // the certificates of pair
	cached *trust.KeyPair
}

// get is the pair that shows certificate and links, made by make if it is not the last one.
func (c *chainCache) get(certificate string, links []string, make func() (*trust.KeyPair, error)) (*trust.KeyPair, error) {
	shown := strings.Join(append([]string{certificate}, links...), "\n")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown == shown {
		return c.cached, nil
	}
	pair, err := make()
	if err == nil {
		pair, err = pair.Chained(links...)
	}
	if err != nil {
		return nil, err
	}
	c.shown, c.cached = shown, pair
	return pair, nil
}

// pair is what is shown.
func (n *networkCertificate) pair() *trust.KeyPair {
	if pair := n.cluster(); pair != nil {
		return pair
	}
	return n.own.chained()
}

// cluster is the cluster's pair; nil while the server is standalone.
func (n *networkCertificate) cluster() *trust.KeyPair {
	v := n.local()
	if v == nil {
		return nil
	}
	c := v.Cluster()
	if !c.Enabled || c.Certificate == "" {
		return nil
	}
	pair, err := n.cache.get(c.Certificate, chainOf(c.Endorsements, n.now()), func() (*trust.KeyPair, error) {
		return trust.NewKeyPair([]byte(c.Certificate), []byte(c.Key))
	})
	if err != nil {
		n.log.Error("the cluster's key pair cannot be used, showing the server's own", "err", err)
		return nil
	}
	return pair
}

// chainOf is what is sent along with a certificate, newest first: what leads from earlier ones to
// it at the time now.
func chainOf(endorsements []state.Endorsement, now time.Time) []string {
	var links []string
	for _, e := range slices.Backward(endorsements) {
		if now.After(e.Until) {
			break // those before it lead nowhere
		}
		links = append(links, e.Endorsement, e.Certificate)
	}
	return links
}

func (n *networkCertificate) tls() *tls.Certificate { return &n.pair().TLS }

// describe is the certificate's PEM and fingerprint.
func (n *networkCertificate) describe() (pem, fingerprint string) {
	p := n.pair()
	return string(p.CertPEM), p.Fingerprint()
}

// saveClusterFiles keeps cluster.crt and cluster.key as the replicated state has them:
// other programs look for them there. They are there exactly while the server is
// clustered, and are never read back.
func saveClusterFiles(p Paths, n *networkCertificate) error {
	n.files.Lock()
	defer n.files.Unlock()
	pair := n.cluster()
	if pair == nil {
		for _, f := range []string{p.clusterCert(), p.clusterKey()} {
			if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	}
	if there, err := os.ReadFile(p.clusterCert()); err == nil && string(there) == string(pair.CertPEM) {
		if _, err := os.Stat(p.clusterKey()); err == nil {
			return nil
		}
	}
	return pair.Save(p.clusterCert(), p.clusterKey())
}

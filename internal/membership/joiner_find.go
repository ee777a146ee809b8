package membership

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"incusd/api"
	"incusd/endorsement"
	"incusd/internal/trust"
)

// find looks for a member at all known addresses side by side, and takes the first
// one that shows the expected certificate, or one that took its place and is endorsed by it. When
// there is none, the one that was found before stays the contact.
func (a *attempt) find(ctx context.Context) error {
	addresses, known, err := a.target()
	if err != nil {
		return err
	}
	address, cert, err := findMember(ctx, a.cfg.Dial, addresses, known, a.cfg.Now())
	if err != nil {
		return err
	}
	a.found.Store(&foundMember{Cluster: a.cfg.Connect(address, cert), address: address, cert: cert})
	return nil
}

// target gives the addresses to try and the fingerprints, of which each must lead to the
// certificate that is shown: a token's may be older than the certificate that was given.
func (a *attempt) target() (addresses, known []string, err error) {
	if a.req.ClusterAddress != "" {
		addresses = append(addresses, a.req.ClusterAddress)
	}
	if a.token != nil {
		addresses = append(addresses, a.token.Addresses...)
		known = append(known, strings.ToLower(a.token.Fingerprint))
	}
	if a.req.ClusterCertificate != "" {
		cert, err := trust.ParseCertificate(a.req.ClusterCertificate)
		if err != nil {
			return nil, nil, err
		}
		known = append(known, trust.Fingerprint(cert))
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), slices.Compact(known), nil
}

// findMember probes addresses side by side for a server whose certificate all known fingerprints
// lead to. It fails with api.FingerprintMatch if only others were found, and with
// api.NoMemberReachable if none was.
func findMember(
	ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), addresses, known []string, now time.Time,
) (string, *x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	type answer struct {
		address string
		chain   []*x509.Certificate
		err     error
	}
	answers := make(chan answer, len(addresses))
	for _, addr := range addresses {
		go func() {
			chain, err := trust.RemoteChain(ctx, dial, addr)
			answers <- answer{addr, chain, err}
		}()
	}
	var failed []string
	var mismatch *api.Error
	for range addresses {
		r := <-answers
		if r.err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", r.address, r.err))
			continue
		}
		if unknown := notLedTo(r.chain, known, now); unknown != "" {
			mismatch = wrongMember(r.address, unknown, trust.Fingerprint(r.chain[0]))
			continue
		}
		return r.address, r.chain[0], nil
	}
	if mismatch != nil {
		return "", nil, mismatch
	}
	slices.Sort(failed)
	return "", nil, api.Errorf(api.NoMemberReachable, "Unable to connect to any of the cluster members specified in join token: %s", strings.Join(failed, "; "))
}

// notLedTo is a known fingerprint that does not lead to the certificate that is shown; "" if all do.
func notLedTo(chain []*x509.Certificate, known []string, now time.Time) string {
	for _, fingerprint := range known {
		if endorsement.Follow(chain, fingerprint, now) != nil {
			return fingerprint
		}
	}
	return ""
}

func wrongMember(address, expected, shown string) *api.Error {
	return api.Errorf(api.FingerprintMatch, "Certificate fingerprint mismatch between join token and cluster member %q: expected %.12s…, it shows %.12s…",
		address, expected, shown).
		WithHint("if the cluster has a new key since the token was issued, %.12s… is what incus info shows on a member as certificate_fingerprint: "+
			"get the token anew there with incus cluster list-tokens; else somebody sits in between", shown)
}

// ask makes one call to the cluster, and makes it again at whichever member answers if
// the one that was asked has died or lost its leader. Each call is harmless to repeat.
func (a *attempt) ask(ctx context.Context, bound time.Duration, call func(ctx context.Context, cluster Cluster) error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		each, stop := context.WithTimeout(ctx, callTime)
		err := call(each, a.found.Load())
		stop()
		if err == nil || !mayPass(err) {
			return err
		}
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return err
		}
		if err := a.find(ctx); err != nil {
			a.cfg.Log.Debug("no other member of the cluster is found", "err", err)
		}
	}
}

// mayPass tells whether another member, or the same one a moment later, may answer
// better than err.
func mayPass(err error) bool {
	return slices.ContainsFunc([]api.Reason{api.Unavailable, api.NoQuorum, api.OutcomeUnknown, api.Timeout, api.ShuttingDown, api.TooMany},
		func(r api.Reason) bool { return errors.Is(err, r) })
}

package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"incusd/api"
	"incusd/endorsement"
)

// probeLimit bounds the search for a cluster member, over all its addresses.
const probeLimit = 10 * time.Second

// RemoteCertificate returns the certificate that the server at address (port 8443
// if it names none) shows, without verifying it: compare its fingerprint. Dial may
// be nil. It uses no proxy.
func RemoteCertificate(ctx context.Context, dial DialFunc, address string) (*x509.Certificate, error) {
	chain, err := remoteChain(ctx, dial, address)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// remoteChain is RemoteCertificate with the certificates that the server sends along.
func remoteChain(ctx context.Context, dial DialFunc, address string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	conn, err := Options{Dial: dial}.dialer()(ctx, "tcp", CanonicalAddress(address))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	session := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err := session.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return session.ConnectionState().PeerCertificates, nil
}

// Fingerprint is the lower-case hex SHA-256 of the certificate's DER.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// FindMember asks all addresses of a join token side by side and returns the first
// whose server shows the certificate that the token names, or one that took its place and
// is endorsed by it, with the certificate that is shown.
// Nothing is sent to any of them. It fails with api.NoMemberReachable, or with
// api.FingerprintMatch if a server answers but none with the right certificate;
// either names each address and what was wrong with it. Dial may be nil.
func FindMember(ctx context.Context, dial DialFunc, token *api.ClusterMemberJoinToken) (string, *x509.Certificate, error) {
	type result struct {
		address string
		chain   []*x509.Certificate
		err     error
	}
	var probes sync.WaitGroup
	defer probes.Wait()
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel() // the winner ends the others
	results := make(chan result, len(token.Addresses))
	for _, address := range token.Addresses {
		probes.Go(func() {
			chain, err := remoteChain(ctx, dial, address)
			results <- result{CanonicalAddress(address), chain, err}
		})
	}
	mismatch := false
	var problems []string
	for range token.Addresses {
		r := <-results
		switch {
		case r.err != nil:
			problems = append(problems, fmt.Sprintf("%s: %v", r.address, plain(r.err)))
		case endorsement.Follow(r.chain, token.Fingerprint, time.Now()) == nil:
			return r.address, r.chain[0], nil
		default:
			mismatch = true
			problems = append(problems, fmt.Sprintf("%s: shows certificate %s instead of %s", r.address, Fingerprint(r.chain[0]), token.Fingerprint))
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return "", nil, ended(ctx)
	}
	reason := api.NoMemberReachable
	if mismatch {
		reason = api.FingerprintMatch
	}
	return "", nil, withNextStep(api.Errorf(reason, "%s (%s)", reason.Error(), strings.Join(problems, "; ")))
}

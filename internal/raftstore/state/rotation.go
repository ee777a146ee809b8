package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// MaxEndorsements bounds the chain that leads from earlier cluster certificates to the present
// one, oldest forgotten first. All of it is sent in each handshake.
const MaxEndorsements = 4

// An Endorsement leads from a certificate that the cluster showed to the one that came after it.
type Endorsement struct {
	// Certificate is the PEM of the earlier one, Endorsement that of what its key has signed
	// about the next, which holds until Until.
	Certificate string    `json:"certificate"`
	Endorsement string    `json:"endorsement"`
	Until       time.Time `json:"until"`
}

// ClusterCertificate is the body of "cluster.certificate", version 1: all members show another
// certificate from now on. It refuses with NotClustered, and with Conflict if the certificate, or
// the live tokens that are to be issued anew, are others by now than the proposer saw.
type ClusterCertificate struct {
	// Expect is Cluster.CertificateHash as the proposer saw it.
	Expect      string `json:"expect"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	// Fingerprint is that of Certificate.
	Fingerprint string `json:"fingerprint"`
	// Supplied is true if an administrator gave the certificate: the cluster never renews it.
	Supplied bool `json:"supplied,omitempty"`
	// Endorsement is the PEM of what the present key has signed about Certificate, for whoever
	// knows only the present certificate, or one before it. Without one nobody is led on.
	Endorsement string    `json:"endorsement,omitempty"`
	Until       time.Time `json:"until,omitzero"`
	// Reissue has, without an endorsement, the new secret of each live join token: whoever the
	// key is changed for may know the old ones.
	Reissue []TokenReissue `json:"reissue,omitempty"`
}

// TokenReissue gives a live token another secret, and so another hash and operation.
type TokenReissue struct {
	// Hash is the present one.
	Hash         string `json:"hash"`
	NewHash      string `json:"new_hash"`
	NewSecret    string `json:"new_secret"`
	NewOperation string `json:"new_operation"`
}

// CertificateHash is a SHA-256 of the cluster's certificate as it is stored, in hex.
func (c Cluster) CertificateHash() string {
	sum := sha256.Sum256([]byte(c.Certificate))
	return hex.EncodeToString(sum[:])
}

func applyClusterCertificate(tx *transaction, b *ClusterCertificate) (any, error) {
	c := clusterOf(tx.Txn)
	switch {
	case !c.Enabled:
		return nil, refuse(api.NotClustered)
	case b.Expect != c.CertificateHash():
		return nil, api.Errorf(api.Conflict, "The cluster's certificate was replaced meanwhile").WithHint("try again")
	case b.Certificate == "" || b.Key == "":
		return nil, badRequest("a cluster needs a certificate and its key")
	}
	if err := checkKey("fingerprint", b.Fingerprint); err != nil {
		return nil, err
	}
	if tx.isKnown(b.Fingerprint) {
		return nil, api.Errorf(api.CertInvalid, "The certificate is a member's or a client's own: with its key every member could pass for that one").
			WithHint("make a key pair that nobody uses yet")
	}
	if b.Endorsement == "" {
		if err := tx.reissueTokens(b); err != nil {
			return nil, err
		}
		c.Endorsements, c.RotateKey = nil, false
	} else {
		tx.renameInTokens(b.Fingerprint)
		c.Endorsements = tx.endorsed(c.Endorsements, Endorsement{c.Certificate, b.Endorsement, b.Until})
	}
	c.Certificate, c.Key, c.Fingerprint, c.Supplied = b.Certificate, b.Key, b.Fingerprint, b.Supplied
	clusterTable.put(tx, &c)
	tx.emit("cluster-certificate-updated", "/1.0/cluster/certificate", nil)
	return nil, nil
}

// endorsed is the chain with the next link, without what is over and what is too much.
func (tx *transaction) endorsed(links []Endorsement, next Endorsement) []Endorsement {
	links = append(slices.Clone(links), next)
	// What comes before a link that is over leads nowhere.
	for i, link := range slices.Backward(links) {
		if tx.now.After(link.Until) {
			links = links[i+1:]
			break
		}
	}
	return links[max(0, len(links)-MaxEndorsements):]
}

// renameInTokens lets the live tokens name the certificate that is shown now, for whoever lists
// them. Their text as it was handed out leads here by the endorsement.
func (tx *transaction) renameInTokens(fingerprint string) {
	for _, t := range tokenTable.list(tx.Txn, "name") {
		t = t.Clone()
		t.Fingerprint = fingerprint
		tokenTable.put(tx, t)
		tx.emit("", "", t)
	}
}

// reissueTokens ends each live token, with a join under it, and puts another in its place.
func (tx *transaction) reissueTokens(b *ClusterCertificate) error {
	live := tokenTable.list(tx.Txn, "name")
	if len(live) != len(b.Reissue) {
		return api.Errorf(api.Conflict, "The join tokens have changed meanwhile").WithHint("try again")
	}
	for _, r := range b.Reissue {
		t, ok := tokenTable.get(tx.Txn, primary, r.Hash)
		if !ok || t.Ended != "" {
			return api.Errorf(api.Conflict, "The join tokens have changed meanwhile").WithHint("try again")
		}
		next := &Token{
			Hash: r.NewHash, Secret: r.NewSecret, Name: t.Name, Operation: r.NewOperation, Issuer: t.Issuer, Fingerprint: b.Fingerprint,
			Addresses: t.Addresses, CreatedAt: tx.now, ExpiresAt: t.ExpiresAt, Replaces: t.Replaces,
			Client: t.Client,
		}
		if err := checkToken(tx, next); err != nil {
			return err
		}
		tx.revoke(t)
		tx.addToken(next)
	}
	return nil
}

func (b ClusterCertificate) String() string {
	return fmt.Sprintf("cluster certificate %.12s, key [redacted], %d tokens issued anew", b.Fingerprint, len(b.Reissue))
}

// Format implements fmt.Formatter.
func (b ClusterCertificate) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// LogValue implements slog.LogValuer.
func (b ClusterCertificate) LogValue() slog.Value { return slog.StringValue(b.String()) }

func (r TokenReissue) String() string {
	return "token " + r.NewOperation + " in place of another, secret [redacted]"
}

// Format implements fmt.Formatter.
func (r TokenReissue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue implements slog.LogValuer.
func (r TokenReissue) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MemberCertificate is the body of "member.certificate", version 1: a member gets another
// certificate of its own. It refuses with MemberNotFound, with CertTaken if somebody else has it,
// and with Conflict if the member has another one by now than the proposer saw. Harmless when
// repeated.
type MemberCertificate struct {
	ID string `json:"id"`
	// Expect is Member.Fingerprint as the proposer saw it.
	Expect      string `json:"expect"`
	Certificate string `json:"certificate"`
	Fingerprint string `json:"fingerprint"`
	// Endorsement is the PEM of what the present key has signed about Certificate, until Until.
	Endorsement string    `json:"endorsement"`
	Until       time.Time `json:"until"`
	// Shown says that the member shows Certificate by now: the one before is nobody's any more.
	Shown bool `json:"shown,omitempty"`
}

func applyMemberCertificate(tx *transaction, b *MemberCertificate) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	m = m.Clone()
	switch {
	case m.Fingerprint == b.Fingerprint && !b.Shown:
		return nil, nil
	case m.Fingerprint == b.Fingerprint:
		m.Former = ""
		memberTable.put(tx, m)
		return nil, nil
	case b.Shown || m.Fingerprint != b.Expect:
		return nil, api.Errorf(api.Conflict, "The certificate of member %q was replaced meanwhile", m.Name).WithHint("try again")
	case b.Certificate == "":
		return nil, badRequest("a member needs a certificate")
	}
	if err := checkKey("fingerprint", b.Fingerprint); err != nil {
		return nil, err
	}
	if tx.isKnown(b.Fingerprint) {
		return nil, refuse(api.CertTaken)
	}
	m.Endorsements = tx.endorsed(m.Endorsements, Endorsement{m.Certificate, b.Endorsement, b.Until})
	m.Former, m.Certificate, m.Fingerprint = m.Fingerprint, b.Certificate, b.Fingerprint
	memberTable.put(tx, m)
	tx.emit("cluster-member-updated", source("/1.0/cluster/members", m.Name), nil)
	return nil, nil
}

// memberByFingerprint finds a member by its certificate, or by the one that it may still show.
func memberByFingerprint(txn *memdb.Txn, fingerprint string) (*Member, bool) {
	if m, ok := memberTable.get(txn, "fingerprint", fingerprint); ok {
		return m, true
	}
	return memberTable.get(txn, "former", fingerprint)
}

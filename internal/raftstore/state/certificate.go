package state

import "incusd/api"

var certificateTable = &table[Certificate]{
	name:    "certificate",
	topic:   topicMembers,
	indexes: []index[Certificate]{{name: primary, key: func(c *Certificate) string { return c.Fingerprint }}},
	count:   func(c *counts, _ *Certificate, n int) { c.certificates += n },
}

func applyCertificateAdd(tx *transaction, b *CertificateAdd) (any, error) {
	c := b.Certificate
	if err := checkKey("fingerprint", c.Fingerprint); err != nil {
		return nil, err
	}
	if c.Type != api.CertificateClient && c.Type != api.CertificateServer && c.Type != api.CertificateMetrics {
		return nil, badRequest("Invalid certificate type")
	}
	// A member's own certificate is trusted by its row already, and for more.
	if m, ok := memberTable.get(tx.Txn, "fingerprint", c.Fingerprint); ok && m.State == MemberActive {
		return nil, refuse(api.CertTaken)
	}
	if _, ok := certificateTable.get(tx.Txn, primary, c.Fingerprint); ok {
		return nil, refuse(api.CertTaken)
	}
	if tx.counts.certificates >= MaxCertificates {
		return nil, api.Errorf(api.TooMany, "The trust store has %d certificates, which is the limit", MaxCertificates).
			WithHint("remove certificates that are not used any more")
	}
	if c.Projects == nil {
		c.Projects = []string{}
	}
	certificateTable.put(tx, &c)
	tx.emit("certificate-created", source("/1.0/certificates", c.Fingerprint), nil)
	return nil, nil
}

func applyCertificateRemove(tx *transaction, b *CertificateRemove) (any, error) {
	c, ok := certificateTable.get(tx.Txn, primary, b.Fingerprint)
	if !ok {
		return nil, api.Errorf(api.NotFound, "Certificate not found")
	}
	certificateTable.drop(tx, c)
	tx.emit("certificate-deleted", source("/1.0/certificates", c.Fingerprint), nil)
	return nil, nil
}

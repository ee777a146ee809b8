package state

import "incusd/api"

var certificateTable = &table[Certificate]{
	name:    "certificate",
	topic:   topicMembers,
	indexes: []index[Certificate]{{name: primary, key: func(c *Certificate) string { return c.Fingerprint }}},
	count:   func(c *counts, _ *Certificate, n int) { c.certificates += n },
}

func applyCertificateAdd(tx *transaction, b *CertificateAdd) (any, error) {
	if err := tx.trust(b.Certificate); err != nil {
		return nil, err
	}
	return nil, nil
}

// trust adds a certificate to the trust store.
func (tx *transaction) trust(c Certificate) error {
	if err := tx.checkCertificate(&c); err != nil {
		return err
	}
	if tx.counts.certificates >= MaxCertificates {
		return api.Errorf(api.TooMany, "The trust store has %d certificates, which is the limit", MaxCertificates).
			WithHint("remove certificates that are not used any more")
	}
	certificateTable.put(tx, &c)
	tx.emit("certificate-created", source("/1.0/certificates", c.Fingerprint), nil)
	return nil
}

// checkCertificate tells why c cannot be trusted, and completes it.
func (tx *transaction) checkCertificate(c *Certificate) error {
	if err := checkKey("fingerprint", c.Fingerprint); err != nil {
		return err
	}
	if c.Type != api.CertificateClient && c.Type != api.CertificateServer && c.Type != api.CertificateMetrics {
		return badRequest("Invalid certificate type")
	}
	if err := checkCertificateTexts(c.Name, c.Description, c.Projects); err != nil {
		return err
	}
	if tx.isKnown(c.Fingerprint) {
		return refuse(api.CertTaken)
	}
	if c.Fingerprint == clusterOf(tx.Txn).Fingerprint {
		return api.Errorf(api.CertInvalid, "The certificate is the cluster's own: every member has its key, and so has every server that was removed").
			WithHint("give the client's own: incus remote get-client-certificate prints it there")
	}
	projects, err := tx.knownProjects(c.Projects)
	c.Projects = projects
	return err
}

// isKnown tells whether somebody is known by a certificate. A member's own, present or former, is trusted
// by its row, and for more than a client's; that of a server which is joining will be.
func (tx *transaction) isKnown(fingerprint string) bool {
	_, member := memberByFingerprint(tx.Txn, fingerprint)
	_, client := certificateTable.get(tx.Txn, primary, fingerprint)
	return member || client
}

func checkCertificateTexts(name, description string, projects []string) error {
	size := 0
	for _, p := range projects {
		size += len(p)
	}
	if max(len(name), len(description), size, len(projects)) > MaxCertificateText {
		return api.Errorf(api.TooLarge, "The name, the description or the projects of a certificate are larger than %d bytes", MaxCertificateText)
	}
	return nil
}

// CertificateHash is a SHA-256 of what "certificate.update" writes, in hex; empty for a
// certificate that is not trusted.
func (v *View) CertificateHash(fingerprint string) string {
	c, ok := certificateTable.get(v.txn, primary, fingerprint)
	if !ok {
		return ""
	}
	return certificateHash(c)
}

func certificateHash(c *Certificate) string {
	return hashOf(c.Name, c.Type, c.Restricted, c.Projects, c.PEM, c.Description)
}

func applyCertificateUpdate(tx *transaction, b *CertificateUpdate) (any, error) {
	now, ok := certificateTable.get(tx.Txn, primary, b.Fingerprint)
	switch {
	case !ok:
		return nil, api.Errorf(api.NotFound, "Certificate not found")
	case b.Expect != "" && b.Expect != certificateHash(now):
		return nil, refuse(api.PreconditionFail)
	case b.Certificate.Type != now.Type:
		return nil, badRequest("The certificate type cannot be changed")
	}
	next := b.Certificate
	certificateTable.drop(tx, now)
	if err := tx.checkCertificate(&next); err != nil {
		return nil, err
	}
	certificateTable.put(tx, &next)
	tx.emit("certificate-updated", source("/1.0/certificates", next.Fingerprint), nil)
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

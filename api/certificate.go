package api

// Types of trusted certificates.
const (
	CertificateClient  = "client"
	CertificateServer  = "server"
	CertificateMetrics = "metrics"
)

// CertificatePut is the writable part of an entry of the trust store.
type CertificatePut struct {
	Name       string   `json:"name" yaml:"name"`
	Type       string   `json:"type" yaml:"type"`
	Restricted bool     `json:"restricted" yaml:"restricted"`
	Projects   []string `json:"projects" yaml:"projects"`
	// Certificate is PEM.
	Certificate string `json:"certificate" yaml:"certificate"`
	Description string `json:"description" yaml:"description"`
}

// Certificate is an entry of the trust store.
type Certificate struct {
	Name        string   `json:"name" yaml:"name"`
	Type        string   `json:"type" yaml:"type"`
	Restricted  bool     `json:"restricted" yaml:"restricted"`
	Projects    []string `json:"projects" yaml:"projects"`
	Certificate string   `json:"certificate" yaml:"certificate"`
	Description string   `json:"description" yaml:"description"`
	// Fingerprint is the lower-case hex SHA-256 of the DER certificate.
	Fingerprint string `json:"fingerprint" yaml:"fingerprint"`
}

// Put is the writable part.
func (c *Certificate) Put() CertificatePut {
	return CertificatePut{c.Name, c.Type, c.Restricted, c.Projects, c.Certificate, c.Description}
}

// CertificatesPost is POST /1.0/certificates.
type CertificatesPost struct {
	Name       string   `json:"name" yaml:"name"`
	Type       string   `json:"type" yaml:"type"`
	Restricted bool     `json:"restricted" yaml:"restricted"`
	Projects   []string `json:"projects" yaml:"projects"`
	// Certificate is PEM, or base64 of DER.
	Certificate string `json:"certificate" yaml:"certificate"`
	Description string `json:"description" yaml:"description"`
	// TrustToken is a join token or a certificate add token.
	TrustToken string `json:"trust_token" yaml:"trust_token"`
	Token      bool   `json:"token" yaml:"token"`
	// Password is the cluster's trust password, where there is no token. It is not upstream's.
	Password string `json:"password,omitempty" yaml:"password,omitempty"`
}

package api

import "incusd/api"

// clusterCertificatePut lets all members show another certificate: PUT /1.0/cluster/certificate.
func (s *Server) clusterCertificatePut(c *call) (reply, error) {
	req, err := decode[api.ClusterCertificatePut](c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Members.UpdateCertificate(c.Context(), req.ClusterCertificate, string(req.ClusterCertificateKey), c.caller.requestor())
}

// rotateKeyPost gives the cluster a key that nobody has who had the present one: POST
// /internal/cluster/rotate-key. It is not upstream's.
func (s *Server) rotateKeyPost(c *call) (reply, error) {
	return empty, s.cfg.Members.RotateKey(c.Context(), c.caller.requestor())
}

// serverCertificatePut replaces the certificate of a server that is in no cluster: PUT
// /internal/server-certificate.
func (s *Server) serverCertificatePut(c *call) (reply, error) {
	req, err := decode[api.ServerCertificatePut](c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Daemon.UpdateCertificate(c.Context(), req.Certificate, string(req.Key))
}

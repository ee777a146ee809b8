package api

import (
	"net/http"

	"incusd/api"
	"incusd/internal/membership"
)

// readyGet tells whether the daemon is fully up: GET /internal/ready.
func (s *Server) readyGet(*call) (reply, error) {
	if s.cfg.Daemon.Stopping() {
		return reply{}, api.Errorf(api.ShuttingDown, "Daemon is shutting down")
	}
	select {
	case <-s.cfg.Daemon.Ready():
		return empty, nil
	default:
		return reply{}, api.Errorf(api.Unavailable, "Daemon not ready yet")
	}
}

// shutdownPut stops the daemon and answers when it has stopped: PUT /internal/shutdown.
func (s *Server) shutdownPut(c *call) (reply, error) {
	force, err := boolean(c, "force")
	if err != nil {
		return reply{}, err
	}
	if err := s.cfg.Daemon.Shutdown(c.Context(), force); err != nil {
		return reply{}, err
	}
	return reply{serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		if err := empty.write(w, r); err != nil {
			s.fail(w, r, err)
		}
	}}, nil
}

// addressPut moves this member to another address: PUT /internal/cluster/address.
func (s *Server) addressPut(c *call) (reply, error) {
	req, err := decode[api.ClusterAddressPut](c)
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Daemon.SetAddress(c.Context(), req.Address, req.Force)
}

// resetPost makes this server a clean standalone one: POST /internal/cluster/reset.
func (s *Server) resetPost(c *call) (reply, error) {
	force, err := boolean(c, "force")
	if err != nil {
		return reply{}, err
	}
	return empty, s.cfg.Reset(c.Context(), force)
}

// joinPreflight tells a server all that is in the way of its joining, and what it must
// answer: POST /internal/cluster/join/preflight. It changes nothing. The token in the
// request is what authorizes it, so it costs strangers the same as redeeming one.
func (s *Server) joinPreflight(c *call) (reply, error) {
	req, err := decode[membership.JoinRequest](c)
	if err != nil {
		return reply{}, err
	}
	if req.Token != "" || req.Password == "" { // the password's own limit is the cluster's
		if err := s.mayPreflight(c, req.Token); err != nil {
			return reply{}, err
		}
	}
	report, err := s.cfg.Admission.Preflight(c.Context(), c.caller.fingerprint, c.caller.address, req)
	return reply{metadata: report}, err
}

// mayPreflight refuses a caller who asks too often, known by a token or by a key.
func (s *Server) mayPreflight(c *call, text string) error {
	if text == "" {
		return s.stepOf(c)
	}
	token, err := api.ParseJoinToken(text)
	if err != nil {
		return err
	}
	return s.useOf(c, token.Secret)
}

// joinAdmit lets the server in whose key the caller has proved, and for which a token
// was redeemed: POST /internal/cluster/join/admit.
func (s *Server) joinAdmit(c *call) (reply, error) {
	req, err := decode[membership.AdmitRequest](c)
	if err != nil {
		return reply{}, err
	}
	if err := s.stepOf(c); err != nil {
		return reply{}, err
	}
	admission, err := s.cfg.Admission.Admit(c.Context(), c.caller.fingerprint, req)
	return reply{metadata: admission}, err
}

// abortRequest is the body of POST /internal/cluster/join/abort.
type abortRequest struct {
	// ID is that of the admission, empty if there was none.
	ID string `json:"id"`
}

// joinAbort ends a join of the caller's own: POST /internal/cluster/join/abort. Its
// answer tells whether the server had become a member before, and then stays one. Who
// proves any key may ask: a server whose join the cluster has forgotten must be told so,
// and its key is all that is judged.
func (s *Server) joinAbort(c *call) (reply, error) {
	if c.caller.fingerprint == "" {
		return reply{}, api.NotAuthorized
	}
	req, err := decode[abortRequest](c)
	if err != nil {
		return reply{}, err
	}
	if err := s.stepOf(c); err != nil {
		return reply{}, err
	}
	result, err := s.cfg.Admission.Abort(c.Context(), c.caller.fingerprint, req.ID)
	return reply{metadata: result}, err
}

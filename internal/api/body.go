package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"incusd/api"
)

const (
	// maxBody is the largest request body, in bytes (rest-basics.md §1).
	maxBody = 1 << 20
	// maxStrangersBody is that of callers who are not trusted yet: a token and a
	// certificate take a few KiB.
	maxStrangersBody = 64 << 10
)

// limitBody gives the body of a request its time. Whoever reads it, and be it net/http
// that throws away what nobody wanted, does not wait longer.
func (s *Server) limitBody(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return // a limit would end the connection that events are sent over
	}
	// Not all that tests use for w knows time.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyTime))
}

// readBody reads all of a request's body, before anything is done for the caller. Then
// its time is over: a call may take longer than its body did.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, who *caller) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	limit := int64(maxBody)
	if who.kind&trusted == 0 {
		limit = maxStrangersBody
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return api.Errorf(api.TooLarge, "Request body is larger than %d bytes", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return api.Errorf(api.Timeout, "Request body did not come within %s", s.bodyTime).WithCode(http.StatusRequestTimeout)
	case err != nil:
		return api.Errorf(api.BadRequest, "Request body: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return nil
}

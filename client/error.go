package client

import (
	"encoding/json"
	"net/http"

	"incusd/api"
)

// A RefusedError is a refusal that names several problems, so that all of them can
// be mended before the next try.
type RefusedError struct {
	// Err is the refusal as a whole.
	Err      *api.Error
	problems []api.Error
}

// Problems are the parts of the refusal, each with its own reason and next step.
func (e *RefusedError) Problems() []api.Error { return e.problems }

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap makes errors.Is and errors.As see the refusal.
func (e *RefusedError) Unwrap() error { return e.Err }

// refusal turns an error envelope into an error. The code of the envelope wins over
// the HTTP status: a wait answers 200 before it knows its result.
func refusal(r *api.Response, status int) error {
	if r.Code != 0 {
		status = r.Code
	}
	var details api.ErrorMetadata
	_ = json.Unmarshal(r.Metadata, &details) // other servers send null
	if details.Reason == "" {
		details.Reason = reasonOf(status)
	}
	err := &api.Error{Reason: details.Reason, Message: r.Error, Hint: details.Hint, Code: status}
	if err.Message == "" {
		err.Message = http.StatusText(status)
	}
	return withProblems(err, details.Problems)
}

func withProblems(err *api.Error, problems []api.Error) error {
	if len(problems) == 0 {
		return err
	}
	return &RefusedError{Err: err, problems: problems}
}

// reasonOf guesses the reason of a refusal that carries only a status.
func reasonOf(status int) api.Reason {
	switch status {
	case http.StatusBadRequest:
		return api.BadRequest
	case http.StatusUnauthorized, http.StatusForbidden:
		return api.NotAuthorized
	case http.StatusNotFound:
		return api.NotFound
	case http.StatusConflict:
		return api.Conflict
	case http.StatusPreconditionFailed:
		return api.PreconditionFail
	case http.StatusRequestEntityTooLarge:
		return api.TooLarge
	case http.StatusTooManyRequests:
		return api.TooMany
	case http.StatusNotImplemented:
		return api.NotImplemented
	case http.StatusServiceUnavailable:
		return api.Unavailable
	case http.StatusGatewayTimeout:
		return api.Timeout
	default:
		return api.Internal
	}
}

// withNextStep writes the catalogue's next step into err. Errors that came over the
// wire have it already, or were not meant to have one; ours need it spelled out.
func withNextStep(err *api.Error) *api.Error { return err.WithHint("%s", err.NextStep()) }

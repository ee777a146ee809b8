package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
)

// A reply is what a handler answers. The zero value is a sync answer without content.
type reply struct {
	// status is the HTTP status; 0 means 200.
	status   int
	metadata any
	// etag is the value of the ETag, without quotes; empty means none.
	etag     string
	location string
	// operation is set when the answer is async.
	operation *api.Operation
	// stale is set when the answer comes from this member alone; see staleHeader.
	stale string
	// serve, if set, writes the answer itself: streams and forwarded requests.
	serve func(w http.ResponseWriter, r *http.Request)
}

// empty says that it was done.
var empty = reply{metadata: struct{}{}}

// ok answers with metadata as view has it.
func ok(view *raftstore.View, metadata any) reply {
	return reply{metadata: metadata, stale: staleHeader(view)}
}

// tag adds an ETag made from value.
func (rep reply) tag(value any) reply {
	rep.etag = ETag(value)
	return rep
}

// created says that there is something new at location.
func created(location string) reply {
	return reply{status: http.StatusCreated, location: location}
}

// accepted says that op has begun.
func accepted(op api.Operation) reply {
	return reply{status: http.StatusAccepted, operation: &op, metadata: op, location: operationURL(op.ID)}
}

// write sends the reply.
func (rep reply) write(w http.ResponseWriter, r *http.Request) error {
	if rep.serve != nil {
		rep.serve(w, r)
		return nil
	}
	if rep.etag != "" {
		w.Header().Set("ETag", strconv.Quote(rep.etag))
	}
	if rep.location != "" {
		w.Header().Set("Location", rep.location)
	}
	if rep.stale != "" {
		w.Header().Set("X-Incus-Stale", rep.stale)
	}
	body := api.Response{Type: api.SyncResponse, Status: api.Success.String(), StatusCode: int(api.Success)}
	if rep.operation != nil {
		body = api.Response{
			Type: api.AsyncResponse, Status: api.OperationCreated.String(), StatusCode: int(api.OperationCreated),
			Operation: operationURL(rep.operation.ID),
		}
	}
	return writeEnvelope(w, max(rep.status, http.StatusOK), body, rep.metadata)
}

// staleHeader tells from when a stale answer is, why there is no newer one and, where that is
// known, how many vote and who of them is missing. It is empty if view is not stale.
func staleHeader(view *raftstore.View) string {
	s := view.Stale
	if s == nil {
		return ""
	}
	text := fmt.Sprintf("%s; index=%d", string(s.Reason), s.Index)
	if !s.Since.IsZero() {
		text += "; since=" + s.Since.UTC().Format(time.RFC3339)
	}
	if s.Quorum == nil {
		return text
	}
	text += fmt.Sprintf("; voters=%d", len(s.Quorum.Voters))
	var names []string
	for _, id := range s.Quorum.Missing {
		if m, ok := view.Member(id); ok {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return text + "; missing=" + strings.Join(names, ",")
}

// writeError sends err as an error envelope. Its metadata, which the protocol does not
// use, carries the stable reason and the next step.
func writeError(w http.ResponseWriter, err error) error {
	refusal := refusalOf(err)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body := api.Response{Type: api.ErrorResponse, Code: refusal.Status(), Error: refusal.Message}
	metadata := api.ErrorMetadata{Reason: refusal.Reason, Hint: refusal.NextStep()}
	var many interface{ Problems() []api.Error }
	if errors.As(err, &many) {
		metadata.Problems = many.Problems()
	}
	return writeEnvelope(w, refusal.Status(), body, metadata)
}

// refusalOf gives every error a reason.
func refusalOf(err error) *api.Error {
	var known *api.Error
	var reason api.Reason
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &known), errors.As(err, &reason):
		return api.AsError(err)
	case errors.As(err, &tooLarge):
		return api.Errorf(api.TooLarge, "Request body is larger than %d bytes", tooLarge.Limit)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return api.Errorf(api.Timeout, "%v", err)
	}
	return api.AsError(err)
}

// writeEnvelope sends one object of all seven keys and a trailing newline.
func writeEnvelope(w http.ResponseWriter, status int, body api.Response, metadata any) error {
	data, err := encode(body, metadata)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, err = w.Write(data)
	return err
}

// encode is the envelope's JSON. HTML is not escaped: it is not for browsers, and
// certificates and URLs stay readable.
func encode(body api.Response, metadata any) ([]byte, error) {
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(metadata); err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	body.Metadata = bytes.TrimSuffix(content.Bytes(), []byte("\n"))
	var envelope bytes.Buffer
	encoder = json.NewEncoder(&envelope)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, fmt.Errorf("encode the envelope: %w", err)
	}
	return envelope.Bytes(), nil
}

// ETag is the hash of value that clients send back in If-Match: hex SHA-256 of its
// JSON with HTML escaping and a trailing newline (rest-basics.md §5), without quotes.
func ETag(value any) string {
	hash := sha256.New()
	if err := json.NewEncoder(hash).Encode(value); err != nil {
		return "" // values are our own structs and maps, which encode
	}
	return hex.EncodeToString(hash.Sum(nil))
}

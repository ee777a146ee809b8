package api

import "encoding/json"

// Response types of the envelope.
const (
	SyncResponse  = "sync"
	AsyncResponse = "async"
	ErrorResponse = "error"
)

// A Response is the envelope of every JSON answer. All seven keys are always there.
type Response struct {
	Type       string          `json:"type" yaml:"type"`
	Status     string          `json:"status" yaml:"status"`
	StatusCode int             `json:"status_code" yaml:"status_code"`
	Operation  string          `json:"operation" yaml:"operation"`
	Code       int             `json:"error_code" yaml:"error_code"`
	Error      string          `json:"error" yaml:"error"`
	Metadata   json.RawMessage `json:"metadata" yaml:"metadata"`
}

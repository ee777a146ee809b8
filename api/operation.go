package api

import "time"

// Classes of operations.
const (
	OperationClassTask      = "task"
	OperationClassWebsocket = "websocket"
	OperationClassToken     = "token"
)

// An Operation is work that outlives its request.
type Operation struct {
	ID          string     `json:"id" yaml:"id"`
	Class       string     `json:"class" yaml:"class"`
	Description string     `json:"description" yaml:"description"`
	CreatedAt   time.Time  `json:"created_at" yaml:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at" yaml:"updated_at"`
	Status      string     `json:"status" yaml:"status"`
	StatusCode  StatusCode `json:"status_code" yaml:"status_code"`
	// Resources are lists of URLs by kind.
	Resources map[string][]string `json:"resources" yaml:"resources"`
	Metadata  map[string]any      `json:"metadata" yaml:"metadata"`
	MayCancel bool                `json:"may_cancel" yaml:"may_cancel"`
	Err       string              `json:"err" yaml:"err"`
	// Location is the name of the member that runs it, or "none".
	Location string `json:"location" yaml:"location"`
}

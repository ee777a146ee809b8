package api

import (
	"encoding/json"
	"time"
)

// Types of events.
const (
	EventLogging   = "logging"
	EventOperation = "operation"
	EventLifecycle = "lifecycle"
)

// An Event is one message of GET /1.0/events.
type Event struct {
	Type      string          `json:"type" yaml:"type"`
	Timestamp time.Time       `json:"timestamp" yaml:"timestamp"`
	Metadata  json.RawMessage `json:"metadata" yaml:"metadata"`
	Location  string          `json:"location,omitempty" yaml:"location,omitempty"`
	Project   string          `json:"project,omitempty" yaml:"project,omitempty"`
}

// EventLifecycleInfo is the metadata of a lifecycle event.
type EventLifecycleInfo struct {
	Action    string          `json:"action" yaml:"action"`
	Source    string          `json:"source" yaml:"source"`
	Context   map[string]any  `json:"context,omitempty" yaml:"context,omitempty"`
	Requestor *EventRequestor `json:"requestor,omitempty" yaml:"requestor,omitempty"`
	Name      string          `json:"name,omitempty" yaml:"name,omitempty"`
	Project   string          `json:"project,omitempty" yaml:"project,omitempty"`
}

// EventRequestor is who caused an event. Address has no port.
type EventRequestor struct {
	Username string `json:"username" yaml:"username"`
	Protocol string `json:"protocol" yaml:"protocol"`
	Address  string `json:"address" yaml:"address"`
}

// EventLogInfo is the metadata of a logging event.
type EventLogInfo struct {
	Message string            `json:"message" yaml:"message"`
	Level   string            `json:"level" yaml:"level"`
	Context map[string]string `json:"context" yaml:"context"`
}

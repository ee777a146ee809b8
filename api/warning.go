package api

import "time"

// Statuses of a warning.
const (
	WarningNew          = "new"
	WarningAcknowledged = "acknowledged"
	// WarningResolved is one whose cause is gone; only the server says so.
	WarningResolved = "resolved"
)

// Severities of a warning.
const (
	WarningLow      = "low"
	WarningModerate = "moderate"
	WarningHigh     = "high"
)

// WarningPut is the writable part of a warning.
type WarningPut struct {
	Status string `json:"status" yaml:"status"`
}

// Warning is something that is wrong, or soon will be, and that somebody should look at.
type Warning struct {
	WarningPut `yaml:",inline"`
	UUID       string `json:"uuid" yaml:"uuid"`
	// Location is the member that it is about; empty if that is the whole cluster.
	Location string `json:"location" yaml:"location"`
	Project  string `json:"project" yaml:"project"`
	Type     string `json:"type" yaml:"type"`
	// Count is how often it was seen.
	Count       int       `json:"count" yaml:"count"`
	FirstSeenAt time.Time `json:"first_seen_at" yaml:"first_seen_at"`
	LastSeenAt  time.Time `json:"last_seen_at" yaml:"last_seen_at"`
	LastMessage string    `json:"last_message" yaml:"last_message"`
	Severity    string    `json:"severity" yaml:"severity"`
	EntityURL   string    `json:"entity_url" yaml:"entity_url"`
}

package api

import (
	"errors"
	"fmt"
)

// An Error is a refusal as a user sees it: why, in which words, and what to do next.
// It crosses the wire, and the replicated log, unchanged.
type Error struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
	// Hint overrides the reason's own next step; empty means that one.
	Hint string `json:"hint,omitempty"`
	// Code overrides the reason's HTTP status; 0 means that one.
	Code int `json:"code,omitempty"`
}

// Errorf returns an Error for reason whose message is formatted from format.
func Errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that tells the user to do hint next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithCode returns a copy of e that is answered with the HTTP status code.
func (e *Error) WithCode(code int) *Error {
	c := *e
	c.Code = code
	return &c
}

func (e *Error) Error() string { return e.Message }

// Unwrap makes errors.Is(err, api.TokenExpired) true for an Error of that reason.
func (e *Error) Unwrap() error { return e.Reason }

// Status is the HTTP status to answer with.
func (e *Error) Status() int {
	if e.Code != 0 {
		return e.Code
	}
	return e.Reason.Status()
}

// NextStep is what the user should do next; it may be empty.
func (e *Error) NextStep() string {
	if e.Hint != "" {
		return e.Hint
	}
	return e.Reason.Hint()
}

// AsError returns err's refusal. An error that carries none becomes an Internal
// one with err's own text, so that every failure has a reason code.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if full := err.Error(); full != e.Message {
			c := *e
			c.Message = full
			return &c
		}
		return e
	}
	var r Reason
	if errors.As(err, &r) {
		return &Error{Reason: r, Message: err.Error()}
	}
	return &Error{Reason: Internal, Message: err.Error()}
}

// ErrorMetadata is the metadata of an error envelope: stable for programs, where
// the text is for people.
type ErrorMetadata struct {
	Reason   Reason  `json:"reason" yaml:"reason"`
	Hint     string  `json:"hint,omitempty" yaml:"hint,omitempty"`
	Problems []Error `json:"problems,omitempty" yaml:"problems,omitempty"`
}

// Package client is a typed Go client of the REST API, over the daemon's unix
// socket or over HTTPS with a pinned certificate.
//
// The command line, joining members and tests use it. A refusal by the server
// comes back as an *api.Error (or a *RefusedError when it names several
// problems), so errors.Is(err, api.TokenExpired) works across the wire.
//
// Every call takes a context and ends: a server that falls silent is given up
// after Options.Timeout. Where such a call may have changed something, the error
// says api.OutcomeUnknown instead of claiming that it failed. No proxy is ever
// used: what this client talks to are members of a cluster.
//
// A Client is safe for concurrent use. The package knows the wire only; it asks
// nobody questions and prints nothing.
package client

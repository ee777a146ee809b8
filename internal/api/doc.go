// Package api is the REST face of the daemon: routes, authentication, handlers,
// envelopes, and the mapping of errors to answers.
//
// It owns who may call what. Routes are data (see Routes): method, path, the kinds
// of callers that are let in, and a handler. Everything that is the same for all
// calls stands once, in the pipeline of Server: the guard against cross-site
// requests, authentication, authorization, the limit of bodies, forwarding to the
// member that target= names, the envelope, and the log line of a failure. A handler
// decodes, calls one service, and returns; it writes nothing and chooses no status.
//
// What always holds: a caller is judged anew at every request, from the replicated
// trust store and the clock; a stranger's request costs little and learns nothing;
// the secret of a join token is shown to administrators only; a request that was
// forwarded once is not forwarded again.
//
// The package knows nothing of Raft, of how a member is brought up, or of where
// listeners come from: it declares what it needs in Config.
package api

// Package trust makes, keeps and compares certificates.
//
// It owns the key pairs in the state directory (server.crt and server.key,
// cluster.crt and cluster.key), the judgement whether a certificate may be trusted
// at a given time, and the TLS configuration with which one member calls another.
//
// Trust is always in one exact certificate, never in a name or an authority: two
// certificates are the same when their DER bytes are. A pair on disk is whole: a
// crash while it is being written leaves the old pair or the new one.
//
// The package knows nothing of members, tokens or HTTP, nor of who is trusted.
package trust

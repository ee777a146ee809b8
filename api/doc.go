// Package api is the wire: the structs, status codes, names and reasons of the
// REST protocol, as Incus 7.3 speaks it.
//
// JSON and YAML names are those of the protocol and never change. Field order is
// the order in which clients print the objects. The package imports nothing of
// ours, holds no state and does no input or output, so that anything may use it.
package api

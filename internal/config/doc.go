// Package config is the schema of server configuration: which keys there are, whether
// they belong to one member or to the whole cluster, their types, defaults and rules.
//
// It owns one table, in table.go; the reference page docs/configuration.md is printed
// from it. What is validated here is normalized: a boolean is "true" or "false", an
// integer has no leading zeros, and an empty value means that the key is not set.
//
// The package judges values alone. It holds none, and it touches neither network nor
// disk: whether an address can be listened on is found out by whoever listens.
package config

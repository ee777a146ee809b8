// Package network is what a managed network is on this machine: a bridge that it makes, or an
// interface that it only uses.
//
// Bridges are made through netlink, in the network namespace of the process, and stay when the
// daemon ends; Start brings back what a restart of the machine took away. NAT is done by nft, and
// addresses are given by dnsmasq, one process for each bridge: where one of these tools is
// missing the bridge works without it, the log says so, and Firewall answers "none".
//
// What always holds: an interface that this daemon did not make is never changed or removed but
// for what a network of it says, such as its being a port of a bridge. A bridge of ours carries a
// mark, its alias, which names the cluster and the network, and the mark is noted on disk before
// the bridge is made. Members of one cluster that share a network namespace share the bridge.
//
// The types physical, macvlan and sriov make nothing by themselves: they say which interface
// instances would use. No machine with SR-IOV was at hand to try that type's checks.
//
// The package knows nothing of clusters, but for the ID in the mark, nor of who asks.
package network

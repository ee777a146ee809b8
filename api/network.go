package api

// NetworkPut is the writable part of a network.
type NetworkPut struct {
	Config      ConfigMap `json:"config" yaml:"config"`
	Description string    `json:"description" yaml:"description"`
}

// NetworksPost asks for a network; an empty type means a bridge.
type NetworksPost struct {
	NetworkPut `yaml:",inline"`
	Name       string `json:"name" yaml:"name"`
	Type       string `json:"type" yaml:"type"`
}

// NetworkPost renames a network.
type NetworkPost struct {
	Name string `json:"name" yaml:"name"`
}

// Network is a managed network of the cluster, or what it is on one member, or an
// interface of the machine that is not managed.
type Network struct {
	NetworkPut `yaml:",inline"`
	Name       string   `json:"name" yaml:"name"`
	Type       string   `json:"type" yaml:"type"`
	UsedBy     []string `json:"used_by" yaml:"used_by"`
	Managed    bool     `json:"managed" yaml:"managed"`
	// Status is empty for what is not managed.
	Status string `json:"status" yaml:"status"`
	// Locations are the members that have it, made or not; null for what is not managed.
	Locations []string `json:"locations" yaml:"locations"`
	Project   string   `json:"project" yaml:"project"`
	// Message says why Status is what it is, for each member that has a reason. It is not
	// upstream's.
	Message string `json:"message,omitempty" yaml:"message,omitempty"`
}

// NetworkLease is an address that a network has given, or has to give.
type NetworkLease struct {
	Hostname string `json:"hostname" yaml:"hostname"`
	Hwaddr   string `json:"hwaddr" yaml:"hwaddr"`
	Address  string `json:"address" yaml:"address"`
	// Type is "dynamic", "static" or "gateway".
	Type     string `json:"type" yaml:"type"`
	Location string `json:"location" yaml:"location"`
	Project  string `json:"project" yaml:"project"`
}

// NetworkState is what an interface is doing on one member.
type NetworkState struct {
	Addresses []NetworkStateAddress `json:"addresses" yaml:"addresses"`
	Counters  NetworkStateCounters  `json:"counters" yaml:"counters"`
	Hwaddr    string                `json:"hwaddr" yaml:"hwaddr"`
	MTU       int                   `json:"mtu" yaml:"mtu"`
	// State is "up" or "down".
	State string `json:"state" yaml:"state"`
	// Type is "broadcast", "loopback", "point-to-point" or "unknown".
	Type   string              `json:"type" yaml:"type"`
	Bridge *NetworkStateBridge `json:"bridge" yaml:"bridge"`
}

// NetworkStateAddress is an address of an interface.
type NetworkStateAddress struct {
	// Family is "inet" or "inet6", Scope "global", "link" or "local".
	Family  string `json:"family" yaml:"family"`
	Address string `json:"address" yaml:"address"`
	// Netmask is the length of the prefix.
	Netmask string `json:"netmask" yaml:"netmask"`
	Scope   string `json:"scope" yaml:"scope"`
}

// NetworkStateCounters counts since the interface was made.
type NetworkStateCounters struct {
	BytesReceived          int64 `json:"bytes_received" yaml:"bytes_received"`
	BytesSent              int64 `json:"bytes_sent" yaml:"bytes_sent"`
	PacketsReceived        int64 `json:"packets_received" yaml:"packets_received"`
	PacketsSent            int64 `json:"packets_sent" yaml:"packets_sent"`
	ErrorsReceived         int64 `json:"errors_received" yaml:"errors_received"`
	ErrorsSent             int64 `json:"errors_sent" yaml:"errors_sent"`
	PacketsDroppedOutbound int64 `json:"packets_dropped_outbound" yaml:"packets_dropped_outbound"`
	PacketsDroppedInbound  int64 `json:"packets_dropped_inbound" yaml:"packets_dropped_inbound"`
}

// NetworkStateBridge is what only bridges have.
type NetworkStateBridge struct {
	ID            string   `json:"id" yaml:"id"`
	STP           bool     `json:"stp" yaml:"stp"`
	ForwardDelay  uint64   `json:"forward_delay" yaml:"forward_delay"`
	VLANDefault   uint64   `json:"vlan_default" yaml:"vlan_default"`
	VLANFiltering bool     `json:"vlan_filtering" yaml:"vlan_filtering"`
	UpperDevices  []string `json:"upper_devices" yaml:"upper_devices"`
}

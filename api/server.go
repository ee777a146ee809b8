package api

// ServerPut is the writable part of a server: PUT and PATCH /1.0.
type ServerPut struct {
	Config ConfigMap `json:"config" yaml:"config"`
}

// ServerUntrusted is GET /1.0 as a stranger sees it.
type ServerUntrusted struct {
	ServerPut `yaml:",inline"`
	// APIExtensions is null for strangers.
	APIExtensions []string `json:"api_extensions" yaml:"api_extensions"`
	APIStatus     string   `json:"api_status" yaml:"api_status"`
	APIVersion    string   `json:"api_version" yaml:"api_version"`
	// Auth is "trusted" or "untrusted".
	Auth        string   `json:"auth" yaml:"auth"`
	Public      bool     `json:"public" yaml:"public"`
	AuthMethods []string `json:"auth_methods" yaml:"auth_methods"`
}

// Server is GET /1.0 as a trusted caller sees it.
type Server struct {
	ServerUntrusted `yaml:",inline"`
	AuthUserName    string            `json:"auth_user_name" yaml:"auth_user_name"`
	AuthUserMethod  string            `json:"auth_user_method" yaml:"auth_user_method"`
	Environment     ServerEnvironment `json:"environment" yaml:"environment"`
}

// ServerEnvironment is what the server is and runs on.
type ServerEnvironment struct {
	// Addresses are host:port, from core.https_address, wildcards expanded.
	Addresses              []string          `json:"addresses" yaml:"addresses"`
	Architectures          []string          `json:"architectures" yaml:"architectures"`
	Certificate            string            `json:"certificate" yaml:"certificate"`
	CertificateFingerprint string            `json:"certificate_fingerprint" yaml:"certificate_fingerprint"`
	Driver                 string            `json:"driver" yaml:"driver"`
	DriverVersion          string            `json:"driver_version" yaml:"driver_version"`
	Firewall               string            `json:"firewall" yaml:"firewall"`
	Kernel                 string            `json:"kernel" yaml:"kernel"`
	KernelArchitecture     string            `json:"kernel_architecture" yaml:"kernel_architecture"`
	KernelFeatures         map[string]string `json:"kernel_features" yaml:"kernel_features"`
	KernelVersion          string            `json:"kernel_version" yaml:"kernel_version"`
	LXCFeatures            map[string]string `json:"lxc_features" yaml:"lxc_features"`
	OSName                 string            `json:"os_name" yaml:"os_name"`
	OSVersion              string            `json:"os_version" yaml:"os_version"`
	Project                string            `json:"project" yaml:"project"`
	Server                 string            `json:"server" yaml:"server"`
	ServerClustered        bool              `json:"server_clustered" yaml:"server_clustered"`
	ServerEventMode        string            `json:"server_event_mode" yaml:"server_event_mode"`
	ServerName             string            `json:"server_name" yaml:"server_name"`
	ServerPid              int               `json:"server_pid" yaml:"server_pid"`
	ServerVersion          string            `json:"server_version" yaml:"server_version"`
	Storage                string            `json:"storage" yaml:"storage"`
	StorageVersion         string            `json:"storage_version" yaml:"storage_version"`
	// StorageSupportedDrivers has capitalised JSON keys, as upstream's.
	StorageSupportedDrivers []StorageDriverInfo `json:"storage_supported_drivers" yaml:"storage_supported_drivers"`
}

// StorageDriverInfo is a storage back-end that this server can make pools with.
type StorageDriverInfo struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	Remote  bool   `yaml:"remote"`
}

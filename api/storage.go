package api

import "time"

// Statuses of storage pools and networks, cluster-wide and on one member.
const (
	// EntityPending is defined and not made yet.
	EntityPending = "Pending"
	// EntityCreated has been made.
	EntityCreated = "Created"
	// EntityErrored could not be made or changed; Message says why.
	EntityErrored = "Errored"
	// EntityUnavailable was made and cannot be used at present; one member's only.
	EntityUnavailable = "Unavailable"
)

// StoragePoolPut is the writable part of a storage pool.
type StoragePoolPut struct {
	Config      ConfigMap `json:"config" yaml:"config"`
	Description string    `json:"description" yaml:"description"`
}

// StoragePoolsPost asks for a storage pool.
type StoragePoolsPost struct {
	StoragePoolPut `yaml:",inline"`
	Name           string `json:"name" yaml:"name"`
	Driver         string `json:"driver" yaml:"driver"`
}

// StoragePool is a storage pool of the cluster, or what it is on one member.
type StoragePool struct {
	StoragePoolPut `yaml:",inline"`
	Name           string   `json:"name" yaml:"name"`
	Driver         string   `json:"driver" yaml:"driver"`
	UsedBy         []string `json:"used_by" yaml:"used_by"`
	Status         string   `json:"status" yaml:"status"`
	// Locations are the members that have it, made or not.
	Locations []string `json:"locations" yaml:"locations"`
	// Message says why Status is what it is, for each member that has a reason. It is not
	// upstream's.
	Message string `json:"message,omitempty" yaml:"message,omitempty"`
}

// ResourcesStoragePool is how full a pool is on one member, in bytes and inodes.
type ResourcesStoragePool struct {
	Space  ResourcesStoragePoolSpace  `json:"space" yaml:"space"`
	Inodes ResourcesStoragePoolInodes `json:"inodes" yaml:"inodes"`
}

// ResourcesStoragePoolSpace is in bytes.
type ResourcesStoragePoolSpace struct {
	Used  uint64 `json:"used,omitempty" yaml:"used,omitempty"`
	Total uint64 `json:"total" yaml:"total"`
}

// ResourcesStoragePoolInodes counts inodes; both are 0 where the file system has none to count.
type ResourcesStoragePoolInodes struct {
	Used  uint64 `json:"used" yaml:"used"`
	Total uint64 `json:"total" yaml:"total"`
}

// Kinds and contents of storage volumes.
const (
	VolumeCustom     = "custom"
	VolumeFilesystem = "filesystem"
	VolumeBlock      = "block"
)

// StorageVolumePut is the writable part of a storage volume.
type StorageVolumePut struct {
	Config      ConfigMap `json:"config" yaml:"config"`
	Description string    `json:"description" yaml:"description"`
}

// StorageVolumesPost asks for a storage volume.
type StorageVolumesPost struct {
	StorageVolumePut `yaml:",inline"`
	Name             string `json:"name" yaml:"name"`
	Type             string `json:"type" yaml:"type"`
	ContentType      string `json:"content_type" yaml:"content_type"`
	// Source, if not empty, would copy another volume.
	Source map[string]any `json:"source" yaml:"source,omitempty"`
}

// StorageVolumePost renames a storage volume.
type StorageVolumePost struct {
	Name string `json:"name" yaml:"name"`
	Pool string `json:"pool,omitempty" yaml:"pool,omitempty"`
}

// StorageVolume is a custom storage volume, which lies on one member.
type StorageVolume struct {
	StorageVolumePut `yaml:",inline"`
	Name             string    `json:"name" yaml:"name"`
	Pool             string    `json:"pool" yaml:"pool"`
	Type             string    `json:"type" yaml:"type"`
	UsedBy           []string  `json:"used_by" yaml:"used_by"`
	Location         string    `json:"location" yaml:"location"`
	ContentType      string    `json:"content_type" yaml:"content_type"`
	Project          string    `json:"project" yaml:"project"`
	CreatedAt        time.Time `json:"created_at" yaml:"created_at"`
}

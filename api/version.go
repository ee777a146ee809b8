package api

// Version is the version of the protocol and of the product.
const Version = "7.3"

// APIVersion is the prefix of all resources.
const APIVersion = "1.0"

// Extensions lists the parts of the protocol that this version answers for. The
// client refuses calls whose extension is missing, so a name stands here only when
// every call that it guards gives a true answer.
func Extensions() []string {
	return []string{
		"etag", "patch", "entity_description", "network", "storage", "projects",
		"clustering", "clustering_join", "clustering_server_address", "clustering_roles", "clustering_edit_roles",
		"clustering_failure_domains", "clustering_architecture", "clustering_sizing", "clustering_description",
		"clustering_config", "clustering_join_token", "clustering_groups", "clustering_groups_config", "cluster_group_usedby", "cluster_member_state", "database_leader",
		"clustering_evacuation", "clustering_evacuation_mode", "clustering_evacuation_live", "clustering_evacuation_stop_options",
		"cluster_evacuating_restoring", "cluster_healing", "clustering_update_cert", "event_hub",
		"certificate_update", "certificate_token", "certificate_project", "certificate_description", "certificate_self_renewal",
		"remote_token_expiry", "auth_tls_jwt", "server_trusted_proxy", "metrics", "metrics_authentication",
		"cluster_join_token_expiry", "operation_wait", "operation_description", "operations_get_query_all_projects",
		"profiles_all_projects", "networks_all_projects", "api_filtering", "api_filtering_extended", "usedby_consistency",
		"event_location", "event_lifecycle", "event_project", "event_lifecycle_requestor_address",
		"event_lifecycle_name_and_project", "https_allowed_credentials", "core_https_allowed_websocket_origin",
		"init_preseed", "init_preseed_storage_volumes", "init_preseed_profile_project", "init_preseed_cluster_groups",
		"resources", "network_state", "network_leases",
		"custom_block_volumes", "storage_api_volume_rename", "storage_volumes_all_projects", "project_usage", "network_type_macvlan",
		"network_type_sriov", "network_type_physical", "warnings",
	}
}

package health

// A Code names a kind of finding. Codes are stable: scripts compare them.
type Code string

// Kinds of findings; docs/doctor.md explains each.
const (
	NoQuorum        Code = "no_quorum"
	MemberOffline   Code = "member_offline"
	MemberHangs     Code = "member_hangs"
	MemberUnheard   Code = "member_unheard"
	MemberRefuses   Code = "member_refuses"
	WrongServer     Code = "wrong_server"
	OneWay          Code = "one_way"
	LinkBroken      Code = "link_broken"
	Partition       Code = "partition"
	ClockSkew       Code = "clock_skew"
	VersionsDiffer  Code = "versions_differ"
	CommandVersion  Code = "command_version"
	DiskHangs       Code = "disk_hangs"
	DiskSlow        Code = "disk_slow"
	DiskFull        Code = "disk_full"
	DiskLow         Code = "disk_low"
	Lag             Code = "lag"
	CertExpired     Code = "certificate_expired"
	CertNotYetValid Code = "certificate_not_yet_valid"
	CertExpires     Code = "certificate_expires"
	TooFewVoters    Code = "too_few_voters"
	NoSlack         Code = "no_slack"
	Fenced          Code = "fenced"
	Rival           Code = "rival"
	Removed         Code = "removed"
	RemovalStuck    Code = "removal_stuck"
	MaintenanceLong Code = "maintenance_long"
	NoneInService   Code = "none_in_service"
	EntityErrored   Code = "entity_errored"
	EntityPending   Code = "entity_pending"
)

// Codes lists them all.
func Codes() []Code {
	return []Code{
		NoQuorum, MemberOffline, MemberHangs, MemberUnheard, MemberRefuses, WrongServer, OneWay, LinkBroken, Partition, ClockSkew,
		VersionsDiffer, CommandVersion, DiskHangs, DiskSlow, DiskFull, DiskLow, Lag, CertExpired, CertNotYetValid, CertExpires,
		TooFewVoters, NoSlack, Fenced, Rival, Removed, RemovalStuck, MaintenanceLong, NoneInService, EntityErrored, EntityPending,
	}
}

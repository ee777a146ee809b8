package membership

import "time"

// Settings are the intervals and bounds of the package. A zero field means its default.
type Settings struct {
	// LivenessInterval is how often the leader looks who answers, besides at once when
	// somebody answers again. Default 100 ms. Less costs idle wake-ups, more delays what
	// members show.
	LivenessInterval time.Duration
	// AnswerWithin is how fresh a member's last answer must be for it to be given a
	// role. Default 1 s: several heartbeats. More trusts members that may be dying.
	AnswerWithin time.Duration
	// SettleTime is how long a new leader waits to hear all members that are online
	// before it plans without the others. Default 1 s.
	SettleTime time.Duration
	// PlanInterval is how often roles and Raft's configuration are looked at when no
	// member changes, for changes of the targets. Default 1 s.
	PlanInterval time.Duration
	// CatchUpInterval is the same while a member is online and does not have the log
	// yet. Default 10 ms. Less speeds the last step of a join up.
	CatchUpInterval time.Duration
	// RetryInterval is the pause after a change that failed. Default 200 ms.
	RetryInterval time.Duration
	// ChangeTimeout bounds one change. Default 5 s. What is not known then is looked at again.
	ChangeTimeout time.Duration
	// SweepInterval is how often tokens and joins that ran out are looked for, besides at
	// the next known deadline. Default 10 s.
	SweepInterval time.Duration
	// LostAfter is how long a joining member past its deadline must have been silent to
	// be removed. Default 30 s.
	LostAfter time.Duration
	// HandoverTimeout is how long an evacuation waits for another member to take the database
	// role. Default 5 s. More helps where members lag; less evacuates sooner without it.
	HandoverTimeout time.Duration
	// MaintenanceInterval is how often the leader looks for maintenance that was cut off and
	// for members to heal. Default 1 s.
	MaintenanceInterval time.Duration
	// MaintenanceTimeout is how long an evacuation or restoration may take before the leader
	// ends it. Default 1 minute.
	MaintenanceTimeout time.Duration
	// HealConfirm is how long the leader must have had its quorum, and the member been
	// offline meanwhile, before it heals. Default 5 s.
	HealConfirm time.Duration
	// ProbeTimeout bounds the dial back to a joining server's address. Default 2 s.
	ProbeTimeout time.Duration
	// MaxClockSkew is how far a joining server's clock may be off. Default 1 minute. What
	// time decides is token expiry and certificate dates; more lets those surprise.
	MaxClockSkew time.Duration
}

func (s Settings) withDefaults() Settings {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&s.LivenessInterval, 100*time.Millisecond)
	def(&s.AnswerWithin, time.Second)
	def(&s.SettleTime, time.Second)
	def(&s.PlanInterval, time.Second)
	def(&s.CatchUpInterval, 10*time.Millisecond)
	def(&s.RetryInterval, 200*time.Millisecond)
	def(&s.ChangeTimeout, 5*time.Second)
	def(&s.SweepInterval, 10*time.Second)
	def(&s.LostAfter, 30*time.Second)
	def(&s.HandoverTimeout, 5*time.Second)
	def(&s.MaintenanceInterval, time.Second)
	def(&s.MaintenanceTimeout, time.Minute)
	def(&s.HealConfirm, 5*time.Second)
	def(&s.ProbeTimeout, 2*time.Second)
	def(&s.MaxClockSkew, time.Minute)
	return s
}

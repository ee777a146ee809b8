package health

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"incusd/api"
)

// clocks compares the members' clocks. Liveness does not rest on them; the expiry of tokens
// and the dates of certificates do.
func (d *diagnosis) clocks() {
	known := slices.DeleteFunc(slices.Clone(d.Members), func(m Member) bool { return !m.ClockKnown })
	if len(known) < 2 {
		return
	}
	offsets := make([]time.Duration, len(known))
	for i, m := range known {
		offsets[i] = m.Offset
	}
	slices.Sort(offsets)
	right := offsets[(len(offsets)-1)/2] // what most agree on
	if len(known) == 2 {
		d.twoClocks(known[0], known[1])
		return
	}
	for _, m := range known {
		off := m.Offset - right
		if severity := skewSeverity(off, m.Error); severity != "" {
			d.found(severity, ClockSkew, []string{m.Name},
				fmt.Sprintf("The clock of %s is %s %s those of the others", m.Name, length(off.Abs()), aheadOrBehind(off)), clockStep(m.Name))
		}
	}
}

// twoClocks: of two nobody knows which is wrong.
func (d *diagnosis) twoClocks(a, b Member) {
	off := b.Offset - a.Offset
	if severity := skewSeverity(off, max(a.Error, b.Error)); severity != "" {
		d.found(severity, ClockSkew, []string{a.Name, b.Name},
			fmt.Sprintf("The clock of %s is %s %s that of %s", b.Name, length(off.Abs()), aheadOrBehind(off), a.Name),
			clockStep(a.Name+" and "+b.Name))
	}
}

// skewSeverity judges only what is certain.
func skewSeverity(off, uncertain time.Duration) string {
	switch certain := off.Abs() - uncertain; {
	case certain > clockError:
		return api.SeverityError
	case certain > clockWarning:
		return api.SeverityWarning
	}
	return ""
}

func aheadOrBehind(off time.Duration) string {
	if off > 0 {
		return "ahead of"
	}
	return "behind"
}

func clockStep(where string) string {
	return fmt.Sprintf("set the clock by NTP on %s (chronyc tracking, timedatectl); tokens and certificates expire by it, and beyond a minute no server can join", where)
}

func (d *diagnosis) versions() {
	byVersion := make(map[string][]string)
	oldest, newest := 0, 0
	for i, m := range d.reported() {
		byVersion[m.Report.Version] = append(byVersion[m.Report.Version], m.Name)
		if i == 0 {
			oldest = m.Report.CommandVersion
		}
		oldest, newest = min(oldest, m.Report.CommandVersion), max(newest, m.Report.CommandVersion)
	}
	if len(byVersion) > 1 {
		var parts, all []string
		for _, version := range slices.Sorted(maps.Keys(byVersion)) {
			parts = append(parts, fmt.Sprintf("%s on %s", version, list(byVersion[version])))
			all = append(all, byVersion[version]...)
		}
		d.found(api.SeverityNotice, VersionsDiffer, all, fmt.Sprintf("The members run different versions: %s", list(parts)),
			"finish the upgrade: bring all members to the newest of these versions")
	}
	if oldest < newest {
		var old []string
		for _, m := range d.reported() {
			if m.Report.CommandVersion == oldest {
				old = append(old, m.Name)
			}
		}
		d.found(api.SeverityWarning, CommandVersion, old,
			fmt.Sprintf("%s %s only commands up to version %d, others know %d: what is newer is not used before all know it", list(old), verb(old, "knows", "know"), oldest, newest),
			fmt.Sprintf("upgrade %s", list(old)))
	}
}

func (d *diagnosis) disks() {
	for _, m := range d.reported() {
		d.diskSpeed(m, m.Report.Disk)
		d.diskSpace(m, m.Report.Disk)
	}
}

func (d *diagnosis) diskSpeed(m Member, disk api.MemberDisk) {
	switch stalled, p99 := milliseconds(disk.StalledMS), milliseconds(disk.P99MS); {
	case stalled > hangingWrite:
		d.found(api.SeverityError, DiskHangs, []string{m.Name},
			fmt.Sprintf("A write to the disk of %s has been under way for %s", m.Name, length(stalled)),
			fmt.Sprintf("on %s, look for what hangs the disk (dmesg, iostat -x 1)", m.Name))
	case disk.Writes >= enoughWrites && p99 > slowWrite:
		d.found(api.SeverityWarning, DiskSlow, []string{m.Name},
			fmt.Sprintf("The disk of %s is slow: of the last %d writes to the log one in a hundred took %s or more, the longest %s", m.Name, disk.Writes,
				p99.Round(time.Millisecond), milliseconds(disk.MaxMS).Round(time.Millisecond)),
			fmt.Sprintf("on %s, look for what else uses the disk (iostat -x 1, iotop), or put the state directory on a faster one", m.Name))
	}
}

func (d *diagnosis) diskSpace(m Member, disk api.MemberDisk) {
	if disk.TotalBytes == 0 {
		return
	}
	below := func(bytes uint64, percent float64) bool {
		return disk.FreeBytes < bytes && float64(disk.FreeBytes)*100 < percent*float64(disk.TotalBytes)
	}
	left := fmt.Sprintf("%d MiB of %d MiB are free", disk.FreeBytes>>20, disk.TotalBytes>>20)
	next := fmt.Sprintf("free space on the disk of %s's state directory (du -xh); at the first write that fails its daemon stops", m.Name)
	switch {
	case below(fullBytes, fullPercent):
		d.found(api.SeverityError, DiskFull, []string{m.Name}, fmt.Sprintf("The disk of %s is full but for a rest: %s", m.Name, left), next)
	case below(lowBytes, lowPercent):
		d.found(api.SeverityWarning, DiskLow, []string{m.Name}, fmt.Sprintf("The disk of %s is nearly full: %s", m.Name, left), next)
	}
}

// certificates looks at each certificate once; all members show the same one of the cluster.
func (d *diagnosis) certificates() {
	seen := make(map[string]bool)
	for _, m := range d.reported() {
		for _, c := range m.Report.Certificates {
			if !seen[c.Fingerprint] {
				seen[c.Fingerprint] = true
				d.certificate(m, c)
			}
		}
	}
}

func (d *diagnosis) certificate(m Member, c api.MemberCertificate) {
	what, members := "The certificate of "+m.Name, []string{m.Name}
	next := fmt.Sprintf("its daemon renews it by itself, long before: the log on %s says why it did not; one that you supplied goes by hand (docs/certificates.md)", m.Name)
	effect := "the other members do not take requests that it passes on"
	if c.Kind == api.ClusterCertificate {
		what, members = "The cluster's certificate", nil
		next = "replace it: incus cluster update-certificate CERT KEY; one that the cluster made itself the leader renews long before: its log says why it did not"
		effect = "clients that look at dates refuse the cluster"
	}
	switch {
	case d.Now.Before(c.NotBefore):
		d.found(api.SeverityError, CertNotYetValid, members,
			fmt.Sprintf("%s is valid only from %s: until then %s", what, stamp(c.NotBefore), effect),
			fmt.Sprintf("compare the clocks of %s and %s (run date): one of them is wrong", d.By, m.Name))
	case !d.Now.Before(c.NotAfter):
		d.found(api.SeverityError, CertExpired, members, fmt.Sprintf("%s expired on %s: %s", what, stamp(c.NotAfter), effect), next)
	case c.NotAfter.Sub(d.Now) < certificateTime:
		d.found(api.SeverityWarning, CertExpires, members,
			fmt.Sprintf("%s expires on %s, in %s; then %s", what, stamp(c.NotAfter), length(c.NotAfter.Sub(d.Now)), effect), next)
	}
}

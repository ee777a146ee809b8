package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"incusd/api"
	"incusd/client"
	"incusd/cmd/incus/internal/table"
)

// memberHealth is what the leader knows of each member, by name. It is asked for only when
// somebody wants to see it.
type memberHealth map[string]api.MemberHealth

// fetch fills h from the server.
func (h memberHealth) fetch(ctx context.Context, c *client.Client) error {
	all, err := c.ClusterHealth(ctx)
	if err != nil {
		return err
	}
	for _, m := range all.Members {
		h[m.Name] = m
	}
	return nil
}

// unknown stands in a cell for what nobody knows at present.
const unknown = "-"

// columns are those that Incus does not have. They are shown on demand.
func (h memberHealth) columns(date func(time.Time) string) []column[api.ClusterMember] {
	return []column[api.ClusterMember]{
		{'l', "LAG", func(m api.ClusterMember) string {
			if lag := h[m.ServerName].Lag; lag != nil {
				return fmt.Sprint(*lag)
			}
			return unknown
		}},
		{'c', "LAST CONTACT", func(m api.ClusterMember) string {
			if ago := h[m.ServerName].LastContactMS; ago != nil {
				return lengthOf(*ago)
			}
			return unknown
		}},
		{'o', "OFFLINE SINCE", func(m api.ClusterMember) string { return date(h[m.ServerName].OfflineSince) }},
	}
}

// lengthOf prints milliseconds: exactly below a second, else rounded to seconds.
func lengthOf(milliseconds int64) string {
	t := time.Duration(milliseconds) * time.Millisecond
	if t >= time.Second {
		t = t.Round(time.Second)
	}
	if t == 0 {
		return "0ms"
	}
	return t.String()
}

// raftInfo is what "cluster info --raft" adds.
type raftInfo struct {
	*api.ClusterMemberState `yaml:",inline"`
	Raft                    raftMember `yaml:"raft"`
}

type raftMember struct {
	Role string `yaml:"role"`
	// From is the member whose knowledge this is; Leader is empty if there is none.
	From         string    `yaml:"from"`
	Leader       string    `yaml:"leader"`
	Term         uint64    `yaml:"term"`
	LastIndex    uint64    `yaml:"last_index"`
	MatchIndex   *uint64   `yaml:"match_index"`
	Lag          *uint64   `yaml:"lag"`
	LastContact  string    `yaml:"last_contact"`
	OfflineSince time.Time `yaml:"offline_since,omitempty"`
}

// showRaft prints how a member's machine is doing and its part in Raft. The first may be
// missing: who asks for the second wants it most of a member that is offline.
func (a *app) showRaft(ctx context.Context, c *client.Client, name string) error {
	all, err := c.ClusterHealth(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all.Members, func(m api.MemberHealth) bool { return m.Name == name })
	if i < 0 {
		return refuse(api.MemberNotFound, "Cluster member not found")
	}
	m := all.Members[i]
	info := raftInfo{Raft: raftMember{
		Role: m.Role, From: all.From, Leader: all.Leader, Term: all.Term, LastIndex: all.LastIndex, MatchIndex: m.MatchIndex, Lag: m.Lag,
		LastContact: unknown, OfflineSince: m.OfflineSince,
	}}
	if m.LastContactMS != nil {
		info.Raft.LastContact = lengthOf(*m.LastContactMS)
	}
	switch info.ClusterMemberState, err = c.MemberState(ctx, name); {
	case err == nil:
		return table.WriteYAML(a.stdout, info)
	case errors.Is(err, api.MemberOffline), errors.Is(err, api.NoQuorum), errors.Is(err, api.Timeout):
		a.warn("the machine of %s cannot be asked: %v", name, err)
		return table.WriteYAML(a.stdout, struct {
			Raft raftMember `yaml:"raft"`
		}{info.Raft})
	}
	return err
}

func (a *app) clusterDoctorCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor [<remote>:]",
		Short: "Find out what is wrong with the cluster, and what to do",
		Long: "Find out what is wrong with the cluster, and what to do.\n\n" +
			"All members are asked how they are and whom they reach. This takes about two seconds at most,\n" +
			"and works without a quorum and when members do not answer.\n\n" +
			"The exit code is 1 if there is an error among the findings (or if the daemon does not answer),\n" +
			"and 0 if there are only warnings and notices.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(doctorFormats, format) {
				return fmt.Errorf("Invalid format %q: use one of %s", format, strings.Join(doctorFormats, ", "))
			}
			c, err := a.onlyRemote(args)
			if err != nil {
				return err
			}
			diagnosis, err := c.Diagnosis(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.printDiagnosis(format, diagnosis); err != nil {
				return err
			}
			if slices.ContainsFunc(diagnosis.Findings, func(f api.Finding) bool { return f.Severity == api.SeverityError }) {
				return saidError{1}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", table.Table, "Print as `FORMAT` ("+strings.Join(doctorFormats, "|")+")")
	mustComplete(cmd, "format", cobra.FixedCompletions(doctorFormats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// doctorFormats are how a diagnosis can be printed; a table here is lines for people.
var doctorFormats = []string{table.Table, table.JSON, table.YAML}

func (a *app) printDiagnosis(format string, d *api.Diagnosis) error {
	if format != table.Table {
		return table.Write(a.stdout, table.Format{Kind: format}, nil, nil, d)
	}
	for _, f := range d.Findings {
		fmt.Fprintf(a.stdout, "%s %s: %s.\n  -> %s.\n", marks[f.Severity], f.Code, f.Cause, f.NextStep)
	}
	if len(d.Findings) > 0 {
		fmt.Fprintln(a.stdout)
	}
	fmt.Fprintln(a.stdout, summary(d))
	return nil
}

// marks are what the eye, and grep, look for.
var marks = map[string]string{api.SeverityError: "[ERROR]", api.SeverityWarning: "[WARNING]", api.SeverityNotice: "[NOTICE]"}

// summary says how much was found, and what was looked at.
func summary(d *api.Diagnosis) string {
	answered := 0
	for _, m := range d.Members {
		if m.Report != nil {
			answered++
		}
	}
	text := fmt.Sprintf("%d of %d members answered %s.", answered, len(d.Members), d.By)
	if len(d.Findings) == 0 {
		return "Nothing wrong was found: " + text + "\nChecked: " + strings.Join(d.Checked, ", ") + "."
	}
	counts := make(map[string]int)
	for _, f := range d.Findings {
		counts[f.Severity]++
	}
	text = fmt.Sprintf("Errors: %d, warnings: %d, notices: %d. %s", counts[api.SeverityError], counts[api.SeverityWarning], counts[api.SeverityNotice], text)
	if d.Stale {
		text += " Without a leader, what " + d.By + " last knew of the members was taken for true."
	}
	return text
}

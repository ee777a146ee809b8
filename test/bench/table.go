package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A target is what a figure is compared with: both are words, for reading.
type target struct{ wanted, peer string }

// targets are the figures in the order of the table. What is wanted, and what the peer
// needs on such a machine, is as the project's issue about forming a cluster says it.
var targets = []struct {
	figure string
	target
}{
	{"disk: 4 KiB append + fsync", target{"", "0.2–0.4 ms"}},
	{"start to first answer", target{"≤ 60 ms", "318 ms"}},
	{"bootstrap (incus admin init)", target{"≤ 70 ms", "263 ms"}},
	{"incus cluster add", target{"≤ 20 ms", "66 ms"}},
	{"join, member 2 (incus admin init)", target{"≤ 150 ms", "535 ms"}},
	{"join, member 3", target{"≤ 150 ms", ""}},
	{"join, last member", target{"≤ 150 ms", "1,058 ms"}},
	{"token, on the leader", target{"≤ 5 ms", "15 ms"}},
	{"token, elsewhere", target{"≤ 5 ms", "81 ms"}},
	{"token, on the leader, many clients", target{"≥ 1,500/s", "63/s"}},
	{"token, elsewhere, many clients", target{"≥ 1,500/s", "13/s"}},
	{"member list, on the leader", target{"≤ 0.5 ms", "5 ms"}},
	{"member list, elsewhere", target{"≤ 0.5 ms", "7 ms"}},
	{"member list, on the leader, many clients", target{"≥ 5,000/s", "200/s"}},
	{"member list, elsewhere, many clients", target{"≥ 5,000/s", "180/s"}},
	{"configuration write, on the leader", target{"≤ 5 ms", "37 ms"}},
	{"configuration write, elsewhere", target{"≤ 5 ms", "37 ms"}},
	{"configuration write, on the leader, many clients", target{"≥ 1,500/s", "32/s"}},
	{"configuration write, elsewhere, many clients", target{"≥ 1,500/s", "32/s"}},
	{"administrator's request, in a crowd of 1,200", target{"≤ 1 s", ""}},
	{"fail-over: leader killed, to the next write", target{"≤ 1 s", "5.7–6.7 s"}},
	{"fail-over: leader's packets vanish, to the next write", target{"≤ 1 s", ""}},
	{"rolling restart of 5, longest gap in writes", target{"≤ 1 s", ""}},
	{"restarted member, start to Online", target{"≤ 0.5 s", "5.3 s"}},
	{"restarted member, after load", target{"-", "-"}},
	{"resident memory, idle", target{"≤ 35 MiB", "100 MiB"}},
	{"resident memory, after load", target{"", "136 MiB"}},
	{"size of incusd", target{"≤ 25 MiB", "86 MiB"}},
	{"size of incus", target{"≤ 15 MiB", "34 MiB"}},
}

// A table holds what was measured, as text, by figure.
type table struct {
	measured map[string]string
	notes    []string
}

func newTable() *table { return &table{measured: map[string]string{}} }

// durations records the samples of a latency figure.
func (t *table) durations(figure string, samples []time.Duration) {
	if len(samples) == 0 {
		return
	}
	slices.Sort(samples)
	t.set(figure, "p50 %s, p99 %s, max %s (n=%d)", short(percentile(samples, 50)),
		short(percentile(samples, 99)), short(samples[len(samples)-1]), len(samples))
}

// rate records calls done in a time by some clients.
func (t *table) rate(figure string, r loadResult) {
	slices.Sort(r.latencies)
	t.set(figure, "%.0f/s, p50 %s, p99 %s (%d clients, n=%d)", float64(len(r.latencies))/r.took.Seconds(),
		short(percentile(r.latencies, 50)), short(percentile(r.latencies, 99)), r.clients, len(r.latencies))
}

// bytes records sizes, of which the largest is the figure.
func (t *table) bytes(figure string, sizes ...int64) {
	slices.Sort(sizes)
	words := make([]string, len(sizes))
	for i, s := range sizes {
		words[i] = fmt.Sprintf("%.1f", float64(s)/(1<<20))
	}
	t.set(figure, "%s MiB", strings.Join(words, ", "))
}

func (t *table) set(figure, format string, args ...any) {
	t.measured[figure] = fmt.Sprintf(format, args...)
}

// note records a line to print under the table.
func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// print writes the table: every figure, measured or not.
func (t *table) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tMEASURED\tWANTED\tPEER")
	for _, row := range targets {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", row.figure, cmp.Or(t.measured[row.figure], "not measured"),
			cmp.Or(row.wanted, "-"), cmp.Or(row.peer, "-"))
	}
	tw.Flush()
}

func (t *table) printNotes(w io.Writer) {
	for _, n := range t.notes {
		fmt.Fprintln(w, n)
	}
}

// percentile is the p-th percentile of sorted by the nearest-rank rule; 0 for no samples.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}

// short rounds d to three digits that mean something.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	}
}

// machine says on what the figures are measured, and how busy that is before.
func machine() string {
	load, _, _ := strings.Cut(readLine("/proc/loadavg"), " ")
	return fmt.Sprintf("%d cores, load %s before, %s/%s, %s", runtime.NumCPU(), cmp.Or(load, "unknown"),
		runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// readLine is the first line of a file, "" if it cannot be read.
func readLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

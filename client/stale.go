package client

import (
	"strconv"
	"strings"
	"time"

	"incusd/api"
)

// staleHeader marks an answer that is not linearizable: the member could not ask
// the others and showed its own replica.
const staleHeader = "X-Incus-Stale"

// Stale says how old an answer may be, and why.
type Stale struct {
	// Reason is usually api.NoQuorum.
	Reason api.Reason
	// Index is the last entry of the log that the answer contains; 0 if unknown.
	Index uint64
	// Since is when the member last knew itself to be up to date; zero if unknown.
	Since time.Time
	// Voters is how many members vote, Missing the names of those that do not answer the member
	// that was asked. Voters is 0 if it does not know yet.
	Voters  int
	Missing []string
}

// parseStale reads "no_quorum; index=N; since=T; voters=N; missing=NAME,NAME". Parts that it does not know are
// ignored: a newer server may say more.
func parseStale(header string) Stale {
	reason, rest, _ := strings.Cut(header, ";")
	s := Stale{Reason: api.Reason(strings.TrimSpace(reason))}
	for _, part := range strings.Split(rest, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "index":
			s.Index, _ = strconv.ParseUint(value, 10, 64)
		case "since":
			s.Since, _ = time.Parse(time.RFC3339Nano, value)
		case "voters":
			s.Voters, _ = strconv.Atoi(value)
		case "missing":
			if value != "" {
				s.Missing = strings.Split(value, ",")
			}
		}
	}
	return s
}

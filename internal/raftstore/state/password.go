package state

import (
	"time"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// PasswordAttempt is the body of "password.attempt", version 1: it takes one attempt at the
// cluster's password from what Source (an IP address) and all sources together have left, or refuses
// with TooMany. Refund gives one back: the password was right.
type PasswordAttempt struct {
	Source string `json:"source"`
	Refund bool   `json:"refund,omitempty"`
}

// TokenGrant is the body of "token.grant", version 1: the password was right, so the server is
// given a token for Token.Name that it has claimed already. A live token of that name that is
// not claimed is claimed instead; one that another server claims is TokenClaimed. Its result is
// the Token without Secret.
type TokenGrant struct {
	Token       Token  `json:"token"`
	Fingerprint string `json:"fingerprint"`
	Certificate string `json:"certificate"`
	// Proved is as in TokenClaim.
	Proved bool `json:"proved,omitempty"`
}

// Attempts at the cluster's password: from one source, and from all together.
const (
	sourceAttempts = 5
	sourceRefill   = time.Minute
	allAttempts    = 30
	allRefill      = 10 * time.Second
	// maxSources bounds the sources that are remembered.
	maxSources = 1000
)

// attempts is how many attempts a source has used up; the empty source is all together.
type attempts struct {
	Source string `json:"source"`
	// Used is how many were taken, of which one comes back with each interval from Since on.
	Used  int       `json:"used"`
	Since time.Time `json:"since"`
}

var attemptTable = &table[attempts]{
	name:    "attempt",
	topic:   topicOther,
	indexes: []index[attempts]{{name: primary, key: func(a *attempts) string { return a.Source }}},
	count:   func(c *counts, _ *attempts, n int) { c.attempts += n },
}

// at is a as it is at a time: what came back since is not used any more. A clock that went
// backwards gives nothing back, and locks nobody out for longer than the intervals say.
func (a attempts) at(now time.Time, refill time.Duration) attempts {
	passed := now.Sub(a.Since)
	if passed < 0 {
		a.Since = now
		return a
	}
	back := int(min(passed/refill, allAttempts+sourceAttempts))
	if back >= a.Used {
		return attempts{Source: a.Source, Since: now}
	}
	a.Used -= back
	a.Since = a.Since.Add(time.Duration(back) * refill)
	return a
}

func attemptsOf(txn *memdb.Txn, source string, now time.Time) attempts {
	a, ok := attemptTable.get(txn, primary, source)
	if !ok {
		return attempts{Source: source, Since: now}
	}
	return a.at(now, refillOf(source))
}

func refillOf(source string) time.Duration {
	if source == "" {
		return allRefill
	}
	return sourceRefill
}

// AttemptsLeft tells whether source may try the cluster's password at that time; a hint, which
// "password.attempt" decides.
func (v *View) AttemptsLeft(source string, now time.Time) bool {
	return ahead(v.txn, source, now.UTC()) || attemptsLeft(v.txn, source, now.UTC()) == nil
}

// ahead tells whether what is remembered is of a time that has not come: the clock went back. Only
// a command can put that right.
func ahead(txn *memdb.Txn, source string, now time.Time) bool {
	for _, s := range []string{source, ""} {
		if a, ok := attemptTable.get(txn, primary, s); ok && a.Since.After(now) {
			return true
		}
	}
	return false
}

// attemptsLeft says when to try again, if not now.
func attemptsLeft(txn *memdb.Txn, source string, now time.Time) error {
	if a := attemptsOf(txn, source, now); a.Used >= sourceAttempts {
		return tooManyAttempts(a.Since.Add(sourceRefill).Sub(now), "from this address")
	}
	if a := attemptsOf(txn, "", now); a.Used >= allAttempts {
		return tooManyAttempts(a.Since.Add(allRefill).Sub(now), "in this cluster")
	}
	return nil
}

func tooManyAttempts(wait time.Duration, where string) error {
	return api.Errorf(api.TooMany, "Too many attempts at the cluster's password %s; try again in %s", where, wait.Round(time.Second)).
		WithHint("wait, or join with a token: incus cluster add NAME")
}

func applyPasswordAttempt(tx *transaction, b *PasswordAttempt) (any, error) {
	if err := checkKey("source of a password", b.Source); err != nil {
		return nil, err
	}
	if !b.Refund {
		if err := attemptsLeft(tx.Txn, b.Source, tx.now); err != nil {
			return nil, &refusal{api.AsError(err), func(tx *transaction) { tx.rewind(b.Source) }}
		}
	}
	for _, source := range []string{b.Source, ""} {
		a := attemptsOf(tx.Txn, source, tx.now)
		if b.Refund {
			a.Used = max(a.Used-1, 0)
		} else {
			a.Used++
		}
		tx.setAttempts(a)
	}
	return nil, nil
}

// rewind lets the waiting begin now where the clock went back, so that it ends when it says.
func (tx *transaction) rewind(source string) {
	for _, s := range []string{source, ""} {
		if a, ok := attemptTable.get(tx.Txn, primary, s); ok && a.Since.After(tx.now) {
			tx.setAttempts(a.at(tx.now, refillOf(s)))
		}
	}
}

// setAttempts keeps a, unless there is nothing to keep, and forgets sources that have all their
// attempts again, or the one that was heard of longest ago.
func (tx *transaction) setAttempts(a attempts) {
	if old, ok := attemptTable.get(tx.Txn, primary, a.Source); ok && a.Used == 0 {
		attemptTable.drop(tx, old)
		return
	}
	if a.Used == 0 {
		return
	}
	attemptTable.put(tx, &a)
	if tx.counts.attempts <= maxSources {
		return
	}
	var oldest *attempts
	for _, other := range attemptTable.list(tx.Txn, primary) {
		switch {
		case other.Source == "" || other.Source == a.Source:
		case other.at(tx.now, sourceRefill).Used == 0:
			attemptTable.drop(tx, other)
		case oldest == nil || other.Since.Before(oldest.Since):
			oldest = other
		}
	}
	if tx.counts.attempts > maxSources && oldest != nil {
		attemptTable.drop(tx, oldest)
	}
}

// applyTokenGrant gives a token to a server that knew the password, and lets it claim it. An
// administrator's token for that name that nobody claims is taken instead.
func applyTokenGrant(tx *transaction, b *TokenGrant) (any, error) {
	t, ok := tokenTable.get(tx.Txn, "name", b.Token.Name)
	if !ok || t.endReason(tx.now) != "" {
		if _, err := applyTokenIssue(tx, &TokenIssue{Token: b.Token}); err != nil {
			return nil, err
		}
		t, _ = tokenTable.get(tx.Txn, primary, b.Token.Hash)
	}
	return applyTokenClaim(tx, &TokenClaim{
		Hash: t.Hash, Name: b.Token.Name, Fingerprint: b.Fingerprint, Certificate: b.Certificate, Proved: b.Proved,
	})
}

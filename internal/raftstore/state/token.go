package state

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// tokenTable has live and claimed tokens, and tombstones of ended ones.
var tokenTable = &table[Token]{
	name:  "token",
	topic: topicOther,
	indexes: []index[Token]{
		{name: primary, key: func(t *Token) string { return t.Hash }},
		{name: "operation", key: func(t *Token) string { return t.Operation }},
		{name: "name", key: func(t *Token) string { return keyIf(t.Ended == "", t.liveKey()) }},
		{name: "claim", key: func(t *Token) string { return t.ClaimedBy }, many: true},
		{name: "ended", key: func(t *Token) string { return keyIf(t.Ended != "", orderedTime(t.EndedAt)+t.Hash) }},
	},
	count: func(c *counts, t *Token, n int) {
		if t.Ended == "" {
			c.tokens += n
		} else {
			c.tombstones += n
		}
	},
}

// keyIf keeps records out of an index that cond is not true for.
func keyIf(cond bool, key string) string {
	if !cond {
		return ""
	}
	return key
}

// orderedTime is t as a key that sorts like the time.
func orderedTime(t time.Time) string {
	return ordered(uint64(t.Unix())^1<<63) + string(binary.BigEndian.AppendUint32(nil, uint32(t.Nanosecond())))
}

// liveKey is the name for which there is one live join token. Certificate add tokens share
// names with each other and with members: theirs begin with what no member's name has.
func (t *Token) liveKey() string {
	if t.Client != nil {
		return "\x00" + t.Hash
	}
	return t.Name
}

// Clone returns a copy that may be changed.
func (t *Token) Clone() *Token {
	c := *t
	c.Addresses = slices.Clone(t.Addresses)
	return &c
}

// Admitted tells whether a member joins under t. Then neither t nor its claim runs
// out of time, until that join ends.
func (t *Token) Admitted() bool { return t.Ended == "" && t.ClaimedBy != "" && t.ClaimUntil.IsZero() }

// ClaimHolds tells whether a server may go on with t and every other one is refused,
// at the time now.
func (t *Token) ClaimHolds(now time.Time) bool {
	return t.Ended == "" && t.ClaimedBy != "" && (t.ClaimUntil.IsZero() || now.Before(t.ClaimUntil))
}

// Expired tells whether t is past its expiry at the time now, noted or not.
func (t *Token) Expired(now time.Time) bool {
	if t.Ended != "" || t.Admitted() {
		return t.Ended == TokenExpired
	}
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}

// endReason is why t opens nothing any more; "" while it does.
func (t *Token) endReason(now time.Time) api.Reason {
	switch {
	case t.Ended == TokenUsed:
		return api.TokenUsed
	case t.Ended == TokenRevoked:
		return api.TokenRevoked
	case t.Expired(now):
		return api.TokenExpired
	}
	return ""
}

func wrongName(t *Token, name string) error {
	return api.Errorf(api.TokenWrongName, "The join token was issued for member %q, not for %q", t.Name, name)
}

// claimedToken returns the token that fingerprint claims, if it has not ended.
func claimedToken(txn *memdb.Txn, fingerprint string) (*Token, bool) {
	for _, t := range tokenTable.list(txn, "claim", fingerprint) {
		if t.Ended == "" {
			return t, true
		}
	}
	return nil, false
}

func applyTokenIssue(tx *transaction, b *TokenIssue) (any, error) {
	if !clusterOf(tx.Txn).Enabled {
		return nil, refuse(api.NotClustered)
	}
	if err := checkToken(tx, &b.Token); err != nil {
		return nil, err
	}
	if err := api.ValidateMemberName(b.Token.Name); err != nil {
		return nil, err
	}
	if err := tx.checkTokenName(&b.Token); err != nil {
		return nil, err
	}
	if earlier, ok := tokenTable.get(tx.Txn, "name", b.Token.Name); ok {
		tx.revoke(earlier)
	}
	if err := tx.roomForToken(); err != nil {
		return nil, err
	}
	t := &Token{
		Hash: b.Token.Hash, Secret: b.Token.Secret, Name: b.Token.Name, Operation: b.Token.Operation, Issuer: b.Token.Issuer,
		Fingerprint: b.Token.Fingerprint, Addresses: b.Token.Addresses, CreatedAt: b.Token.CreatedAt, ExpiresAt: b.Token.ExpiresAt,
		Replaces: b.Token.Replaces,
	}
	return tx.putToken(t)
}

// putToken adds a live token, which names the certificate that the cluster shows now. It
// returns the token, without its secret, if that is another one than its proposer saw.
func (tx *transaction) putToken(t *Token) (any, error) {
	seen := t.Fingerprint
	if shown := clusterOf(tx.Txn).Fingerprint; shown != "" {
		t.Fingerprint = shown
	}
	tx.addToken(t)
	if t.Fingerprint == seen {
		return nil, nil
	}
	answer := t.Clone()
	answer.Secret = ""
	return answer, nil
}

func (tx *transaction) addToken(t *Token) {
	tokenTable.put(tx, t)
	if t.Client != nil {
		tx.emit("certificate-token-created", "/1.0/certificates", t)
		return
	}
	tx.emit("cluster-token-created", "/1.0/cluster/members", t)
}

func (tx *transaction) roomForToken() error {
	if tx.counts.tokens < MaxTokens {
		return nil
	}
	return api.Errorf(api.TooMany, "There are %d tokens, which is the limit", MaxTokens).
		WithHint("revoke tokens that are not needed: incus cluster revoke-token NAME, incus config trust revoke-token NAME")
}

// checkTokenName tells why no member may come to be by t: there is one of that name that it
// does not replace, or that is online.
func (tx *transaction) checkTokenName(t *Token) error {
	m, ok := memberTable.get(tx.Txn, "name", t.Name)
	switch {
	case !ok || m.State != MemberActive:
		return nil
	case m.ID == t.Replaces:
		return checkReplaced(m)
	}
	return nameTaken(t.Name)
}

func checkToken(tx *transaction, t *Token) error {
	if err := checkKey("token hash", t.Hash); err != nil {
		return err
	}
	if err := checkKey("operation ID", t.Operation); err != nil {
		return err
	}
	if _, ok := tokenTable.get(tx.Txn, primary, t.Hash); ok {
		return api.Errorf(api.Conflict, "There is a token with that secret already")
	}
	if _, ok := tokenTable.get(tx.Txn, "operation", t.Operation); ok {
		return api.Errorf(api.Conflict, "There is an operation %s already", t.Operation)
	}
	return nil
}

// applyTokenClaim is the only place where two joiners with one token meet.
func applyTokenClaim(tx *transaction, b *TokenClaim) (any, error) {
	if err := checkKey("fingerprint", b.Fingerprint); err != nil {
		return nil, err
	}
	if b.Certificate == "" {
		return nil, api.Errorf(api.CertInvalid, "a claim needs the server's certificate")
	}
	t, ok := tokenTable.get(tx.Txn, primary, b.Hash)
	if !ok || t.Client != nil {
		return nil, refuse(api.TokenUnknown)
	}
	if why := t.endReason(tx.now); why != "" {
		return nil, refuse(why) // said only to who has the secret
	}
	if err := tx.checkClaim(t, b); err != nil {
		return nil, err
	}
	if other, ok := claimedToken(tx.Txn, b.Fingerprint); ok && other.Hash != t.Hash {
		tx.abandon(other)
	}
	if !(t.ClaimedBy == b.Fingerprint && t.Admitted()) {
		t = t.Clone()
		t.ClaimedBy, t.ClaimedCert, t.ClaimUntil = b.Fingerprint, b.Certificate, tx.now.Add(ClaimTime)
		tokenTable.put(tx, t)
	}
	// The answer is remembered longer than the secret may be, and who claims has it.
	answer := t.Clone()
	answer.Secret = ""
	return answer, nil
}

func (tx *transaction) checkClaim(t *Token, b *TokenClaim) error {
	if b.Name != t.Name {
		return wrongName(t, b.Name)
	}
	if m, ok := memberTable.get(tx.Txn, "fingerprint", b.Fingerprint); ok && m.State == MemberActive {
		return api.Errorf(api.CertTaken, "The certificate belongs to member %q already", m.Name)
	}
	if err := tx.checkTokenName(t); err != nil {
		return err
	}
	if t.ClaimedBy != b.Fingerprint && t.ClaimHolds(tx.now) {
		return refuse(api.TokenClaimed)
	}
	other, ok := claimedToken(tx.Txn, b.Fingerprint)
	if ok && other.Hash != t.Hash && other.ClaimHolds(tx.now) && !b.Proved {
		return api.Errorf(api.CertTaken, "The server with this certificate is redeeming another join token").
			WithHint("join from that server itself, or wait until its other attempt has ended")
	}
	return nil
}

func applyTokenRevoke(tx *transaction, b *TokenRevoke) (any, error) {
	t, ok := tokenTable.get(tx.Txn, "operation", b.Operation)
	switch {
	case !ok || b.Operation == "":
		return nil, api.Errorf(api.NotFound, "Operation not found")
	case t.Ended != "":
		return nil, badRequest("Only running operations can be cancelled")
	}
	tx.revoke(t)
	return nil, nil
}

// claimToAdmit returns the token on whose claim a server is admitted, or why there is none.
func (tx *transaction) claimToAdmit(fingerprint string) (*Token, error) {
	if err := checkKey("fingerprint", fingerprint); err != nil {
		return nil, err
	}
	t, ok := claimedToken(tx.Txn, fingerprint)
	if !ok {
		return nil, refuse(tx.lostClaim(fingerprint))
	}
	if why := t.endReason(tx.now); why != "" {
		return nil, refuse(why)
	}
	if !t.ClaimHolds(tx.now) {
		return nil, api.Errorf(api.TokenNotClaimed, "The join token was redeemed too long ago").WithHint("redeem it again: it is still valid")
	}
	return t, nil
}

// lostClaim is what became of the token that fingerprint claimed last.
func (tx *transaction) lostClaim(fingerprint string) api.Reason {
	var last *Token
	for _, t := range tokenTable.list(tx.Txn, "claim", fingerprint) {
		if last == nil || t.EndedAt.After(last.EndedAt) {
			last = t
		}
	}
	if last == nil {
		return api.TokenNotClaimed
	}
	return last.endReason(tx.now)
}

// holdClaim lets the claim last as long as the join that it admitted.
func (tx *transaction) holdClaim(t *Token) {
	t = t.Clone()
	t.ClaimUntil = time.Time{}
	tokenTable.put(tx, t)
}

// release makes t live again, for whoever comes next.
func (tx *transaction) release(t *Token) {
	t = t.Clone()
	t.ClaimedBy, t.ClaimedCert, t.ClaimUntil = "", "", time.Time{}
	tokenTable.put(tx, t)
}

// abandon ends the join under t, if there is one, and releases t.
func (tx *transaction) abandon(t *Token) {
	tx.dropJoining(t)
	tx.release(t)
}

// dropJoining removes the row that joins under t.
func (tx *transaction) dropJoining(t *Token) {
	if t.ClaimedBy == "" {
		return
	}
	if m, ok := memberTable.get(tx.Txn, "fingerprint", t.ClaimedBy); ok && m.State == MemberJoining && m.Token == t.Hash {
		tx.dropMember(m, "")
	}
}

// revoke ends t and the join under it.
func (tx *transaction) revoke(t *Token) {
	tx.dropJoining(t)
	t = tx.end(t, TokenRevoked, "")
	tx.emit("operation-cancelled", source("/1.0/operations", t.Operation), t)
}

// useToken ends the token of m, which has become a member by it.
func (tx *transaction) useToken(m *Member) *Token {
	t, ok := tokenTable.get(tx.Txn, primary, m.Token)
	if !ok {
		return nil
	}
	return tx.end(t, TokenUsed, m.ID)
}

// end makes t a tombstone. ClaimedBy stays, so that its server can be told why.
func (tx *transaction) end(t *Token, how, usedBy string) *Token {
	t = t.Clone()
	t.Secret, t.ClaimedCert, t.ClaimUntil = "", "", time.Time{}
	t.Ended, t.EndedAt, t.UsedBy = how, tx.now, usedBy
	tokenTable.put(tx, t)
	for tx.counts.tombstones > MaxTombstones {
		oldest, _ := tokenTable.edge(tx.Txn, "ended", false)
		tokenTable.drop(tx, oldest)
	}
	return t
}

// sweepTokens notes expiries, releases claims that ran out, and forgets old tombstones.
func (tx *transaction) sweepTokens() {
	for _, t := range tokenTable.list(tx.Txn, "name") {
		switch {
		case t.Expired(tx.now):
			ended := tx.end(t, TokenExpired, "")
			tx.emit("", "", ended)
		case t.ClaimedBy != "" && !t.ClaimHolds(tx.now):
			tx.release(t)
		}
	}
	for _, t := range tokenTable.list(tx.Txn, "ended") {
		if tx.now.Before(t.EndedAt.Add(TombstoneTime)) {
			return
		}
		tokenTable.drop(tx, t)
	}
}

package tokens

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// A Store is the replicated store, as far as tokens need it.
type Store interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	Read(ctx context.Context) (*raftstore.View, error)
	// Basis is a view to prepare a command from; see raftstore.
	Basis(ctx context.Context) (*raftstore.View, error)
	// ID is this member's.
	ID() string
}

// A Service issues, claims, redeems and revokes tokens. It holds no state of its own.
type Service struct {
	store Store
	now   func() time.Time
	log   *slog.Logger
	// hashing is held by whoever computes the hash of a password.
	hashing chan struct{}
}

// New returns the tokens of store. now is the wall clock, for expiry and
// certificate dates; nil means time.Now. A nil log discards.
func New(store Store, now func() time.Time, log *slog.Logger) *Service {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Service{store: store, now: now, log: log, hashing: make(chan struct{}, 1)}
}

// secretSize is the length of a secret in bytes; its text is twice as long.
const secretSize = 32

func newSecret() string {
	var b [secretSize]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

// Hash is the key under which the token of secret is kept: the lower-case hex
// SHA-256 of its text.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Issue creates a token for the member called name. An earlier token for the name
// is revoked with it and a join under that one aborted. It fails with NameInvalid,
// NotClustered, NameTaken if such a member exists, and ConfigInvalid if
// cluster.join_token_expiry cannot be read. It blocks until the change is
// committed or ctx ends; see raftstore.Propose for an unknown outcome.
func (s *Service) Issue(ctx context.Context, name string, requestor *api.EventRequestor) (*state.Token, error) {
	return s.issue(ctx, name, newMember, requestor)
}

// IssueReplacement is Issue for a server that takes the place of the member called name: that
// one is removed in the moment when the new one becomes a member. It fails with MemberNotFound,
// and with MemberOnline as long as the member takes part in the cluster.
func (s *Service) IssueReplacement(ctx context.Context, name string, requestor *api.EventRequestor) (*state.Token, error) {
	return s.issue(ctx, name, successor, requestor)
}

// A place is what a token's server will be: it returns the ID of the member whose place it
// takes, "" for a new one, or why there is no such place.
type place func(view *raftstore.View, name string) (replaces string, err error)

func newMember(view *raftstore.View, name string) (string, error) {
	if _, taken := view.MemberByName(name); taken {
		return "", api.Errorf(api.NameTaken, "The cluster already has a member with name: %s", name)
	}
	return "", nil
}

// successor leaves it to the command whether the member is offline.
func successor(view *raftstore.View, name string) (string, error) {
	m, ok := view.MemberByName(name)
	if !ok {
		return "", api.Errorf(api.MemberNotFound, "Failed to get member %q: Cluster member not found", name)
	}
	return m.ID, nil
}

func (s *Service) issue(ctx context.Context, name string, at place, requestor *api.EventRequestor) (*state.Token, error) {
	if err := api.ValidateMemberName(name); err != nil {
		return nil, err
	}
	view, err := s.store.Basis(ctx)
	if err != nil {
		return nil, err
	}
	token, err := s.draft(view, name, at)
	if err != nil {
		return nil, err
	}
	result, err := s.propose(ctx, state.KindTokenIssue, requestor, state.TokenIssue{Token: *token})
	if err != nil {
		return nil, err
	}
	s.log.Info("Join token issued", "name", name, "operation", token.Operation, "expires", token.ExpiresAt)
	issued, err := decode(result, token)
	if err != nil {
		return nil, err
	}
	issued.Secret = token.Secret
	return issued, nil
}

// draft decides all that is up to clock and chance.
func (s *Service) draft(view *raftstore.View, name string, at place) (*state.Token, error) {
	cluster := view.Cluster()
	if !cluster.Enabled {
		return nil, api.NotClustered
	}
	replaces, err := at(view, name)
	if err != nil {
		return nil, err
	}
	fingerprint, err := fingerprintOf(cluster)
	if err != nil {
		return nil, err
	}
	now := s.now().UTC()
	expires, err := config.Expiry(config.Get(view.Config(), "cluster.join_token_expiry"), now)
	if err != nil {
		return nil, api.Errorf(api.ConfigInvalid, "cluster.join_token_expiry: %v", err)
	}
	secret := newSecret()
	token := &state.Token{
		Hash:        Hash(secret),
		Secret:      secret,
		Name:        name,
		Operation:   uuid.NewString(),
		Issuer:      s.store.ID(),
		Fingerprint: fingerprint,
		CreatedAt:   now,
		ExpiresAt:   expires,
		Replaces:    replaces,
	}
	if token.Addresses = addresses(view, Text(token)); len(token.Addresses) == 0 {
		return nil, api.Errorf(api.NoAddress, "No member of the cluster has an address to put into a join token")
	}
	return token, nil
}

func fingerprintOf(cluster state.Cluster) (string, error) {
	cert, err := trust.ParseCertificate(cluster.Certificate)
	if err != nil {
		return "", fmt.Errorf("the cluster's certificate: %w", err)
	}
	return trust.Fingerprint(cert), nil
}

// Claim binds the token to the server whose certificate is cert. Nothing is
// written before the certificate is known to be usable, so that a refusal burns
// nothing; the same server may claim again. It fails with CertInvalid or ClockSkew,
// TokenUnknown, FingerprintMatch, TokenWrongName, TokenUsed, TokenRevoked,
// TokenExpired, and with TokenClaimed while another server holds the claim. Proved
// tells that the caller has the certificate's key; only then does the claim take the
// place of one on another token, which else makes it fail with CertTaken. It blocks
// until the claim is committed or ctx ends.
func (s *Service) Claim(ctx context.Context, token *api.ClusterMemberJoinToken, cert *x509.Certificate, proved bool, requestor *api.EventRequestor) (*state.Token, error) {
	if err := trust.CheckValid(cert, s.now()); err != nil {
		return nil, err
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	fingerprint := trust.Fingerprint(cert)
	// Anybody may call this, so guesses are refused before they reach the log. What
	// the clock has to say is left to the command, which has the leader's.
	if _, problems := Inspect(view, token, fingerprint, time.Time{}); len(problems) > 0 {
		s.log.Warn("Join token refused", "name", token.ServerName, "fingerprint", fingerprint, "reason", problems[0].Reason)
		return nil, problems[0]
	}
	result, err := s.propose(ctx, state.KindTokenClaim, requestor, state.TokenClaim{
		Hash:        Hash(token.Secret),
		Name:        token.ServerName,
		Fingerprint: fingerprint,
		Certificate: trust.EncodePEM(cert),
		Proved:      proved,
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("Join token claimed", "name", token.ServerName, "fingerprint", fingerprint)
	return decode(result, nil)
}

// Inspect returns the stored token that has token's secret, nil if there is none, and
// everything that keeps the server with the certificate of that fingerprint from
// claiming it at the time now. The zero time leaves out what depends on the clock.
// An unknown or ended token has that one problem: it opens nothing, not even a look
// at the others. The command "token.claim" goes by the same rules and decides.
func Inspect(view *raftstore.View, token *api.ClusterMemberJoinToken, fingerprint string, now time.Time) (*state.Token, []*api.Error) {
	// A secret is looked up by its hash. The time that a lookup takes may tell
	// something of the hashes near it, which helps nobody to a secret.
	t, ok := view.Token(Hash(token.Secret))
	if !ok || t.Client != nil {
		return nil, []*api.Error{refuse(api.TokenUnknown)}
	}
	if ended := Ended(t, now); ended != nil {
		return t, []*api.Error{ended}
	}
	var problems []*api.Error
	if err := checkFingerprint(view.Cluster(), token.Fingerprint); err != nil {
		problems = append(problems, api.AsError(err))
	}
	if token.ServerName != t.Name {
		problems = append(problems, api.Errorf(api.TokenWrongName, "The join token was issued for member %q, not for %q", t.Name, token.ServerName))
	}
	held := t.Admitted() || !now.IsZero() && t.ClaimHolds(now)
	if held && t.ClaimedBy != fingerprint {
		problems = append(problems, refuse(api.TokenClaimed))
	}
	return t, problems
}

// checkFingerprint refuses a token that names a certificate which is neither the cluster's nor one
// that leads to it: whoever followed the token has found another cluster.
func checkFingerprint(cluster state.Cluster, named string) error {
	current, err := fingerprintOf(cluster)
	if err != nil {
		return err
	}
	for _, known := range append([]string{current}, earlier(cluster)...) {
		if strings.EqualFold(named, known) {
			return nil
		}
	}
	return api.Errorf(api.FingerprintMatch, "The join token names a cluster certificate with fingerprint %.12s, the cluster's is %.12s", named, current)
}

// earlier are the fingerprints of the certificates that lead to the present one.
func earlier(cluster state.Cluster) []string {
	var all []string
	for _, e := range cluster.Endorsements {
		if cert, err := trust.ParseCertificate(e.Certificate); err == nil {
			all = append(all, trust.Fingerprint(cert))
		}
	}
	return all
}

// Reissues draws another secret for each live token of view.
func Reissues(view *state.View) []state.TokenReissue {
	var all []state.TokenReissue
	for _, t := range view.Tokens() {
		if t.Ended == "" {
			secret := newSecret()
			all = append(all, state.TokenReissue{Hash: t.Hash, NewHash: Hash(secret), NewSecret: secret, NewOperation: uuid.NewString()})
		}
	}
	return all
}

// Ended tells why t opens nothing any more at the time now, nil if it does. The zero
// time leaves out an expiry that no leader has noted yet.
func Ended(t *state.Token, now time.Time) *api.Error { return t.Refusal(now) }

// refuse refuses for reason in the reason's own words.
func refuse(reason api.Reason) *api.Error { return api.Errorf(reason, "%s", reason.Error()) }

// Revoke ends the token that appears as the operation of that UUID, and aborts a
// join under it. It fails with NotFound for an unknown operation and BadRequest
// for a token that has ended. It blocks until the change is committed or ctx ends.
func (s *Service) Revoke(ctx context.Context, operation string, requestor *api.EventRequestor) error {
	if _, err := s.propose(ctx, state.KindTokenRevoke, requestor, state.TokenRevoke{Operation: operation}); err != nil {
		return err
	}
	s.log.Info("Join token revoked", "operation", operation)
	return nil
}

func (s *Service) propose(ctx context.Context, kind string, requestor *api.EventRequestor, body any) (state.Result, error) {
	cmd, err := state.NewCommand(kind, uuid.NewString(), s.now().UTC(), requestor, body)
	if err != nil {
		return state.Result{}, err
	}
	return s.store.Propose(ctx, cmd)
}

// decode reads the token that a command answered with, or returns draft if the
// command answers nothing.
func decode(result state.Result, draft *state.Token) (*state.Token, error) {
	if len(result.Value) == 0 {
		if draft == nil {
			return nil, errors.New("the store answered without a token")
		}
		return draft, nil
	}
	var t state.Token
	if err := json.Unmarshal(result.Value, &t); err != nil {
		return nil, fmt.Errorf("the store's answer: %w", err)
	}
	return &t, nil
}

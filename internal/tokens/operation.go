package tokens

import (
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Lingering is how long an ended token stays visible as an operation, like any
// other operation that has ended.
const Lingering = 5 * time.Second

// Visible tells whether t appears among the operations at the time now. One that is past
// its expiry does not, though the leader may note its end some seconds later.
func Visible(t *state.Token, now time.Time) bool {
	if t.Ended == "" {
		return !t.Expired(now)
	}
	return now.Before(t.EndedAt.Add(Lingering))
}

// Location is the name of the member that issued t, or "none" if it is no longer
// there. Any member honours and revokes the token; the name is for people.
func Location(view *raftstore.View, t *state.Token) string {
	if m, ok := view.Member(t.Issuer); ok && view.Cluster().Enabled {
		return m.Name
	}
	return "none"
}

// Operations returns the operations of all tokens that are visible at the time now, with
// their secrets: it is for administrators.
func Operations(view *raftstore.View, now time.Time) []api.Operation {
	var ops []api.Operation
	for _, t := range view.Tokens() {
		if Visible(t, now) {
			ops = append(ops, Operation(t, Location(view, t), true))
		}
	}
	return ops
}

// Operation is t as an operation of class token, in the very shape of upstream's:
// the client assembles the token's text from the metadata. Without its secret it is
// an operation like others and no token.
func Operation(t *state.Token, location string, withSecret bool) api.Operation {
	op := api.Operation{
		ID:          t.Operation,
		Class:       api.OperationClassToken,
		Description: "Executing operation",
		CreatedAt:   t.CreatedAt,
		UpdatedAt:   t.CreatedAt,
		Resources:   map[string][]string{"cluster": nil},
		Metadata: map[string]any{
			"serverName":  t.Name,
			"fingerprint": t.Fingerprint,
			"addresses":   asList(t.Addresses),
			"expiresAt":   t.ExpiresAt.UTC().Format(time.RFC3339Nano),
		},
		MayCancel: true,
		Location:  location,
	}
	if t.Client != nil {
		op.Resources, op.Metadata = map[string][]string{}, invitationMetadata(t)
	}
	code, why := outcome(t)
	op.Status, op.StatusCode, op.Err = code.String(), code, why
	if t.Ended != "" {
		op.UpdatedAt = t.EndedAt
	}
	if withSecret && t.Secret != "" {
		op.Metadata["secret"] = t.Secret
	}
	return op
}

func outcome(t *state.Token) (code api.StatusCode, why string) {
	switch t.Ended {
	case "":
		return api.Running, ""
	case state.TokenUsed:
		return api.Success, ""
	}
	return api.Cancelled, t.Refusal(t.EndedAt).Error()
}

// asList is what decoding JSON gives, so that (*api.Operation).JoinToken reads an
// operation that never crossed the wire as well as one that did.
func asList(addresses []string) []any {
	list := make([]any, len(addresses))
	for i, a := range addresses {
		list[i] = a
	}
	return list
}

package membership

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Admit makes the server with the certificate of that fingerprint a joining member and
// returns what it needs to take part. The caller must have proved that it has the key
// of the certificate, which must have claimed a token. The same server may ask again;
// a new ID replaces the old one. It fails with TokenNotClaimed, or what became of the
// token that was claimed; with Conflict for an ID that was used before; and, releasing
// the claim, with BadRequest, AddressInvalid, AddressTaken, NameTaken, TokenWrongName,
// CertTaken and VersionTooOld. It blocks until the change is committed or ctx ends.
func (s *Admissions) Admit(ctx context.Context, fingerprint string, req AdmitRequest) (*Admission, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	// Refused before it reaches the log: anybody with any key may call this.
	if !isKnown(view, fingerprint) {
		_, err := claim(view, fingerprint)
		return nil, err
	}
	if err := checkAdmit(&req); err != nil {
		s.release(ctx, view, fingerprint)
		return nil, err
	}
	err = s.propose(ctx, state.KindMemberAdmit, nil, state.MemberAdmit{
		ID:             req.ID,
		Fingerprint:    fingerprint,
		Name:           req.Name,
		Address:        req.Address,
		Architecture:   req.Architecture,
		CommandVersion: req.CommandVersion,
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("admit %q: %w", req.Name, err)
	}
	admission, err := s.admission(ctx, fingerprint, req.ID)
	if err != nil {
		return nil, fmt.Errorf("admit %q: %w", req.Name, err)
	}
	s.log.Info("Server admitted; it is joining", "member", req.Name, "address", req.Address, "fingerprint", fingerprint)
	return admission, nil
}

// isKnown tells whether the server with the certificate of that fingerprint is a
// member, or about to be one.
func isKnown(view *raftstore.View, fingerprint string) bool {
	_, claims := view.TokenByClaim(fingerprint)
	_, member := view.MemberByFingerprint(fingerprint)
	return fingerprint != "" && (claims || member)
}

// release lets go of the claim of a refused server, and of a join that it began before.
func (s *Admissions) release(ctx context.Context, view *raftstore.View, fingerprint string) {
	id := ""
	if m, ok := view.MemberByFingerprint(fingerprint); ok {
		id = m.ID
	}
	if _, err := s.Abort(ctx, fingerprint, id); err != nil {
		s.log.Warn("The claim of a refused server was not released; it runs out by itself", "fingerprint", fingerprint, "err", err)
	}
}

// checkAdmit refuses what no command should carry, and makes the address canonical.
func checkAdmit(req *AdmitRequest) error {
	if id, err := uuid.Parse(req.ID); err != nil || id.String() != req.ID {
		return api.Errorf(api.BadRequest, "Invalid member ID %q: expected a UUID in lower case", req.ID)
	}
	address, err := MemberAddress(req.Address)
	req.Address = address
	return err
}

// admission reads what the admitted server needs, at an index that has its row. The
// cluster's key goes to nobody else.
func (s *Admissions) admission(ctx context.Context, fingerprint, id string) (*Admission, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, err
	}
	m, ok := view.Member(id)
	if !ok || m.Fingerprint != fingerprint {
		return nil, api.JoinAborted
	}
	cluster := view.Cluster()
	a := &Admission{
		ClusterID:   cluster.ID,
		Incarnation: cluster.Incarnation,
		MemberID:    m.ID,
		Number:      m.Number,
		Certificate: cluster.Certificate,
		Key:         Secret(cluster.Key),
		Peers:       []Peer{},
	}
	for _, p := range view.Members() {
		if p.ID != id && p.Fenced == 0 {
			a.Peers = append(a.Peers, Peer{ID: p.ID, Name: p.Name, Address: p.Address, Certificate: p.Certificate, Voter: view.IsVoter(p.ID)})
		}
	}
	return a, nil
}

// Ready adds a joining member, which listens now, to Raft's configuration. It is
// harmless to repeat. It fails with a *NotLeaderError on another member than the
// leader, with NoQuorum when there is none, and with JoinAborted if the member is not,
// or no longer, joining. It blocks until the change is committed or ctx ends.
func Ready(ctx context.Context, store Store, raft Adder, id string) error {
	view, err := store.Read(ctx)
	if err != nil {
		return err
	}
	m, ok := view.Member(id)
	if !ok {
		return api.JoinAborted
	}
	if view.Leader != store.ID() {
		leader, ok := view.Member(view.Leader)
		if !ok {
			return api.Errorf(api.NoQuorum, "No quorum: no leader is known")
		}
		return &NotLeaderError{ID: leader.ID, Address: leader.Address}
	}
	if err := raft.AddNonvoter(ctx, id); err != nil {
		return fmt.Errorf("add %q to the store: %w", m.Name, err)
	}
	return nil
}

// Abort ends the join of the server with the certificate of that fingerprint, whose
// key the caller must have proved to have: its row goes, if id names one, and its
// claim is released, so that the token can be used again. The result decides, once for
// all, whether the join had succeeded. It is harmless to repeat, and blocks until the
// change is committed or ctx ends.
func (s *Admissions) Abort(ctx context.Context, fingerprint, id string) (state.AbortResult, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return state.AbortResult{}, err
	}
	if !isKnown(view, fingerprint) {
		// Without a claim there is nothing to end, now or later: none can be admitted.
		return state.AbortResult{}, nil
	}
	var result state.AbortResult
	err = s.propose(ctx, state.KindMemberAbort, nil, state.MemberAbort{ID: id, Fingerprint: fingerprint}, &result)
	if err != nil {
		return state.AbortResult{}, fmt.Errorf("abort the join: %w", err)
	}
	if !result.Active {
		s.log.Info("Join aborted", "member", id, "fingerprint", fingerprint)
	}
	return result, nil
}

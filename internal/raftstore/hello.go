package raftstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// ALPN is the protocol name under which members' connections are told apart from
// the REST API's on the one HTTPS port.
const ALPN = "incus-raft/1"

// Purposes of a connection.
const (
	purposeRaft = "raft"
	purposeCall = "call"
)

// helloTime bounds the opening of a connection, both ways together.
const helloTime = 5 * time.Second

// maxHello bounds an opening message, in bytes.
const maxHello = 4096

// A hello opens each connection. TLS proves who the two ends are; the hello says
// whom the caller means to speak to. So a member that took over another's address
// never answers in its place.
type hello struct {
	Cluster string `json:"cluster"`
	From    string `json:"from"`
	To      string `json:"to"`
	Purpose string `json:"purpose"`
}

// A welcome answers a hello.
type welcome struct {
	Error *api.Error `json:"error,omitempty"`
	// Removed is set if the caller is refused because it was removed.
	Removed *state.Removed `json:"removed,omitempty"`
}

// ServerTLS is how a listener talks to other members: with the member's own
// certificate, and only to peers that show one. Which member it is, and whether it
// belongs here, is decided when the hello names it.
func ServerTLS(own tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequireAnyClientCert,
		NextProtos:             []string{ALPN},
		SessionTicketsDisabled: true,
	}
}

func clientTLS(own tls.Certificate, wantFingerprint string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{own},
		NextProtos:         []string{ALPN},
		InsecureSkipVerify: true, // the exact certificate is required instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != ALPN {
				return errors.New("the other side is not a cluster member")
			}
			if got := peerFingerprint(cs); got != wantFingerprint {
				return fmt.Errorf("the other side shows the certificate %.12s, expected %.12s", got, wantFingerprint)
			}
			return nil
		},
	}
}

func peerFingerprint(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	sum := sha256.Sum256(cs.PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

// A stream is a connection whose opening may have read ahead.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// writeMessage and readMessage exchange one JSON line.
func writeMessage(c net.Conn, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.Write(append(data, '\n'))
	return err
}

func readMessage(r *bufio.Reader, v any) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) > maxHello {
		return errors.New("opening message is too long")
	}
	return json.Unmarshal(line, v)
}

// dial opens a connection to a member for one purpose. It blocks until the member
// has agreed, ctx ends, or a bound is reached.
func (s *Store) dial(ctx context.Context, id, purpose string) (net.Conn, error) {
	if err := s.outcast(); err != nil {
		return nil, err
	}
	peer, ok := s.peer(id)
	if !ok {
		return nil, api.Errorf(api.MemberNotFound, "no member has the ID %s", id)
	}
	return s.dialPeer(ctx, peer, purpose)
}

func (s *Store) dialPeer(ctx context.Context, peer Peer, purpose string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(helloTime, s.cfg.Timing.Call))
	defer cancel()
	raw, err := s.cfg.Dial(ctx, peer.Address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, clientTLS(s.cfg.Certificate, peer.Fingerprint))
	st, err := s.openStream(ctx, conn, hello{Cluster: s.cfg.ClusterID, From: s.cfg.ID, To: peer.ID, Purpose: purpose})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to member at %s: %w", peer.Address, err)
	}
	return st, nil
}

func (s *Store) openStream(ctx context.Context, conn *tls.Conn, h hello) (*stream, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if err := writeMessage(conn, h); err != nil {
		return nil, err
	}
	st := &stream{Conn: conn, r: bufio.NewReaderSize(conn, maxHello)}
	var w welcome
	if err := readMessage(st.r, &w); err != nil {
		return nil, err
	}
	if w.Error != nil {
		s.learnRemoval(w.Removed)
		return nil, w.Error
	}
	return st, conn.SetDeadline(time.Time{})
}

// An Endpoint hands incoming connections of one listener to the replicas of this
// process: the one in use and, during a join, the one being filled.
type Endpoint struct{ stores registry }

// Serve answers one connection that negotiated ALPN, until it ends.
func (e *Endpoint) Serve(conn *tls.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(helloTime))
	st := &stream{Conn: conn, r: bufio.NewReaderSize(conn, maxHello)}
	var h hello
	if err := readMessage(st.r, &h); err != nil {
		return
	}
	s, refusal := e.admit(h, peerFingerprint(conn.ConnectionState()))
	if refusal == nil {
		refusal = &welcome{}
	}
	if err := writeMessage(conn, refusal); err != nil || refusal.Error != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	s.serveStream(st, h)
}

// admit finds the replica that is called, or the answer for a caller that is not let in.
func (e *Endpoint) admit(h hello, fingerprint string) (*Store, *welcome) {
	s, ok := e.stores.get(h.To)
	if !ok || s.cfg.ClusterID != h.Cluster || s.outcast() != nil {
		return nil, &welcome{Error: api.Errorf(api.MemberNotFound, "this server is not member %s of cluster %s", h.To, h.Cluster)}
	}
	peer, ok := s.peer(h.From)
	if !ok {
		s.askAbout(h.From)
	}
	if !ok || fingerprint == "" || peer.Fingerprint != fingerprint {
		return nil, s.refusal(h.From, fingerprint)
	}
	return s, nil
}

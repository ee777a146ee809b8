package raftstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
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
	// purposeAdopt asks a recovered cluster for its present state, in order to follow it.
	purposeAdopt = "adopt"
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
	Lineage
}

// A welcome answers a hello.
type welcome struct {
	Lineage
	Error *api.Error `json:"error,omitempty"`
	// Removed is set if the caller is refused because it was removed.
	Removed *state.Removed `json:"removed,omitempty"`
}

// ServerTLS is how a listener talks to other members: with the member's own
// certificate, and only to peers that show one. Which member it is, and whether it
// belongs here, is decided when the hello names it.
func ServerTLS(own func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own(), nil },
		ClientAuth:             tls.RequireAnyClientCert,
		NextProtos:             []string{ALPN},
		SessionTicketsDisabled: true,
	}
}

func clientTLS(own tls.Certificate, peer Peer, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{own},
		NextProtos:         []string{ALPN},
		InsecureSkipVerify: true, // the exact certificate is required instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != ALPN {
				return api.Errorf(api.FingerprintMatch, "the other side is not a cluster member")
			}
			if !peer.shows(cs.PeerCertificates, now()) {
				return api.Errorf(api.FingerprintMatch, "the other side shows the certificate %.12s, expected %.12s", fingerprintOf(cs.PeerCertificates), peer.Fingerprint)
			}
			return nil
		},
	}
}

// fingerprintOf is that of the certificate that chain begins with; "" for none.
func fingerprintOf(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	sum := sha256.Sum256(chain[0].Raw)
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
	peer, ok := s.peer(id)
	if !ok {
		return nil, api.Errorf(api.MemberNotFound, "no member has the ID %s", id)
	}
	return s.dialPeer(ctx, peer, purpose)
}

func (s *Store) dialPeer(ctx context.Context, peer Peer, purpose string) (net.Conn, error) {
	if err := s.outcast(); err != nil && purpose != purposeAdopt {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, min(helloTime, s.cfg.Timing.Call))
	defer cancel()
	link := s.link()
	st, err := link.open(ctx, peer, purpose)
	if err != nil {
		s.moves.missed(peer.ID, peer.Address)
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		s.rivals.meet(peer.ID, link.Lineage.of(refused.Lineage))
		if link.Lineage.heeds(refused.Lineage) {
			s.learnRemoval(refused.Removed)
		}
		if link.Lineage.of(refused.Lineage) == kinNewer {
			s.learnFenced(peer.ID, refused.welcome.Error)
		}
	}
	return st, err
}

func (s *Store) link() Link {
	return Link{ID: s.cfg.ID, ClusterID: s.cfg.ClusterID, Lineage: s.lineage(), Certificate: *s.cfg.Certificate(), Dial: s.cfg.Dial, Now: s.cfg.Now}
}

// A Link is how one server speaks to members of its cluster: what a connection is opened with.
type Link struct {
	// ID is the server's own.
	ID, ClusterID string
	Lineage       Lineage
	Certificate   tls.Certificate
	Dial          func(ctx context.Context, address string) (net.Conn, error)
	// Now judges endorsements; time.Now if nil.
	Now func() time.Time
}

// open opens a connection to peer. It blocks until the peer has agreed or ctx ends.
func (l Link) open(ctx context.Context, peer Peer, purpose string) (net.Conn, error) {
	raw, err := l.Dial(ctx, peer.Address)
	if err != nil {
		return nil, err
	}
	if l.Now == nil {
		l.Now = time.Now
	}
	conn := tls.Client(raw, clientTLS(l.Certificate, peer, l.Now))
	st, err := openStream(ctx, conn, hello{Cluster: l.ClusterID, From: l.ID, To: peer.ID, Purpose: purpose, Lineage: l.Lineage})
	if err != nil {
		conn.Close()
		return nil, &connectedError{peer.Address, err}
	}
	return st, nil
}

func openStream(ctx context.Context, conn *tls.Conn, h hello) (*stream, error) {
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
		return nil, &refusedError{w}
	}
	return st, conn.SetDeadline(time.Time{})
}

// A refusedError is the refusal of a member that proved to be the one that was meant.
type refusedError struct{ welcome }

func (e *refusedError) Error() string { return e.welcome.Error.Error() }
func (e *refusedError) Unwrap() error { return e.welcome.Error }

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
	s, answer := e.welcome(h, conn.ConnectionState().PeerCertificates)
	if err := writeMessage(conn, answer); err != nil || answer.Error != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	if known, ok := conn.NetConn().(interface{ Recognized() }); ok {
		known.Recognized() // a listener that makes room for members
	}
	s.serveStream(st, h)
}

// welcome answers a hello of whoever has shown the certificates of chain. The store is that which
// is called; nil for strangers.
func (e *Endpoint) welcome(h hello, chain []*x509.Certificate) (*Store, *welcome) {
	s, answer := e.admit(h, chain)
	if answer == nil {
		answer = &welcome{}
	}
	if s != nil {
		answer.Lineage = s.lineage()
	}
	return s, answer
}

// admit finds the replica that is called, or the answer for a caller that is not let in. The store
// is nil for whoever has not proved to be a member, or to have been one: strangers are not told of
// which lineage the cluster is.
func (e *Endpoint) admit(h hello, chain []*x509.Certificate) (*Store, *welcome) {
	s, ok := e.stores.get(h.To)
	if !ok || s.cfg.ClusterID != h.Cluster || s.removed() {
		return nil, &welcome{Error: api.Errorf(api.MemberNotFound, "this server is not member %s of cluster %s", h.To, h.Cluster)}
	}
	peer, ok := s.peer(h.From)
	if !ok {
		s.askAbout(h.From)
	}
	if !ok || !peer.shows(chain, s.cfg.Now()) {
		refusal := s.refusal(h.From, fingerprintOf(chain))
		if refusal.Removed != nil {
			return s, refusal // whoever was removed must know by which lineage
		}
		return nil, refusal
	}
	if refusal := s.admitMember(h); refusal != nil {
		return s, &welcome{Error: refusal}
	}
	return s, nil
}

// admitMember decides about a connection of a member that has proved its key.
func (s *Store) admitMember(h hello) *api.Error {
	view := s.fsm.state.View()
	m, hasRow := view.Member(h.From)
	own := s.lineage()
	refusal, newer := judgeLineage(own, view, h.Lineage)
	s.rivals.meet(h.From, own.of(h.Lineage))
	switch {
	case !newer || !hasRow || m.State != state.MemberActive:
	case m.Fenced == 0:
		s.learnFenced(h.From, refusal)
	default:
		s.askIfNewer(h.From)
	}
	if refusal == nil && hasRow && m.Fenced != 0 && h.Incarnation < m.Fenced {
		refusal = fencedBy(view) // an empty replica of a member that had one
	}
	if h.Purpose == purposeAdopt {
		return nil // it is of an earlier lineage, and that is what it asks about
	}
	if reason := s.shutOut.Load(); reason != nil && refusal == nil {
		refusal = reason
	}
	return refusal
}

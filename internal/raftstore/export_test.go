package raftstore

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"net"

	"github.com/hashicorp/raft"

	"incusd/api"
)

// Answer is what the endpoint says to an opening message, and whether it goes on with whoever
// has shown cert. It fails when the message cannot be read.
func (e *Endpoint) Answer(message []byte, cert *x509.Certificate) (admitted bool, refusal *api.Error, lineage Lineage, err error) {
	var h hello
	if err := readMessage(bufio.NewReaderSize(bytes.NewReader(message), maxHello), &h); err != nil {
		return false, nil, Lineage{}, err
	}
	s, answer := e.welcome(h, []*x509.Certificate{cert})
	return s != nil && answer.Error == nil, answer.Error, answer.Lineage, nil
}

// Track is how the store keeps a connection that has been opened.
func (s *Store) Track(c net.Conn, peer string) net.Conn { return s.track(c, peer) }

// BeginDemotion takes a vote without asking first who will confirm it, as a leader does whose voters
// die in that moment, and does not wait for the outcome.
func (s *Store) BeginDemotion(id string) { s.raft.DemoteVoter(raft.ServerID(id), 0, 0) }

package recovery

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

const (
	// surveyTime bounds the questions to the other members, which are asked all at once.
	surveyTime = 3 * time.Second
	// hearsayTime is how long they are asked again while one still follows a leader that does not
	// answer here: one without a vote misses a dead leader after some seconds only.
	hearsayTime  = 6 * time.Second
	hearsayPause = 500 * time.Millisecond
)

// A Survivor is a member as it is found before a recovery.
type Survivor struct {
	Name, Address string
	ID            string
	// Self is the server that the recovery is to go on from.
	Self bool
	// Voter is set if it has a vote, by the freshest log that was found.
	Voter bool
	// Reached is set if it runs and has said what its log holds: Last is that, Applied the last
	// entry that it knows to be committed, Leader the ID of the leader that it hears.
	Reached bool
	Last    Position
	Applied uint64
	Leader  string
	// Newer is set if it is of a later incarnation: the cluster has been recovered already.
	Newer bool
	// Removed is set if the cluster has removed this server: Self has noted it, another one says so.
	Removed bool
	// Problem is why it was not reached.
	Problem string

	servers []state.Server
}

// A Position is an entry of a log. Of two logs the one with the later last entry is fresher.
type Position struct{ Term, Index uint64 }

// Compare orders positions as Raft does.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Term, q.Term), cmp.Compare(p.Index, q.Index))
}

// Survey asks all other members that this server knows, at the same time, what their logs hold.
// It asks again while it hears of a leader from others only. It blocks for some seconds at most.
func (s *Server) Survey(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error)) ([]Survivor, error) {
	for start := time.Now(); ; {
		found, err := s.survey(ctx, dial)
		if err != nil || !hearsay(found) || time.Since(start) > hearsayTime {
			return found, err
		}
		select {
		case <-time.After(hearsayPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hearsay tells whether a leader is known by the word of others alone.
func hearsay(found []Survivor) bool {
	followed := ""
	for _, f := range found {
		followed = cmp.Or(followed, f.Leader)
	}
	return followed != "" && !slices.ContainsFunc(found, func(f Survivor) bool { return f.ID == followed && f.Reached })
}

func (s *Server) survey(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error)) ([]Survivor, error) {
	view := s.copy.Tables.View()
	if !view.Cluster().Enabled {
		return nil, notClustered()
	}
	self, ok := view.Member(s.replica.ID)
	if !ok {
		return nil, api.Errorf(api.MemberRemoved, "The cluster has removed this server, and gone on without it").
			WithHint("make it a clean one: incus admin cluster reset, with its daemon running; what may have to be recovered is the copy of a member")
	}
	if self.State != state.MemberActive {
		return nil, api.Errorf(api.BadRequest, "This server has no database role").
			WithHint("it has not finished joining; run this on a member that has")
	}
	own, err := trust.Load(s.files.keyPair())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTime)
	defer cancel()
	links := make([]string, 0, 2*len(self.Endorsements))
	for _, e := range self.Endorsements {
		links = append(links, e.Endorsement, e.Certificate)
	}
	if own, err = own.Chained(links...); err != nil { // for members that know only its former certificate
		return nil, err
	}
	link := s.link(own.TLS, dial)
	moved := s.local.Moved()
	members := view.Members()
	found := make([]Survivor, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		found[i] = Survivor{Name: m.Name, Address: m.Address, ID: m.ID}
		if move, ok := moved[m.ID]; ok && move.From == m.Address {
			found[i].Address = move.To
		}
		if m.ID == s.replica.ID {
			found[i].isSelf(s)
			continue
		}
		wg.Go(func() { found[i].ask(ctx, link, m) })
	}
	wg.Wait()
	markVoters(found)
	return found, nil
}

func notClustered() error {
	return api.Errorf(api.NotClustered, "This server is not clustered")
}

func (f Files) keyPair() (cert, key string) { return f.Dir + "/server.crt", f.Dir + "/server.key" }

func (s *Server) link(own tls.Certificate, dial func(ctx context.Context, network, address string) (net.Conn, error)) raftstore.Link {
	return raftstore.Link{
		ID: s.replica.ID, ClusterID: s.replica.ClusterID, Lineage: s.copy.Lineage(), Certificate: own,
		Dial: func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) },
	}
}

func (f *Survivor) isSelf(s *Server) {
	f.Self, f.Reached = true, true
	f.Last = Position{s.copy.LastTerm, s.copy.Extent.Last}
	f.Applied = max(s.local.CommitHint(s.replica.ID), s.copy.Extent.Compacted)
	f.servers = s.copy.Servers
	_, f.Removed = s.local.Removal()
}

func (f *Survivor) ask(ctx context.Context, link raftstore.Link, m *state.Member) {
	answer, err := raftstore.Survey(ctx, link, raftstore.Peer{ID: f.ID, Address: f.Address, Fingerprint: m.Fingerprint, Former: m.Former})
	switch {
	case raftstore.RefusedByNewer(err, link.Lineage):
		f.Newer, f.Problem = true, api.AsError(err).Message
	case raftstore.RefusedAsRemoved(err, link.Lineage):
		f.Removed, f.Problem = true, api.AsError(err).Message
	case errors.Is(err, context.DeadlineExceeded):
		f.Problem = "no answer"
	case err != nil:
		f.Problem = err.Error()
	default:
		f.Reached, f.Last, f.Applied = true, Position{answer.LastTerm, answer.LastIndex}, answer.Applied
		f.Leader, f.servers = answer.Leader, answer.Servers
	}
}

// freshest is the one with the latest log, of those that were reached. This server is one.
func freshest(found []Survivor) Survivor {
	return slices.MaxFunc(slices.DeleteFunc(slices.Clone(found), func(f Survivor) bool { return !f.Reached }),
		func(a, b Survivor) int { return a.Last.Compare(b.Last) })
}

func markVoters(found []Survivor) {
	for _, srv := range freshest(found).servers {
		for i := range found {
			if found[i].ID == srv.ID {
				found[i].Voter = srv.Voter
			}
		}
	}
}

// Judge decides whether the cluster may go on from this server's copy. refusal says why it must
// not, whatever anybody wants; warning why it should not, which force overrules. It is a pure
// function.
func Judge(found []Survivor) (refusal, warning *api.Error) {
	voters, votes, running := 0, false, []string{}
	for _, f := range found {
		if f.Leader != "" {
			hint := "start this server's daemon; a member that is dead is removed with: incus cluster remove NAME --force"
			if hearsay(found) {
				hint = "the leader does not answer this server: look at the way to it; if it is dead, the same command goes on in some seconds"
			}
			return api.Errorf(api.Conflict, "A quorum is alive: member %q follows the leader %q", f.Name, nameOf(found, f.Leader)).WithHint("%s", hint), nil
		}
		if f.Removed && !f.Self {
			return api.Errorf(api.MemberRemoved, "The cluster has removed this server, as member %q says, and gone on without it", f.Name).
				WithHint("make it a clean one instead: incus admin cluster reset, with its daemon running; what may have to be recovered is the copy of %s", f.Name), nil
		}
		if f.Newer {
			return api.Errorf(api.Conflict, "The cluster has been recovered already, and member %q is of it: %s", f.Name, f.Problem).
				WithHint("make this server a clean one: incus admin cluster reset, with its daemon running. A second recovery makes two clusters: if this copy is the one to keep, end the other one before"), nil
		}
		if f.Voter {
			voters++
			votes = votes || f.Self
			if f.Reached {
				running = append(running, f.Name)
			}
		}
	}
	if voters == 1 && votes {
		return api.Errorf(api.Conflict, "A quorum is alive: this server is the only voter").
			WithHint("start its daemon; if the cluster was to be recovered from this server, that is done"), nil
	}
	if len(running) > voters/2 {
		return api.Errorf(api.Conflict, "A quorum is alive: %d of %d voters are there (%s)", len(running), voters, list(running)).
			WithHint("start this server's daemon, and they elect a leader; nothing has to be recovered"), nil
	}
	for _, f := range found {
		if f.Self && f.Removed {
			return nil, api.Errorf(api.MemberRemoved, "The cluster has removed this server, and gone on without it").
				WithHint("make it a clean one instead: incus admin cluster reset, with its daemon running; or, if nothing is left of the cluster, go on with --force")
		}
	}
	if best := freshest(found); !best.Self {
		i := slices.IndexFunc(found, func(f Survivor) bool { return f.Self })
		if best.Last.Compare(found[i].Last) > 0 {
			return nil, api.Errorf(api.Conflict, "Member %q holds a fresher copy (entry %d of term %d) than this server (entry %d of term %d)",
				best.Name, best.Last.Index, best.Last.Term, found[i].Last.Index, found[i].Last.Term).
				WithHint("run this command on %s; or, if what it has more may be lost, go on here with --force", best.Name)
		}
	}
	return nil, nil
}

func nameOf(found []Survivor, id string) string {
	for _, f := range found {
		if f.ID == id {
			return f.Name
		}
	}
	return id
}

func list(names []string) string { return strings.Join(names, ", ") }

// Loss says in a sentence what a recovery from this copy may lose.
func Loss(found []Survivor) string {
	self := found[slices.IndexFunc(found, func(f Survivor) bool { return f.Self })]
	var silent, ahead []string
	for _, f := range found {
		switch {
		case !f.Reached && f.Voter:
			silent = append(silent, f.Name)
		case f.Reached && f.Last.Compare(self.Last) > 0:
			ahead = append(ahead, f.Name)
		}
	}
	text := fmt.Sprintf("The cluster goes on from entry %d of term %d.", self.Last.Index, self.Last.Term)
	if len(ahead) > 0 {
		text += fmt.Sprintf(" What %s has after that one is lost.", list(ahead))
	}
	if len(silent) > 0 {
		text += fmt.Sprintf(" Changes after that one, which %s may have acknowledged, are lost.", list(silent))
	}
	return text
}

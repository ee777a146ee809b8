package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// Neighbours are the other members, as one that moves to another address asks them. Calls
// block for a few seconds at most. answered is false if the member could not be asked.
type Neighbours interface {
	// ID is this member's.
	ID() string
	// IsLeader tells whether this member believes that it leads.
	IsLeader() bool
	// Others are the IDs of the other members.
	Others() []string
	ReachedFrom(ctx context.Context, id, address string) (answered bool, err error)
	AnnounceTo(ctx context.Context, id, address string, unseen bool) (answered bool, err error)
	// Propose changes the state. Only a leader, or who is alone, does it by itself: the leader is
	// not found by those who do not know its address.
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
}

// CheckReached asks all other members at the same time whether they reach this one at
// address. It fails with AddressUnreach, naming the members that do not. Members that do not
// answer are left out: they may be off.
func CheckReached(ctx context.Context, n Neighbours, name func(id string) string, address string) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var problems []string
	for _, id := range n.Others() {
		wg.Go(func() {
			answered, err := n.ReachedFrom(ctx, id, address)
			if !answered || err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			problems = append(problems, fmt.Sprintf("%s: %v", name(id), err))
		})
	}
	wg.Wait()
	if len(problems) == 0 {
		return nil
	}
	slices.Sort(problems)
	return api.Errorf(api.AddressUnreach, "This server is not reached at %s from: %s", address, strings.Join(problems, "; ")).
		WithHint("open the port in the firewalls between the servers, or use --force if the address will be there later")
}

// announcePause is how long one member is waited for before the next is told as well. Less
// lets more members look and propose at once, more makes a member among many dead ones wait:
// ninety-nine are told within five seconds.
const announcePause = 50 * time.Millisecond

// A Look says whether others have looked, or are to look, if they reach a new address.
type Look int

const (
	LookDue  Look = iota // before the cluster believes it
	LookDone             // CheckReached has just asked all of them
	LookNone             // the address need not be reachable yet
)

// Announce tells the cluster that this member is reached at address from now on. It needs no
// leader that knows this member: any other member passes it on. It fails with what the
// cluster refused it for, with NoQuorum if nobody took it, and with OutcomeUnknown if
// somebody may have; it is harmless to repeat.
//
// Whom it is passed on by looks once more, unless nobody is to: one that was away when all were
// asked is not yet heard. The leader has nobody else to believe, so that LookDone is enough.
func Announce(ctx context.Context, n Neighbours, address string, look Look, now time.Time) error {
	others := n.Others()
	if len(others) == 0 || n.IsLeader() {
		if look == LookDue {
			if err := CheckReached(ctx, n, func(id string) string { return id }, address); err != nil {
				return err
			}
		}
		return proposeAddress(ctx, n, n.ID(), address, now)
	}
	return announceTo(ctx, n, others, address, look == LookNone)
}

// announceTo tells the other members one after another, until the first has decided. The next
// is told when one has failed, or is silent for announcePause: most may be dead, and each of
// those is silent for seconds.
func announceTo(ctx context.Context, n Neighbours, others []string, address string, unseen bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var told sync.WaitGroup
	defer told.Wait()
	defer cancel() // whoever has not answered by then
	type said struct {
		answered bool
		err      error
	}
	answers := make(chan said, len(others))
	last := api.Errorf(api.NoQuorum, "No quorum: no other member answers")
	for next, heard := 0, 0; heard < next || next < len(others) && ctx.Err() == nil; {
		var silent <-chan time.Time
		if next < len(others) && ctx.Err() == nil {
			id := others[next]
			told.Go(func() {
				answered, err := n.AnnounceTo(ctx, id, address, unseen)
				answers <- said{answered, err}
			})
			next++
			silent = time.After(announcePause)
		}
		select {
		case <-silent:
		case a := <-answers:
			heard++
			switch {
			case a.err == nil:
				return nil
			case a.answered && isFinal(a.err):
				return a.err
			case errors.Is(last, api.OutcomeUnknown): // whoever has it may yet bring it through
			case a.answered || errors.Is(a.err, api.OutcomeUnknown):
				last = api.AsError(a.err)
			}
		}
	}
	return last
}

// isFinal tells whether another member would refuse for the same reason.
func isFinal(err error) bool {
	for _, r := range []api.Reason{api.AddressTaken, api.AddressInvalid, api.MemberNotFound, api.NotClustered} {
		if errors.Is(err, r) {
			return true
		}
	}
	return false
}

// A Lookout is a member that is told another's new address.
type Lookout interface {
	ReachAt(ctx context.Context, id, address string) error
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
}

// Announced is the other side of Announce: it looks whether the member with that ID, which
// has proved its key, is there, and changes its row.
func Announced(ctx context.Context, l Lookout, id, address string, unseen bool, now time.Time) error {
	address, err := MemberAddress(address)
	if err != nil {
		return err
	}
	if !unseen {
		if err := l.ReachAt(ctx, id, address); err != nil {
			return err
		}
	}
	return proposeAddress(ctx, l, id, address, now)
}

func proposeAddress(ctx context.Context, store proposer, id, address string, now time.Time) error {
	_, err := propose(ctx, store, state.KindMemberAddress, now, nil, state.MemberAddress{ID: id, Address: address})
	return err
}

package events

import (
	"sync"
	"testing"

	"incusd/api"
)

func drain(s *Subscription) []api.Event {
	var all []api.Event
	for {
		select {
		case e, ok := <-s.C():
			if !ok {
				return all
			}
			all = append(all, e)
		default:
			return all
		}
	}
}

func TestListenersGetWhatTheyAskedFor(t *testing.T) {
	operation := api.Event{Type: api.EventOperation, Project: "default"}
	lifecycle := api.Event{Type: api.EventLifecycle}
	other := api.Event{Type: api.EventLifecycle, Project: "other"}

	tests := map[string]struct {
		types       []string
		project     string
		allProjects bool
		want        []api.Event
	}{
		"all types, one project":  {nil, "default", false, []api.Event{operation, lifecycle}},
		"one type":                {[]string{api.EventLifecycle}, "default", false, []api.Event{lifecycle}},
		"another project":         {nil, "other", false, []api.Event{lifecycle, other}},
		"all projects":            {nil, "", true, []api.Event{operation, lifecycle, other}},
		"a type that never comes": {[]string{api.EventLogging}, "", true, nil},
	}
	hub := New()
	subscriptions := make(map[string]*Subscription)
	for name, test := range tests {
		subscriptions[name] = hub.Subscribe(test.types, test.project, test.allProjects)
	}
	for _, e := range []api.Event{operation, lifecycle, other} {
		hub.Publish(e)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := drain(subscriptions[name])
			if len(got) != len(test.want) {
				t.Fatalf("got %d events, want %d", len(got), len(test.want))
			}
			for i := range got {
				if got[i].Type != test.want[i].Type || got[i].Project != test.want[i].Project {
					t.Errorf("event %d: got %+v, want %+v", i, got[i], test.want[i])
				}
			}
		})
	}
}

func TestSlowListenerIsDroppedAndOthersAreNot(t *testing.T) {
	hub := New()
	slow, fast := hub.Subscribe(nil, "", true), hub.Subscribe(nil, "", true)
	for range queueLength + 1 {
		hub.Publish(api.Event{Type: api.EventLifecycle})
		<-fast.C()
	}
	count := 0
	for range slow.C() { // ends only because the hub closed it
		count++
	}
	if count != queueLength {
		t.Errorf("slow listener got %d events before it was dropped, want %d", count, queueLength)
	}
	hub.Publish(api.Event{Type: api.EventLifecycle})
	if _, ok := <-fast.C(); !ok {
		t.Error("the fast listener was dropped too")
	}
}

func TestCloseWhilePublishing(t *testing.T) {
	hub := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				s := hub.Subscribe(nil, "", true)
				hub.Publish(api.Event{Type: api.EventLifecycle})
				s.Close()
				s.Close()
			}
		})
	}
	wg.Wait()
	if n := len(hub.subscriptions); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

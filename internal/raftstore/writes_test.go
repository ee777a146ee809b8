package raftstore

import (
	"testing"
	"time"
)

func TestRecentWritesForgetTheOldOnes(t *testing.T) {
	now, ms := time.Now(), time.Millisecond
	var w recentWrites
	if got := w.summary(now); got != (Writes{}) {
		t.Errorf("without writes: %+v", got)
	}
	w.add(now.Add(-writeAge-time.Second), time.Hour)
	for i := range 100 {
		w.add(now.Add(-time.Second), time.Duration(i+1)*ms)
	}
	if want := (Writes{Count: 100, P50: 50 * ms, P99: 99 * ms, Max: 100 * ms}); w.summary(now) != want {
		t.Errorf("got %+v, want %+v", w.summary(now), want)
	}
	for range keptWrites {
		w.add(now, 2*ms)
	}
	if want := (Writes{Count: keptWrites, P50: 2 * ms, P99: 2 * ms, Max: 2 * ms}); w.summary(now) != want {
		t.Errorf("got %+v, want %+v", w.summary(now), want)
	}
}

package membership

import (
	"testing"
	"time"

	"incusd/api"
)

func TestBootstrapRepeatedAfterALostAnswerSucceeds(t *testing.T) {
	b := newBed(t) // formed as node1
	const address = "10.1.0.1:8443"
	if err := Bootstrap(t.Context(), b, "node1", address, time.Now, nil); err != nil {
		t.Errorf("the same again: %v", err)
	}
	requireReason(t, Bootstrap(t.Context(), b, "other", address, time.Now, nil), api.AlreadyClustered)
	requireReason(t, Bootstrap(t.Context(), b, "node1", "10.1.0.9:8443", time.Now, nil), api.AlreadyClustered)
	if entries := b.takeEntries(); len(entries) != 0 {
		t.Errorf("entries were written: %v", entries)
	}
}

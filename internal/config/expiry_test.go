package config

import (
	"testing"
	"time"
)

func TestExpiryAddsByTheCalendar(t *testing.T) {
	from := time.Date(2024, 1, 31, 12, 0, 0, 5, time.UTC)
	for _, test := range []struct{ expr, want string }{
		{"3H", "2024-01-31T15:00:00.000000005Z"},
		{"30M", "2024-01-31T12:30:00.000000005Z"},
		{"10S", "2024-01-31T12:00:10.000000005Z"},
		{"0S", "2024-01-31T12:00:00.000000005Z"},
		{"1d", "2024-02-01T12:00:00.000000005Z"},
		{"1w", "2024-02-07T12:00:00.000000005Z"},
		{"1m", "2024-03-02T12:00:00.000000005Z"},
		{"1y", "2025-01-31T12:00:00.000000005Z"},
		{"  1y 1m  1w 1d 1H 1M 1S ", "2025-03-11T13:01:01.000000005Z"},
		{"1S 1M", "2024-01-31T12:01:01.000000005Z"},
		{"48H", "2024-02-02T12:00:00.000000005Z"},
		{"999999999S", "2055-10-09T13:46:39.000000005Z"},
		{"3000000H", "2366-04-28T12:00:00.000000005Z"}, // longer than a time.Duration
		{"1000y", "3024-01-31T12:00:00.000000005Z"},
	} {
		got, err := Expiry(test.expr, from)
		if err != nil || got.Format(time.RFC3339Nano) != test.want {
			t.Errorf("%q: got %s, %v, want %s", test.expr, got.Format(time.RFC3339Nano), err, test.want)
		}
	}
	for _, never := range []string{"", " ", "\t\n"} {
		if got, err := Expiry(never, from); err != nil || !got.IsZero() {
			t.Errorf("%q: got %s, %v, want never", never, got, err)
		}
	}
}

func TestExpiryRefusesWhatItCannotRead(t *testing.T) {
	for _, expr := range []string{"5sec", "5", "H", "3h", "3D", "-1H", "+1H", "1.5H", "1H1M", "1H,1M", "1H 2H", "1H 1", "H1", "٣H", "1É", "1001y", "9999999999S", "999999999m", "999999999d", "999999999999999999999y"} {
		if got, err := Expiry(expr, time.Unix(0, 0).UTC()); err == nil || err.Error() != "Invalid expiry expression" {
			t.Errorf("%q: got %s, %v", expr, got, err)
		}
	}
}

func FuzzExpiry(f *testing.F) {
	for _, expr := range []string{"3H", "1d 12H", "999999999w 999999999y", " ", "1S 1M 1H 1d 1w 1m 1y"} {
		f.Add(expr)
	}
	from := time.Date(2026, 2, 28, 23, 59, 59, 0, time.UTC)
	f.Fuzz(func(t *testing.T, expr string) {
		got, err := Expiry(expr, from)
		if err != nil || got.IsZero() {
			return
		}
		if got.Before(from) {
			t.Fatalf("%q ends %s, before it begins", expr, got)
		}
		if _, err := got.MarshalJSON(); err != nil {
			t.Fatalf("%q cannot be written: %v", expr, err)
		}
	})
}

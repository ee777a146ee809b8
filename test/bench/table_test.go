package main

import (
	"testing"
	"time"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	samples := make([]time.Duration, 200)
	for i := range samples {
		samples[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		samples []time.Duration
		p       int
		want    time.Duration
	}{
		{nil, 50, 0},
		{samples[:1], 99, 1},
		{samples[:2], 50, 1},
		{samples[:100], 99, 99},
		{samples, 50, 100},
		{samples, 99, 198},
		{samples, 100, 200},
	} {
		if got := percentile(c.samples, c.p); got != c.want {
			t.Errorf("percentile(%d samples, %d) = %d, want %d", len(c.samples), c.p, got, c.want)
		}
	}
}

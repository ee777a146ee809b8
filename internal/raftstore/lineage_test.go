package raftstore

import "testing"

func TestLineages(t *testing.T) {
	tests := []struct {
		name       string
		own, other Lineage
		want       kin
	}{
		{"the first incarnation", Lineage{1, ""}, Lineage{1, ""}, kinSame},
		{"the same recovery", Lineage{2, "r"}, Lineage{2, "r"}, kinSame},
		{"an empty replica asks", Lineage{2, "r"}, Lineage{}, kinSame},
		{"an empty replica is asked", Lineage{}, Lineage{2, "r"}, kinSame},
		{"one from before the recovery", Lineage{2, "r"}, Lineage{1, ""}, kinOlder},
		{"one from after it", Lineage{1, ""}, Lineage{2, "r"}, kinNewer},
		{"two recoveries of one incarnation", Lineage{2, "r"}, Lineage{2, "q"}, kinRival},
		{"one that has noted its incarnation, and reads its tables later", Lineage{2, "r"}, Lineage{2, ""}, kinSame},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.own.of(tt.other); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

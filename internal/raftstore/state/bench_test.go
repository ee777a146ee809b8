package state

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkApply measures one command per entry, on a store with the usual bounds full.
func BenchmarkApply(b *testing.B) {
	bodies := map[string]func(w *world, i int) any{
		KindConfigSet: func(_ *world, i int) any {
			return ConfigSet{Set: map[string]string{fmt.Sprintf("user.%d", i%100): fmt.Sprint(i)}}
		},
		KindTokenIssue: func(w *world, i int) any { return w.tokenBody(fmt.Sprintf("t%d", i), fmt.Sprintf("node%d", i%1000+2)) },
		KindTokenClaim: func(_ *world, i int) any { return claimBody("t", "node2", "fp2") },
	}
	for kind, body := range bodies {
		b.Run(kind, func(b *testing.B) {
			w := newCluster(b)
			w.issue("t", "node2")
			for i := range MaxRequests {
				w.do(KindConfigSet, ConfigSet{Set: map[string]string{"a": fmt.Sprint(i)}})
			}
			entries := make([][]byte, b.N)
			for i := range entries {
				cmd, err := NewCommand(kind, fmt.Sprintf("b%d", i), w.now, nil, body(w, i))
				if err != nil {
					b.Fatal(err)
				}
				if entries[i], err = EncodeEntry([]Command{cmd}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i, entry := range entries {
				if _, _, err := w.s.Apply(w.index+uint64(i)+1, 1, entry); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPersist measures a snapshot of a store with all its bounds full.
func BenchmarkPersist(b *testing.B) {
	w := newCluster(b)
	for i := range MaxTokens {
		w.issue(fmt.Sprintf("t%d", i), fmt.Sprintf("m%d", i))
	}
	v := w.s.View()
	b.ResetTimer()
	for b.Loop() {
		if err := v.Persist(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

package raftstore_test

import (
	"fmt"
	"testing"

	"incusd/internal/raftstore"
	"incusd/internal/trust"
)

// FuzzHello opens connections with a key that is no member's: whatever the message says, nobody is let
// in, nobody is told in which incarnation the cluster is, and the member goes on.
func FuzzHello(f *testing.F) {
	c := newCluster(f, 1)
	n := c.leader()
	stranger, err := trust.Generate(trust.Server)
	if err != nil {
		f.Fatal(err)
	}
	ep := &raftstore.Endpoint{}
	ep.Attach(n.store)
	hello := func(cluster, from, to, more string) []byte {
		return fmt.Appendf(nil, "{\"cluster\":%q,\"from\":%q,\"to\":%q,\"purpose\":\"raft\"%s}\n", cluster, from, to, more)
	}
	f.Add(hello(c.id, n.id, n.id, ""))
	f.Add(hello(c.id, "id9", n.id, `,"incarnation":999,"recovery":"r","before":["a","b"]`))
	f.Add(hello(c.id, n.id, n.id, `,"incarnation":-1,"from":"","From":"x"`))
	f.Add(hello("other", n.id, n.id, `,"incarnation":9223372036854775808`))
	f.Add([]byte("{}\n"))
	f.Add([]byte("null\n"))
	f.Add([]byte("[[[[\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		admitted, refusal, lineage, err := ep.Answer(message, stranger.Cert)
		if err != nil {
			return
		}
		if admitted || refusal == nil || lineage.Incarnation != 0 {
			t.Fatalf("a stranger is let in by %q: %v, told %+v", message, refusal, lineage)
		}
	})
}

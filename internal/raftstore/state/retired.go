package state

// retired is the ID of a server that is not a member any more, or never became one. A
// Raft server that came back under it might have a log that only looks like ours.
type retired struct {
	// Seq orders the IDs as they were retired, from 1.
	Seq uint64 `json:"seq"`
	ID  string `json:"id"`
}

var retiredTable = &table[retired]{
	name: "retired",
	indexes: []index[retired]{
		{name: primary, key: func(r *retired) string { return ordered(r.Seq) }},
		{name: "retired", key: func(r *retired) string { return r.ID }},
	},
	count: func(c *counts, _ *retired, n int) { c.retired += n },
}

// retire remembers that id must not be admitted, and forgets the oldest such. An empty
// id is none.
func (tx *transaction) retire(id string) {
	if _, ok := retiredTable.get(tx.Txn, "retired", id); ok || id == "" {
		return
	}
	seq := uint64(1)
	if last, ok := retiredTable.edge(tx.Txn, primary, true); ok {
		seq = last.Seq + 1
	}
	retiredTable.put(tx, &retired{Seq: seq, ID: id})
	for tx.counts.retired > MaxRetired {
		oldest, _ := retiredTable.edge(tx.Txn, primary, false)
		retiredTable.drop(tx, oldest)
	}
}

// idUsed tells whether a member has or had that ID.
func (tx *transaction) idUsed(id string) bool {
	if _, ok := memberTable.get(tx.Txn, primary, id); ok {
		return true
	}
	_, ok := retiredTable.get(tx.Txn, "retired", id)
	return ok
}

package state

// request remembers what a command was answered, so that a command whose answer was
// lost may be proposed again and takes effect once.
type request struct {
	// Seq orders requests as they were applied, from 1.
	Seq    uint64 `json:"seq"`
	ID     string `json:"id"`
	Result Result `json:"result"`
}

// requestTable is bounded by number, never by time: how long a proposer may be cut off
// is not for a clock to say.
var requestTable = &table[request]{
	name: "request",
	indexes: []index[request]{
		{name: primary, key: func(r *request) string { return ordered(r.Seq) }},
		{name: "request", key: func(r *request) string { return r.ID }},
	},
	count: func(c *counts, _ *request, n int) { c.requests += n },
}

// recall returns what the command was answered before. A refusal counts, too: a second
// answer would contradict the first.
func (tx *transaction) recall() (Result, bool) {
	if tx.cmd.Request == "" {
		return Result{}, false
	}
	r, ok := requestTable.get(tx.Txn, "request", tx.cmd.Request)
	if !ok {
		return Result{}, false
	}
	return r.Result, true
}

// remember keeps res for the command's request, if it has one, and forgets the oldest.
func (tx *transaction) remember(res Result) {
	if tx.cmd.Request == "" {
		return
	}
	seq := uint64(1)
	if last, ok := requestTable.edge(tx.Txn, primary, true); ok {
		seq = last.Seq + 1
	}
	requestTable.put(tx, &request{Seq: seq, ID: tx.cmd.Request, Result: res})
	for tx.counts.requests > MaxRequests {
		oldest, _ := requestTable.edge(tx.Txn, primary, false)
		requestTable.drop(tx, oldest)
	}
}

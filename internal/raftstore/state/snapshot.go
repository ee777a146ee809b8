package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// A snapshot is lines of JSON: a header, the records of each table in the order of
// their primary keys, and the SHA-256 of all lines before it. Whole lines make it easy
// to look at and to compare; the same index gives the same bytes on every member.
const (
	snapshotMagic = "incusd-state"
	// snapshotFormat goes up when an older build could not read a snapshot any more.
	// Every format that ever was can be restored.
	snapshotFormat = 1
	// maxLine bounds the memory that a damaged snapshot can take.
	maxLine = 16 << 20
)

type snapshotHeader struct {
	Magic  string `json:"magic"`
	Format int    `json:"format"`
	Index  uint64 `json:"index"`
	Term   uint64 `json:"term"`
}

// snapshotLine is a record, or the trailer if SHA256 is set.
type snapshotLine struct {
	Table  string          `json:"table,omitempty"`
	Record json.RawMessage `json:"record,omitempty"`
	SHA256 string          `json:"sha256,omitempty"`
}

// serverRecords names the lines of Raft's configuration, which is not a table.
const serverRecords = "server"

// Persist writes the view as a snapshot. It holds nobody up and needs no more memory
// than one record.
func (v *View) Persist(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	sum := sha256.New()
	enc := json.NewEncoder(io.MultiWriter(out, sum))
	enc.SetEscapeHTML(false)
	if err := v.writeRecords(enc); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := enc.Encode(snapshotLine{SHA256: hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (v *View) writeRecords(enc *json.Encoder) error {
	type line struct {
		Table  string `json:"table"`
		Record any    `json:"record"`
	}
	if err := enc.Encode(snapshotHeader{snapshotMagic, snapshotFormat, v.index, v.term}); err != nil {
		return err
	}
	for _, s := range v.servers {
		if err := enc.Encode(line{serverRecords, s}); err != nil {
			return err
		}
	}
	for _, t := range tables {
		err := t.each(v.txn, func(rec any) error { return enc.Encode(line{t.tableName(), rec}) })
		if err != nil {
			return err
		}
	}
	return nil
}

// Restore replaces everything by what Persist wrote. It builds new tables beside the
// old and swaps at the end, so that an error changes nothing; earlier views stay
// readable, and all their watches end. It fails with api.StoreDamaged for what Persist
// did not write, with api.StoreTooNew for a later format, and with r's errors.
func (s *Store) Restore(r io.Reader) error {
	db, v, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
	s.publish(v, topicMembers|topicOther)
	return nil
}

// A snapshotReader reads lines and sums them up.
type snapshotReader struct {
	in   *bufio.Reader
	hash hash.Hash
	sum  []byte // of all lines but the last
}

// next returns the next whole line. It fails with api.StoreDamaged if there is none.
func (r *snapshotReader) next() ([]byte, error) {
	var line []byte
	for {
		part, err := r.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			r.sum = r.hash.Sum(r.sum[:0])
			r.hash.Write(line)
			return line, nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, damaged("it ends too early")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, damaged("a line is longer than %d bytes", maxLine)
		}
	}
}

func damaged(format string, args ...any) error {
	return api.Errorf(api.StoreDamaged, "the snapshot is damaged: "+format, args...)
}

func (r *snapshotReader) header() (*View, error) {
	line, err := r.next()
	if err != nil {
		return nil, err
	}
	var h snapshotHeader
	// A later format may have fields that are not known here: look at the format first.
	if err := json.Unmarshal(line, &h); err != nil || h.Magic != snapshotMagic || h.Format < 1 {
		return nil, damaged("it does not begin like one")
	}
	if h.Format > snapshotFormat {
		return nil, api.Errorf(api.StoreTooNew, "the snapshot has format %d, this build reads up to %d; "+
			"install the version of incusd that wrote it", h.Format, snapshotFormat)
	}
	return &View{index: h.Index, term: h.Term}, nil
}

func readSnapshot(in io.Reader) (*memdb.MemDB, *View, error) {
	r := &snapshotReader{in: bufio.NewReaderSize(in, 64<<10), hash: sha256.New()}
	v, err := r.header()
	if err != nil {
		return nil, nil, err
	}
	db := newDB()
	tx := &transaction{Txn: db.Txn(true)}
	for {
		line, err := r.next()
		if err != nil {
			return nil, nil, err
		}
		done, err := r.record(tx, v, line)
		if err != nil {
			return nil, nil, err
		}
		if done {
			break
		}
	}
	tx.Commit()
	v.txn, v.counts, v.servers = db.Txn(false), tx.counts, sortedServers(v.servers)
	return db, v, nil
}

// record takes one line after the header, and tells whether it was the last.
func (r *snapshotReader) record(tx *transaction, v *View, line []byte) (done bool, err error) {
	var l snapshotLine
	if err := decodeStrict(line, &l); err != nil {
		return false, damaged("%v", err)
	}
	if l.SHA256 != "" {
		return true, r.trailer(l)
	}
	if l.Table == serverRecords {
		var s Server
		if err := decodeStrict(l.Record, &s); err != nil {
			return false, damaged("%s: %v", l.Table, err)
		}
		v.servers = append(v.servers, s)
		return false, nil
	}
	for _, t := range tables {
		if t.tableName() == l.Table {
			if err := t.load(tx, l.Record); err != nil {
				return false, damaged("%s: %v", l.Table, err)
			}
			return false, nil
		}
	}
	return false, damaged("there is no table %q", l.Table)
}

// trailer checks that nothing before it was changed and that nothing follows it.
func (r *snapshotReader) trailer(l snapshotLine) error {
	if want := hex.EncodeToString(r.sum); l.SHA256 != want || l.Table != "" || l.Record != nil {
		return damaged("its checksum does not fit: it says %.64q, its content has %s", l.SHA256, want)
	}
	switch _, err := r.in.ReadByte(); {
	case err == nil:
		return damaged("something follows its end")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

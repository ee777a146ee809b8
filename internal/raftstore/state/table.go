package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/go-memdb"
)

// primary is the name that go-memdb asks for.
const primary = "id"

// A topic is what readers can wait for.
type topic uint8

const (
	topicNone     topic = 0
	topicMembers  topic = 1 << iota // cluster, members, servers and certificates
	topicOther                      // tokens and configuration
	topicEntities                   // pools, networks, volumes, profiles and projects
)

// A table is one kind of record. Its variable is made once and never changes.
type table[T any] struct {
	name  string
	topic topic
	// indexes begin with the primary one, whose order is that of the snapshot.
	indexes []index[T]
	// count, if not nil, adds n times what rec counts for.
	count func(c *counts, rec *T, n int)
}

// An index finds records by a key. Records with an empty key are not in it, except
// in the primary one.
type index[T any] struct {
	name string
	key  func(*T) string
	// many allows several records with one key, which must not contain NUL.
	many bool
}

// anyTable is a table whose record type does not matter.
type anyTable interface {
	tableName() string
	schema() *memdb.TableSchema
	each(txn *memdb.Txn, yield func(rec any) error) error
	load(tx *transaction, data json.RawMessage) error
}

// tables are all tables, in the order of the snapshot.
var tables = []anyTable{clusterTable, memberTable, tokenTable, configTable, certificateTable,
	groupTable, projectTable, entityTable, profileTable, attemptTable, warningTable, recoveryTable, retiredTable, removedTable, requestTable}

func newDB() *memdb.MemDB {
	schema := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range tables {
		schema.Tables[t.tableName()] = t.schema()
	}
	db, err := memdb.NewMemDB(schema)
	must(err)
	return db
}

// must stops the program: what memdb refuses is a schema that does not fit its
// records, which no input can cause, since no indexer here ever fails.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("state: schema and record do not fit: %v", err))
	}
}

func (t *table[T]) tableName() string { return t.name }

func (t *table[T]) schema() *memdb.TableSchema {
	s := &memdb.TableSchema{Name: t.name, Indexes: map[string]*memdb.IndexSchema{}}
	for _, x := range t.indexes {
		s.Indexes[x.name] = &memdb.IndexSchema{
			Name: x.name, Unique: !x.many, AllowMissing: x.name != primary, Indexer: indexer[T](x),
		}
	}
	return s
}

// get returns the first record with key in the index.
func (t *table[T]) get(txn *memdb.Txn, index, key string) (*T, bool) {
	obj, err := txn.First(t.name, index, key)
	must(err)
	rec, ok := obj.(*T)
	return rec, ok
}

// edge returns the first record in the index's order, or the last.
func (t *table[T]) edge(txn *memdb.Txn, index string, last bool) (*T, bool) {
	find := txn.First
	if last {
		find = txn.Last
	}
	obj, err := find(t.name, index)
	must(err)
	rec, ok := obj.(*T)
	return rec, ok
}

// list returns the records with that key in the index, or all in the index's order.
// It is a copy: the table may be changed while one walks it.
func (t *table[T]) list(txn *memdb.Txn, index string, key ...any) []*T {
	var out []*T
	rows, err := txn.Get(t.name, index, key...)
	must(err)
	for obj := rows.Next(); obj != nil; obj = rows.Next() {
		out = append(out, obj.(*T))
	}
	return out
}

// put inserts rec, or replaces the record with its primary key. From then on rec is
// shared with readers.
func (t *table[T]) put(tx *transaction, rec *T) {
	if t.count != nil {
		if old, ok := t.get(tx.Txn, primary, t.indexes[0].key(rec)); ok {
			t.count(&tx.counts, old, -1)
		}
		t.count(&tx.counts, rec, +1)
	}
	must(tx.Insert(t.name, rec))
	tx.topics |= t.topic
}

// drop deletes rec, which must be in the table.
func (t *table[T]) drop(tx *transaction, rec *T) {
	if t.count != nil {
		t.count(&tx.counts, rec, -1)
	}
	must(tx.Delete(t.name, rec))
	tx.topics |= t.topic
}

func (t *table[T]) each(txn *memdb.Txn, yield func(rec any) error) error {
	rows, err := txn.Get(t.name, primary)
	must(err)
	for obj := rows.Next(); obj != nil; obj = rows.Next() {
		if err := yield(obj); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[T]) load(tx *transaction, data json.RawMessage) error {
	rec := new(T)
	if err := decodeStrict(data, rec); err != nil {
		return err
	}
	for _, x := range t.indexes {
		if key := x.key(rec); !x.many && (key != "" || x.name == primary) {
			if _, ok := t.get(tx.Txn, x.name, key); ok {
				return fmt.Errorf("two records have the same %s", x.name)
			}
		}
	}
	t.put(tx, rec)
	return nil
}

// indexer makes an index one of memdb's. It never fails.
type indexer[T any] index[T]

// FromObject implements memdb.SingleIndexer.
func (x indexer[T]) FromObject(obj any) (bool, []byte, error) {
	key := x.key(obj.(*T))
	return key != "" || x.name == primary, x.bytes(key), nil
}

// FromArgs implements memdb.Indexer.
func (x indexer[T]) FromArgs(args ...any) ([]byte, error) { return x.bytes(args[0].(string)), nil }

// bytes ends the key where memdb appends the primary key, so that one key is never
// the beginning of another.
func (x indexer[T]) bytes(key string) []byte {
	if !x.many {
		return []byte(key)
	}
	return append([]byte(key), 0)
}

// ordered is n as a key that sorts like the number.
func ordered(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// checkKey refuses a text that cannot be a key: IDs, hashes and fingerprints are
// visible ASCII. what names it in the refusal.
func checkKey(what, key string) error {
	if key == "" {
		return badRequest("%s must not be empty", what)
	}
	if len(key) > maxKeyText {
		return badRequest("%s has %d bytes, the limit is %d", what, len(key), maxKeyText)
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return badRequest("%s %q may only have visible ASCII characters", what, key)
		}
	}
	return nil
}

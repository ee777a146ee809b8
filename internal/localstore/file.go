package localstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"incusd/api"
)

// Format is the version of the file's format that this build writes. It reads this one
// and all older ones.
const Format = 1

// lockTime is how long Open waits for another process to let go of the file: long
// enough for a daemon that is just ending, short enough for a human.
const lockTime = time.Second

// The buckets and their keys. Each value is a JSON record; see there.
const (
	bucketMeta   = "meta"
	keyFormat    = "format"
	bucketMember = "member"
	keyCurrent   = "current"
	keyJoin      = "join"
	keyPeers     = "peers"
	keyRemoval   = "removal"
	keyShutOut   = "shutout"
	keyReadmit   = "readmit"
	keyMoved     = "moved"
	prefixMade   = "made/"  // and the entity's ID
	bucketConfig = "config" // by configuration key
)

// A record is how each value stands in the file. bbolt has checksums for its two meta
// pages only; ours finds a value that the disk has changed.
type record struct {
	Sum  uint32          `json:"crc32c"`
	Data json.RawMessage `json:"data"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open opens the store at path, and makes it when there is no such file; the folder
// must exist. It fails with api.StoreDamaged for a file that cannot be trusted, with
// api.StoreTooNew for one of a newer format, with api.DiskFull, and with api.Conflict
// when another process keeps the file open for longer than a second. A file that is
// refused is not changed.
func Open(path string) (*Store, error) {
	s, err := open(path)
	if err != nil {
		return nil, explain(path, err)
	}
	return s, nil
}

func open(path string) (*Store, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = create(path)
	case err == nil && info.Size() == 0:
		err = damageError{"it is empty"} // bbolt would take it for a new one
	}
	if err != nil {
		return nil, err
	}
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, db: db}
	err = guard(path, func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			s.data, err = read(tx)
			return err
		})
	})
	if err == nil {
		s.hint, err = openHint(path + ".hint")
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// create makes an empty store under another name and then gives it the real one, so
// that a crash never leaves half a file there. A link, unlike a rename, never replaces
// the file that another process has made meanwhile.
func create(path string) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err != nil {
		return err
	}
	fresh := file.Name()
	defer os.Remove(fresh)
	if err := file.Close(); err != nil {
		return err
	}
	if err := fill(fresh); err != nil {
		return err
	}
	if err := os.Link(fresh, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// fill makes the empty file at path an empty store.
func fill(path string) error {
	db, err := openBolt(path)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{bucketMeta, bucketMember, bucketConfig} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return put(tx, bucketMeta, keyFormat, Format)
	})
	return errors.Join(err, db.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func openBolt(path string) (db *bolt.DB, err error) {
	var file *os.File
	options := &bolt.Options{
		Timeout: lockTime,
		// The free list is kept in the file, unlike in the Raft log: without it bbolt scans
		// the file at start in a goroutine of its own, where a damaged page ends the process.
		NoFreelistSync: false,
		FreelistType:   bolt.FreelistMapType,
		NoStatistics:   true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	}
	err = guard(path, func() error {
		var err error
		db, err = bolt.Open(path, 0o600, options)
		return err
	})
	if err == nil {
		return db, nil
	}
	if file != nil {
		// bbolt has done this, unless it panicked: then the file also stays mapped, which
		// keeps the lock until it is given back by name.
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		_ = file.Close()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) || errors.Is(err, bolterrors.ErrTimeout) || errors.Is(err, api.StoreDamaged) {
		return nil, err
	}
	return nil, damageError{err.Error()} // what bbolt itself has to say is about the contents
}

// guard runs f and turns what bbolt does about a damaged file, a panic or a wild
// pointer into its mapping, into api.StoreDamaged.
func guard(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, p)
		}
	}()
	return f()
}

// damageError is a defect in the file's contents.
type damageError struct{ what string }

func (e damageError) Error() string { return e.what }

func damaged(path string, what any) error {
	return api.Errorf(api.StoreDamaged, "The local store %s is damaged: %v", path, what).
		WithHint("if other members are left, let it join anew with an empty INCUS_DIR and a token of: incus cluster replace NAME. An older copy of the file is for a server that is alone: a member's has forgotten votes that count")
}

// explain gives an error of bbolt or of the operating system its reason.
func explain(path string, err error) error {
	var refusal *api.Error
	var damage damageError
	switch {
	case errors.As(err, &refusal):
		return err
	case errors.As(err, &damage):
		return damaged(path, damage.what)
	case errors.Is(err, bolterrors.ErrTimeout):
		return api.Errorf(api.Conflict, "The local store %s is in use by another process (is incusd already running with this INCUS_DIR?)", path).
			WithHint("stop the other daemon, or give this one an INCUS_DIR of its own")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.Errorf(api.DiskFull, "No space left for the local store %s: %v", path, err)
	}
	return fmt.Errorf("local store %s: %w", path, err)
}

// read reads everything. Its errors are damageErrors, or api.StoreTooNew.
func read(tx *bolt.Tx) (contents, error) {
	data := contents{config: map[string]string{}, made: map[string]Made{}}
	format := 0
	if ok, err := get(tx, bucketMeta, keyFormat, &format); err != nil {
		return data, err
	} else if !ok || format < 1 {
		return data, damageError{"it has no format version"}
	}
	if format > Format {
		return data, api.Errorf(api.StoreTooNew, "The local store %s has format %d, written by a newer version; this one (%s) reads up to format %d",
			tx.DB().Path(), format, api.Version, Format)
	}
	if size, err := os.Stat(tx.DB().Path()); err == nil && size.Size() < tx.Size() {
		return data, damageError{fmt.Sprintf("it is cut off: %d bytes of %d", size.Size(), tx.Size())}
	}
	return data, errors.Join(
		getOptional(tx, keyCurrent, &data.current),
		getOptional(tx, keyJoin, &data.join),
		getOptional(tx, keyPeers, &data.peers),
		getOptional(tx, keyRemoval, &data.removal),
		getOptional(tx, keyShutOut, &data.shutOut),
		getOptional(tx, keyReadmit, &data.readmit),
		getOptional(tx, keyMoved, &data.moved),
		readConfig(tx, data.config),
		readMade(tx, data.made),
	)
}

func getOptional(tx *bolt.Tx, key string, into any) error {
	_, err := get(tx, bucketMember, key, into)
	return err
}

func readMade(tx *bolt.Tx, made map[string]Made) error {
	bucket := tx.Bucket([]byte(bucketMember))
	if bucket == nil {
		return missing(bucketMember)
	}
	rows := bucket.Cursor()
	for key, data := rows.Seek([]byte(prefixMade)); bytes.HasPrefix(key, []byte(prefixMade)); key, data = rows.Next() {
		var m Made
		if err := decode(bucketMember, string(key), data, &m); err != nil {
			return err
		}
		made[m.ID] = m
	}
	return nil
}

func readConfig(tx *bolt.Tx, config map[string]string) error {
	bucket := tx.Bucket([]byte(bucketConfig))
	if bucket == nil {
		return missing(bucketConfig)
	}
	return bucket.ForEach(func(key, data []byte) error {
		var value string
		if err := decode(bucketConfig, string(key), data, &value); err != nil {
			return err
		}
		config[string(key)] = value
		return nil
	})
}

func get(tx *bolt.Tx, bucket, key string, into any) (bool, error) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return false, missing(bucket)
	}
	data := b.Get([]byte(key))
	if data == nil {
		return false, nil
	}
	return true, decode(bucket, key, data, into)
}

func put(tx *bolt.Tx, bucket, key string, value any) error {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return missing(bucket)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	data, err = json.Marshal(record{Sum: crc32.Checksum(data, castagnoli), Data: data})
	if err != nil {
		return err
	}
	return b.Put([]byte(key), data)
}

func remove(tx *bolt.Tx, bucket, key string) error {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return missing(bucket)
	}
	return b.Delete([]byte(key))
}

func decode(bucket, key string, data []byte, into any) error {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return damageError{fmt.Sprintf("%s/%s is no record: %v", bucket, key, err)}
	}
	if sum := crc32.Checksum(r.Data, castagnoli); sum != r.Sum {
		return damageError{fmt.Sprintf("%s/%s has the checksum %08x, expected %08x", bucket, key, sum, r.Sum)}
	}
	if err := json.Unmarshal(r.Data, into); err != nil {
		return damageError{fmt.Sprintf("%s/%s: %v", bucket, key, err)}
	}
	return nil
}

func missing(bucket string) error { return damageError{"the bucket " + bucket + " is missing"} }

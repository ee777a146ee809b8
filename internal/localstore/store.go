package localstore

import (
	"errors"
	"maps"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// A Store is an open local store. Its methods may be called at the same time. Those
// that change something block until the change is on disk, except SetCommitHint, and
// fail with api.DiskFull when there is no space; then nothing is changed.
type Store struct {
	path string
	db   *bolt.DB
	hint *hintFile

	mu   sync.RWMutex
	data contents
}

// contents is all that the bbolt file says.
type contents struct {
	current *Replica
	join    *JoinRecord
	peers   []Peer
	removal *Removal
	shutOut *ShutOut
	readmit *Readmission
	moved   map[string]Move
	config  map[string]string
	made    map[string]Made
}

// Path is the file's name.
func (s *Store) Path() string { return s.path }

// Close releases the file. The store must not be used afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.hint.close(), s.db.Close())
}

// Current is this member's replica. It is false until the first SetCurrent.
func (s *Store) Current() (Replica, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.data.current == nil {
		return Replica{}, false
	}
	return *s.data.current, true
}

// SetCurrent makes r this member's replica.
func (s *Store) SetCurrent(r Replica) error {
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.current = &r
		return put(tx, bucketMember, keyCurrent, r)
	})
}

// Join is the join that has begun and not ended, if there is one.
func (s *Store) Join() (*JoinRecord, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.data.join.clone(), s.data.join != nil
}

// SetJoin records that a join has begun, or what is now known about it.
func (s *Store) SetJoin(join *JoinRecord) error {
	join = join.clone()
	if join == nil {
		return errors.New("no join to record")
	}
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.join = join
		return put(tx, bucketMember, keyJoin, join)
	})
}

// ClearJoin forgets a join that came to nothing. It is harmless when there is none.
func (s *Store) ClearJoin() error {
	var gone string
	err := s.change(func(tx *bolt.Tx, data *contents) error {
		if data.join != nil {
			gone = data.join.Replica.ID
		}
		data.join = nil
		return remove(tx, bucketMember, keyJoin)
	})
	if err == nil {
		s.hint.forget(gone)
	}
	return err
}

// FinishJoin makes the joining replica the current one and forgets the join, in one
// transaction. It returns the replica that was current, whose folder may go now; its
// zero value means that there was none. It fails when no join has begun.
func (s *Store) FinishJoin() (old Replica, err error) {
	err = s.change(func(tx *bolt.Tx, data *contents) error {
		if data.join == nil {
			return errors.New("no join has begun")
		}
		if data.current != nil {
			old = *data.current
		}
		fresh := data.join.Replica
		data.current, data.join, data.shutOut, data.readmit = &fresh, nil, nil, nil
		if err := errors.Join(remove(tx, bucketMember, keyShutOut), remove(tx, bucketMember, keyReadmit)); err != nil {
			return err
		}
		if err := put(tx, bucketMember, keyCurrent, fresh); err != nil {
			return err
		}
		return remove(tx, bucketMember, keyJoin)
	})
	if err != nil {
		return Replica{}, err
	}
	s.hint.forget(old.ID)
	return old, nil
}

// Removal says that the current replica's member was removed from its cluster, if it was.
func (s *Store) Removal() (Removal, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.data.removal == nil {
		return Removal{}, false
	}
	return *s.data.removal, true
}

// SetRemoval records that the current replica's member was removed.
func (s *Store) SetRemoval(r Removal) error {
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.removal = &r
		return put(tx, bucketMember, keyRemoval, r)
	})
}

// StartOver makes fresh the current replica and forgets the cluster of the one before, in one
// transaction. The configuration stays, and so do the records of what was made. It fails while
// a join is recorded.
func (s *Store) StartOver(fresh Replica) error {
	var old Replica
	err := s.change(func(tx *bolt.Tx, data *contents) error {
		if data.join != nil {
			return errors.New("a join has begun")
		}
		if data.current != nil {
			old = *data.current
		}
		data.current, data.peers, data.removal = &fresh, nil, nil
		data.shutOut, data.readmit, data.moved = nil, nil, nil
		var gone []error
		for _, key := range []string{keyPeers, keyRemoval, keyShutOut, keyReadmit, keyMoved} {
			gone = append(gone, remove(tx, bucketMember, key))
		}
		return errors.Join(put(tx, bucketMember, keyCurrent, fresh), errors.Join(gone...))
	})
	if err == nil {
		s.hint.forget(old.ID)
	}
	return err
}

// Peers are the members that this one last knew.
func (s *Store) Peers() []Peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.data.peers)
}

// SetPeers replaces the peers. It writes nothing when they are the same as before.
func (s *Store) SetPeers(peers []Peer) error {
	s.mu.RLock()
	same := slices.Equal(s.data.peers, peers)
	s.mu.RUnlock()
	if same {
		return nil
	}
	peers = slices.Clone(peers)
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.peers = peers
		return put(tx, bucketMember, keyPeers, peers)
	})
}

// Config is this member's own configuration, a fresh copy.
func (s *Store) Config() map[string]string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.data.config)
}

// SetConfig sets the given keys, all or none. An empty value unsets its key. Keys that
// are not given stay.
func (s *Store) SetConfig(set map[string]string) error {
	if len(set) == 0 {
		return nil
	}
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.config = maps.Clone(data.config)
		for key, value := range set {
			if err := setKey(tx, data.config, key, value); err != nil {
				return err
			}
		}
		return nil
	})
}

func setKey(tx *bolt.Tx, config map[string]string, key, value string) error {
	if value == "" {
		delete(config, key)
		return remove(tx, bucketConfig, key)
	}
	config[key] = value
	return put(tx, bucketConfig, key, value)
}

// Made lists what of the cluster's entities is on this machine, by ID.
func (s *Store) Made() []Made {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Made, 0, len(s.data.made))
	for _, id := range slices.Sorted(maps.Keys(s.data.made)) {
		list = append(list, s.data.made[id].clone())
	}
	return list
}

// SetMade records what is on this machine, or is about to be.
func (s *Store) SetMade(m Made) error {
	m = m.clone()
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.made = maps.Clone(data.made)
		data.made[m.ID] = m
		return put(tx, bucketMember, prefixMade+m.ID, m)
	})
}

// ClearMade forgets what is not on this machine any more. It is harmless when there is no
// record of it.
func (s *Store) ClearMade(id string) error {
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.made = maps.Clone(data.made)
		delete(data.made, id)
		return remove(tx, bucketMember, prefixMade+id)
	})
}

// CommitHint is an index up to which the log of the replica is certainly committed; 0
// when nothing is known. It may lag after a crash of the machine, never lead.
func (s *Store) CommitHint(replicaID string) uint64 {
	return s.hint.get(replicaID)
}

// SetCommitHint records that the log of the replica is committed up to index. A lower
// index than the recorded one is ignored. It does not wait for the disk: what a crash
// of the machine loses is only a part of the local view until a leader is heard.
func (s *Store) SetCommitHint(replicaID string, index uint64) error {
	if err := s.hint.set(replicaID, index); err != nil {
		return explain(s.path, err)
	}
	return nil
}

// change makes one transaction of f, which changes the file through tx and its copy of
// the contents alike. Readers see the change once it is on disk.
func (s *Store) change(f func(tx *bolt.Tx, data *contents) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.data
	err := guard(s.path, func() error {
		return s.db.Update(func(tx *bolt.Tx) error { return f(tx, &data) })
	})
	if err != nil {
		return explain(s.path, err)
	}
	s.data = data
	return nil
}

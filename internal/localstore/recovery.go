package localstore

import (
	"maps"

	bolt "go.etcd.io/bbolt"
)

// ShutOut says why this member takes no part in its cluster any more, if it does not.
func (s *Store) ShutOut() (ShutOut, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.data.shutOut == nil {
		return ShutOut{}, false
	}
	return *s.data.shutOut, true
}

// SetShutOut notes that this member takes no part any more.
func (s *Store) SetShutOut(out ShutOut) error {
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.shutOut = &out
		return put(tx, bucketMember, keyShutOut, out)
	})
}

// Readmission is what is still to be asked of the recovered cluster, if anything is.
func (s *Store) Readmission() (Readmission, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.data.readmit == nil {
		return Readmission{}, false
	}
	return *s.data.readmit, true
}

// ClearReadmission notes that this member is one of the recovered cluster.
func (s *Store) ClearReadmission() error {
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.readmit = nil
		return remove(tx, bucketMember, keyReadmit)
	})
}

// A Switch replaces this member's replica by another of the same cluster, or of a restored one.
type Switch struct {
	Replica Replica
	// Readmit, if not nil, is what the recovered cluster is to be asked.
	Readmit *Readmission
	// Config are local keys that change with it; an empty value unsets a key.
	Config map[string]string
	// Peers, if not nil, replaces the known members.
	Peers []Peer
}

// SwitchReplica makes another replica the current one, all in one transaction. What shut the
// member out, or removed it, is forgotten with the replica that it was about.
func (s *Store) SwitchReplica(to Switch) error {
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.current, data.shutOut, data.removal, data.readmit = &to.Replica, nil, nil, to.Readmit
		if err := put(tx, bucketMember, keyCurrent, to.Replica); err != nil {
			return err
		}
		for _, key := range []string{keyShutOut, keyRemoval} {
			if err := remove(tx, bucketMember, key); err != nil {
				return err
			}
		}
		if err := putOrRemove(tx, keyReadmit, to.Readmit, to.Readmit != nil); err != nil {
			return err
		}
		if to.Peers != nil {
			data.peers = to.Peers
			if err := put(tx, bucketMember, keyPeers, to.Peers); err != nil {
				return err
			}
		}
		data.config = maps.Clone(data.config)
		for key, value := range to.Config {
			if err := setKey(tx, data.config, key, value); err != nil {
				return err
			}
		}
		return nil
	})
}

func putOrRemove(tx *bolt.Tx, key string, value any, there bool) error {
	if there {
		return put(tx, bucketMember, key, value)
	}
	return remove(tx, bucketMember, key)
}

// Moved are the members, by ID, whose address an administrator changed while the cluster could
// not be told. It is a fresh copy.
func (s *Store) Moved() map[string]Move {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.data.moved)
}

// SetMoved replaces those and sets local keys in the same transaction.
func (s *Store) SetMoved(moved map[string]Move, config map[string]string) error {
	moved = maps.Clone(moved)
	return s.change(func(tx *bolt.Tx, data *contents) error {
		data.moved = moved
		if err := putOrRemove(tx, keyMoved, moved, len(moved) > 0); err != nil {
			return err
		}
		data.config = maps.Clone(data.config)
		for key, value := range config {
			if err := setKey(tx, data.config, key, value); err != nil {
				return err
			}
		}
		return nil
	})
}

// NoteIncarnation records which incarnation of its cluster the current replica is of.
func (s *Store) NoteIncarnation(n int) error {
	current, ok := s.Current()
	if !ok || current.Incarnation == n {
		return nil
	}
	current.Incarnation = n
	return s.SetCurrent(current)
}

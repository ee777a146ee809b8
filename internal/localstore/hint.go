package localstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// maxHint is the longest hint file that is read, in bytes.
const maxHint = 64 << 10

// A hintFile keeps the commit hints. They change with every entry of the log and may
// be lost, so they are written without waiting for the disk. bbolt cannot do that
// safely: without its syncs a power cut may leave a tree that points to pages which
// never came to the disk. Hence a file beside it, of one line: a CRC-32C and the JSON
// of the indexes by replica. A line that does not check says nothing; it is a hint.
type hintFile struct {
	mu      sync.Mutex
	file    *os.File
	indexes map[string]uint64
}

func openHint(path string) (*hintFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxHint))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &hintFile{file: file, indexes: decodeHints(data)}, nil
}

func (h *hintFile) get(replicaID string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.indexes[replicaID]
}

func (h *hintFile) set(replicaID string, index uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if index <= h.indexes[replicaID] {
		return nil
	}
	h.indexes[replicaID] = index
	return h.write()
}

// forget drops the hint of a replica that is gone. That it stays in a file that cannot
// be written does no harm: the replica's ID is never used again.
func (h *hintFile) forget(replicaID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.indexes[replicaID]; ok {
		delete(h.indexes, replicaID)
		_ = h.write()
	}
}

// write makes one write of one line at the beginning; what a longer line before it
// left behind stands after the line's end.
func (h *hintFile) write() error {
	if _, err := h.file.WriteAt(encodeHints(h.indexes), 0); err != nil {
		return fmt.Errorf("commit hint: %w", err)
	}
	return nil
}

func (h *hintFile) close() error { return h.file.Close() }

func encodeHints(indexes map[string]uint64) []byte {
	data, err := json.Marshal(indexes)
	if err != nil {
		return nil // a map of strings and numbers always encodes
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(data, castagnoli), data)
}

// decodeHints returns no hints for what encodeHints has not written.
func decodeHints(data []byte) map[string]uint64 {
	line, _, ok := bytes.Cut(data, []byte("\n"))
	var sum uint32
	if ok && len(line) > 9 {
		if _, err := fmt.Sscanf(string(line[:9]), "%08x ", &sum); err == nil && crc32.Checksum(line[9:], castagnoli) == sum {
			var indexes map[string]uint64
			if json.Unmarshal(line[9:], &indexes) == nil && indexes != nil {
				return indexes
			}
		}
	}
	return map[string]uint64{}
}

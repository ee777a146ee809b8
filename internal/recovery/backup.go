package recovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A backup is a line about itself, the snapshot of the state (see state.View.Persist), and the
// SHA-256 of all before it. It holds the cluster's key and live join tokens.
const (
	backupMagic = "incusd-backup"
	// backupFormat goes up when an older build could not read a backup any more.
	backupFormat = 1
	// maxBackup bounds what is read, in bytes.
	maxBackup = 1 << 30
)

// A Header describes a backup.
type Header struct {
	Magic     string    `json:"magic"`
	Format    int       `json:"format"`
	CreatedAt time.Time `json:"created_at"`
	// Version is the program's that wrote it.
	Version   string   `json:"version"`
	ClusterID string   `json:"cluster_id"`
	Index     uint64   `json:"index"`
	Members   []string `json:"members"`
}

// WriteBackup writes view, with the time at which that is done.
func WriteBackup(w io.Writer, view *state.View, now time.Time) error {
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	h := Header{
		Magic: backupMagic, Format: backupFormat, CreatedAt: now, Version: api.Version,
		ClusterID: view.Cluster().ID, Index: view.Index(), Members: []string{},
	}
	for _, m := range view.Members() {
		h.Members = append(h.Members, m.Name)
	}
	if err := json.NewEncoder(out).Encode(h); err != nil {
		return err
	}
	if err := view.Persist(out); err != nil {
		return err
	}
	return writeEnd(w, [sha256.Size]byte(sum.Sum(nil)))
}

// ReadBackup reads what WriteBackup wrote. It fails with api.StoreDamaged for anything else, and
// with api.StoreTooNew for a backup of a later version.
func ReadBackup(r io.Reader) (Header, *state.Store, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBackup+1))
	if err != nil {
		return Header{}, nil, err
	}
	if len(data) > maxBackup {
		return Header{}, nil, api.Errorf(api.TooLarge, "the backup has more than %d bytes", maxBackup)
	}
	h, err := readHeader(data)
	if err != nil {
		return h, nil, err
	}
	body, err := checkSum(data)
	if err != nil {
		return h, nil, err
	}
	tables := state.New()
	return h, tables, tables.Restore(bytes.NewReader(body[bytes.IndexByte(body, '\n')+1:]))
}

func readHeader(data []byte) (h Header, err error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	if err := json.Unmarshal(line, &h); err != nil || h.Magic != backupMagic || h.Format < 1 {
		return h, damaged("it does not begin like one")
	}
	if h.Format > backupFormat {
		return h, api.Errorf(api.StoreTooNew, "The backup has format %d, this version reads up to %d; it was written by version %s", h.Format, backupFormat, h.Version)
	}
	return h, nil
}

// checkSum returns what stands before the checksum, if it is what that says.
func checkSum(data []byte) ([]byte, error) {
	whole, ended := bytes.CutSuffix(data, []byte("\n"))
	at := bytes.LastIndexByte(whole, '\n') + 1
	if !ended || !bytes.HasPrefix(whole[at:], []byte(`{"sha256":`)) {
		return nil, damaged("it does not end like one")
	}
	var want bytes.Buffer
	if err := writeEnd(&want, sha256.Sum256(data[:at])); err != nil {
		return nil, err
	}
	if !bytes.Equal(want.Bytes(), data[at:]) {
		return nil, damaged("its content does not have the checksum that it names")
	}
	return data[:at], nil
}

func writeEnd(w io.Writer, sum [sha256.Size]byte) error {
	return json.NewEncoder(w).Encode(struct {
		SHA256 string `json:"sha256"`
	}{hex.EncodeToString(sum[:])})
}

func damaged(what string) error {
	return api.Errorf(api.StoreDamaged, "The backup is damaged: %s", what).
		WithHint("take another backup; this one was not written to its end, or was changed")
}

// A Place is who a server is to be in the restored cluster. Name and Address are what was asked
// for, and empty where they are to be found.
type Place struct {
	Name, Address string
	// Own is this server's part of the row: a new ID, key pair, architecture, command version.
	Own state.Member
	// Addresses are those that this server has in its own configuration, best first.
	Addresses []string
}

// A Restoration is what a backup becomes.
type Restoration struct {
	View *state.View
	// Forgotten are the names of the members that are not part of the new cluster, Revoked those
	// of the tokens that were live when the backup was made.
	Forgotten, Revoked []string
}

// Restored makes the tables of a backup those of a new cluster whose only member is the server at
// place.
func Restored(tables *state.Store, place Place, now time.Time) (r Restoration, err error) {
	view := tables.View()
	body := state.ClusterRestore{ClusterID: uuid.NewString(), Member: place.Own}
	if view.Cluster().Enabled {
		if body.Name, err = placeName(view, place); err != nil {
			return r, err
		}
		if body.Address, err = placeAddress(view, place, body.Name); err != nil {
			return r, err
		}
	}
	for _, m := range view.Members() {
		if m.Name != body.Name && view.Cluster().Enabled {
			r.Forgotten = append(r.Forgotten, m.Name)
		}
	}
	for _, t := range view.Tokens() {
		if t.Ended == "" {
			r.Revoked = append(r.Revoked, t.Name)
		}
	}
	if err := apply(tables, view.Index()+1, view.Term(), now, state.KindClusterRestore, body); err != nil {
		return r, err
	}
	tables.SetServers([]state.Server{{ID: place.Own.ID, Voter: true}})
	r.View = tables.View()
	return r, nil
}

// placeName is the name that was asked for, or that of the row with this server's key, or of the
// only row.
func placeName(view *state.View, place Place) (string, error) {
	if place.Name != "" {
		return place.Name, nil
	}
	if m, ok := view.MemberByFingerprint(place.Own.Fingerprint); ok && m.State == state.MemberActive {
		return m.Name, nil
	}
	members := view.Members()
	if len(members) == 1 {
		return members[0].Name, nil
	}
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.Name
	}
	return "", api.Errorf(api.NameInvalid, "The backup has the members %s, and this server is none of them", list(names)).
		WithHint("say which member this server is to be, or another name: --name NAME")
}

// placeAddress is the address that was asked for, or this server's own, or that of its row.
func placeAddress(view *state.View, place Place, name string) (string, error) {
	if place.Address != "" {
		return place.Address, nil
	}
	if i := slices.IndexFunc(place.Addresses, func(a string) bool { return a != "" }); i >= 0 {
		return place.Addresses[i], nil
	}
	if m, ok := view.MemberByName(name); ok {
		return m.Address, nil
	}
	return "", api.Errorf(api.NoAddress, "This server has no address of its own, and the backup none for a member %q", name).
		WithHint("say where other servers are to reach it: --address ADDRESS")
}

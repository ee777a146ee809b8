package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"incusd/api"
)

// NewCommand makes a command of the newest version that this build knows of kind.
// It fails for an unknown kind and for a body of another kind.
func NewCommand(kind string, request string, at time.Time, requestor *api.EventRequestor, body any) (Command, error) {
	versions, ok := kinds[kind]
	if !ok {
		return Command{}, fmt.Errorf("make command %q: there is no such kind", kind)
	}
	if !versions[len(versions)-1].accepts(body) {
		return Command{}, fmt.Errorf("make command %q: %T is not its body", kind, body)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return Command{}, fmt.Errorf("make command %q: %w", kind, err)
	}
	return Command{
		Kind: kind, Version: len(versions), Request: request, Time: at.UTC(), Requestor: requestor, Body: data,
	}, nil
}

// EncodeEntry makes one entry of the log: a JSON array of commands. Its first byte is
// '[', so that another form can be told from this one.
func EncodeEntry(cmds []Command) ([]byte, error) {
	if len(cmds) == 0 {
		return nil, errors.New("encode entry: it has no command")
	}
	data, err := json.Marshal(cmds)
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	return data, nil
}

// DecodeEntry reads what EncodeEntry made. It fails with api.StoreDamaged.
func DecodeEntry(data []byte) ([]Command, error) {
	var cmds []Command
	if err := decodeStrict(data, &cmds); err != nil {
		return nil, api.Errorf(api.StoreDamaged, "an entry of the log cannot be read: %v", err)
	}
	if len(cmds) == 0 {
		return nil, api.Errorf(api.StoreDamaged, "an entry of the log has no command")
	}
	return cmds, nil
}

// decodeStrict reads exactly one JSON value. A field that it does not know is an
// error: a newer version put it there, and leaving it out is how members diverge.
func decodeStrict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the value")
	}
	return nil
}

// Check tells whether this build can apply c. It fails with api.StoreTooNew for a kind or
// version that it does not know, and with api.StoreDamaged for a body that it cannot read.
func Check(c *Command) error {
	_, err := decodeStep(c)
	return err
}

// Offline tells whether commands of that kind are only written into the tables of a server that
// takes no part in a cluster. In the log of one they would fence or forget its members.
func Offline(kind string) bool { return kind == KindClusterRecover || kind == KindClusterRestore }

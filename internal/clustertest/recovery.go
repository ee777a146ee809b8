package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"incusd/api"
	"incusd/internal/daemon"
	"incusd/internal/recovery"
)

// Stopped opens the stores of a server that is stopped.
func (s *Server) Stopped() (*recovery.Server, error) {
	return recovery.Open(daemon.Paths{Dir: s.dir}.Offline())
}

// Survey asks, from a stopped server, what the others hold.
func (s *Server) Survey(ctx context.Context) ([]recovery.Survivor, error) {
	r, err := s.Stopped()
	if err != nil {
		return nil, err
	}
	found, err := r.Survey(ctx, func(ctx context.Context, _, address string) (net.Conn, error) { return s.dial(ctx, address) })
	return found, errors.Join(err, r.Close())
}

// Recover does what the command does on a stopped server. reach may end it at a step.
func (s *Server) Recover(ctx context.Context, force bool, reach func(point string) error) error {
	found, err := s.Survey(ctx)
	if err != nil {
		return err
	}
	refusal, warning := recovery.Judge(found)
	switch {
	case refusal != nil:
		return refusal
	case warning != nil && !force:
		return warning
	}
	r, err := s.Stopped()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.Recover(time.Now(), reach)
	return err
}

// Edit gives a stopped server other addresses of members, by name.
func (s *Server) Edit(addresses map[string]string) error {
	r, err := s.Stopped()
	if err != nil {
		return err
	}
	defer r.Close()
	list := append([]api.ClusterDatabaseMember(nil), r.Database().Members...)
	for i, m := range list {
		if a, ok := addresses[m.Name]; ok {
			list[i].Address = a
		}
	}
	return r.Edit(list)
}

// DatabaseCopies lists the backups of the database folder that recoveries have made.
func (s *Server) DatabaseCopies() ([]string, error) {
	return filepath.Glob(filepath.Join(s.dir, "database.before-recovery-*"))
}

// Backup takes a backup on the server, by its socket.
func (s *Server) Backup(ctx context.Context) ([]byte, error) {
	return s.raw(ctx, http.MethodGet, "/internal/cluster/backup", nil)
}

// Restore restores a backup on the server.
func (s *Server) Restore(ctx context.Context, backup []byte, name, address string) error {
	query := url.Values{"name": {name}, "address": {address}}
	_, err := s.raw(ctx, http.MethodPut, "/internal/cluster/restore?"+query.Encode(), backup)
	return err
}

// raw sends bytes and returns those of the answer. A refusal is an *api.Error.
func (s *Server) raw(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	s.mu.Lock()
	client := s.http
	s.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return data, err
	}
	var env api.Response
	var meta api.ErrorMetadata
	if err := errors.Join(json.Unmarshal(data, &env), json.Unmarshal(env.Metadata, &meta)); err != nil {
		return nil, err
	}
	return nil, &api.Error{Reason: meta.Reason, Message: env.Error, Code: env.Code}
}

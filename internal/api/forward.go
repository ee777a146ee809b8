package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// forwardTimeout is a little longer than the other member may take, so that its
	// own answer arrives.
	forwardTimeout = callTimeout + 2*time.Second
	// askTimeout is how long the other members may take for their part of a list.
	askTimeout = time.Second
	// maxAnswer bounds what is read of another member's part, in bytes.
	maxAnswer = 16 << 20
)

// target finds the member that target= names; nil when that is this one, or none.
func (s *Server) target(c *call) (*state.Member, error) {
	name := c.param("target")
	if name == "" {
		return nil, nil
	}
	view, err := s.cfg.Store.ReadOrStale(c.Context())
	if err != nil {
		return nil, err
	}
	if name == unclusteredName && !view.Cluster().Enabled {
		return nil, nil
	}
	return s.other(c, view, name)
}

// other finds the member called name, which must be there to answer c; nil when it is
// this one.
func (s *Server) other(c *call, view *raftstore.View, name string) (*state.Member, error) {
	m, ok := view.MemberByName(name)
	switch {
	case !ok:
		return nil, api.Errorf(api.MemberNotFound, "Cluster member not found")
	case m.ID == s.cfg.Store.ID():
		return nil, nil
	case c.caller.forwarded:
		return nil, api.Errorf(api.Unavailable, "Request for cluster member %q was forwarded to the wrong member", name)
	case m.Offline:
		return nil, api.Errorf(api.MemberOffline, "Cluster member %q is offline", name)
	}
	return m, nil
}

// forward lets m answer a call, verbatim. It is told for whom it answers.
func (s *Server) forward(c *call, m *state.Member) reply {
	return reply{serve: func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), forwardTimeout)
		defer cancel()
		s.proxy(c, m).ServeHTTP(w, r.WithContext(ctx))
	}}
}

// forwardPatiently is forward for an answer that takes as long as the caller wants to
// wait, but no longer than this server lives and trusts the caller.
func (s *Server) forwardPatiently(c *call, m *state.Member) reply {
	return reply{serve: func(w http.ResponseWriter, r *http.Request) {
		leave, err := s.stream()
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer leave()
		ctx, cancel := s.untilClosed(r.Context())
		defer cancel()
		ctx, distrust := s.whileTrusted(ctx, &c.caller)
		defer distrust()
		s.proxy(c, m).ServeHTTP(w, r.WithContext(ctx))
	}}
}

func (s *Server) proxy(c *call, m *state.Member) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     s.cfg.Peer(m),
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "https", Host: m.Address})
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			p.Out.Header.Set(headerForwardedAddress, c.caller.address)
			p.Out.Header.Set(headerForwardedUsername, c.caller.username)
			p.Out.Header.Set(headerForwardedProtocol, c.caller.toldProtocol())
			p.Out.Header.Set(headerForwardedHost, p.In.Host)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.fail(w, r, unreachable(m, err))
		},
	}
}

// unreachable is what a caller is told about a member that should have answered.
func unreachable(m *state.Member, err error) error {
	return api.Errorf(api.MemberOffline, "Cluster member %q does not answer: %v", m.Name, err)
}

// online lists the members besides this one that are not known to be offline.
func (s *Server) online(view *raftstore.View) []*state.Member {
	if !view.Cluster().Enabled {
		return nil
	}
	own := s.cfg.Store.ID()
	var others []*state.Member
	for _, m := range view.Members() {
		if m.ID != own && !m.Offline {
			others = append(others, m)
		}
	}
	return others
}

// askAll gets path from all members at the same time and returns what came back, by
// member, within askTimeout. Members that do not answer are left out: a list without
// theirs is better than none.
func askAll[T any](ctx context.Context, s *Server, members []*state.Member, path string) map[*state.Member]T {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := make(map[*state.Member]T)
	for _, m := range members {
		wg.Go(func() {
			answer, err := ask[T](ctx, s.cfg.Peer(m), m.Address, path)
			if err != nil {
				s.cfg.Log.Debug("member did not answer", slog.String("member", m.Name), slog.Any("err", err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[m] = answer
		})
	}
	wg.Wait()
	return answers
}

// ask gets one member's own part of an answer.
func ask[T any](ctx context.Context, peer http.RoundTripper, address, path string) (answer T, err error) {
	return exchange[T](ctx, peer, http.MethodGet, address, path, nil)
}

// exchange sends one request to a member, in the name of this one.
func exchange[T any](ctx context.Context, peer http.RoundTripper, method, address, path string, body []byte) (answer T, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("User-Agent", agentNotifier)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := peer.RoundTrip(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&envelope); err != nil {
		return answer, fmt.Errorf("answer to %s: %w", path, err)
	}
	if envelope.Type != api.SyncResponse {
		return answer, fmt.Errorf("answer to %s: %s", path, envelope.Error)
	}
	if err := json.Unmarshal(envelope.Metadata, &answer); err != nil {
		return answer, fmt.Errorf("answer to %s: %w", path, err)
	}
	return answer, nil
}

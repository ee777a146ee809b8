package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/events"
)

const (
	// pingInterval is how often a listener is asked whether it is there. Upstream's
	// client gives a connection up that was silent for 30 s.
	pingInterval = 10 * time.Second
	// pongTimeout is how long it may take to answer: two more pings.
	pongTimeout = 2 * pingInterval
	// goodbyeTimeout is how long a listener may take to answer the end of a connection.
	goodbyeTimeout = time.Second
	// eventTimeout is how long one event may take to be written.
	eventTimeout = 5 * time.Second
)

// eventTypes tells, for each type of events, who may listen to it. Those about access
// lists are never sent, but clients may ask for them.
var eventTypes = map[string]Callers{
	api.EventLogging:   administrators,
	api.EventOperation: trusted,
	api.EventLifecycle: trusted,
	"network-acl":      administrators,
}

// eventsGet sends events as they happen, over a WebSocket: GET /1.0/events.
func (s *Server) eventsGet(c *call) (reply, error) {
	scope, err := c.projects()
	if err != nil {
		return reply{}, err
	}
	if view := s.cfg.Store.Local(); view != nil && !scope.all {
		if _, ok := view.Project(scope.name); !ok {
			return reply{}, api.Errorf(api.NotFound, "Project not found")
		}
	}
	types, err := wantedEvents(c)
	if err != nil {
		return reply{}, err
	}
	if err := s.checkUpgrade(c.Request); err != nil {
		return reply{}, err
	}
	return reply{serve: func(w http.ResponseWriter, r *http.Request) {
		leave, err := s.stream()
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer leave()
		// First the subscription, then the upgrade: who is connected misses nothing.
		subscription := s.cfg.Events.Subscribe(types, scope.name, scope.all)
		defer subscription.Close()
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the origin was checked
		if err != nil {
			s.cfg.Log.Debug("event listener failed", slog.String("address", c.caller.address), slog.Any("err", err))
			return // Accept has answered
		}
		err = s.sendEvents(r.Context(), conn, subscription, &c.caller)
		s.cfg.Log.Debug("event listener left", slog.String("address", c.caller.address), slog.Any("err", err))
	}}, nil
}

// wantedEvents is the type= of a request, or all types that the caller may see.
func wantedEvents(c *call) ([]string, error) {
	text := c.param("type")
	if text == "" {
		var all []string
		for kind, who := range eventTypes {
			if who&c.caller.kind != 0 {
				all = append(all, kind)
			}
		}
		slices.Sort(all)
		return all, nil
	}
	types := strings.Split(text, ",")
	for _, kind := range types {
		who, ok := eventTypes[kind]
		if !ok {
			return nil, api.Errorf(api.BadRequest, "%q isn't a supported event type", kind)
		}
		if who&c.caller.kind == 0 {
			return nil, api.Errorf(api.NotAuthorized, "Certificate is restricted")
		}
	}
	return types, nil
}

// checkUpgrade refuses what websocket.Accept would, which knows no envelopes, and over
// HTTP/2 breaks the stream.
func (s *Server) checkUpgrade(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	if r.ProtoMajor != 1 || r.Method != http.MethodGet || !hasToken(r.Header, "Connection", "Upgrade") || !hasToken(r.Header, "Upgrade", "websocket") ||
		r.Header.Get("Sec-WebSocket-Version") != "13" || err != nil || len(key) != 16 {
		return api.Errorf(api.BadRequest, "Events are sent over a WebSocket: the request must be an upgrade by HTTP/1.1, version 13")
	}
	if origin := r.Header.Get("Origin"); origin != "" && !s.allowsListener(origin, r.Host) {
		return api.Errorf(api.NotAuthorized, "Pages of origin %q may not listen to events", origin).
			WithHint("allow it: incus config set core.https_allowed_websocket_origin=ORIGIN")
	}
	return nil
}

// hasToken tells whether a header, which is a list, has a token.
func hasToken(h http.Header, key, token string) bool {
	for _, line := range h.Values(key) {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// allowsListener tells whether pages of an origin may open a WebSocket: those of this
// host, and those that the configuration names, by host or by scheme and host, with
// wildcards as in path.Match.
func (s *Server) allowsListener(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	if strings.EqualFold(u.Host, host) {
		return true
	}
	list := config.Get(s.settings(), "core.https_allowed_websocket_origin")
	patterns := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		target := u.Host
		if strings.Contains(pattern, "://") {
			target = u.Scheme + "://" + u.Host
		}
		matched, err := path.Match(strings.ToLower(pattern), strings.ToLower(target))
		return err == nil && matched
	})
}

// sendEvents sends what is published until the listener leaves, is too slow or no
// longer trusted, or the server closes.
func (s *Server) sendEvents(ctx context.Context, conn *websocket.Conn, subscription *events.Subscription, listener *caller) error {
	defer conn.CloseNow()
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	ctx, cancel := context.WithCancelCause(conn.CloseRead(ctx))
	defer cancel(nil)
	pinged := make(chan struct{})
	go func() {
		defer close(pinged)
		cancel(keepAlive(ctx, conn))
	}()
	defer func() { cancel(nil); <-pinged }()

	recheck := time.NewTicker(pingInterval) // certificates end by the clock, too
	defer recheck.Stop()
	for {
		view := s.cfg.Store.Local()
		if !listener.staysAs(view, s.cfg.Now()) {
			return goodbye(conn, hangUp, websocket.StatusPolicyViolation, "not authorized any more")
		}
		select {
		case e, open := <-subscription.C():
			if !open {
				return goodbye(conn, hangUp, websocket.StatusPolicyViolation, "too slow: more than 1000 events were waiting")
			}
			if !listener.mayHear(e) {
				continue
			}
			// It may have waited in the queue longer than the rights of the listener have lasted.
			if !listener.staysAs(s.cfg.Store.Local(), s.cfg.Now()) {
				return goodbye(conn, hangUp, websocket.StatusPolicyViolation, "not authorized any more")
			}
			if err := send(ctx, conn, e); err != nil {
				return err
			}
		case <-view.WatchMembers(): // it watches certificates, too
		case <-recheck.C:
		case <-s.closing.Done():
			return goodbye(conn, hangUp, websocket.StatusGoingAway, "Incus is shutting down")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// goodbye tells a listener why the connection ends. One that does not answer is not
// waited for: hangUp ends the connection under it.
func goodbye(conn *websocket.Conn, hangUp func(), code websocket.StatusCode, why string) error {
	impatience := time.AfterFunc(goodbyeTimeout, hangUp)
	defer impatience.Stop()
	return conn.Close(code, why)
}

// keepAlive pings the listener until it does not answer or ctx ends.
func keepAlive(ctx context.Context, conn *websocket.Conn) error {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			ping, cancel := context.WithTimeout(ctx, pongTimeout)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func send(ctx context.Context, conn *websocket.Conn, e api.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, data)
}

// mayHear tells whether the caller may hear of an event. Who is no administrator hears what happens to
// its projects and in them. The default project has the events of the cluster, too, and the operations of
// tokens: what cannot be read, or is of no project, is better not told.
func (c *caller) mayHear(e api.Event) bool {
	if c.admin() {
		return true
	}
	if e.Type != api.EventLifecycle || c.mayUse(e.Project) != nil {
		return false
	}
	var info struct{ Source string }
	err := json.Unmarshal(e.Metadata, &info)
	return err == nil && isOfProject(info.Source)
}

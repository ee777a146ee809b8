package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"golang.org/x/time/rate"

	"incusd/api"
	"incusd/internal/config"
)

const (
	// callTimeout bounds every call but the patient ones. It leaves room for a change of
	// leader and its retries; clients see an answer rather than a hanging connection.
	callTimeout = 10 * time.Second
	// lengthyTimeout bounds calls that wait until members have made something. It leaves room
	// for their answer below the client's own limit, a minute.
	lengthyTimeout = 50 * time.Second
	// readTimeout bounds the wait for a leader in ordinary reads: 503 then.
	readTimeout = 3 * time.Second
	// answerTimeout bounds how long a client may take to read an answer that is not a stream.
	answerTimeout = 30 * time.Second
	// startTimeout bounds the wait of a call that came while the daemon starts.
	startTimeout = 10 * time.Second
)

// A Server answers the REST API. New makes one; its methods may be called from any
// goroutine.
type Server struct {
	cfg      Config
	limits   *limits
	bodyTime time.Duration  // how long a body may take
	readTime time.Duration  // how long a client may take to read an answer
	refusals rate.Sometimes // log lines about strangers
	forming  atomic.Bool    // a bootstrap or join runs
	relay    relay

	begun   time.Time
	closing context.Context // ends with Close, and streams with it
	close   context.CancelFunc
	mu      sync.Mutex // guards streams against an Add after the Wait of Close
	streams sync.WaitGroup
}

// New returns a server that works with cfg.
func New(cfg Config) *Server {
	closing, closeStreams := context.WithCancel(context.Background())
	return &Server{
		cfg:      cfg,
		limits:   newLimits(),
		bodyTime: callTimeout,
		readTime: answerTimeout,
		refusals: rate.Sometimes{First: 20, Interval: 10 * time.Second},
		begun:    time.Now(),
		closing:  closing, close: closeStreams,
	}
}

// Close ends event streams and waiting calls, and waits until they have ended.
// http.Server.Shutdown knows nothing of them: call Close first.
func (s *Server) Close() {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	s.streams.Wait()
}

// stream makes Close wait until leave is called. The stream must end with s.closing.
func (s *Server) stream() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return nil, api.Errorf(api.ShuttingDown, "Incus is shutting down")
	}
	s.streams.Add(1)
	return s.streams.Done, nil
}

// untilClosed is ctx, but ends with the server.
func (s *Server) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// Handler answers what comes in by listeners of one kind.
func (s *Server) Handler(listener ListenerKind) http.Handler { return s.router(listener, Routes()) }

// MetricsHandler answers what comes in by the listener of core.metrics_address.
func (s *Server) MetricsHandler() http.Handler { return s.router(TLSListener, metricsRoutes()) }

func (s *Server) router(listener ListenerKind, routes []Route) http.Handler {
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	endpoints := make(map[string]*endpoint)
	for _, route := range routes {
		e, ok := endpoints[route.Path]
		if !ok {
			e = &endpoint{server: s, listener: listener, routes: make(map[string]*Route)}
			endpoints[route.Path] = e
			router.Handle(route.Path, e)
		}
		e.routes[route.Method] = &route
	}
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, api.Errorf(api.NotFound, "not found"))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.limitBody(w, r)
		s.allowOrigin(w, r)
		if r.Method == http.MethodOptions {
			return // 200 for every path: the headers are the answer
		}
		router.ServeHTTP(w, r)
	})
}

// An endpoint is all routes of one path.
type endpoint struct {
	server   *Server
	listener ListenerKind
	routes   map[string]*Route // by method
}

// ServeHTTP is the one place where answers are written and failures are logged.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rep, err := e.answer(w, r)
	if rep.serve == nil {
		e.server.limitAnswer(w)
	}
	if err == nil {
		err = rep.write(w, r)
	}
	if err != nil {
		e.server.fail(w, r, err)
	}
}

// answer takes a request through all that stands before its handler.
func (e *endpoint) answer(w http.ResponseWriter, r *http.Request) (reply, error) {
	s := e.server
	if err := sameSite(r); err != nil {
		return reply{}, err
	}
	route, err := e.route(r.Method)
	if err != nil {
		return reply{}, err
	}
	if err := s.takesWork(route, r); err != nil {
		return reply{}, err
	}
	who, err := s.authenticate(r, e.listener)
	if err != nil {
		return reply{}, err
	}
	if who.kind != Stranger {
		recognized(r.Context())
	}
	if err := route.authorize(r, &who); err != nil {
		return reply{}, err
	}
	s.cfg.Log.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("caller", who.kind.String()))
	if route.Scope == streaming {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(transferTime))
	} else if err := s.readBody(w, r, &who); err != nil {
		return reply{}, err
	}
	c := &call{Request: r, caller: who, vars: mux.Vars(r), query: r.URL.Query()}
	if err := s.confine(route, c); err != nil {
		return reply{}, err
	}
	return s.dispatch(route, c)
}

// dispatch lets the right member answer, in bounded time.
func (s *Server) dispatch(route *Route, c *call) (reply, error) {
	// Only who is known can be vouched for to another member.
	if route.Scope == thisMember && c.caller.kind&trusted != 0 {
		if m, err := s.target(c); m != nil || err != nil {
			return s.forward(c, m), err
		}
	}
	if route.Scope != patient && route.Scope != streaming {
		limit := callTimeout
		if route.Scope == lengthy {
			limit = lengthyTimeout
		}
		ctx, cancel := context.WithTimeout(c.Context(), limit)
		defer cancel()
		c.Request = c.WithContext(ctx)
	}
	return route.handle(s, c)
}

// route finds the route of a method. HEAD is a GET whose body net/http leaves out.
func (e *endpoint) route(method string) (*Route, error) {
	if !methods[method] {
		return nil, api.Errorf(api.NotFound, "Method %q not found", method)
	}
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if route, ok := e.routes[method]; ok {
		return route, nil
	}
	return nil, api.Errorf(api.NotImplemented, "not implemented")
}

// sameSite refuses what a browser sends on behalf of somebody else's page.
func sameSite(r *http.Request) error {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return api.Errorf(api.NotAuthorized, "Forbidden Sec-Fetch-Site header value")
	}
	return nil
}

// allowOrigin sets the headers that the configuration gives to pages of other origins.
func (s *Server) allowOrigin(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") == "" || strings.HasPrefix(r.URL.Path, "/internal") {
		return
	}
	view := s.cfg.Store.Local()
	if view == nil {
		return
	}
	settings := s.cfg.Settings.Effective(view)
	for key, header := range map[string]string{
		"core.https_allowed_origin":  "Access-Control-Allow-Origin",
		"core.https_allowed_methods": "Access-Control-Allow-Methods",
		"core.https_allowed_headers": "Access-Control-Allow-Headers",
	} {
		if value := config.Get(settings, key); value != "" {
			w.Header().Set(header, value)
		}
	}
	if config.GetBool(settings, "core.https_allowed_credentials") {
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}
}

// takesWork refuses what must not begin any more, and lets what comes too early wait.
func (s *Server) takesWork(route *Route, r *http.Request) error {
	if route.Who == local || route.Path == pathReport {
		return nil // ready, shutdown and a report are about just that
	}
	if s.cfg.Daemon.Stopping() && !answersWhileStopping(route) {
		return api.Errorf(api.ShuttingDown, "Incus is shutting down")
	}
	select {
	case <-s.cfg.Daemon.Started():
		return nil
	default:
	}
	if r.UserAgent() == agentNotifier {
		return api.Errorf(api.Unavailable, "Daemon is starting up")
	}
	return await(r.Context(), s.cfg.Daemon.Started(), "Daemon is starting up")
}

// answersWhileStopping tells whether a call is harmless, or needed to see the end.
func answersWhileStopping(route *Route) bool {
	return route.Method == http.MethodGet || route.Path == "/1.0" ||
		strings.HasPrefix(route.Path, "/1.0/operations") || strings.HasPrefix(route.Path, "/internal/")
}

// await waits for done, but not for ever; text says what was waited for.
func await(ctx context.Context, done <-chan struct{}, text string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.Unavailable, "%s", text)
	}
}

// fail answers with err and logs it, once.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	refusal := refusalOf(err)
	level := failureLevel(refusal)
	if r.URL.Path == "/internal/ready" {
		level = slog.LevelDebug // it is asked until the answer is yes
	}
	line := func() {
		s.cfg.Log.LogAttrs(r.Context(), level, "request failed", slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.String("address", hostOf(r.RemoteAddr)), slog.String("reason", string(refusal.Reason)),
			slog.Any("err", err))
	}
	if refusal.Reason == api.NotAuthorized {
		s.refusals.Do(line) // a port scan must not fill the disk
	} else {
		line()
	}
	if err := writeError(w, err); err != nil {
		s.cfg.Log.Error("error could not be written", slog.Any("err", err))
	}
}

// failureLevel is how much a refusal matters to who runs this server: their own
// mistakes are shown to them, so that only what is wrong with the server stands out.
func failureLevel(e *api.Error) slog.Level {
	switch {
	case e.Reason == api.NotAuthorized, e.Status() == http.StatusServiceUnavailable, e.Status() == http.StatusGatewayTimeout:
		return slog.LevelWarn
	case e.Status() >= http.StatusInternalServerError && e.Status() != http.StatusNotImplemented:
		return slog.LevelError
	}
	return slog.LevelDebug
}

// Package clienttest is a server for tests of what talks to the REST API: it
// listens on a unix socket, answers as it was told, and remembers what it was asked.
package clienttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"incusd/api"
)

// A Server answers scripted replies. What has none is not found.
type Server struct {
	// Dir is the state directory, with the socket unix.socket in it.
	Dir string

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	requests []Request
	events   []*websocket.Conn
	noEvents bool
}

// A Request is one that the server got.
type Request struct {
	// Line is method and path, with the query.
	Line    string
	Body    string
	IfMatch string
	Agent   string
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	// Not t.TempDir: the path of a socket may have only 107 bytes.
	dir, err := os.MkdirTemp("", "incus")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, handlers: make(map[string]http.HandlerFunc)}
	listener, err := net.Listen("unix", s.Socket())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		s.DropEvents()
		server.Close()
		os.RemoveAll(dir)
	})
	return s
}

// ServeTLS lets the server be reached over HTTPS, too, with the certificate pair, until the test
// ends. It returns the address, host:port.
func (s *Server) ServeTLS(t testing.TB, pair tls.Certificate) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that turn away
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// Socket is the path of the unix socket.
func (s *Server) Socket() string { return filepath.Join(s.Dir, "unix.socket") }

// Handle lets h answer requests for "METHOD /path", whatever their query.
func (s *Server) Handle(route string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[route] = h
}

// Reply answers route with metadata.
func (s *Server) Reply(route string, metadata any) {
	s.Handle(route, func(w http.ResponseWriter, _ *http.Request) { Sync(w, metadata) })
}

// ReplyAsync answers route with the operation op, and requests for op with op.
func (s *Server) ReplyAsync(route string, op api.Operation) {
	s.Handle(route, func(w http.ResponseWriter, _ *http.Request) { Async(w, op) })
	s.Reply("GET /1.0/operations/"+op.ID, op)
}

// Refuse answers route with an error envelope; details may be nil.
func (s *Server) Refuse(route string, code int, text string, details any) {
	s.Handle(route, func(w http.ResponseWriter, _ *http.Request) { Error(w, code, text, details) })
}

// RefuseEvents makes the server have no event stream.
func (s *Server) RefuseEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noEvents = true
}

// Requests returns what the server was asked so far, without event streams. (Whoever handles
// "GET /1.0/events" notes them.)
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Lines returns the methods and paths of Requests.
func (s *Server) Lines() []string {
	lines := []string{}
	for _, r := range s.Requests() {
		lines = append(lines, r.Line)
	}
	return lines
}

// Publish sends an operation to all who follow events.
func (s *Server) Publish(op api.Operation) {
	metadata, err := json.Marshal(op)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.events {
		// A follower that is gone needs no event.
		_ = wsjson.Write(context.Background(), conn, api.Event{Type: api.EventOperation, Metadata: metadata})
	}
}

// DropEvents breaks all event streams.
func (s *Server) DropEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.events {
		conn.CloseNow()
	}
	s.events = nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	events := s.handlers["GET /1.0/events"]
	s.mu.Unlock()
	switch {
	case r.URL.Path == "/1.0/events" && events == nil:
		s.serveEvents(w, r)
		return
	case r.URL.Path == "/1.0/events":
		events(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		Error(w, http.StatusBadRequest, err.Error(), nil)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body)) // for the handler
	s.mu.Lock()
	s.requests = append(s.requests, Request{r.Method + " " + r.URL.RequestURI(), string(body), r.Header.Get("If-Match"), r.UserAgent()})
	h := s.handlers[r.Method+" "+r.URL.Path]
	s.mu.Unlock()
	if h == nil {
		Error(w, http.StatusNotFound, "not found", nil)
		return
	}
	h(w, r)
}

func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noEvents {
		Error(w, http.StatusForbidden, "not authorized", nil)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	s.events = append(s.events, conn)
}

// Sync writes a synchronous answer.
func Sync(w http.ResponseWriter, metadata any) {
	write(w, http.StatusOK, api.Response{Type: api.SyncResponse, Status: "Success", StatusCode: 200}, metadata)
}

// Async writes an answer that announces op.
func Async(w http.ResponseWriter, op api.Operation) {
	write(w, http.StatusAccepted, api.Response{
		Type: api.AsyncResponse, Status: "Operation created", StatusCode: 100, Operation: "/1.0/operations/" + op.ID,
	}, op)
}

// Error writes a refusal.
func Error(w http.ResponseWriter, code int, text string, details any) {
	write(w, code, api.Response{Type: api.ErrorResponse, Code: code, Error: text}, details)
}

func write(w http.ResponseWriter, status int, r api.Response, metadata any) {
	data, err := json.Marshal(metadata)
	if err != nil {
		panic(err)
	}
	r.Metadata = data
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(r) // a client that is gone needs no answer
}

package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"incusd/api"
)

const (
	// maxBody is the largest request body, in bytes (rest-basics.md §1).
	maxBody = 1 << 20
	// maxStrangersBody is that of callers who are not trusted yet: a token and a
	// certificate take a few KiB.
	maxStrangersBody = 64 << 10
)

// limitAnswer gives a client its time to read an answer.
func (s *Server) limitAnswer(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.readTime))
}

// limitBody gives the body of a request its time. Whoever reads it, and be it net/http
// that throws away what nobody wanted, does not wait longer.
func (s *Server) limitBody(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // the last answer's is over
	if r.Body == nil || r.Body == http.NoBody {
		return // a limit would end the connection that events are sent over
	}
	// Not all that tests use for w knows time.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyTime))
}

// readBody reads all of a request's body, before anything is done for the caller. Then
// its time is over: a call may take longer than its body did.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, who *caller) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	limit := int64(maxBody)
	var body io.Reader = r.Body
	if who.kind&trusted == 0 {
		limit = maxStrangersBody
		counted := s.limits.bodies.reader(r.Body, Source(who.address))
		defer counted.release() // what is kept from here on is small
		body = counted
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, io.NopCloser(body), limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return api.Errorf(api.TooLarge, "Request body is larger than %d bytes", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return api.Errorf(api.Timeout, "Request body did not come within %s", s.bodyTime).WithCode(http.StatusRequestTimeout)
	case errors.Is(err, errTooManyBodies):
		return api.Errorf(api.TooMany, "Too many request bodies at once")
	case err != nil:
		return api.Errorf(api.BadRequest, "Request body: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return nil
}

// How many bytes of bodies are in memory while they arrive, from those who are not
// trusted yet: of one source, and in all.
const (
	sourceBodies = 8 << 20
	allBodies    = 64 << 20
)

var errTooManyBodies = errors.New("too many bytes of request bodies at once")

// bodies counts the bytes of request bodies that are arriving. Connections and streams
// are cheap to open: without it, their number times the size of a body is what a
// stranger could make this server hold.
type bodies struct {
	ofOne, ofAll int

	mu     sync.Mutex
	all    int
	source map[string]int
}

func newBodies() *bodies {
	return &bodies{ofOne: sourceBodies, ofAll: allBodies, source: make(map[string]int)}
}

func (b *bodies) reader(r io.Reader, source string) *countedBody {
	return &countedBody{r: r, of: b, source: source}
}

func (b *bodies) add(source string, n int) (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all += n
	if b.source[source] += n; b.source[source] == 0 {
		delete(b.source, source)
	}
	return b.source[source] <= b.ofOne && b.all <= b.ofAll
}

// A countedBody is a body whose bytes count until release.
type countedBody struct {
	r      io.Reader
	of     *bodies
	source string
	n      int
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	if !c.of.add(c.source, n) {
		return 0, errTooManyBodies
	}
	return n, err
}

func (c *countedBody) release() { c.of.add(c.source, -c.n) }

package daemon

import (
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	restapi "incusd/internal/api"
)

// arrive counts a new connection from a source and returns it, and whom it drove out.
func arrive(l *crowdLimit, from string) (came, gone *guest) {
	came = &guest{Conn: noConn{}, crowd: l, from: from}
	return came, l.enter(came)
}

type noConn struct{ net.Conn }

func (noConn) Close() error { return nil }

func smallCrowd(strangers, ofOneSource int) *crowdLimit {
	l := newCrowdLimit(nil)
	l.strangers, l.known, l.ofOneSource = strangers, strangers, ofOneSource
	return l
}

func TestTheOldestStrangerOfACrowdedSourceHasToGo(t *testing.T) {
	l := smallCrowd(10, 2)
	first, _ := arrive(l, "a")
	second, _ := arrive(l, "a")
	if _, gone := arrive(l, "b"); gone != nil {
		t.Errorf("%s had to go for somebody from elsewhere", gone.from)
	}
	if _, gone := arrive(l, "a"); gone != first {
		t.Errorf("%v had to go", gone)
	}
	second.Recognized()
	if _, gone := arrive(l, "a"); gone != nil {
		t.Errorf("%v had to go, and one of the two was recognized", gone)
	}
}

func TestACrowdFromOneSourceDrivesOutItsOwn(t *testing.T) {
	l := smallCrowd(4, 4)
	quiet, _ := arrive(l, "quiet")
	var loud []*guest
	for range 20 {
		came, gone := arrive(l, "loud")
		loud = append(loud, came)
		if gone == quiet {
			t.Fatal("the only one from elsewhere had to go")
		}
	}
	late, gone := arrive(l, "late")
	if gone == nil || gone.from != "loud" || l.strangersNow != 4 {
		t.Errorf("%v had to go for one from elsewhere; %d are there", gone, l.strangersNow)
	}
	for _, g := range slices.Concat(loud, []*guest{quiet, late}) {
		g.Close()
		g.Close() // leaves once
	}
	if l.strangersNow != 0 || l.knownNow != 0 || len(l.sources) != 0 {
		t.Errorf("%d and %d are counted, by source %v", l.strangersNow, l.knownNow, l.sources)
	}
}

func TestTheKnownAreNeverDrivenOut(t *testing.T) {
	l := smallCrowd(3, 3)
	var known []*guest
	for i := range 3 {
		g, _ := arrive(l, fmt.Sprint(i))
		g.Recognized()
		g.Recognized()
		known = append(known, g)
	}
	extra, _ := arrive(l, "x")
	extra.Recognized() // there is no room among the known
	for range 50 {
		if _, gone := arrive(l, "y"); gone != nil && slices.Contains(known, gone) {
			t.Fatal("a known one had to go")
		}
	}
	if l.knownNow != 3 || l.strangersNow != 3 {
		t.Errorf("%d known and %d strangers", l.knownNow, l.strangersNow)
	}
	known[0].Close()
	if l.knownNow != 2 {
		t.Errorf("%d known ones after one has left", l.knownNow)
	}
}

func TestListenerHangsUpOnTheOldest(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	crowd := newCrowdLimit(ln)
	crowd.ofOneSource = 1
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := crowd.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	first := dial()
	<-accepted
	dial()
	second := <-accepted
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the first: %v", err)
	}
	if _, err := second.Write([]byte("x")); err != nil {
		t.Errorf("the second: %v", err)
	}
}

// Who comes through a proxy is counted with it, and recognized like everybody else.
func TestWhoComesThroughAProxyIsRecognized(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	crowd := newCrowdLimit(ln)
	behind := behindProxies(crowd, func() string { return "127.0.0.1" })
	defer behind.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := behind.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := conn.(proxiedConn); !ok {
		t.Fatalf("the proxy's connection is a %T", conn)
	}
	conn.(restapi.Guest).Recognized()
	if crowd.knownNow != 1 || crowd.strangersNow != 0 {
		t.Errorf("%d known, %d strangers", crowd.knownNow, crowd.strangersNow)
	}
}

package daemon

import (
	"io"
	"net"
	"testing"
)

func TestListenerHangsUpOnACrowd(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	crowd := newCrowdLimit(ln)
	crowd.limitOfOne = 2
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
	dial()
	first := <-accepted
	dial()
	second := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the third: %v", err)
	}
	first.Close()
	first.Close() // leaves once
	dial()
	third := <-accepted
	if crowd.all != 2 {
		t.Errorf("%d are counted", crowd.all)
	}
	second.Close()
	third.Close()
	if crowd.all != 0 || len(crowd.source) != 0 {
		t.Errorf("%d are counted, by source %v", crowd.all, crowd.source)
	}
}

func TestListenerIsFullForAll(t *testing.T) {
	crowd := newCrowdLimit(nil)
	crowd.limit = 2
	if !crowd.enter("a") || !crowd.enter("b") || crowd.enter("c") {
		t.Error("not two")
	}
	crowd.leave("a")
	if !crowd.enter("c") {
		t.Error("there was room")
	}
}

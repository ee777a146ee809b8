package client_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/client"
	"incusd/client/clienttest"
	"incusd/endorsement"
)

// served is a server that answers GET /1.0 over HTTPS with pair.
func served(t *testing.T, pair tls.Certificate) (*clienttest.Server, string) {
	t.Helper()
	server := clienttest.New(t)
	server.Reply("GET /1.0", api.Server{})
	return server, server.ServeTLS(t, pair)
}

// connectLimit is how long one address may take.
const connectLimit = 5 * time.Second

// ask sends one request to a remote.
func ask(t *testing.T, r client.Remote) error {
	t.Helper()
	r.Name = "prod"
	c := r.Client(client.Options{})
	t.Cleanup(c.Close)
	_, _, err := c.Server(t.Context())
	return err
}

func TestRemoteIsJudgedByItsPinOrAnAuthority(t *testing.T) {
	pinned := clienttest.Pair(t, nil)
	other := clienttest.Pair(t, nil)
	expired := clienttest.Pair(t, func(c *x509.Certificate) *tls.Certificate {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		return nil
	})
	signed := func(name string) tls.Certificate {
		return clienttest.Pair(t, func(c *x509.Certificate) *tls.Certificate {
			c.DNSNames = []string{name}
			return &pinned
		})
	}
	successor, stranger := signed("server1"), signed("server9")
	authority := clienttest.Pair(t, func(c *x509.Certificate) *tls.Certificate {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		return nil
	})
	public := clienttest.Pair(t, func(c *x509.Certificate) *tls.Certificate {
		c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)}
		return &authority
	})
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	for _, tt := range []struct {
		name   string
		shows  tls.Certificate
		remote client.Remote
		want   string // part of the error
	}{
		{"the pinned one", pinned, client.Remote{Pinned: pinned.Leaf}, ""},
		{"the pinned one, expired", expired, client.Remote{Pinned: expired.Leaf}, ""},
		{"another one", other, client.Remote{Pinned: pinned.Leaf}, "shows certificate " + client.Fingerprint(other.Leaf) + " instead of " + client.Fingerprint(pinned.Leaf)},
		{"the one that it will have", other, client.Remote{Pinned: pinned.Leaf, Successor: other.Leaf}, ""},
		{"not the one that it will have", other, client.Remote{Pinned: pinned.Leaf, Successor: expired.Leaf}, "shows certificate"},
		{"one that the pinned key signed", successor, client.Remote{Pinned: pinned.Leaf}, ""},
		{"one that the pinned key signed for another name", stranger, client.Remote{Pinned: pinned.Leaf}, "shows certificate"},
		{"one that an authority signed", public, client.Remote{Roots: roots}, ""},
		{"one that an authority signed, which the user does not know", public, client.Remote{}, "which nobody vouches for (x509: certificate signed by unknown authority"},
		{"one that nobody signed", other, client.Remote{}, "which nobody vouches for"},
		{"one that an authority signed for another name", successor, client.Remote{Roots: roots}, "which nobody vouches for"},
		{"the one that a token names", other, client.Remote{Fingerprint: strings.ToUpper(client.Fingerprint(other.Leaf))}, ""},
		{"not the one that a token names, although an authority signed it", public, client.Remote{Fingerprint: client.Fingerprint(other.Leaf), Roots: roots}, "instead of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, address := served(t, tt.shows)
			tt.remote.Addresses = []string{address}
			err := ask(t, tt.remote)
			if tt.want == "" {
				if err != nil || len(server.Lines()) != 1 {
					t.Errorf("%v, asked %q", err, server.Lines())
				}
				return
			}
			shown := client.Untrusted(err)
			if !errors.Is(err, api.FingerprintMatch) || !strings.Contains(err.Error(), tt.want) || len(shown) != 1 || !shown[0].Cert.Equal(tt.shows.Leaf) || shown[0].Address != address {
				t.Errorf("got %v", err)
			}
			if len(server.Lines()) > 0 {
				t.Errorf("the server was asked %q", server.Lines())
			}
		})
	}
}

// endorsed is next with the endorsement by old sent along.
func endorsed(t *testing.T, old, next tls.Certificate) tls.Certificate {
	t.Helper()
	e, err := endorsement.Sign(old.Leaf, old.PrivateKey, next.Leaf, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	next.Certificate = [][]byte{next.Certificate[0], e.Raw, old.Certificate[0]}
	return next
}

func TestReplacedCertificateIsFollowedAndTold(t *testing.T) {
	old, next := clienttest.Pair(t, nil), clienttest.Pair(t, nil)
	_, address := served(t, endorsed(t, old, next))
	for name, r := range map[string]client.Remote{
		"pinned":       {Pinned: old.Leaf},
		"from a token": {Fingerprint: client.Fingerprint(old.Leaf)},
		"up to date":   {Pinned: next.Leaf},
		"foreign":      {Pinned: clienttest.Pair(t, nil).Leaf},
	} {
		var told []*x509.Certificate
		r.Addresses, r.Moved = []string{address}, func(next *x509.Certificate) { told = append(told, next) }
		err := ask(t, r)
		if (err != nil) != (name == "foreign") || len(told) != map[string]int{"pinned": 1}[name] || len(told) > 0 && !told[0].Equal(next.Leaf) {
			t.Errorf("%s: %v, told of %d", name, err, len(told))
		}
	}
}

// Whoever sits in between can show any certificate. Without the key that goes with it nothing is
// believed, and nothing is told that would be written down.
func TestNothingIsToldBeforeTheKeyIsProved(t *testing.T) {
	old, thief := clienttest.Pair(t, nil), clienttest.Pair(t, nil)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "forged"}, DNSNames: old.Leaf.DNSNames, NotAfter: time.Now().Add(time.Hour)}
	forged, err := x509.CreateCertificate(rand.Reader, template, thief.Leaf, old.Leaf.PublicKey, thief.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	_, address := served(t, tls.Certificate{Certificate: [][]byte{forged, old.Certificate[0]}, PrivateKey: thief.PrivateKey})
	r := client.Remote{Addresses: []string{address}, Pinned: old.Leaf, Moved: func(next *x509.Certificate) {
		t.Errorf("told of %s", next.Subject)
	}}
	if err := ask(t, r); err == nil {
		t.Error("it was asked")
	}
}

func TestServersNameIsThatOfThePin(t *testing.T) {
	pair := clienttest.Pair(t, nil)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	name := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if conn.(*tls.Conn).Handshake() == nil {
			name <- conn.(*tls.Conn).ConnectionState().ServerName
		}
	}()
	_ = ask(t, client.Remote{Addresses: []string{l.Addr().String()}, Pinned: pair.Leaf}) // it only shakes hands
	if got := <-name; got != "server1" {
		t.Errorf("got %q", got)
	}
}

func TestAddressesAreTriedInTurnAndTheGoodOneIsRemembered(t *testing.T) {
	pair := clienttest.Pair(t, nil)
	dead, foreign := clienttest.Refusing(t), ""
	_, foreign = served(t, clienttest.Pair(t, nil))
	server, good := served(t, pair)
	var mu sync.Mutex
	var dialled, connected []string
	note := func(list *[]string, address string) {
		mu.Lock()
		defer mu.Unlock()
		*list = append(*list, address)
	}
	r := client.Remote{
		Name: "prod", Addresses: []string{dead, foreign, good}, Pinned: pair.Leaf,
		Connected: func(address string, cert *x509.Certificate) {
			if !cert.Equal(pair.Leaf) {
				t.Error("another certificate is told")
			}
			note(&connected, address)
		},
	}
	c := r.Client(client.Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		note(&dialled, address)
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	for range 2 {
		if _, _, err := c.Server(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close() // the next request needs a new connection
	}
	if !slices.Equal(dialled, []string{dead, foreign, good, good}) || !slices.Equal(connected, []string{good, good}) || len(server.Lines()) != 2 {
		t.Errorf("dialled %q, connected to %q, asked %q", dialled, connected, server.Lines())
	}
}

func TestRemoteThatIsNowhereIsNamedWithEachAddress(t *testing.T) {
	one, two := clienttest.Refusing(t), clienttest.Refusing(t)
	var refusal *api.Error
	err := ask(t, client.Remote{Addresses: []string{one, two}})
	want := `Unable to connect to remote "prod": ` + one + ": connect: connection refused; " + two + ": connect: connection refused"
	if !errors.As(err, &refusal) || refusal.Reason != api.Unavailable || err.Error() != want || !strings.Contains(refusal.Hint, "incus remote set-urls prod ADDRESS") {
		t.Errorf("got %v", err)
	}
	// A change that could not be sent has not happened.
	c := client.Remote{Name: "prod", Addresses: []string{one}}.Client(client.Options{})
	if err := c.UpdateServer(t.Context(), api.ServerPut{}, ""); !errors.Is(err, api.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestAddressThatDoesNotAnswerLeavesTimeForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mute := func(ctx context.Context, _, address string) (net.Conn, error) {
			if address == "handshake:1" { // connects, and says nothing
				mine, other := net.Pipe()
				t.Cleanup(func() { mine.Close(); other.Close() })
				go func() { _, _ = other.Read(make([]byte, 1<<12)) }()
				return mine, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		start := time.Now()
		c := client.Remote{Name: "prod", Addresses: []string{"dial:1", "handshake:1"}}.Client(client.Options{Dial: mute})
		_, _, err := c.Server(t.Context())
		if want := `Unable to connect to remote "prod": dial:1: no answer within 5s; handshake:1: no answer within 5s`; err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 2*connectLimit {
			t.Errorf("took %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, _, err := c.Server(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that gave up: %v", err)
		}
		time.Sleep(2 * connectLimit) // HTTP dials on for whoever asks next
	})
}

func TestEventsComeFromTheRemote(t *testing.T) {
	pair := clienttest.Pair(t, nil)
	_, good := served(t, pair)
	c := client.Remote{Name: "prod", Addresses: []string{clienttest.Refusing(t), good}, Pinned: pair.Leaf}.Client(client.Options{})
	events, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events.Close()
}

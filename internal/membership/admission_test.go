package membership

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
	"incusd/internal/trust"
)

// applicantBed is a cluster of one with a token for node2 and a server that wants in.
type applicantBed struct {
	*bed
	admissions *Admissions
	network    prober
	own        *trust.KeyPair
	token      *state.Token
}

// noInventory is of a cluster without pools and networks.
type noInventory struct{}

func (noInventory) MemberConfig(*raftstore.View, string) []api.ClusterMemberConfigKey {
	return []api.ClusterMemberConfigKey{}
}

func (noInventory) JoinEntities(*raftstore.View) []api.JoinEntity { return []api.JoinEntity{} }

func newApplicant(t *testing.T) *applicantBed {
	t.Helper()
	b := newBed(t)
	a := &applicantBed{bed: b, network: make(prober), own: b.newPair()}
	a.network["10.1.0.2:8443"] = a.own.Fingerprint()
	a.admissions = NewAdmissions(b, a.network, b.tokens, noInventory{}, Settings{}, nil, slog.New(slog.NewTextHandler(&b.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	var err error
	if a.token, err = b.tokens.Issue(t.Context(), "node2", nil); err != nil {
		t.Fatal(err)
	}
	b.takeEntries()
	return a
}

func (a *applicantBed) request() JoinRequest {
	return JoinRequest{
		Token: tokens.Text(a.token).String(), Name: "node2", Address: "10.1.0.2:8443", Certificate: string(a.own.CertPEM),
		Architecture: "x86_64", CommandVersion: state.CommandVersion, Time: time.Now(),
	}
}

func (a *applicantBed) claim(t *testing.T) {
	t.Helper()
	if _, err := a.tokens.Claim(t.Context(), tokens.Text(a.token), a.own.Cert, true, nil); err != nil {
		t.Fatal(err)
	}
}

func (a *applicantBed) admitRequest() AdmitRequest {
	return AdmitRequest{ID: newID(), Name: "node2", Address: "10.1.0.2", Architecture: "x86_64", CommandVersion: state.CommandVersion}
}

func reasons(report *JoinReport) []api.Reason {
	out := []api.Reason{}
	for _, p := range report.Problems {
		out = append(out, p.Reason)
	}
	return out
}

func TestPreflightFindsNothingWrong(t *testing.T) {
	a := newApplicant(t)
	report, err := a.admissions.Preflight(t.Context(), "", "192.0.2.1", a.request())
	if err != nil {
		t.Fatal(err)
	}
	if report.Name != "node2" || report.ClusterID != "cluster-1" || len(report.Problems) != 0 {
		t.Errorf("report is %+v", report)
	}
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `"member_config":[],"entities":[],"problems":[]`) {
		t.Errorf("lists are not empty ones: %s", data)
	}
	if entries := a.takeEntries(); len(entries) > 0 {
		t.Errorf("it wrote %q", entries)
	}
}

func TestPreflightReportsAllProblemsAtOnce(t *testing.T) {
	a := newApplicant(t)
	a.tables.SetServers(nil)
	req := a.request()
	req.Name, req.Address = "node1", "10.1.0.1"
	req.Time = time.Now().Add(-2 * time.Hour)
	req.CommandVersion = -1
	text := tokens.Text(a.token)
	text.Fingerprint = strings.Repeat("00", 32)
	req.Token = text.String()
	late, err := trust.GenerateAt(time.Now().Add(-11*365*24*time.Hour), trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	req.Certificate = string(late.CertPEM)

	report, err := a.admissions.Preflight(t.Context(), "", "192.0.2.1", req)
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Reason{
		api.FingerprintMatch, api.TokenWrongName, api.CertInvalid, api.NameTaken, api.AddressTaken, api.ClockSkew, api.VersionTooOld,
	}
	if diff := cmp.Diff(want, reasons(report)); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	for _, p := range report.Problems {
		if p.Message == "" || p.NextStep() == "" {
			t.Errorf("%s has no message or no next step: %+v", p.Reason, p)
		}
	}
	if entries := a.takeEntries(); len(entries) > 0 {
		t.Errorf("it wrote %q", entries)
	}
}

func TestPreflightOneProblemAtATime(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*applicantBed, *JoinRequest)
		reason api.Reason
	}{
		{"reserved name", func(_ *applicantBed, r *JoinRequest) { r.Name = "none" }, api.NameInvalid},
		{"wildcard address", func(_ *applicantBed, r *JoinRequest) { r.Address = "0.0.0.0:8443" }, api.AddressInvalid},
		{"link-local address", func(_ *applicantBed, r *JoinRequest) { r.Address = "169.254.169.254:8443" }, api.AddressInvalid},
		{"mapped link-local address", func(_ *applicantBed, r *JoinRequest) { r.Address = "[::ffff:169.254.169.254]:8443" }, api.AddressInvalid},
		{"link-local IPv6 address", func(_ *applicantBed, r *JoinRequest) { r.Address = "[fe80::1]:8443" }, api.AddressInvalid},
		{"multicast address", func(_ *applicantBed, r *JoinRequest) { r.Address = "224.0.0.1:8443" }, api.AddressInvalid},
		{"nobody answers", func(_ *applicantBed, r *JoinRequest) { r.Address = "10.1.0.9:8443" }, api.AddressUnreach},
		{"somebody else answers", func(a *applicantBed, _ *JoinRequest) { a.network["10.1.0.2:8443"] = "another" }, api.AddressUnreach},
		{"clock ahead", func(_ *applicantBed, r *JoinRequest) { r.Time = r.Time.Add(time.Hour) }, api.ClockSkew},
		{"no certificate", func(_ *applicantBed, r *JoinRequest) { r.Certificate = "" }, api.CertInvalid},
		{"claimed by another", func(a *applicantBed, _ *JoinRequest) {
			if _, err := a.tokens.Claim(a.t.Context(), tokens.Text(a.token), a.newPair().Cert, true, nil); err != nil {
				a.t.Fatal(err)
			}
		}, api.TokenClaimed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newApplicant(t)
			req := a.request()
			tt.change(a, &req)
			report, err := a.admissions.Preflight(t.Context(), "", "192.0.2.1", req)
			if err != nil {
				t.Fatal(err)
			}
			if got := reasons(report); !slices.Contains(got, tt.reason) || len(got) > 2 {
				t.Errorf("reasons are %q, expected %s", got, tt.reason)
			}
		})
	}
}

func TestPreflightDoesNotWaitLongForAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplicant(t)
		a.network["10.1.0.2:8443"] = "silent"
		start := time.Now()
		report, err := a.admissions.Preflight(t.Context(), "", "192.0.2.1", a.request())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]api.Reason{api.AddressUnreach}, reasons(report)); diff != "" {
			t.Errorf("reasons (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestPreflightTellsStrangersNothing(t *testing.T) {
	a := newApplicant(t)
	req := a.request()
	guess := tokens.Text(a.token)
	guess.Secret = strings.Repeat("0", 64)
	req.Token = guess.String()
	_, err := a.admissions.Preflight(t.Context(), "", "192.0.2.1", req)
	requireReason(t, err, api.TokenUnknown)
	req.Token = "no token"
	_, err = a.admissions.Preflight(t.Context(), "", "192.0.2.1", req)
	requireReason(t, err, api.TokenMalformed)
	req.Token = ""
	_, err = a.admissions.Preflight(t.Context(), "", "192.0.2.1", req)
	requireReason(t, err, api.TokenNotClaimed)
	_, err = a.admissions.Preflight(t.Context(), a.own.Fingerprint(), "192.0.2.1", req)
	requireReason(t, err, api.TokenNotClaimed)

	if err := a.tokens.Revoke(t.Context(), a.token.Operation, nil); err != nil {
		t.Fatal(err)
	}
	_, err = a.admissions.Preflight(t.Context(), "", "192.0.2.1", a.request())
	requireReason(t, err, api.TokenRevoked)
}

func TestPreflightByClaimInsteadOfToken(t *testing.T) {
	a := newApplicant(t)
	a.claim(t)
	req := a.request()
	req.Token, req.Name = "", ""
	report, err := a.admissions.Preflight(t.Context(), a.own.Fingerprint(), "192.0.2.1", req)
	if err != nil {
		t.Fatal(err)
	}
	if report.Name != "node2" || len(report.Problems) != 0 {
		t.Errorf("report is %+v", report)
	}
	req.Name = "node3"
	report, err = a.admissions.Preflight(t.Context(), a.own.Fingerprint(), "192.0.2.1", req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]api.Reason{api.TokenWrongName}, reasons(report)); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestPreflightKnowsItsOwnMembers(t *testing.T) {
	a := newApplicant(t)
	a.claim(t)
	req := a.admitRequest()
	if _, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), req); err != nil {
		t.Fatal(err)
	}
	// While it is joining it may ask again.
	report, err := a.admissions.Preflight(t.Context(), "", "192.0.2.1", a.request())
	if err != nil || len(report.Problems) != 0 {
		t.Fatalf("report is %+v, error %v", report, err)
	}
	a.apply(state.KindMemberActivate, state.MemberActivate{ID: req.ID})
	if a.token, err = a.tokens.Issue(t.Context(), "node3", nil); err != nil {
		t.Fatal(err)
	}
	again := a.request()
	again.Name = "node3"
	report, err = a.admissions.Preflight(t.Context(), "", "192.0.2.1", again)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]api.Reason{api.CertTaken}, reasons(report)); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestAdmissionBringsWhatAMemberNeeds(t *testing.T) {
	a := newApplicant(t)
	a.join(3)
	a.claim(t)
	req := a.admitRequest()
	for range 2 { // the first answer may be lost
		got, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), req)
		if err != nil {
			t.Fatal(err)
		}
		view := a.tables.View()
		one, three := a.member(1), a.member(3)
		want := &Admission{
			ClusterID: "cluster-1", Incarnation: 1, MemberID: req.ID, Number: 3,
			Certificate: string(a.pair.CertPEM), Key: Secret(view.Cluster().Key),
			Peers: []Peer{
				{ID: "id-1", Name: "node1", Address: "10.1.0.1:8443", Certificate: one.Certificate, Voter: true},
				{ID: "id-3", Name: "node3", Address: "10.1.0.3:8443", Certificate: three.Certificate},
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("admission (-want +got):\n%s", diff)
		}
		m, ok := view.Member(req.ID)
		if !ok || m.State != state.MemberJoining || m.Address != "10.1.0.2:8443" || m.Fingerprint != a.own.Fingerprint() {
			t.Fatalf("member is %+v", m)
		}
	}
	// Another attempt of the same server takes the place of the first.
	second := a.admitRequest()
	if _, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), second); err != nil {
		t.Fatal(err)
	}
	if n := len(a.tables.View().Joining()); n != 1 {
		t.Errorf("%d members are joining", n)
	}
}

func TestOnlyTheClaimantIsAdmitted(t *testing.T) {
	a := newApplicant(t)
	_, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), a.admitRequest())
	requireReason(t, err, api.TokenNotClaimed)
	a.claim(t)
	a.takeEntries()
	_, err = a.admissions.Admit(t.Context(), a.newPair().Fingerprint(), a.admitRequest())
	requireReason(t, err, api.TokenNotClaimed)
	_, err = a.admissions.Admit(t.Context(), "", a.admitRequest())
	requireReason(t, err, api.TokenNotClaimed)
	if entries := a.takeEntries(); len(entries) > 0 {
		t.Errorf("strangers wrote %q", entries)
	}
	if err := a.tokens.Revoke(t.Context(), a.token.Operation, nil); err != nil {
		t.Fatal(err)
	}
	_, err = a.admissions.Admit(t.Context(), a.own.Fingerprint(), a.admitRequest())
	requireReason(t, err, api.TokenRevoked)
}

func TestRefusedAdmissionReleasesTheToken(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*AdmitRequest)
		reason api.Reason
	}{
		{"bad ID", func(r *AdmitRequest) { r.ID = "me" }, api.BadRequest},
		{"bad address", func(r *AdmitRequest) { r.Address = "[::]:8443" }, api.AddressInvalid},
		{"another member's address", func(r *AdmitRequest) { r.Address = "10.1.0.1:8443" }, api.AddressTaken},
		{"another name", func(r *AdmitRequest) { r.Name = "node9" }, api.TokenWrongName},
		{"old version", func(r *AdmitRequest) { r.CommandVersion = 0 }, api.VersionTooOld},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newApplicant(t)
			a.claim(t)
			req := a.admitRequest()
			tt.change(&req)
			_, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), req)
			requireReason(t, err, tt.reason)
			if _, err := a.tokens.Claim(t.Context(), tokens.Text(a.token), a.newPair().Cert, true, nil); err != nil {
				t.Errorf("another server cannot use the token: %v", err)
			}
		})
	}
}

func TestAbortDecidesWhetherTheJoinSucceeded(t *testing.T) {
	a := newApplicant(t)
	fp := a.own.Fingerprint()
	a.claim(t)
	first := a.admitRequest()
	if _, err := a.admissions.Admit(t.Context(), fp, first); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		result, err := a.admissions.Abort(t.Context(), fp, first.ID)
		if err != nil || result.Active {
			t.Fatalf("result is %+v, error %v", result, err)
		}
	}
	if n := len(a.tables.View().Joining()); n != 0 {
		t.Fatalf("%d members are joining", n)
	}
	a.claim(t)
	second := a.admitRequest()
	if _, err := a.admissions.Admit(t.Context(), fp, second); err != nil {
		t.Fatal(err)
	}
	a.apply(state.KindMemberActivate, state.MemberActivate{ID: second.ID})
	result, err := a.admissions.Abort(t.Context(), fp, second.ID)
	if err != nil || !result.Active {
		t.Fatalf("result is %+v, error %v", result, err)
	}
	a.takeEntries()
	if result, err = a.admissions.Abort(t.Context(), a.newPair().Fingerprint(), newID()); err != nil || result.Active {
		t.Fatalf("a stranger's result is %+v, error %v", result, err)
	}
	if entries := a.takeEntries(); len(entries) > 0 {
		t.Errorf("a stranger wrote %q", entries)
	}
}

func TestReadyIsForTheLeader(t *testing.T) {
	a := newApplicant(t)
	a.claim(t)
	req := a.admitRequest()
	requireReason(t, Ready(t.Context(), a, a, req.ID), api.JoinAborted)
	if _, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), req); err != nil {
		t.Fatal(err)
	}
	if err := Ready(t.Context(), a, a, req.ID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"add " + req.ID}, a.takeSteps()); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	a.join(3)
	a.leader = "id-3"
	var elsewhere *NotLeaderError
	if err := Ready(t.Context(), a, a, req.ID); !errors.As(err, &elsewhere) || elsewhere.Address != "10.1.0.3:8443" || elsewhere.ID != "id-3" {
		t.Errorf("error is %v", err)
	}
	a.leader = ""
	requireReason(t, Ready(t.Context(), a, a, req.ID), api.NoQuorum)
}

func TestSecretsDoNotReachTheLog(t *testing.T) {
	a := newApplicant(t)
	a.claim(t)
	req := a.request()
	admission, err := a.admissions.Admit(t.Context(), a.own.Fingerprint(), a.admitRequest())
	if err != nil {
		t.Fatal(err)
	}
	key, token := string(admission.Key), req.Token
	if !strings.Contains(key, "PRIVATE KEY") {
		t.Fatalf("the key is %q", key)
	}
	for _, handler := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		slog.New(handler(&out)).Info("test", "admission", admission, "value", *admission, "key", admission.Key, "request", req, "pointer", &req)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			fmt.Fprintf(&out, verb+verb+verb, *admission, admission.Key, req)
		}
		for _, line := range strings.Split(strings.TrimSpace(key), "\n")[1:] {
			if strings.Contains(out.String(), line) {
				t.Errorf("the key is printed: %s", out.String())
				break
			}
		}
		if strings.Contains(out.String(), token) {
			t.Errorf("the token is printed: %s", out.String())
		}
	}
	var wire Admission
	if data, err := json.Marshal(admission); err != nil || json.Unmarshal(data, &wire) != nil || string(wire.Key) != key {
		t.Errorf("the key does not cross the wire: %v", err)
	}
	if text := a.logs.String(); text == "" || strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("log is %s", text)
	}
}

func TestMemberAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.0.1":          "10.1.0.1:8443",
		"10.1.0.1:443":      "10.1.0.1:443",
		"node1.example.org": "node1.example.org:8443",
		"fd00::1":           "[fd00::1]:8443",
		"[fd00::1]":         "[fd00::1]:8443",
		"[fd00::1]:8443":    "[fd00::1]:8443",
		"":                  "",
		":8443":             "",
		"0.0.0.0":           "",
		"[::]:8443":         "",
		"::":                "",
		"10.1.0.1:0":        "",
		"10.1.0.1:70000":    "",
		"10.1.0.1:https":    "",
		"bad host":          "",
		"http://node1":      "",
		"-node1":            "",
		"a:b:c":             "",
	} {
		got, err := MemberAddress(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("MemberAddress(%q) is %q, %v; expected %q", in, got, err, want)
		}
		if err != nil {
			requireReason(t, err, api.AddressInvalid)
		}
	}
}

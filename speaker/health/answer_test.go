package health

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The answers of kube-proxy 1.37, and of others.
const (
	proxyWell       = `{"lastUpdated":"2026-08-01T10:00:00Z","currentTime":"2026-08-01T10:00:00Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-08-01T09:59:00Z","healthy":true}}}`
	proxyDual       = `{"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-08-01T09:59:00Z","healthy":true},"IPv6":{"lastUpdated":"2026-08-01T10:00:00Z","healthy":true}}}`
	proxyBrief      = `{"lastUpdated":"2026-08-01T10:00:00Z","currentTime":"2026-08-01T10:00:00Z","nodeEligible":true,"healthy":true}`
	proxyIneligible = `{"lastUpdated":"2026-08-01T09:59:00Z","currentTime":"2026-08-01T10:00:00Z","nodeEligible":false,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-08-01T09:59:00Z","healthy":true}}}`
	proxyLagging    = `{"lastUpdated":"2026-08-01T09:00:00Z","currentTime":"2026-08-01T10:00:00Z","nodeEligible":true,"healthy":false,"status":{"IPv4":{"lastUpdated":"2026-08-01T09:00:00Z","healthy":false}}}`
	proxyOlder      = `{"lastUpdated": "2023-08-01 10:00:00 +0000 UTC","currentTime": "2023-08-01 10:00:00 +0000 UTC", "nodeEligible": true}`
	proxyOldest     = `{"lastUpdated": "2020-08-01 10:00:00 +0000 UTC","currentTime": "2020-08-01 10:00:00 +0000 UTC"}`

	localTwo     = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
	localNone    = `{"service":{"namespace":"default","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}`
	localLagging = `{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":false}`
	localOlder   = `{"service":{"namespace":"default","name":"web"},"localEndpoints":2}`
)

var (
	written = Written{IPv4: time.Date(2026, 8, 1, 9, 59, 0, 0, time.UTC)}
	lagging = Written{IPv4: time.Date(2026, 8, 1, 9, 0, 0, 0, time.UTC)}

	proxyTarget = Target{Kind: Proxy, URL: "http://127.0.0.1:10256/healthz"}
	localTarget = Target{Kind: Local, URL: "http://192.0.2.1:30000/"}
	webTarget   = Target{Kind: Local, URL: "http://192.0.2.1:30000/", Service: "default/web"}
	mailTarget  = Target{Kind: Local, URL: "http://192.0.2.1:30000/", Service: "default/mail"}
)

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		target Target
		status int
		body   string
		want   answer
	}{
		{"proxy", proxyTarget, 200, proxyWell, answer{written: written}},
		{"proxy that has written rules of both families", proxyTarget, 200, proxyDual, answer{written: Written{written.IPv4, written.IPv4.Add(time.Minute)}}},
		{"proxy without a word of its families", proxyTarget, 200, proxyBrief, answer{}},
		{"proxy of a node to be deleted", proxyTarget, 503, proxyIneligible, answer{reason: NodeNotEligible, written: written}},
		{"proxy that lags", proxyTarget, 503, proxyLagging, answer{reason: ProxyUnhealthy, written: lagging}},
		{"older proxy", proxyTarget, 200, proxyOlder, answer{}},
		{"older proxy that is not well", proxyTarget, 503, proxyOlder, answer{reason: ProxyUnhealthy}},
		{"oldest proxy", proxyTarget, 200, proxyOldest, answer{}},
		{"other proxy says ok", proxyTarget, 200, "ok\n", answer{}},
		{"other proxy says nothing", proxyTarget, 200, "", answer{}},
		{"other proxy is not well", proxyTarget, 503, "out of order", answer{reason: ProxyUnhealthy}},
		{"200 at odds with itself", proxyTarget, 200, proxyLagging, answer{reason: ProxyUnhealthy, written: lagging}},
		{"proxy answers with a page", proxyTarget, 200, "<html>ok</html>", answer{reason: GarbledAnswer}},
		{"proxy answers with a list", proxyTarget, 200, "[]", answer{reason: GarbledAnswer}},
		{"proxy answers with half an object", proxyTarget, 200, proxyWell[:40], answer{reason: GarbledAnswer}},
		{"proxy answers with two objects", proxyTarget, 200, proxyWell + proxyWell, answer{reason: GarbledAnswer}},
		{"proxy answers with another type", proxyTarget, 200, `{"healthy":"yes"}`, answer{reason: GarbledAnswer}},
		{"no such page", proxyTarget, 404, "404 page not found", answer{reason: UnexpectedStatus}},
		{"redirect", proxyTarget, 302, proxyWell, answer{reason: UnexpectedStatus}},
		{"created", proxyTarget, 201, proxyWell, answer{reason: UnexpectedStatus}},

		{"local", localTarget, 200, localTwo, answer{localEndpoints: 2}},
		{"local of this Service", webTarget, 200, localTwo, answer{localEndpoints: 2}},
		{"local of another Service", mailTarget, 200, localTwo, answer{reason: OtherService}},
		{"older local", webTarget, 200, localOlder, answer{localEndpoints: 2}},
		{"local without endpoints", webTarget, 503, localNone, answer{reason: NoLocalEndpoints}},
		{"local whose proxy lags", webTarget, 503, localLagging, answer{reason: ProxyUnhealthy, localEndpoints: 2}},
		{"local 200 without endpoints", webTarget, 200, localNone, answer{reason: NoLocalEndpoints}},
		{"local 503 with endpoints", webTarget, 503, localTwo, answer{reason: GarbledAnswer}},
		{"local of a dropped Service", webTarget, 200, "", answer{reason: GarbledAnswer}},
		{"local says ok", localTarget, 200, "ok", answer{reason: GarbledAnswer}},
		{"local without a number", webTarget, 200, `{"service":{"namespace":"default","name":"web"}}`, answer{reason: GarbledAnswer}},
		{"local with less than none", localTarget, 200, `{"localEndpoints":-1}`, answer{reason: GarbledAnswer}},
		{"local with too many to count", localTarget, 200, `{"localEndpoints":1e99}`, answer{reason: GarbledAnswer}},
		{"local null", localTarget, 200, `null`, answer{reason: GarbledAnswer}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.target.read(tt.status, []byte(tt.body))
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(answer{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// played is a connection whose other side has said all that it will.
type played struct {
	net.Conn
	*bytes.Reader
}

func (p played) Read(b []byte) (int, error)    { return p.Reader.Read(b) }
func (played) Write(b []byte) (int, error)     { return len(b), nil }
func (played) Close() error                    { return nil }
func (played) SetDeadline(time.Time) error     { return nil }
func (played) SetReadDeadline(time.Time) error { return nil }
func play(said []byte) dialFunc {
	return func(context.Context, string) (net.Conn, error) { return played{Reader: bytes.NewReader(said)}, nil }
}

// FuzzAnswer feeds whole answers through HTTP and JSON: what is not plainly a yes must not be taken for one.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{proxyWell, proxyBrief, proxyLagging, localTwo, localNone, "ok", "", "<html>"} {
		for _, head := range []string{
			"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n",
			"HTTP/1.0 200\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "SSH-2.0-OpenSSH\r\n", "",
		} {
			f.Add([]byte(head + body))
		}
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxAnswer) + "\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat(" ", 2*maxAnswer) + "ok"))
	known := map[Reason]bool{"": true}
	for _, r := range reasons {
		known[r] = true
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		for _, target := range []Target{proxyTarget, localTarget, webTarget} {
			p := newProbe(t.Context(), target, play(said), time.Second, nowhere)
			a, err := p.ask(t.Context())
			p.close()
			if !known[a.reason] || a.reason == Unknown || a.reason == ProxyHung {
				t.Errorf("reason %q for %q", a.reason, said)
			}
			if a.localEndpoints < 0 || a.localEndpoints > 0 && target.Kind == Proxy {
				t.Errorf("%d endpoints for %q", a.localEndpoints, said)
			}
			healthy := a.reason == ""
			if healthy && (err != nil || !bytes.HasPrefix(said, []byte("HTTP/")) || !bytes.Contains(said, []byte("200"))) {
				t.Errorf("healthy, with error %v, for %q", err, said)
			}
			if healthy && target.Kind == Local && a.localEndpoints == 0 {
				t.Errorf("healthy without endpoints for %q", said)
			}
		}
	})
}

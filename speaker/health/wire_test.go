package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// beProxy makes this program a service proxy when a test has started it as one, for it to be stopped and killed.
func beProxy() {
	address := os.Getenv("HEALTH_TEST_PROXY")
	if address == "" {
		return
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	err = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a test
		fmt.Fprint(w, proxyWell)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// startProxy starts a service proxy, and returns its process and its address.
func startProxy(t *testing.T, address string) (*os.Process, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HEALTH_TEST_PROXY="+address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := fmt.Fscanln(out, &address); err != nil {
		t.Fatalf("the proxy did not start: %v", err)
	}
	return cmd.Process, address
}

// onWire runs a Prober against the network, and returns its changes.
func onWire(t *testing.T, o Options, targets ...Target) <-chan Change {
	t.Helper()
	changes := make(chan Change, 100)
	o.Notify = func(seen []Change) {
		for _, c := range seen {
			changes <- c
		}
	}
	p := New(o)
	if err := p.Set(targets); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return changes
}

// next wants that the next change is to a reason, in any time.
func next(t *testing.T, changes <-chan Change, want Reason) {
	t.Helper()
	select {
	case c := <-changes:
		if c.Now.Reason != want || c.Now.Healthy != (want == "") {
			t.Fatalf("became %+v, want %q", c.Now, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("did not become %q", want)
	}
}

// until waits for a change to a reason. How long it takes is logged, not judged: the machine may be busy, so much even
// that a process is taken for a hung one.
func until(t *testing.T, changes <-chan Change, want Reason) {
	t.Helper()
	began, over := time.Now(), time.After(30*time.Second)
	for {
		select {
		case c := <-changes:
			t.Logf("%q → %q after %v", c.Before.Reason, c.Now.Reason, time.Since(began).Round(time.Millisecond))
			if c.Now.Reason == want {
				return
			}
		case <-over:
			t.Fatalf("did not become %q", want)
		}
	}
}

// A process that is stopped, goes on, is killed and started anew.
func TestProcess(t *testing.T) {
	proxy, address := startProxy(t, "127.0.0.1:0")
	changes := onWire(t, Options{}, Target{Kind: Proxy, URL: "http://" + address + "/healthz"})
	until(t, changes, "")
	time.Sleep(600 * time.Millisecond)
	for range 2 {
		_ = proxy.Signal(syscall.SIGSTOP)
		until(t, changes, ProxyHung)
		_ = proxy.Signal(syscall.SIGCONT)
		until(t, changes, "")
		time.Sleep(600 * time.Millisecond)
	}
	for range 2 {
		_ = proxy.Kill()
		until(t, changes, ProxyUnreachable)
		proxy, _ = startProxy(t, address)
		until(t, changes, "")
		time.Sleep(600 * time.Millisecond)
	}
}

// A server that flips between yes, no and nonsense.
func TestFlips(t *testing.T) {
	type words struct {
		status int
		body   string
	}
	var said atomic.Value // both at once: half of the one and half of the other is an answer that would count
	say := func(status int, body string) { said.Store(words{status, body}) }
	say(503, localNone)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now := said.Load().(words)
		w.WriteHeader(now.status)
		fmt.Fprint(w, now.body)
	}))
	defer server.Close()
	changes := onWire(t, Options{HangTime: 10 * time.Second}, Target{Kind: Local, URL: server.URL, Service: "default/web"})
	next(t, changes, NoLocalEndpoints)
	say(200, localTwo)
	next(t, changes, "")
	say(503, localNone)
	next(t, changes, NoLocalEndpoints)
	say(200, "<html>")
	next(t, changes, GarbledAnswer)
	say(200, localTwo)
	next(t, changes, "")
	server.CloseClientConnections()
	say(404, "")
	next(t, changes, UnexpectedStatus)
	server.Close()
	next(t, changes, ProxyUnreachable)
}

// What else may listen on a port. Each is asked for its answer, and comes to the same end.
func TestBadServers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	var followed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer elsewhere.Close()
	for _, tt := range []struct {
		name   string
		talk   func(io.ReadWriter)
		closes bool
		want   Reason
	}{
		{"accepts and says nothing", func(io.ReadWriter) {}, false, ProxyHung},
		{"stalls in the head", say(head + "Content-Le"), false, ProxyHung},
		{"stalls after the head", say(head + "Content-Length: 100\r\n\r\n"), false, ProxyHung},
		{"stalls in the body", say(head + "Content-Length: 100\r\n\r\n{"), false, ProxyHung},
		{"one byte at a time", func(c io.ReadWriter) { repeat(c, "x", 20*time.Millisecond) }, false, ProxyHung},
		{"one space at a time", func(c io.ReadWriter) {
			say(head + "\r\n")(c)
			repeat(c, " ", 20*time.Millisecond)
		}, false, ProxyHung},
		{"closes at once", func(io.ReadWriter) {}, true, ProxyUnreachable},
		{"closes in the head", say(head + "Content-Le"), true, GarbledAnswer},
		{"closes in the body", say(head + "Content-Length: 100\r\n\r\n{"), true, GarbledAnswer},
		{"is not HTTP", say("SSH-2.0-OpenSSH_9.2\r\n"), false, GarbledAnswer},
		{"bytes", say("\x15\x03\x01\x00\x02\x02\x0a\n\x00\x00"), false, GarbledAnswer},
		{"endless line", func(c io.ReadWriter) { repeat(c, strings.Repeat("x", 1000), 0) }, false, GarbledAnswer},
		{"endless head", func(c io.ReadWriter) { say(head)(c); repeat(c, "X: y\r\n", 0) }, false, GarbledAnswer},
		{"endless body", func(c io.ReadWriter) { say(head + "\r\n")(c); repeat(c, strings.Repeat(" ", 1000), 0) }, false, GarbledAnswer},
		{"endless chunks", func(c io.ReadWriter) {
			say(head + "Transfer-Encoding: chunked\r\n\r\n")(c)
			repeat(c, "1\r\n \r\n", 0)
		}, false, GarbledAnswer},
		{"huge length", say(head + "Content-Length: 9223372036854775807\r\n\r\n" + strings.Repeat(" ", 2*maxAnswer)), false, GarbledAnswer},
		{"bad length", say(head + "Content-Length: -1\r\n\r\n"), false, GarbledAnswer},
		{"two lengths", say(head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"), false, GarbledAnswer},
		{"page", say(head + "Content-Length: 6\r\n\r\n<html>"), false, GarbledAnswer},
		{"redirects", say("HTTP/1.1 302 Found\r\nLocation: " + elsewhere.URL + "\r\nContent-Length: 0\r\n\r\n"), false, UnexpectedStatus},
		{"continue", say("HTTP/1.1 100 Continue\r\n\r\n"), false, UnexpectedStatus},
		{"asks for a password", say("HTTP/1.1 401 Who are you\r\nContent-Length: 0\r\n\r\n"), false, UnexpectedStatus},
		{"says more than asked", say(strings.Repeat(httpAnswer(200, proxyWell), 3)), false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t, tt.talk, tt.closes)
			o := Options{HangTime: 10 * time.Second}
			if tt.want == ProxyHung {
				o.HangTime = 400 * time.Millisecond
			}
			next(t, onWire(t, o, Target{Kind: Proxy, URL: url}), tt.want)
		})
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func say(what string) func(io.ReadWriter) {
	return func(c io.ReadWriter) { _, _ = io.WriteString(c, what) }
}

func repeat(c io.Writer, what string, pause time.Duration) {
	for {
		if _, err := io.WriteString(c, what); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// serve accepts connections, and talks after each request.
func serve(t *testing.T, talk func(io.ReadWriter), closes bool) (url string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for request := make([]byte, 4096); ; {
					if _, err := c.Read(request); err != nil {
						return
					}
					talk(c)
					if closes {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// BenchmarkProbe is the cost of one probe, together with that of a server in the same process.
func BenchmarkProbe(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, localTwo) }))
	defer server.Close()
	p := newProbe(b.Context(), Target{Kind: Local, URL: server.URL}, dialTCP, time.Second, nowhere)
	defer p.close()
	b.ReportAllocs()
	for b.Loop() {
		if a, err := p.ask(b.Context()); a.reason != "" {
			b.Fatal(a, err)
		}
	}
}

func nowhere() []netip.Addr { return nil }

// kube-proxy opens health check node ports where --nodeport-addresses says. The target names an address of the node on which
// nobody listens, another Service answers, or somebody is silent.
func TestALocalTargetIsAskedWhereverKubeProxyListens(t *testing.T) {
	const right = `{"service":{"namespace":"shop","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}`
	const other = `{"service":{"namespace":"shop","name":"other"},"localEndpoints":1,"serviceProxyHealthy":true}`
	listen := func(t *testing.T, address, says string) net.Listener {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Skipf("%s: %v", address, err)
		}
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if says == "" {
				<-r.Context().Done()
			}
			fmt.Fprint(w, says)
		})}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		return listener
	}
	for _, tt := range []struct {
		name, named, listens string // addresses of the node
		there                string // what the one that is named says; "-" for nobody
		own                  []string
		want                 []Reason
	}{
		{"127.0.0.0/8", "127.0.0.2", "127.0.0.1", "-", nil, []Reason{""}},
		{"::1/128", "::1", "::1", "-", nil, []Reason{""}},
		{"the subnet of another interface", "127.0.0.2", "127.0.0.3", "-", []string{"127.0.0.2", "127.0.0.3", "::1"}, []Reason{""}},
		{"another Service on the address that is named", "127.0.0.2", "127.0.0.1", other, nil, []Reason{""}},
		{"silence on the address that is named", "127.0.0.2", "127.0.0.1", "", nil, []Reason{ProxyHung, ""}},
		{"an address that is not the node's", "127.0.0.2", "127.0.0.3", "-", []string{"127.0.0.2"}, []Reason{ProxyUnreachable}},
		{"an address of the other family", "127.0.0.2", "::1", "-", []string{"::1"}, []Reason{ProxyUnreachable}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listener := listen(t, net.JoinHostPort(tt.listens, "0"), right)
			_, port, _ := net.SplitHostPort(listener.Addr().String())
			named := net.JoinHostPort(tt.named, port)
			if tt.there != "-" {
				listen(t, named, tt.there)
			}
			changes := make(chan Change, 100)
			p := New(Options{LocalInterval: 50 * time.Millisecond, HangTime: 250 * time.Millisecond, Notify: func(seen []Change) {
				for _, c := range seen {
					changes <- c
				}
			}})
			var own []netip.Addr
			for _, text := range tt.own {
				own = append(own, netip.MustParseAddr(text))
			}
			p.SetHosts(own)
			if err := p.Set([]Target{{Kind: Local, URL: "http://" + named + "/healthz", Service: "shop/web"}}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			for _, want := range tt.want {
				next(t, changes, want)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

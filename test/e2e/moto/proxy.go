package moto

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Call is a request that went through the proxy.
type Call struct {
	// API is EC2, ELB, ELBV2, or the version of another one.
	API    string
	Action string
	// Form are the parameters as they were sent.
	Form url.Values
	// Status is that of the answer.
	Status int
}

// String is as in "ELBV2 CreateListener".
func (c Call) String() string { return c.API + " " + c.Action }

// Fault is what goes wrong with a call.
type Fault struct {
	// Code and Status are those of an answer of AWS, as "Throttling" and 400.
	Code   string
	Status int
	// After lets AWS do it and then loses the answer, in place of refusing it.
	After bool
}

// Proxy passes requests on to moto, counts them and has some fail.
type Proxy struct {
	server  string
	forward *httputil.ReverseProxy

	mu    sync.Mutex
	calls []Call
	fault func(Call) *Fault
}

// apis are the versions of the APIs, by which requests tell them apart.
var apis = map[string]string{"2016-11-15": "EC2", "2012-06-01": "ELB", "2015-12-01": "ELBV2", "2011-06-15": "STS"}

func newProxy(server string) (*Proxy, error) {
	target, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	return &Proxy{server: server, forward: &httputil.ReverseProxy{
		// The signature is of the host as it was called, and moto does not look.
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		// Who is killed in the middle of a call does not wait for the answer.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}}, nil
}

// serve answers on a listener until ctx is done.
func (p *Proxy) serve(ctx context.Context, listener net.Listener) {
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { server.Close() })
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fault := p.decide(call)
	if fault != nil && !fault.After {
		call.Status = fault.Status
		p.note(call)
		fault.answer(w, call)
		return
	}
	answer := &recorder{ResponseWriter: w, lost: fault != nil}
	if !p.mend(answer, r, call) {
		p.forward.ServeHTTP(answer, r)
	}
	call.Status = answer.status
	if fault != nil {
		call.Status = fault.Status
		fault.answer(w, call)
	}
	p.note(call)
}

// read takes the call from a request and leaves the request whole.
func read(r *http.Request) (Call, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return Call{}, err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") == "" {
		return Call{}, errors.Join(fmt.Errorf("no call of AWS: %s %s %q", r.Method, r.URL, body), err)
	}
	version := form.Get("Version")
	return Call{API: cmp.Or(apis[version], version), Action: form.Get("Action"), Form: form}, nil
}

func (p *Proxy) decide(call Call) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil {
		return nil
	}
	return p.fault(call)
}

func (p *Proxy) note(call Call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
}

// Calls returns what was called since the last time, in the order of answers.
func (p *Proxy) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// Fail asks of each call from now on what goes wrong with it; nil is nothing.
// It is called by one goroutine at a time.
func (p *Proxy) Fail(fault func(Call) *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// Once is a fault of the first call of an action.
func Once(action string, fault Fault) func(Call) *Fault {
	done := false
	return func(call Call) *Fault {
		if done || call.Action != action {
			return nil
		}
		done = true
		return &fault
	}
}

// Tally is how often what was called, in words for a log.
func Tally(calls []Call) string {
	counts := map[string]int{}
	for _, call := range calls {
		counts[call.String()]++
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return fmt.Sprintf("%d calls: %s", len(calls), strings.Join(words, ", "))
}

// answer is in the form of each API's errors.
func (f *Fault) answer(w http.ResponseWriter, call Call) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(f.Status)
	inner := fmt.Sprintf("<Code>%s</Code><Message>made by the test</Message>", f.Code)
	if call.API == "EC2" {
		fmt.Fprintf(w, "<Response><Errors><Error>%s</Error></Errors><RequestID>test</RequestID></Response>", inner)
		return
	}
	fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type>%s</Error><RequestId>test</RequestId></ErrorResponse>", inner)
}

// recorder keeps the status of an answer, and the answer itself when it is to
// be lost.
type recorder struct {
	http.ResponseWriter
	lost   bool
	status int
	header http.Header
}

func (r *recorder) Header() http.Header {
	if !r.lost {
		return r.ResponseWriter.Header()
	}
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	if !r.lost {
		r.ResponseWriter.WriteHeader(status)
	}
}

func (r *recorder) Write(text []byte) (int, error) {
	if r.lost {
		return len(text), nil
	}
	return r.ResponseWriter.Write(text)
}

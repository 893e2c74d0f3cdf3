package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"
)

const (
	// maxAnswer bounds an HTTP answer with all that belongs to it. That of a service proxy has a few hundred bytes.
	maxAnswer = 16 << 10
	// grace is how much longer a connection is listened to when the time for an answer is over: when it was this process that
	// was not given a processor, the answer is there by now.
	grace = 50 * time.Millisecond
)

type dialFunc func(ctx context.Context, address string) (net.Conn, error)

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// probe asks one target over one connection that it keeps. Only one goroutine uses it. It does without an http.Client,
// which would take two goroutines more for each target, and would not tell when a connection closes.
type probe struct {
	target  Target
	dial    dialFunc
	timeout time.Duration // for an answer, with all that it takes
	// host and port are where the target is said to be. elsewhere are further addresses of the node, where else kube-proxy may
	// listen, and at is the one to ask first: where the answer was right the last time.
	host, port string
	elsewhere  func() []netip.Addr
	at         string
	request    *http.Request
	wire       []byte // the request

	conn    *conn // nil when there is none
	answers int   // that it has carried
}

func newProbe(ctx context.Context, t Target, dial dialFunc, timeout time.Duration, elsewhere func() []netip.Addr) *probe {
	p := &probe{target: t, dial: dial, timeout: timeout, elsewhere: elsewhere}
	// The target has been validated; a bytes.Buffer takes all.
	p.request, _ = http.NewRequestWithContext(ctx, http.MethodGet, t.URL, http.NoBody)
	p.request.Header.Set("User-Agent", "herald")
	p.request.Header.Set("Accept", "application/json")
	var wire bytes.Buffer
	_ = p.request.Write(&wire)
	p.wire = wire.Bytes()
	p.port = p.request.URL.Port()
	if p.port == "" {
		p.port = "80"
	}
	p.host = p.request.URL.Hostname()
	p.at = p.host
	return p
}

// mostPlaces bounds where one target is looked for: a node may have very many addresses.
const mostPlaces = 16

// places are the hosts to ask, the best first. kube-proxy opens health check node ports on the addresses that
// --nodeport-addresses chooses, by family: on all, on the primary ones of the node, or on the loopback alone.
func (p *probe) places() []string {
	places := []string{p.at}
	add := func(host string) {
		if len(places) < mostPlaces && !slices.Contains(places, host) {
			places = append(places, host)
		}
	}
	add(p.host)
	host, err := netip.ParseAddr(p.host)
	if err != nil || p.target.Kind != Local {
		return places
	}
	add(Loopback(host).String())
	for _, other := range p.elsewhere() {
		if other.Is4() == host.Is4() {
			add(other.String())
		}
	}
	return places
}

// Loopback is that of the family of an address.
func Loopback(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// ask asks once, at each place until the answer is right. The error says more about an answer that failed.
func (p *probe) ask(ctx context.Context) (answer, error) {
	deadline := time.Now().Add(p.timeout)
	if p.conn != nil {
		a, err := p.exchange(deadline)
		if !errors.Is(err, errStale) {
			if a.reason.wrong() {
				p.close() // the next time it is asked at the other places too
				p.turn(p.places(), 0, a)
			}
			return a, err
		}
		// The proxy closed the connection before it saw the request. That is not its answer yet.
	}
	var told answer
	var why error
	places := p.places()
	for i, host := range places {
		a, err := p.askAt(ctx, deadline, host)
		if !a.reason.wrong() {
			p.at = host
			return a, err
		}
		p.close()
		if i == 0 || told.reason == ProxyUnreachable {
			told, why = a, err
		}
		if a.reason == ProxyHung || ctx.Err() != nil {
			p.turn(places, i, a) // there is no time for the others now
			break
		}
	}
	return told, why
}

// turn begins with the next place the next time, where one has let the time for an answer pass.
func (p *probe) turn(places []string, i int, a answer) {
	if a.reason == ProxyHung {
		p.at = places[(i+1)%len(places)]
	}
}

// askAt asks at one place by a connection of its own.
func (p *probe) askAt(ctx context.Context, deadline time.Time, host string) (answer, error) {
	if err := p.connect(ctx, deadline, net.JoinHostPort(host, p.port)); err != nil {
		if isTimeout(err) {
			return answer{reason: ProxyHung}, err
		}
		return answer{reason: ProxyUnreachable}, err
	}
	return p.exchange(deadline)
}

func (p *probe) connect(ctx context.Context, deadline time.Time, address string) error {
	dialCtx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	c, err := p.dial(dialCtx, address)
	if err != nil {
		return err
	}
	p.conn, p.answers = newConn(ctx, c), 0
	return nil
}

// errStale is a kept connection that was closed without a byte of an answer.
var errStale = errors.New("the kept connection was closed")

// exchange sends the request and reads the answer. Unless that went well, the connection is closed.
func (p *probe) exchange(deadline time.Time) (answer, error) {
	c := p.conn
	c.begin(deadline)
	_, err := c.Write(p.wire)
	if err == nil {
		var a answer
		var more bool
		if a, more, err = p.receive(); err == nil {
			p.answers++
			if !more {
				p.close()
			}
			return a, nil
		}
	}
	p.close()
	switch {
	case c.late || isTimeout(err): // a bufio.Reader keeps quiet about an error that comes within a line
		return answer{reason: ProxyHung}, err
	case c.left < maxAnswer: // also when it was cut short
		return answer{reason: GarbledAnswer}, err
	case p.answers > 0:
		return answer{}, errStale
	}
	return answer{reason: ProxyUnreachable}, err
}

// receive reads an answer, and says whether the connection may carry more.
func (p *probe) receive() (a answer, more bool, err error) {
	response, err := http.ReadResponse(p.conn.buffer, p.request)
	if err != nil {
		return answer{}, false, fmt.Errorf("reading the answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, false, fmt.Errorf("reading the answer: %w", err)
	}
	more = !response.Close && response.StatusCode >= http.StatusOK && p.conn.buffer.Buffered() == 0
	return p.target.read(response.StatusCode, body), more, nil
}

// wait waits for the next probe, and less if a connection that has been in use closes in between: that is how a proxy
// dies. A connection that closes after its first answer says nothing, some servers do so always.
func (p *probe) wait(ctx context.Context, pause time.Duration) {
	due := time.Now().Add(pause)
	if p.conn != nil {
		if !p.conn.closedBefore(due) {
			return
		}
		proven := p.answers > 1
		p.close()
		if proven {
			return
		}
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (p *probe) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

// conn is a connection that closes with a context, bounds what is read for one answer, and is patient.
type conn struct {
	net.Conn
	buffer  *bufio.Reader
	release func() bool
	left    int  // bytes that the answer may still have
	patient bool // still to be listened to for the time of grace
	late    bool // the time was over before the answer was
}

func newConn(ctx context.Context, c net.Conn) *conn {
	wrapped := &conn{Conn: c, release: context.AfterFunc(ctx, func() { c.Close() })}
	wrapped.buffer = bufio.NewReaderSize(wrapped, 1024)
	return wrapped
}

// Close is of net.Conn.
func (c *conn) Close() error {
	c.release()
	return c.Conn.Close()
}

func (c *conn) begin(deadline time.Time) {
	_ = c.SetDeadline(deadline) // fails when the connection is closed, as what follows will say
	c.left, c.patient, c.late = maxAnswer, true, false
}

// Read is of io.Reader.
func (c *conn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("there are more than %d bytes", maxAnswer)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	if c.patient && isTimeout(err) && n == 0 {
		c.patient = false
		_ = c.SetReadDeadline(time.Now().Add(grace))
		n, err = c.Conn.Read(b[:min(len(b), c.left)])
	}
	c.left -= n
	c.late = c.late || isTimeout(err)
	return n, err
}

// closedBefore waits for the other side to close, and is false when it has not until then. Bytes that nobody has asked
// for end the connection too.
func (c *conn) closedBefore(due time.Time) bool {
	c.left, c.patient = maxAnswer, false
	_ = c.SetReadDeadline(due)
	_, err := c.buffer.Peek(1)
	return !isTimeout(err)
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// jitter keeps many targets from being asked all at once.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*float64(d)/5)
}

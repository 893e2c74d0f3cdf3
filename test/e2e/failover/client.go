package failover

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heraldlb/herald/test/sandbox"
)

const (
	// interval is how often a client asks, and the LAN is asked.
	interval = 10 * time.Millisecond
	// patience is how long a client waits for its answer.
	patience = 200 * time.Millisecond
)

// Request is one question of a client and what came of it.
type Request struct {
	Sent time.Time
	// Took is the time to the end of the answer, or to the failure.
	Took time.Duration
	// Pod and Node are who answered.
	Pod, Node string
	// Err is nil for an answer with status 200.
	Err error
}

// Done is when the client knew.
func (r Request) Done() time.Time { return r.Sent.Add(r.Took) }

// Client asks for http://address/ from a host every 10 ms, each time on a
// connection of its own, and waits 200 ms for an answer. It does not wait with
// the next question until the last is answered.
type Client struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	target netip.AddrPort
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu       sync.Mutex
	requests []Request // about in the order in which they were done
}

// Ask starts a client; Stop ends it.
func Ask(box *sandbox.Sandbox, host string, target netip.AddrPort) *Client {
	ctx, stop := context.WithCancel(context.Background())
	c := &Client{dial: box.Dialer(host), target: target, stop: stop}
	c.ended.Go(func() { c.run(ctx) })
	return c
}

func (c *Client) run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// A request outlives ctx: at the end it is as good as any.
		c.ended.Go(func() { c.record(c.ask(context.WithoutCancel(ctx))) })
	}
}

func (c *Client) record(r Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
}

// Stop ends the client and returns all its requests in the order in which they
// were done.
func (c *Client) Stop() []Request {
	c.stop()
	c.ended.Wait()
	requests := c.since(time.Time{})
	slices.SortStableFunc(requests, func(a, b Request) int { return a.Done().Compare(b.Done()) })
	return requests
}

// since returns the requests that were done after a time.
func (c *Client) since(start time.Time) []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := len(c.requests)
	for first > 0 && c.requests[first-1].Done().After(start) {
		first--
	}
	return slices.Clone(c.requests[first:])
}

// served returns nil when every request of the last while was answered.
func (c *Client) served(span time.Duration) error {
	last := c.since(time.Now().Add(-span))
	for _, r := range last {
		if r.Err != nil {
			return fmt.Errorf("a request of the last %v failed: %w", span, r.Err)
		}
	}
	if want := int(span / interval / 2); len(last) < want {
		return fmt.Errorf("%d requests were done in the last %v, want at least %d", len(last), span, want)
	}
	return nil
}

func (c *Client) ask(ctx context.Context) Request {
	r := Request{Sent: time.Now()}
	r.Pod, r.Node, r.Err = c.answer(ctx, r.Sent.Add(patience))
	r.Took = time.Since(r.Sent)
	return r
}

func (c *Client) answer(ctx context.Context, deadline time.Time) (pod, node string, err error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", c.target.String())
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", "", err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", c.target.Addr()); err != nil {
		return "", "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("status %s", response.Status)
	}
	pod, node = who(string(body))
	return pod, node, nil
}

// who reads "pod=web-1 node=node1 client=198.51.100.10", see sandbox.Pod.
func who(answer string) (pod, node string) {
	for field := range strings.FieldsSeq(answer) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "pod":
			pod = value
		case "node":
			node = value
		}
	}
	return pod, node
}

package failover

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// interval is how often a client asks, and the LAN is asked.
	interval = 10 * time.Millisecond
	// patience is how long a client waits for its connection, and then for its answer, if the scene does not say.
	patience = 200 * time.Millisecond
)

// Request is one question of a client and what came of it.
type Request struct {
	Sent time.Time
	// Took is the time to the end of the answer, or to the failure.
	Took time.Duration
	// Pod and Node are who answered.
	Pod, Node string
	// Late is how long after its patience was over the client came to look, 0 when
	// it was there in time: then the machine is too busy to measure on.
	Late time.Duration
	// Err is nil for an answer with status 200.
	Err error
}

// Done is when the client knew.
func (r Request) Done() time.Time { return r.Sent.Add(r.Took) }

// Client asks for http://address/ from a host every 10 ms, each time on a
// connection of its own, and waits for the connection and then for the answer, 200 ms
// each if the scene does not say. It does not wait with the next question until the last is answered.
type Client struct {
	connect  func() (net.Conn, error)
	target   netip.AddrPort
	patience time.Duration
	stop     context.CancelFunc
	ended    sync.WaitGroup

	mu       sync.Mutex
	requests []Request // about in the order in which they were done
}

// ask starts a client; Stop ends it.
func (s *Scene) ask() *Client {
	ctx, stop := context.WithCancel(context.Background())
	c := &Client{target: netip.AddrPortFrom(s.Addr, 80), patience: cmp.Or(s.Patience, patience), stop: stop}
	c.connect = func() (conn net.Conn, err error) {
		err = s.Box.Do(s.Client, func() (err error) {
			conn, err = connect(s.ports.next(time.Now()), c.target)
			return err
		})
		return conn, err
	}
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
		c.ended.Go(func() { c.record(c.ask()) })
	}
}

// ports are where the clients of a scene ask from, in turn. The kernel would take a
// port again after a minute or less, and the nodes' conntrack remembers for two: a
// SYN that comes to a node before its service proxy knows the address leaves an
// entry without NAT there, and the next SYN from the same port shares its fate,
// though all is well by then.
type ports struct{ last atomic.Int64 }

const (
	// slot is how long a port stands for: two clients of a scene take one each 10 ms.
	slot = interval / 2
	// A port is below or above those that the kernel gives to others by itself.
	firstPort, lowPorts, firstHighPort, highPorts = 1024, 32768 - 1024, 61000, 65536 - 61000
)

// next is the port for now. As it goes by the time, it comes round after three
// minutes also where a scene follows another, or a run of tests another run.
func (p *ports) next(now time.Time) int {
	for {
		last := p.last.Load()
		next := max(last+1, now.UnixNano()/int64(slot))
		if !p.last.CompareAndSwap(last, next) {
			continue
		}
		n := int(next % (lowPorts + highPorts))
		if n < lowPorts {
			return firstPort + n
		}
		return firstHighPort + n - lowPorts
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
	if want := int(span / interval / 4); len(last) < want {
		return fmt.Errorf("%d requests were done in the last %v, want at least %d", len(last), span, want)
	}
	return nil
}

func (c *Client) ask() Request {
	r := Request{Sent: time.Now()}
	conn, err := c.connect()
	if err != nil {
		r.Err, r.Took = err, time.Since(r.Sent)
		return r
	}
	defer conn.Close()
	p := &patient{Conn: conn, patience: c.patience}
	r.Pod, r.Node, r.Err = p.get(c.target.Addr())
	r.Took, r.Late = time.Since(r.Sent), p.late
	return r
}

// connect begins a connection from a port in this thread's namespace. It does not
// wait for it: the thread is locked there, and a goroutine that waits on a locked
// thread goes on only when that one thread is scheduled. The first write waits.
func connect(port int, target netip.AddrPort) (net.Conn, error) {
	family, from, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port}),
		unix.Sockaddr(&unix.SockaddrInet6{Port: int(target.Port()), Addr: target.Addr().As16()})
	if target.Addr().Is4() {
		family, from = unix.AF_INET, &unix.SockaddrInet4{Port: port}
		to = &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "request")
	defer file.Close() // FileConn has its own
	if err := unix.Bind(fd, from); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(file)
}

// patient is a connection whose deadlines are about the network and not about this
// process. On a busy machine the process may be scheduled only when its patience
// is over, and Go then reports the deadline, whatever the kernel has received by
// then, and long since. So it looks once more before it gives up.
type patient struct {
	net.Conn

	patience time.Duration
	deadline time.Time
	late     time.Duration
}

// wait begins to be patient.
func (p *patient) wait() error {
	p.deadline = time.Now().Add(p.patience)
	return p.SetDeadline(p.deadline)
}

func (p *patient) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	return p.look(err, func(fd int) (int, error) { return unix.Write(fd, b) })
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	n, err = p.look(err, func(fd int) (int, error) { return unix.Read(fd, b) })
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// look does what can be done at once; when that is nothing, it is over.
func (p *patient) look(over error, do func(fd int) (int, error)) (n int, err error) {
	raw, err := p.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	late := time.Since(p.deadline)
	if control := raw.Control(func(fd uintptr) { n, err = do(int(fd)) }); control != nil {
		return 0, control
	}
	if errors.Is(err, unix.EAGAIN) {
		return 0, over
	}
	p.late = max(p.late, late)
	return max(n, 0), err
}

// get asks for / and returns who answered.
func (p *patient) get(host netip.Addr) (pod, node string, err error) {
	if err := p.wait(); err != nil {
		return "", "", err
	}
	if _, err := fmt.Fprintf(p, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return "", "", err
	}
	if err := p.wait(); err != nil {
		return "", "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(p), nil)
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

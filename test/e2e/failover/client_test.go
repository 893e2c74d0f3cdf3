package failover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const page = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 19\r\n\r\npod=web-1 node=node"

// neverThere is a deadline that was over before the process came to wait.
var neverThere = time.Unix(1, 0)

// serve listens and calls f with each connection.
func serve(t *testing.T, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f(conn)
		}
	}()
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// late is a connection whose patience is over by the time it is looked at; state
// is what poll(2) says the kernel has by then.
func late(t *testing.T, target netip.AddrPort, state int16) *patient {
	t.Helper()
	conn, err := connect(0, target)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	await(t, conn, state)
	must(t, conn.SetDeadline(neverThere))
	return &patient{Conn: conn, deadline: neverThere}
}

func await(t *testing.T, conn net.Conn, state int16) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		list := []unix.PollFd{{Fd: int32(fd), Events: state}}
		for state != 0 && list[0].Revents&state == 0 {
			if _, err := unix.Poll(list, -1); err != nil && !errors.Is(err, unix.EINTR) {
				t.Fatal(err)
			}
		}
	}))
}

func TestAnAnswerCountsThatIsThereBeforeTheClientLooks(t *testing.T) {
	p := late(t, serve(t, func(conn net.Conn) {
		defer conn.Close()
		conn.Read(make([]byte, 100))
		io.WriteString(conn, page)
	}), unix.POLLOUT)
	// There is a connection, which nobody has told Go.
	n, err := p.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if n != 18 || err != nil {
		t.Fatalf("writing to a connection that there is: %d, %v", n, err)
	}
	await(t, p.Conn, unix.POLLRDHUP) // the answer and its end
	answer, err := io.ReadAll(p)
	if string(answer) != page || err != nil {
		t.Errorf("reading an answer that there is: %q, %v", answer, err)
	}
	if p.late <= 0 {
		t.Error("the client does not say that it was late")
	}
}

func TestWhatIsNotThereAfterTheLastLookHasFailed(t *testing.T) {
	silent := serve(t, func(net.Conn) {})
	t.Run("no answer", func(t *testing.T) {
		p := late(t, silent, unix.POLLOUT)
		if n, err := p.Read(make([]byte, 100)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d: %v", n, err)
		}
		if p.late != 0 {
			t.Errorf("the client was late by %v for nothing", p.late)
		}
	})
	t.Run("no connection", func(t *testing.T) {
		p := late(t, full(t), 0)
		if n, err := p.Write([]byte("GET")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d: %v", n, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		listener.Close()
		p := late(t, listener.Addr().(*net.TCPAddr).AddrPort(), 0)
		if n, err := p.Write([]byte("GET")); n != 0 || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("wrote %d: %v", n, err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		p := late(t, serve(t, func(conn net.Conn) {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}), unix.POLLHUP)
		if n, err := p.Read(make([]byte, 100)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d: %v", n, err)
		}
	})
}

// full listens and lets no second connection in: the kernel drops the SYN.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 0))
	name, err := unix.Getsockname(fd)
	must(t, err)
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	first, err := net.Dial("tcp", addr.String())
	must(t, err)
	t.Cleanup(func() { first.Close() })
	return addr
}

func TestTheClientAsksAndReadsWhoAnswered(t *testing.T) {
	target := serve(t, func(conn net.Conn) {
		defer conn.Close()
		conn.Read(make([]byte, 100))
		io.WriteString(conn, page)
	})
	c := &Client{target: target, patience: time.Minute, connect: func() (net.Conn, error) { return connect(0, target) }}
	r := c.ask()
	if got := fmt.Sprint(r.Pod, " ", r.Node, " ", r.Err); got != "web-1 node <nil>" {
		t.Error(got)
	}
}

func TestAConnectionComesFromThePortThatIsAskedFor(t *testing.T) {
	peers := make(chan net.Addr, 1)
	target := serve(t, func(conn net.Conn) { peers <- conn.RemoteAddr() })
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	from := free.Addr().(*net.TCPAddr).Port
	_, err = connect(from, target)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("from a port that another has: %v", err)
	}
	free.Close()
	conn, err := connect(from, target)
	must(t, err)
	defer conn.Close()
	if peer := (<-peers).(*net.TCPAddr).Port; peer != from {
		t.Errorf("the connection comes from port %d, not %d", peer, from)
	}
}

// The nodes' conntrack forgets a SYN without an answer after two minutes.
func TestNoPortIsTakenAgainWithinTwoMinutes(t *testing.T) {
	last := map[int]time.Duration{}
	for scene := time.Duration(0); scene < time.Hour; scene += 7*time.Second + 3*time.Millisecond {
		var p ports
		for at := scene; at < scene+7*time.Second; at += interval {
			for range 2 { // clients
				port := p.next(begin.Add(at))
				if port < 1024 || port > 65535 || port >= 32768 && port <= 60999 {
					t.Fatalf("port %d", port)
				}
				if before, ok := last[port]; ok && at-before < 2*time.Minute {
					t.Fatalf("port %d is taken at %v and at %v", port, before, at)
				}
				last[port] = at
			}
		}
	}
}

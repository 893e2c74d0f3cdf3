package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// network opens sockets.
type network interface {
	open() (socket, error)
}

// socket receives from all peers, on the ports that listen has opened. Only wake may be called from elsewhere than the loop.
type socket interface {
	// listen opens ports, and closes those that are not needed. After an error it has done what it could.
	listen(needed [len(ports)]bool) error
	// dial opens a socket to send from, from the given port if that is not 0.
	dial(path Path, port uint16) (sender, error)
	// wait returns when a packet has come, when wake was called, or at a time, unless that is zero.
	wait(until time.Time)
	wake()
	// receive does not wait. What it writes to p is valid until it is called again.
	receive(p *packet) bool
	close()
}

// sender sends the packets of one session.
type sender interface {
	// send does not wait: a packet that cannot be sent now is lost.
	send(packet []byte) error
	port() uint16
	// index is that of the interface the sender is bound to, or 0.
	index() int
	// stale says that the interface is gone, or is another of the same name.
	stale() bool
	close()
}

// port is a well-known port of a family.
type port struct {
	number   uint16
	v6       bool
	multiHop bool
}

// ports are of RFC 5881, section 4, and RFC 5883, section 5.
var ports = [...]port{{3784, false, false}, {3784, true, false}, {4784, false, true}, {4784, true, true}}

func portOf(p Path) (i int) {
	if p.Peer.Is6() {
		i++
	}
	if p.MultiHop {
		i += 2
	}
	return i
}

const (
	firstSource, lastSource = 49152, 65535 // RFC 5881, section 4

	maxTTL = 255
	// networkControl is the class of service (CS6) of what keeps a network together.
	networkControl = 48 << 2
)

// kernel is the network of the namespace that it is called in.
type kernel struct{}

// sockets are system calls on buffers that are made once, as the net package makes garbage for each packet.
type sockets struct {
	receivers [len(ports)]*receiver
	polled    []unix.PollFd // the event and the receivers
	timeout   unix.Timespec
	turn      int // the receiver whose turn it is, so that a flood on one port does not hide another

	event  int // an eventfd, for wake
	count  [8]byte
	mu     sync.Mutex // so that none is waking while it is closed
	closed bool
}

func (kernel) open() (socket, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	s := &sockets{event: event}
	s.polled = []unix.PollFd{{Fd: int32(event), Events: unix.POLLIN}}
	return s, nil
}

func (s *sockets) listen(needed [len(ports)]bool) error {
	var failed []error
	s.polled = s.polled[:1]
	for i, p := range ports {
		switch r := s.receivers[i]; {
		case needed[i] && r == nil:
			opened, err := openReceiver(p)
			if err != nil {
				failed = append(failed, err)
				break
			}
			s.receivers[i] = opened
		case !needed[i] && r != nil:
			unix.Close(r.fd)
			s.receivers[i] = nil
		}
		if r := s.receivers[i]; r != nil {
			s.polled = append(s.polled, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
		}
	}
	return errors.Join(failed...)
}

func (s *sockets) wait(until time.Time) {
	var timeout *unix.Timespec
	if !until.IsZero() {
		s.timeout = unix.NsecToTimespec(max(0, time.Until(until).Nanoseconds()))
		timeout = &s.timeout
	}
	// An error is EINTR; then the loop finds nothing to do.
	if n, err := unix.Ppoll(s.polled, timeout, nil); err == nil && n > 0 && s.polled[0].Revents != 0 {
		_, _ = unix.Read(s.event, s.count[:])
	}
}

func (s *sockets) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	_, _ = unix.Write(s.event, binary.NativeEndian.AppendUint64(nil, 1))
}

func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.listen([len(ports)]bool{})
	s.closed = true
	unix.Close(s.event)
}

func (s *sockets) receive(p *packet) bool {
	for range s.receivers {
		r := s.receivers[s.turn]
		s.turn = (s.turn + 1) % len(s.receivers)
		if r != nil && r.receive(p) {
			return true
		}
	}
	return false
}

// receiver is a listening socket and the buffers of its system calls.
type receiver struct {
	port
	fd      int
	header  unix.Msghdr
	vector  unix.Iovec
	name    [unix.SizeofSockaddrInet6]byte
	control [128]byte
	data    [256]byte // a packet cannot say that it is longer
}

func openReceiver(p port) (*receiver, error) {
	fail := func(err error) (*receiver, error) {
		return nil, fmt.Errorf("listening for BFD on port %d: %w", p.number, err)
	}
	fd, err := udp(p.v6)
	if err != nil {
		return fail(err)
	}
	options := []option{{unix.IPPROTO_IP, unix.IP_PKTINFO, 1}, {unix.IPPROTO_IP, unix.IP_RECVTTL, 1}}
	var local unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.number)}
	if p.v6 {
		options = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		}
		local = &unix.SockaddrInet6{Port: int(p.number)}
	}
	// Not more than this, which the kernel doubles and counts at some 600 bytes per packet: drainLimit relies on it.
	options = append(options, option{unix.SOL_SOCKET, unix.SO_RCVBUF, 256 << 10})
	if err := setOptions(fd, options); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	// Without SO_REUSEADDR: another BFD daemon on the node would otherwise take our packets, or we its.
	if err := unix.Bind(fd, local); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	r := &receiver{port: p, fd: fd}
	r.vector.Base = &r.data[0]
	r.vector.SetLen(len(r.data))
	r.header.Name = &r.name[0]
	r.header.Iov = &r.vector
	r.header.SetIovlen(1)
	r.header.Control = &r.control[0]
	return r, nil
}

func (r *receiver) receive(p *packet) bool {
	r.header.Namelen = uint32(len(r.name))
	r.header.SetControllen(len(r.control))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.header)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return false
	}
	*p = packet{data: r.data[:n], multiHop: r.multiHop}
	if r.v6 {
		p.from = netip.AddrFrom16([16]byte(r.name[8:24])) // of struct sockaddr_in6
	} else {
		p.from = netip.AddrFrom4([4]byte(r.name[4:8])) // of struct sockaddr_in
	}
	r.ancillary(p, r.control[:r.header.Controllen])
	return true
}

// ancillary reads the control messages (cmsg(3)). What is not said stays zero, and a TTL of zero is refused.
func (r *receiver) ancillary(p *packet, b []byte) {
	const headerLen, align = unix.SizeofCmsghdr, unix.SizeofPtr
	ne := binary.NativeEndian
	for len(b) >= headerLen {
		header := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		length := int(header.Len)
		if length < headerLen || length > len(b) {
			return
		}
		value := b[headerLen:length]
		switch [2]int32{header.Level, header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_TTL}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT}:
			p.ttl = int(int32(ne.Uint32(value)))
		case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}:
			p.index, p.to = int(ne.Uint32(value)), netip.AddrFrom4([4]byte(value[8:12]))
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:
			p.to, p.index = netip.AddrFrom16([16]byte(value[:16])), int(ne.Uint32(value[16:]))
		}
		b = b[min(len(b), (length+align-1)&^(align-1)):]
	}
}

// transmitter is the socket that a session sends from. It is not connected, so an ICMP error is not reported on it. Nobody reads
// what it may receive.
type transmitter struct {
	fd     int
	source uint16
	peer   unix.Sockaddr
	name   *unix.Ifreq // nil when not bound to an interface
	bound  int
}

func (s *sockets) dial(path Path, source uint16) (sender, error) {
	fd, err := udp(path.Peer.Is6())
	if err != nil {
		return nil, err
	}
	t := &transmitter{fd: fd}
	if err := t.prepare(path, source); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return t, nil
}

func (t *transmitter) prepare(path Path, source uint16) error {
	if path.Interface != "" {
		if err := t.bindToInterface(path.Interface); err != nil {
			return fmt.Errorf("binding to the interface %s: %w", path.Interface, err)
		}
	}
	options := []option{{unix.IPPROTO_IP, unix.IP_TTL, maxTTL}, {unix.IPPROTO_IP, unix.IP_TOS, networkControl}}
	if path.Peer.Is6() {
		options = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, maxTTL}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, networkControl},
		}
	}
	if err := setOptions(t.fd, append(options, option{unix.SOL_SOCKET, unix.SO_RCVBUF, 0})); err != nil {
		return err
	}
	t.peer = t.address(path.Peer, ports[portOf(path)].number)
	const tries = 100
	for try := 0; ; try++ {
		t.source = source
		if source == 0 || try > 0 {
			t.source = uint16(firstSource + rand.IntN(lastSource-firstSource+1))
		}
		err := unix.Bind(t.fd, t.local(path, t.source))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || try == tries {
			return fmt.Errorf("binding to %s: %w", path.Local, err)
		}
	}
}

func (t *transmitter) bindToInterface(name string) (err error) {
	if err := unix.BindToDevice(t.fd, name); err != nil {
		return err
	}
	if t.name, err = unix.NewIfreq(name); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(t.fd, unix.SIOCGIFINDEX, t.name); err != nil {
		return err
	}
	t.bound = int(t.name.Uint32())
	return nil
}

func (t *transmitter) local(path Path, source uint16) unix.Sockaddr {
	switch {
	case path.Local.IsValid():
		return t.address(path.Local, source)
	case path.Peer.Is6():
		return &unix.SockaddrInet6{Port: int(source)}
	}
	return &unix.SockaddrInet4{Port: int(source)}
}

func (t *transmitter) address(a netip.Addr, number uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(number)}
	}
	to := &unix.SockaddrInet6{Addr: a.As16(), Port: int(number)}
	if a.IsLinkLocalUnicast() {
		to.ZoneId = uint32(t.bound)
	}
	return to
}

func (t *transmitter) send(packet []byte) error {
	return unix.Sendto(t.fd, packet, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, t.peer)
}

func (t *transmitter) port() uint16 { return t.source }
func (t *transmitter) index() int   { return t.bound }
func (t *transmitter) close()       { unix.Close(t.fd) }

func (t *transmitter) stale() bool {
	return t.name != nil && (unix.IoctlIfreq(t.fd, unix.SIOCGIFINDEX, t.name) != nil || int(t.name.Uint32()) != t.bound)
}

func udp(v6 bool) (fd int, err error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a UDP socket: %w", err)
	}
	return fd, nil
}

type option struct{ level, name, value int }

func setOptions(fd int, options []option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("setting option %d of level %d: %w", o.name, o.level, err)
		}
	}
	return nil
}

// RealTime says whether a Watcher of this process may have a thread with real-time priority, and if not, why. That makes
// 100 ms × 3 safe from other processes that are busy. It does not help against goroutines of this one that keep all of
// GOMAXPROCS busy: the Go scheduler, which knows no priorities, may then let the thread wait for some 100 ms.
func RealTime() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with this goroutine, and its priority with it
		result <- becomeRealTime()
	}()
	return <-result
}

// becomeRealTime has the thread run before all threads of normal priority. What a real-time thread does not need, it leaves to
// others: it is only ever ready to run for some microseconds.
func becomeRealTime() error {
	const priority = 10 // low: the kernel's own are at 50 and above
	attr := &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("SCHED_FIFO, which needs CAP_SYS_NICE or RLIMIT_RTPRIO: %w", err)
	}
	return nil
}

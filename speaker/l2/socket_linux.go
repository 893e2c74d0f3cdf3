package l2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// network opens the sockets of an interface.
type network interface {
	listen(i Interface, p protocol, filter []bpf.Instruction) (conn, error)
	groups(i Interface) (groupSocket, error)
}

// conn receives and sends Ethernet frames.
type conn interface {
	Read(frame []byte) (int, error)
	// Write never waits: a frame that cannot be sent now is lost.
	Write(frame []byte) (int, error)
	setFilter(filter []bpf.Instruction) error
	Close() error
}

// kernel is the network of the namespace that it is called in.
type kernel struct{}

// packetSocket is an AF_PACKET socket of one interface and protocol. It is an os.File, and not a net.PacketConn, because
// reading then makes no garbage: nobody needs the sender's address twice.
type packetSocket struct {
	*os.File
	raw   syscall.RawConn
	index int // of the interface

	writing sync.Mutex
	frame   []byte
	err     error
	send    func(fd uintptr) // sends frame; made once, as a closure per frame would be garbage
}

func (kernel) listen(i Interface, p protocol, filter []bpf.Instruction) (conn, error) {
	// Without a protocol the socket hears nothing until it is bound, so nothing precedes the filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket on %s: %w", i.Name, err)
	}
	s := &packetSocket{File: os.NewFile(uintptr(fd), p.String()+" "+i.Name), index: i.Index}
	if s.raw, err = s.SyscallConn(); err != nil {
		s.Close()
		return nil, err
	}
	s.send = func(fd uintptr) { _, s.err = unix.Write(int(fd), s.frame) }
	if err := s.setFilter(filter); err != nil {
		s.Close()
		return nil, err
	}
	// Room for a whole LAN that asks at once. It is a wish: the kernel may grant less (net.core.rmem_max).
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	etherType := map[protocol]uint16{arp: unix.ETH_P_ARP, ndp: unix.ETH_P_IPV6}[p]
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(etherType), Ifindex: i.Index}); err != nil {
		s.Close()
		return nil, fmt.Errorf("binding a packet socket to %s: %w", i.Name, err)
	}
	return s, nil
}

func (s *packetSocket) Write(frame []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.frame = frame
	if err := s.raw.Control(s.send); err != nil {
		return 0, err
	}
	return len(frame), s.err
}

// setFilter replaces the filter in one step: no frame passes unfiltered.
func (s *packetSocket) setFilter(filter []bpf.Instruction) error {
	program, err := bpf.Assemble(append(sameLAN(s.index), filter...))
	if err != nil {
		return fmt.Errorf("assembling the filter of %s: %w", s.Name(), err)
	}
	instructions := make([]unix.SockFilter, len(program))
	for i, raw := range program {
		instructions[i] = unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	var attached error
	err = s.raw.Control(func(fd uintptr) {
		attached = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog)
	})
	if err := errors.Join(err, attached); err != nil {
		return fmt.Errorf("attaching the filter of %s: %w", s.Name(), err)
	}
	return nil
}

// sameLAN begins a filter: it drops what is not for this interface. A packet socket also gets the frames of VLANs on top of
// the interface, with the tag taken off, so an address would be answered on a LAN where nobody announces it. When the node
// has an interface for the VLAN, they belong to that by now; when not, the kernel marks them as for another host. So it
// does with what is heard only because the interface is promiscuous.
func sameLAN(index int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(index), SkipTrue: 1},
		drop,
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: 1},
		drop,
	}
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// multicastSocket receives nothing; it exists for its memberships. PACKET_ADD_MEMBERSHIP would open the network card
// for a group as well, but tell no switch: only IPv6 reports by MLD.
type multicastSocket struct{ fd, index int }

func (kernel) groups(i Interface) (groupSocket, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket for multicast groups on %s: %w", i.Name, err)
	}
	return &multicastSocket{fd, i.Index}, nil
}

func (s *multicastSocket) join(group netip.Addr) error  { return s.set(unix.IPV6_JOIN_GROUP, group) }
func (s *multicastSocket) leave(group netip.Addr) error { return s.set(unix.IPV6_LEAVE_GROUP, group) }
func (s *multicastSocket) Close() error                 { return unix.Close(s.fd) }

func (s *multicastSocket) set(option int, group netip.Addr) error {
	request := &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(s.index)}
	return os.NewSyscallError("setsockopt", unix.SetsockoptIPv6Mreq(s.fd, unix.IPPROTO_IPV6, option, request))
}

// Probe returns an error that says what is missing when the process may not open the sockets of a Responder.
func Probe() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("CAP_NET_RAW is needed to answer ARP and NDP: %w", err)
	}
	return unix.Close(fd)
}

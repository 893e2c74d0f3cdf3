package l2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	arplib "github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	ndplib "github.com/mdlayher/ndp"
)

// The cast: a node with two interfaces, of which the first announces v4 and v6, and the second the others.
var (
	nodeMAC   = mac{0x02, 0, 0, 0, 0, 0x0a}
	secondMAC = mac{0x02, 0, 0, 0, 0, 0x0b}
	hostMAC   = mac{0x02, 0, 0, 0, 0, 0xcc}
	otherMAC  = mac{0x02, 0, 0, 0, 0, 0xdd}

	v4, v4other = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	v6, v6other = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::11")
	host4       = netip.MustParseAddr("192.0.2.77")
	host6       = netip.MustParseAddr("2001:db8::77")
	zero4       = netip.IPv4Unspecified()
	zero6       = netip.IPv6Unspecified()
	stranger4   = netip.MustParseAddr("192.0.2.99")
	stranger6   = netip.MustParseAddr("2001:db8::99")

	testInterfaces = []Interface{{"eth0", 2, nodeMAC, true}, {"eth1", 3, secondMAC, true}}
	testDesired    = []Announcement{{v4, "eth0"}, {v6, "eth0"}, {v4other, "eth1"}, {v6other, "eth1"}}
)

const (
	arpAnswer = "02:00:00:00:00:0a > 02:00:00:00:00:cc ARP reply 192.0.2.10 is at 02:00:00:00:00:0a, for 192.0.2.77 at 02:00:00:00:00:cc"
	ndpAnswer = "02:00:00:00:00:0a > 02:00:00:00:00:cc NA 2001:db8::10 > 2001:db8::77 hops 255 router=false solicited=true override=true target 2001:db8::10 at 02:00:00:00:00:0a"
)

// frames is the conformance table: it is run against handle, against a Responder on a network in memory, and against one
// on a veth pair. There only the reply can be seen, not the reason.
var frames = []struct {
	name   string
	frame  []byte
	reply  string
	reason Reason
}{
	{"ARP request", arpFrame(arplib.OperationRequest, host4, v4), arpAnswer, ""},
	{"ARP request, padded", append(arpFrame(arplib.OperationRequest, host4, v4), make([]byte, 18)...), arpAnswer, ""},
	{"ARP request, unicast", edit(arpFrame(arplib.OperationRequest, host4, v4), set(0, nodeMAC[:]...)), arpAnswer, ""},
	{"ARP probe (RFC 5227)", arpFrame(arplib.OperationRequest, zero4, v4),
		strings.Replace(arpAnswer, "192.0.2.77", "0.0.0.0", 1), ""},
	{"ARP for another", arpFrame(arplib.OperationRequest, host4, stranger4), "", NotAnnounced},
	{"ARP for another interface's", arpFrame(arplib.OperationRequest, host4, v4other), "", WrongInterface},
	{"ARP reply", arpFrame(arplib.OperationReply, host4, v4), "", Unrelated},
	{"ARP reply that claims", arpFrame(arplib.OperationReply, v4, host4), "", Conflict},
	{"gratuitous ARP that claims", arpFrame(arplib.OperationRequest, v4, v4), "", Conflict},
	{"ARP request from the address itself", arpFrame(arplib.OperationRequest, v4, host4), "", Conflict},
	{"ARP, RARP operation", edit(arpFrame(arplib.OperationRequest, host4, v4), set(21, 3)), "", Unrelated},
	{"ARP, cut off", arpFrame(arplib.OperationRequest, host4, v4)[:41], "", Malformed},
	{"ARP, hardware type", edit(arpFrame(arplib.OperationRequest, host4, v4), set(15, 6)), "", Malformed},
	{"ARP, protocol type", edit(arpFrame(arplib.OperationRequest, host4, v4), set(16, 0x86)), "", Malformed},
	{"ARP, hardware length", edit(arpFrame(arplib.OperationRequest, host4, v4), set(18, 8)), "", Malformed},
	{"ARP, protocol length", edit(arpFrame(arplib.OperationRequest, host4, v4), set(19, 16)), "", Malformed},
	{"ARP, sender is not the sender", edit(arpFrame(arplib.OperationRequest, host4, v4), set(22, otherMAC[:]...)), "", ForeignSender},
	{"ARP, sender is broadcast", edit(arpFrame(arplib.OperationRequest, host4, v4), set(22, broadcast[:]...), set(6, broadcast[:]...)), "", ForeignSender},
	{"ARP, our own", edit(arpFrame(arplib.OperationRequest, v4, v4), set(22, nodeMAC[:]...), set(6, nodeMAC[:]...)), "", OwnFrame},
	{"ARP, our own from the second interface", edit(arpFrame(arplib.OperationRequest, v4, v4), set(22, secondMAC[:]...), set(6, secondMAC[:]...)), "", OwnFrame},
	{"no ARP, no IPv6", edit(arpFrame(arplib.OperationRequest, host4, v4), set(12, 8, 0)), "", Unrelated},
	{"no Ethernet", make([]byte, 13), "", Malformed},

	{"NS", nsFrame(host6, v6, true), ndpAnswer, ""},
	{"NS, unicast", edit(nsFrame(host6, v6, true), to(nodeMAC, v6)), ndpAnswer, ""},
	{"NS without link-layer address", nsFrame(host6, v6, false), ndpAnswer, ""},
	{"NS with another link-layer address", edit(nsFrame(host6, v6, true), set(80, otherMAC[:]...), sum),
		strings.Replace(ndpAnswer, "02:00:00:00:00:cc", "02:00:00:00:00:dd", 1), ""},
	{"NS with an unknown option", edit(nsFrame(host6, v6, true), set(78, 99), sum), ndpAnswer, ""},
	{"NS, trailing bytes", append(nsFrame(host6, v6, true), 1, 2, 3), ndpAnswer, ""},
	{"duplicate address detection", nsFrame(zero6, v6, false),
		"02:00:00:00:00:0a > 33:33:00:00:00:01 NA 2001:db8::10 > ff02::1 hops 255 router=false solicited=false override=true target 2001:db8::10 at 02:00:00:00:00:0a", ""},
	{"duplicate address detection with link-layer address", nsFrame(zero6, v6, true), "", Malformed},
	{"duplicate address detection to all nodes", edit(nsFrame(zero6, v6, false), to(groupMAC(allNodes), allNodes)), "", Malformed},
	{"NS for another", nsFrame(host6, stranger6, true), "", NotAnnounced},
	{"NS for another interface's", nsFrame(host6, v6other, true), "", WrongInterface},
	{"NS for a group", edit(nsFrame(host6, v6, true), set(62, 0xff), sum), "", Malformed},
	{"NS from a group", edit(nsFrame(host6, v6, true), set(22, 0xff), sum), "", Malformed},
	{"NS from the address itself", nsFrame(v6, v6, true), "", Conflict},
	{"NS from far", edit(nsFrame(host6, v6, true), set(21, 254)), "", BadHopLimit},
	{"NS, checksum", edit(nsFrame(host6, v6, true), set(56, 0xde, 0xad)), "", BadChecksum},
	{"NS, code", edit(nsFrame(host6, v6, true), set(55, 1), sum), "", Malformed},
	{"NS, option of length zero", edit(nsFrame(host6, v6, true), set(79, 0), sum), "", Malformed},
	{"NS, option cut off", edit(nsFrame(host6, v6, true), set(79, 2), sum), "", Malformed},
	{"NS, link-layer address is a group", edit(nsFrame(host6, v6, true), set(80, broadcast[:]...), sum), "", ForeignSender},
	{"NS, frame from a group", edit(nsFrame(host6, v6, true), set(6, 0x33)), "", ForeignSender},
	{"NS, payload too short", edit(nsFrame(host6, v6, false), set(19, 20), sum), "", Malformed},
	{"NS, no payload", edit(nsFrame(host6, v6, false), set(19, 0)), "", Malformed},
	{"NS, cut off", nsFrame(host6, v6, true)[:80], "", Malformed},
	{"NS, IP version", edit(nsFrame(host6, v6, true), set(14, 0x40)), "", Malformed},
	{"NS, our own", edit(nsFrame(host6, v6, true), set(6, nodeMAC[:]...)), "", OwnFrame},
	{"NA that claims", naFrame(v6, host6, true), "", Conflict},
	{"NA that claims, to all", naFrame(v6, allNodes, false), "", Conflict},
	{"NA of another", naFrame(stranger6, host6, true), "", Unrelated},
	{"NA, solicited, to all", naFrame(v6, allNodes, true), "", Malformed},
	{"NA, option of length zero", edit(naFrame(v6, host6, true), set(79, 0), sum), "", Malformed},
	{"echo request", edit(nsFrame(host6, v6, true), set(54, 128), sum), "", Unrelated},
	{"UDP", edit(nsFrame(host6, v6, true), set(20, 17)), "", Unrelated},
}

func TestHandle(t *testing.T) {
	table := plan(testInterfaces, testDesired)["eth0"].table
	for _, tt := range frames {
		t.Run(tt.name, func(t *testing.T) {
			before := string(tt.frame)
			reply, reason := table.handle(tt.frame, nil)
			if reason != tt.reason || describe(reply) != tt.reply {
				t.Errorf("got  %q %s\nwant %q %s", reason, describe(reply), tt.reason, tt.reply)
			}
			if string(tt.frame) != before {
				t.Error("the frame was written to")
			}
		})
	}
}

func TestClaim(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		addr  netip.Addr
		mac   mac
	}{
		{"gratuitous ARP", arpFrame(arplib.OperationRequest, v4, v4), v4, hostMAC},
		{"ARP reply", arpFrame(arplib.OperationReply, v4, host4), v4, hostMAC},
		{"NA", edit(naFrame(v6, allNodes, false), set(80, otherMAC[:]...), sum), v6, otherMAC},
		{"NA without link-layer address", edit(naFrame(v6, allNodes, false), set(78, 99), sum), v6, hostMAC},
		{"NS", nsFrame(v6, stranger6, true), v6, hostMAC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if addr, m := claim(tt.frame); addr != tt.addr || m != tt.mac {
				t.Errorf("got %s at %x, want %s at %x", addr, m, tt.addr, tt.mac)
			}
		})
	}
}

func TestAnnouncement(t *testing.T) {
	tests := []struct {
		addr netip.Addr
		want string
	}{
		{v4, `02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP request 192.0.2.10 is at 02:00:00:00:00:0a, for 192.0.2.10 at 00:00:00:00:00:00
02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP reply 192.0.2.10 is at 02:00:00:00:00:0a, for 192.0.2.10 at 02:00:00:00:00:0a`},
		{v6, `02:00:00:00:00:0a > 33:33:00:00:00:01 NA 2001:db8::10 > ff02::1 hops 255 router=false solicited=false override=true target 2001:db8::10 at 02:00:00:00:00:0a`},
	}
	for _, tt := range tests {
		var got []string
		for _, frame := range announcement(nodeMAC, tt.addr) {
			got = append(got, describe(frame))
		}
		if got := strings.Join(got, "\n"); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// FuzzHandle: whatever comes in, nothing breaks, and what goes out is well formed and speaks of an announced address only.
func FuzzHandle(f *testing.F) {
	for _, tt := range frames {
		f.Add(tt.frame)
	}
	table := plan(testInterfaces, testDesired)["eth0"].table
	f.Fuzz(func(t *testing.T, frame []byte) {
		reply, reason := table.handle(frame, nil)
		if (reason == "") != (reply != nil) {
			t.Fatalf("reply %x with reason %q", reply, reason)
		}
		if reason == Conflict {
			if addr, _ := claim(frame); addr != v4 && addr != v6 {
				t.Errorf("claim to %s, which is not announced", addr)
			}
		}
		if reply == nil {
			return
		}
		got := describe(reply)
		if !strings.HasPrefix(got, "02:00:00:00:00:0a > ") || reply[0] == 0xff ||
			!strings.Contains(got, "ARP reply 192.0.2.10 is at 02:00:00:00:00:0a") &&
				!strings.HasSuffix(got, "target 2001:db8::10 at 02:00:00:00:00:0a") {
			t.Errorf("reply %s", got)
		}
	})
}

func BenchmarkReply(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		for _, p := range protocols {
			b.Run(fmt.Sprintf("%s-%d", p, n), func(b *testing.B) {
				var desired []Announcement
				addr := map[protocol]netip.Addr{arp: netip.MustParseAddr("10.0.0.1"), ndp: netip.MustParseAddr("2001:db8:1::1")}[p]
				for range n {
					desired = append(desired, Announcement{addr, "eth0"})
					addr = addr.Next()
				}
				asked := desired[n/2].Addr
				frame := request(asked)
				table := plan(testInterfaces, desired)["eth0"].table
				buf := make([]byte, 0, maxReplyLen)
				b.ReportAllocs()
				for b.Loop() {
					if _, reason := table.handle(frame, buf); reason != "" {
						b.Fatal(reason)
					}
				}
			})
		}
	}
}

// The frames of the tests are made and read by libraries that share no code with what is tested.

func arpFrame(operation arplib.Operation, sender, target netip.Addr) []byte {
	packet, err := arplib.NewPacket(operation, hostMAC[:], sender, make(net.HardwareAddr, 6), target)
	if err != nil {
		panic(err)
	}
	payload, err := packet.MarshalBinary()
	if err != nil {
		panic(err)
	}
	frame, _ := (&ethernet.Frame{Destination: ethernet.Broadcast, Source: hostMAC[:], EtherType: ethernet.EtherTypeARP, Payload: payload}).MarshalBinary()
	return frame[:14+28] // without padding
}

// nsFrame asks for target, in its group, with or without the option that names the sender's MAC.
func nsFrame(source, target netip.Addr, named bool) []byte {
	m := &ndplib.NeighborSolicitation{TargetAddress: target}
	if named {
		m.Options = []ndplib.Option{&ndplib.LinkLayerAddress{Direction: ndplib.Source, Addr: hostMAC[:]}}
	}
	return ndpFrame(source, solicitedNode(target), m)
}

func naFrame(target, destination netip.Addr, solicited bool) []byte {
	return ndpFrame(target, destination, &ndplib.NeighborAdvertisement{
		Solicited: solicited, Override: true, TargetAddress: target,
		Options: []ndplib.Option{&ndplib.LinkLayerAddress{Direction: ndplib.Target, Addr: hostMAC[:]}},
	})
}

func ndpFrame(source, destination netip.Addr, m ndplib.Message) []byte {
	payload, err := ndplib.MarshalMessageChecksum(m, source, destination)
	if err != nil {
		panic(err)
	}
	header := append([]byte{0x60, 0, 0, 0, 0, byte(len(payload)), 58, 255}, source.AsSlice()...)
	header = append(header, destination.AsSlice()...)
	frame := append(slices.Clone(hostMAC[:]), 0x86, 0xdd)
	frame = append(append(frame, header...), payload...)
	group := groupMAC(destination)
	return append(group[:], frame...)
}

// request asks for addr as a host does.
func request(addr netip.Addr) []byte {
	if addr.Is4() {
		return arpFrame(arplib.OperationRequest, host4, addr)
	}
	return nsFrame(host6, addr, true)
}

func edit(frame []byte, edits ...func([]byte)) []byte {
	for _, e := range edits {
		e(frame)
	}
	return frame
}

func set(offset int, bytes ...byte) func([]byte) {
	return func(frame []byte) { copy(frame[offset:], bytes) }
}

// to redirects a frame of IPv6.
func to(m mac, destination netip.Addr) func([]byte) {
	return func(frame []byte) {
		copy(frame, m[:])
		copy(frame[38:], destination.AsSlice())
		sum(frame)
	}
}

// sum makes the checksum right again after an edit.
func sum(frame []byte) {
	message := frame[54 : 54+int(frame[19])]
	message[2], message[3] = 0, 0
	source, destination := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
	binary.BigEndian.PutUint16(message[2:], checksum(source, destination, message))
}

// describe returns what a frame of ours says.
func describe(frame []byte) string {
	if frame == nil {
		return ""
	}
	var e ethernet.Frame
	if err := e.UnmarshalBinary(frame); err != nil {
		return err.Error()
	}
	head := fmt.Sprintf("%s > %s", e.Source, e.Destination)
	if e.EtherType == ethernet.EtherTypeARP {
		var p arplib.Packet
		if err := p.UnmarshalBinary(e.Payload); err != nil {
			return err.Error()
		}
		operation := map[arplib.Operation]string{arplib.OperationRequest: "request", arplib.OperationReply: "reply"}[p.Operation]
		return fmt.Sprintf("%s ARP %s %s is at %s, for %s at %s", head, operation, p.SenderIP, p.SenderHardwareAddr, p.TargetIP, p.TargetHardwareAddr)
	}
	source, destination := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
	m, err := ndplib.ParseMessage(frame[54:])
	if err != nil {
		return err.Error()
	}
	na, ok := m.(*ndplib.NeighborAdvertisement)
	if !ok || len(na.Options) != 1 {
		return fmt.Sprintf("%s %+v", head, m)
	}
	// The library makes the checksum anew; it must be the one that we sent.
	again, err := ndplib.MarshalMessageChecksum(m, source, destination)
	if err != nil || !bytes.Equal(again, frame[54:]) || int(frame[19]) != len(again) {
		return fmt.Sprintf("%s bad checksum or length", head)
	}
	return fmt.Sprintf("%s NA %s > %s hops %d router=%t solicited=%t override=%t target %s at %s", head, source, destination,
		frame[21], na.Router, na.Solicited, na.Override, na.TargetAddress, na.Options[0].(*ndplib.LinkLayerAddress).Addr)
}

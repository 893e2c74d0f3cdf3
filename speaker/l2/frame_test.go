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

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	arplib "github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	ndplib "github.com/mdlayher/ndp"
)

// The cast: a node with two interfaces, of which the first announces v4 and v6 and asks for asked4 and asked6, and the second
// announces the others.
var (
	nodeMAC   = mac{0x02, 0, 0, 0, 0, 0x0a}
	secondMAC = mac{0x02, 0, 0, 0, 0, 0x0b}
	hostMAC   = mac{0x02, 0, 0, 0, 0, 0xcc}
	otherMAC  = mac{0x02, 0, 0, 0, 0, 0xdd}
	vrrpMAC   = mac{0x00, 0, 0x5e, 0, 0x01, 0x2a} // of a virtual router (RFC 5798, section 7.3)

	v4, v4other = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	v6, v6other = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::11")
	host4       = netip.MustParseAddr("192.0.2.77")
	host6       = netip.MustParseAddr("2001:db8::77")
	zero4       = netip.IPv4Unspecified()
	zero6       = netip.IPv6Unspecified()
	stranger4   = netip.MustParseAddr("192.0.2.99")
	stranger6   = netip.MustParseAddr("2001:db8::99")
	asked4      = netip.MustParseAddr("192.0.2.50")
	asked6      = netip.MustParseAddr("2001:db8::50")

	testInterfaces = []Interface{{"eth0", 2, nodeMAC, true}, {"eth1", 3, secondMAC, true}}
	testDesired    = []Announcement{
		{Addr: v4, Interface: "eth0", Term: 7}, {Addr: v6, Interface: "eth0", Term: 7},
		{Addr: v4other, Interface: "eth1"}, {Addr: v6other, Interface: "eth1"},
	}
	testQuestions = []Question{{Addr: asked4, Interface: "eth0"}, {Addr: asked6, Interface: "eth0"}}
)

const (
	arpAnswer = "02:00:00:00:00:0a > 02:00:00:00:00:cc ARP reply 192.0.2.10 is at 02:00:00:00:00:0a, for 192.0.2.77 at 02:00:00:00:00:cc term 7"
	ndpAnswer = "02:00:00:00:00:0a > 02:00:00:00:00:cc NA 2001:db8::10 > 2001:db8::77 hops 255 router=false solicited=true override=true target 2001:db8::10 at 02:00:00:00:00:0a term 7"
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
	{"ARP reply of the asked", arpFrame(arplib.OperationReply, asked4, host4), "", Answered},
	{"ARP reply of the asked to a probe", arpFrame(arplib.OperationReply, asked4, zero4), "", Answered},
	{"gratuitous ARP of the asked", arpFrame(arplib.OperationRequest, asked4, asked4), "", Answered},
	{"ARP request from the asked", arpFrame(arplib.OperationRequest, asked4, host4), "", Answered},
	{"ARP request from the asked for ours", arpFrame(arplib.OperationRequest, asked4, v4), strings.Replace(arpAnswer, "192.0.2.77", "192.0.2.50", 1), ""},
	{"ARP request for the asked", arpFrame(arplib.OperationRequest, host4, asked4), "", NotAnnounced},
	{"ARP probe for the asked", arpFrame(arplib.OperationRequest, zero4, asked4), "", NotAnnounced},
	{"ARP, RARP operation", edit(arpFrame(arplib.OperationRequest, host4, v4), set(21, 3)), "", Unrelated},
	{"ARP, cut off", arpFrame(arplib.OperationRequest, host4, v4)[:41], "", Malformed},
	{"ARP, hardware type", edit(arpFrame(arplib.OperationRequest, host4, v4), set(15, 6)), "", Malformed},
	{"ARP, protocol type", edit(arpFrame(arplib.OperationRequest, host4, v4), set(16, 0x86)), "", Malformed},
	{"ARP, hardware length", edit(arpFrame(arplib.OperationRequest, host4, v4), set(18, 8)), "", Malformed},
	{"ARP, protocol length", edit(arpFrame(arplib.OperationRequest, host4, v4), set(19, 16)), "", Malformed},
	{"ARP request from a virtual router", edit(arpFrame(arplib.OperationRequest, host4, v4), set(22, vrrpMAC[:]...)),
		strings.ReplaceAll(arpAnswer, "02:00:00:00:00:cc", "00:00:5e:00:01:2a"), ""},
	{"ARP reply of a virtual router that claims", edit(arpFrame(arplib.OperationReply, v4, host4), set(22, vrrpMAC[:]...)), "", Conflict},
	{"gratuitous ARP of a virtual router", edit(arpFrame(arplib.OperationRequest, asked4, asked4), set(22, vrrpMAC[:]...)), "", Answered},
	{"ARP reply of a cluster behind a group", edit(arpFrame(arplib.OperationReply, asked4, host4), set(22, 3, 0xbf)), "", Answered},
	{"ARP request from a group", edit(arpFrame(arplib.OperationRequest, host4, v4), set(22, 3, 0xbf)), "", ForeignSender},
	{"ARP, sender is broadcast in the message", edit(arpFrame(arplib.OperationReply, v4, host4), set(22, broadcast[:]...)), "", ForeignSender},
	{"ARP, sender is zero", edit(arpFrame(arplib.OperationReply, v4, host4), set(22, make([]byte, 6)...)), "", ForeignSender},
	{"ARP that repeats where ours are", edit(arpFrame(arplib.OperationReply, v4, host4), set(22, secondMAC[:]...)), "", OwnFrame},
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
		"02:00:00:00:00:0a > 33:33:00:00:00:01 NA 2001:db8::10 > ff02::1 hops 255 router=false solicited=false override=true target 2001:db8::10 at 02:00:00:00:00:0a term 7", ""},
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
	{"NS, link-layer address is broadcast", edit(nsFrame(host6, v6, true), set(80, broadcast[:]...), sum), "", ForeignSender},
	{"NS, link-layer address is a group", edit(nsFrame(host6, v6, true), set(80, 3, 0xbf), sum), "", ForeignSender},
	{"NS from the address itself, behind a group", edit(nsFrame(v6, v6, true), set(80, 3, 0xbf), sum), "", Conflict},
	{"NS that repeats where ours are", edit(nsFrame(v6, v6, true), set(80, secondMAC[:]...), sum), "", OwnFrame},
	{"NA of a virtual router that claims", edit(naFrame(v6, host6, true), set(80, vrrpMAC[:]...), sum), "", Conflict},
	{"NS of a virtual router", edit(nsFrame(host6, v6, true), set(80, vrrpMAC[:]...), sum),
		strings.Replace(ndpAnswer, "02:00:00:00:00:cc", "00:00:5e:00:01:2a", 1), ""},
	{"NS, frame from a group", edit(nsFrame(host6, v6, true), set(6, 0x33)), "", ForeignSender},
	{"NS, payload too short", edit(nsFrame(host6, v6, false), set(19, 20), sum), "", Malformed},
	{"NS, no payload", edit(nsFrame(host6, v6, false), set(19, 0)), "", Malformed},
	{"NS, cut off", nsFrame(host6, v6, true)[:80], "", Malformed},
	{"NS, IP version", edit(nsFrame(host6, v6, true), set(14, 0x40)), "", Malformed},
	{"NS, our own", edit(nsFrame(host6, v6, true), set(6, nodeMAC[:]...)), "", OwnFrame},
	{"NA that claims", naFrame(v6, host6, true), "", Conflict},
	{"NA that claims, to all", naFrame(v6, allNodes, false), "", Conflict},
	{"NA of another", naFrame(stranger6, host6, true), "", Unrelated},
	{"NA of the asked", naFrame(asked6, host6, true), "", Answered},
	{"NA of the asked, to all", naFrame(asked6, allNodes, false), "", Answered},
	{"NA that repeats where ours are", edit(naFrame(v6, allNodes, false), set(80, secondMAC[:]...), sum), "", OwnFrame},
	{"NS from the asked for ours", nsFrame(asked6, v6, true), strings.Replace(ndpAnswer, "2001:db8::77", "2001:db8::50", 1), ""},
	{"NS for the asked", nsFrame(host6, asked6, true), "", NotAnnounced},
	{"duplicate address detection for the asked", nsFrame(zero6, asked6, false), "", NotAnnounced},
	{"NA, solicited, to all", naFrame(v6, allNodes, true), "", Malformed},
	{"NA, option of length zero", edit(naFrame(v6, host6, true), set(79, 0), sum), "", Malformed},
	{"echo request", edit(nsFrame(host6, v6, true), set(54, 128), sum), "", Unrelated},
	{"UDP", edit(nsFrame(host6, v6, true), set(20, 17)), "", Unrelated},
}

func TestHandle(t *testing.T) {
	table := plan(testInterfaces, testDesired, testQuestions, nil, nil)["eth0"].table
	for _, tt := range frames {
		t.Run(tt.name, func(t *testing.T) {
			before := string(tt.frame)
			reply, claimed, reason := table.handle(tt.frame, nil)
			if want := reason == Conflict || reason == Answered || reply != nil && strings.Contains(tt.name, "from the asked"); claimed != want {
				t.Errorf("is a claim: %t, want %t", claimed, want)
			}
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
	ours, yielding := mark{term: 1<<63 + 5}, mark{2, true}
	arpClaim := appendARP(nil, arpMessage{to: nodeMAC, from: hostMAC, operation: arpReply, senderMAC: hostMAC, sender: v4, target: zero4}, saidFrom(hostMAC, v4, ours))
	naClaim := appendNA(nil, hostMAC, groupMAC(allNodes), v6, allNodes, override, saidFrom(hostMAC, v6, yielding))
	tests := []struct {
		name  string
		frame []byte
		want  Claim
	}{
		{"gratuitous ARP", arpFrame(arplib.OperationRequest, v4, v4), Claim{Addr: v4, MAC: hostMAC}},
		{"ARP reply", arpFrame(arplib.OperationReply, v4, host4), Claim{Addr: v4, MAC: hostMAC}},
		{"ARP reply of a virtual router", edit(arpFrame(arplib.OperationReply, v4, host4), set(22, vrrpMAC[:]...)), Claim{Addr: v4, MAC: vrrpMAC}},
		{"NA", edit(naFrame(v6, allNodes, false), set(80, otherMAC[:]...), sum), Claim{Addr: v6, MAC: otherMAC}},
		{"NA without link-layer address", edit(naFrame(v6, allNodes, false), set(78, 99), sum), Claim{Addr: v6, MAC: hostMAC}},
		{"NS", nsFrame(v6, stranger6, true), Claim{Addr: v6, MAC: hostMAC}},

		{"marked ARP", arpClaim, Claim{Addr: v4, MAC: hostMAC, Marked: true, Unsigned: true, Term: 1<<63 + 5}},
		{"marked ARP with more padding", append(slices.Clone(arpClaim), 1, 2, 3, 4), Claim{Addr: v4, MAC: hostMAC, Marked: true, Unsigned: true, Term: 1<<63 + 5}},
		{"ARP padded with zeros", append(slices.Clone(arpClaim[:arpLen]), make([]byte, 18)...), Claim{Addr: v4, MAC: hostMAC}},
		{"ARP, mark cut off", arpClaim[:arpLen+markLen-1], Claim{Addr: v4, MAC: hostMAC}},
		{"ARP, end of the padding cut off", arpClaim[:minFrameLen-1], Claim{Addr: v4, MAC: hostMAC}},
		{"ARP, magic", edit(slices.Clone(arpClaim), set(45, 0)), Claim{Addr: v4, MAC: hostMAC}},
		{"ARP, version", edit(slices.Clone(arpClaim), set(46, 2)), Claim{Addr: v4, MAC: hostMAC}},
		{"ARP, unknown flags", edit(slices.Clone(arpClaim), set(47, 0xfe)), Claim{Addr: v4, MAC: hostMAC, Marked: true, Unsigned: true, Term: 1<<63 + 5}},
		{"ARP, our padding returned by another host", edit(slices.Clone(arpClaim), set(22, otherMAC[:]...), set(6, otherMAC[:]...)),
			Claim{Addr: v4, MAC: otherMAC}},

		{"marked NA", naClaim, Claim{Addr: v6, MAC: hostMAC, Marked: true, Unsigned: true, Term: 2, Yielding: true}},
		{"NA, other experiment", edit(slices.Clone(naClaim), set(88, 'X'), sum), Claim{Addr: v6, MAC: hostMAC}},
		{"NA, experiment of another length", edit(slices.Clone(naClaim), set(87, 1), set(95, 1), set(94, 99), sum), Claim{Addr: v6, MAC: hostMAC}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := plan(testInterfaces, testDesired, nil, nil, nil)["eth0"].table
			if _, claimed, reason := table.handle(tt.frame, nil); !claimed || reason != Conflict {
				t.Errorf("is a claim: %t, %s", claimed, reason)
			}
			if diff := cmp.Diff(tt.want, said(&table, tt.frame), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// said is what a frame claims to one that has asked nothing.
func said(t *table, frame []byte) Claim {
	c, _ := t.claim(frame, &challenges{})
	return c
}

func saidFrom(from mac, addr netip.Addr, m mark) *assertion {
	said := newAssertion(addr, from, m, nil, 0)
	return &said
}

func unsigned(a Announcement) *assertion {
	return newSigner(nodeMAC, nil, nil).assertion(a)
}

func TestAnnouncement(t *testing.T) {
	tests := []struct {
		announcement Announcement
		want         string
	}{
		{Announcement{Addr: v4, Term: 3, Yielding: true}, `02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP request 192.0.2.10 is at 02:00:00:00:00:0a, for 192.0.2.10 at 00:00:00:00:00:00 term 3 yielding
02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP reply 192.0.2.10 is at 02:00:00:00:00:0a, for 192.0.2.10 at 02:00:00:00:00:0a term 3 yielding`},
		{Announcement{Addr: v6}, `02:00:00:00:00:0a > 33:33:00:00:00:01 NA 2001:db8::10 > ff02::1 hops 255 router=false solicited=false override=true target 2001:db8::10 at 02:00:00:00:00:0a term 0`},
	}
	for _, tt := range tests {
		var got []string
		for _, frame := range announcement(nodeMAC, tt.announcement.Addr, unsigned(tt.announcement)) {
			got = append(got, describe(frame))
		}
		if got := strings.Join(got, "\n"); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}

func TestQuestionFrame(t *testing.T) {
	for addr, want := range map[netip.Addr]string{
		asked4: "02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP request 0.0.0.0 is at 02:00:00:00:00:0a, for 192.0.2.50 at 00:00:00:00:00:00",
		asked6: "02:00:00:00:00:0a > 33:33:ff:00:00:50 NS :: > ff02::1:ff00:50 hops 255 target 2001:db8::50",
	} {
		if got := describe(appendQuestion(nil, nodeMAC, addr, 77)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	// Another Responder takes them for what they are.
	table := plan([]Interface{{"eth0", 2, otherMAC, true}}, testDesired, nil, nil, nil)["eth0"].table
	for _, addr := range []netip.Addr{v4, v6} {
		if _, claimed, reason := table.handle(appendQuestion(nil, nodeMAC, addr, 77), nil); claimed || reason != "" {
			t.Errorf("%s: claim %t, reason %s", addr, claimed, reason)
		}
	}
}

// FuzzMark: what goes in comes out, whoever claims, and nothing but a mark is taken for one.
func FuzzMark(f *testing.F) {
	f.Add(uint64(7), true, []byte{2, 0, 0, 0, 0, 1}, []byte("Hrld"))
	f.Fuzz(func(t *testing.T, term uint64, yielding bool, sender, other []byte) {
		want := mark{term, yielding}
		b := appendMark(nil, want, false)
		if got, signed, ok := parseMark(append(b, other...)); !ok || signed || got != want {
			t.Errorf("got %v, %t, want %v", got, ok, want)
		}
		if len(sender) == len(mac{}) {
			from, a := mac(sender), Announcement{Term: term, Yielding: yielding}
			for _, a.Addr = range []netip.Addr{v4, v6} {
				for _, frame := range announcement(from, a.Addr, saidFrom(from, a.Addr, want)) {
					got := said(&table{}, frame)
					if want := (Claim{Addr: a.Addr, MAC: from, Marked: true, Unsigned: true, Term: term, Yielding: yielding}); got != want {
						t.Errorf("got %v, want %v", got, want)
					}
				}
			}
		}
		if got, signed, ok := parseMark(other); ok && !bytes.Equal(appendMark(nil, got, signed)[6:], other[6:markLen]) {
			t.Errorf("%x is no mark, got %v", other, got)
		}
	})
}

// FuzzHandle: whatever comes in, nothing breaks, and what goes out is well formed and speaks of an announced address only.
func FuzzHandle(f *testing.F) {
	for _, tt := range frames {
		f.Add(tt.frame)
	}
	for _, frame := range slices.Concat(announcement(otherMAC, v4, saidFrom(otherMAC, v4, mark{7, false})), announcement(otherMAC, v6, saidFrom(otherMAC, v6, mark{7, false}))) {
		f.Add(frame)
	}
	table := plan(testInterfaces, testDesired, testQuestions, nil, nil)["eth0"].table
	f.Fuzz(func(t *testing.T, frame []byte) {
		reply, claimed, reason := table.handle(frame, nil)
		if (reason == "") != (reply != nil) {
			t.Fatalf("reply %x with reason %q", reply, reason)
		}
		if (reason == Conflict || reason == Answered) && !claimed {
			t.Errorf("%s without a claim", reason)
		}
		if claimed {
			got, ours := said(&table, frame), reason == Conflict
			if ours && got.Addr != v4 && got.Addr != v6 || !ours && got.Addr != asked4 && got.Addr != asked6 {
				t.Errorf("%q: claim to %s", reason, got.Addr)
			}
		}
		if reply == nil {
			return
		}
		got := describe(reply)
		if !strings.HasPrefix(got, "02:00:00:00:00:0a > ") || reply[0] == 0xff ||
			!strings.Contains(got, "ARP reply 192.0.2.10 is at 02:00:00:00:00:0a") &&
				!strings.HasSuffix(got, "target 2001:db8::10 at 02:00:00:00:00:0a term 7") {
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
					desired = append(desired, Announcement{Addr: addr, Interface: "eth0"})
					addr = addr.Next()
				}
				asked := desired[n/2].Addr
				frame := request(asked)
				table := plan(testInterfaces, desired, nil, newKeyring([]byte("a key")), nil)["eth0"].table
				buf := make([]byte, 0, maxReplyLen)
				b.ReportAllocs()
				for b.Loop() {
					if _, _, reason := table.handle(frame, buf); reason != "" {
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
		return fmt.Sprintf("%s ARP %s %s is at %s, for %s at %s%s", head, operation,
			p.SenderIP, p.SenderHardwareAddr, p.TargetIP, p.TargetHardwareAddr, describeMark(frame[42:], string(frame[24:28])))
	}
	source, destination := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
	m, err := ndplib.ParseMessage(frame[54:])
	if err != nil {
		return err.Error()
	}
	// The library makes the checksum anew; it must be the one that we sent.
	again, err := ndplib.MarshalMessageChecksum(m, source, destination)
	if err != nil || !bytes.Equal(again, frame[54:]) || int(frame[19]) != len(again) {
		return fmt.Sprintf("%s bad checksum or length", head)
	}
	switch m := m.(type) {
	case *ndplib.NeighborSolicitation:
		raw := func(o ndplib.Option) bool { _, ok := o.(*ndplib.RawOption); return ok }
		if !slices.ContainsFunc(m.Options, func(o ndplib.Option) bool { return !raw(o) }) { // a nonce at most
			return fmt.Sprintf("%s NS %s > %s hops %d target %s", head, source, destination, frame[21], m.TargetAddress)
		}
	case *ndplib.NeighborAdvertisement:
		text := fmt.Sprintf("%s NA %s > %s hops %d router=%t solicited=%t override=%t target %s", head, source, destination,
			frame[21], m.Router, m.Solicited, m.Override, m.TargetAddress)
		for _, o := range m.Options {
			switch o := o.(type) {
			case *ndplib.LinkLayerAddress:
				text += " at " + o.Addr.String()
			case *ndplib.RawOption:
				text += describeMark(append([]byte{}, o.Value...), "")
			}
		}
		return text
	}
	return fmt.Sprintf("%s %+v", head, m)
}

// describeMark returns what the mark says that is followed by an end; other bytes say nothing.
// A mark with a proof behind it says the same.
func describeMark(b []byte, end string) string {
	least := 14 + len(end)
	if len(b) < least || string(b[:5]) != "Hrld\x01" || string(b[14:least]) != end || len(b) != least && (b[5]&markSigned == 0 || len(b) != least+proofLen) {
		return ""
	}
	return fmt.Sprintf(" term %d%s", binary.BigEndian.Uint64(b[6:]), [...]string{"", " yielding"}[b[5]&markYielding])
}

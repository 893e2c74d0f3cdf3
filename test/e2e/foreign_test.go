package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// A kernel that answers for an address is a foreign host, even if it is a node's.
func TestKernelOfANodeThatAnswersIsInConflict(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	w.service("web", nil)
	addr := w.address("web")
	owner := w.owner(addr)
	other := []string{"node1", "node2", "node3"}[slices.IndexFunc([]string{"node1", "node2", "node3"}, func(n string) bool { return n != owner })]
	for _, node := range []string{other, owner} {
		prefix := fmt.Sprintf("%s/32", addr)
		_, err := box.Exec(w.ctx, node, "ip", "addr", "add", prefix, "dev", "eth0")
		w.must(err)
		removed := false
		remove := func() {
			if !removed {
				removed = true
				_, err := box.Exec(context.Background(), node, "ip", "addr", "del", prefix, "dev", "eth0")
				w.must(err)
			}
		}
		w.Cleanup(remove)
		if node != owner {
			_, err := box.Exec(w.ctx, node, "arping", "-U", "-c", "2", "-I", "eth0", addr.String())
			w.must(err)
		}
		mac, err := box.MAC(node)
		w.must(err)
		w.conflicting(addr, mac.String())
		if node != owner { // the first event
			w.toldOfConflict("web", mac.String())
		}
		if now := w.owner(addr); now != owner {
			t.Errorf("%s has the address: want %s, as before", now, owner)
		}
		remove()
		w.unconflicting(addr)
		w.reachable(addr)
	}
}

// forger sends frames on the LAN from a host that has no business there, and hears what is announced.
type forger struct {
	mac  [6]byte
	file *os.File
	last time.Time // of the last attack
}

func (w *world) forger(host string) *forger {
	w.Helper()
	f := &forger{}
	w.must(box.Do(host, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		f.mac = [6]byte(link.HardwareAddr)
		all := binary.BigEndian.Uint16([]byte{unix.ETH_P_ALL & 0xff, unix.ETH_P_ALL >> 8}) // in the order of the network
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		f.file = os.NewFile(uintptr(fd), "forger")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	}))
	w.Cleanup(func() { _ = f.file.Close() })
	return f
}

// announcement is an unsolicited answer for an address, with what a speaker puts behind it.
func (f *forger) announcement(addr netip.Addr, mark []byte, proof []byte) []byte {
	if addr.Is4() {
		frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, f.mac[:]...)
		frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
		frame = append(append(frame, f.mac[:]...), addr.AsSlice()...)
		frame = append(append(frame, f.mac[:]...), addr.AsSlice()...)
		if mark == nil {
			return append(frame, make([]byte, 18)...)
		}
		return append(append(append(frame, mark...), f.mac[2:]...), proof...)
	}
	all := netip.MustParseAddr("ff02::1")
	message := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, addr.AsSlice()...)
	message = append(append(message, 2, 1), f.mac[:]...)
	if mark != nil {
		message = append(append(message, 253, 2), mark...)
	}
	if proof != nil {
		message = append(append(message, 253, 4, 'H', 'r', 'l', 'd', 2, 0), proof...)
	}
	sum := uint32(len(message)) + 58
	for _, b := range [][]byte{addr.AsSlice(), all.AsSlice(), message} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, f.mac[:]...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(message)), 58, 255)
	return append(append(append(frame, addr.AsSlice()...), all.AsSlice()...), message...)
}

// attack sends a frame, and returns how many of twelve requests were answered in the time after it. It begins when the owner
// may defend its address again (RFC 5227, section 2.4).
func (f *forger) attack(w *world, addr netip.Addr, frame []byte) (answered int) {
	w.Helper()
	time.Sleep(time.Until(f.last.Add(10500 * time.Millisecond)))
	f.last = time.Now()
	_, err := f.file.Write(frame)
	w.must(err)
	for range 12 {
		start := time.Now()
		if _, err := requestWithin(w.ctx, 500*time.Millisecond, "client", addr, 80); err == nil {
			answered++
		}
		time.Sleep(time.Until(start.Add(100 * time.Millisecond)))
	}
	return answered
}

// A forged mark does not silence the owner: it does what the same frames do without a mark, and stands in Conflict.
func TestForgedMarkCostsNoMoreThanTheSameFramesWithout(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	w.service("web", families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol))
	f := w.forger(foreign)
	old := append([]byte("Hrld\x01\x00"), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	signed := append([]byte("Hrld\x01\x02"), old[6:]...)
	for _, addr := range w.addresses("web", 2) {
		owner := w.owner(addr)
		w.reachable(addr)
		without := f.attack(w, addr, f.announcement(addr, nil, nil))
		if without < 8 {
			t.Errorf("%s: %d of 12 requests answered without a mark: the owner does not defend", addr, without)
		}
		for name, frame := range map[string][]byte{
			"a mark without a signature": f.announcement(addr, old, nil),
			"a signature by no key":      f.announcement(addr, signed, make([]byte, 24)),
			"a signature that is cut":    f.announcement(addr, signed, nil),
		} {
			with := f.attack(w, addr, frame)
			w.Logf("%s, %s: %d of 12 requests answered, %d without a mark", addr, name, with, without)
			if with < without-2 {
				t.Errorf("%s, %s: %d of 12 requests answered, want %d as without a mark", addr, name, with, without)
			}
			w.conflicting(addr, net.HardwareAddr(f.mac[:]).String())
			if now := w.owner(addr); now != owner {
				t.Errorf("%s, %s: %s has the address, want %s", addr, name, now, owner)
			}
		}
	}
}

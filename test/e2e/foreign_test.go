package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
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

// attack sends frames, 400 ms apart, and returns how many of twelve requests were answered meanwhile. It begins when the owner
// may defend its address again (RFC 5227, section 2.4).
func (f *forger) attack(w *world, addr netip.Addr, frames ...[]byte) (answered int) {
	w.Helper()
	time.Sleep(time.Until(f.last.Add(10500 * time.Millisecond)))
	f.last = time.Now()
	for i := range 12 {
		start := time.Now()
		if i%4 == 0 && i/4 < len(frames) {
			_, err := f.file.Write(frames[i/4])
			w.must(err)
		}
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

// record returns an announcement of the address that a speaker has signed, and who sent it.
func (f *forger) record(w *world, addr netip.Addr, from net.HardwareAddr) []byte {
	w.Helper()
	buffer := make([]byte, 1600)
	w.must(f.file.SetReadDeadline(time.Now().Add(patience)))
	for {
		n, err := f.file.Read(buffer)
		w.must(err)
		frame := buffer[:n]
		announced := n == 84 && string(frame[12:14]) == "\x08\x06" && frame[21] == 2 && bytes.Equal(frame[28:32], addr.AsSlice())
		if addr.Is6() {
			announced = n == 134 && string(frame[12:14]) == "\x86\xdd" && frame[54] == 136 && bytes.Equal(frame[62:78], addr.AsSlice())
		}
		if announced && bytes.Equal(frame[6:12], from) && bytes.Contains(frame, []byte("Hrld\x01\x02")) {
			return bytes.Clone(frame)
		}
	}
}

// unmarked is a recorded frame without what a speaker puts behind it.
func unmarked(frame []byte) []byte {
	if frame[12] == 8 {
		return append(bytes.Clone(frame[:42]), make([]byte, 18)...)
	}
	plain := bytes.Clone(frame[:86]) // with the option that has the sender's MAC
	binary.BigEndian.PutUint16(plain[18:], uint16(len(plain)-54))
	return sum6(plain)
}

// inOwnName is a recorded frame with the forger's MAC wherever the speaker's was.
func (f *forger) inOwnName(frame []byte) []byte {
	was := [6]byte(frame[6:12])
	own := bytes.ReplaceAll(frame, was[:], f.mac[:])
	own = bytes.ReplaceAll(own, was[2:], f.mac[2:]) // the end of the padding
	if frame[12] == 8 {
		return own
	}
	return sum6(own)
}

// fromOwnPort is a recorded frame with the forger's MAC on the wire alone.
func (f *forger) fromOwnPort(frame []byte) []byte {
	own := bytes.Clone(frame)
	copy(own[6:], f.mac[:])
	return own
}

// sum6 puts the checksum of ICMPv6 into a frame.
func sum6(frame []byte) []byte {
	message := frame[54:]
	copy(message[2:4], []byte{0, 0})
	sum := uint32(len(message)) + 58
	for _, b := range [][]byte{frame[22:54], message} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return frame
}

// What a former owner has said, who comes before the present one among the candidates and has the same term, is worth no more
// than the same frames without a mark when somebody else says it again.
func TestReplayedMarkCostsNoMoreThanTheSameFramesWithout(t *testing.T) {
	w := newWorld(t)
	f := w.forger(foreign)
	scene := w.scene(families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol), "node1", "node2", "node3")
	for _, addr := range w.addresses("web", 2) {
		former := w.owner(addr)
		mac, err := box.MAC(former)
		w.must(err)
		recorded := f.record(w, addr, mac)
		w.must(scene.Restore(w.ctx))

		// The controller is away, so that the candidates stay as they are, and the term with them.
		term := w.virtualIP(addr).Generation
		w.must(box.Stop(w.ctx, "controller"))
		w.must(box.Kill(w.ctx, "speaker-"+former))
		owner := w.ownerOtherThan(addr, former)
		w.must(box.StartAgain("speaker-" + former))
		if vip := w.virtualIP(addr); vip.Generation != term || slices.Index(vip.Spec.L2.Candidates, former) > slices.Index(vip.Spec.L2.Candidates, owner) {
			t.Fatalf("%s: %s is not better than %s: generation %d, before %d, candidates %v", addr, former, owner, vip.Generation, term, vip.Spec.L2.Candidates)
		}
		time.Sleep(3 * time.Second) // until the former owner takes part again
		w.reachable(addr)
		f.replay(w, addr, owner, recorded)
		w.reachable(addr)
		w.resume()
	}
}

// replay replays a frame in every way that a host can, and each time without the mark.
func (f *forger) replay(w *world, addr netip.Addr, owner string, recorded []byte) {
	w.Helper()
	own, former := net.HardwareAddr(f.mac[:]).String(), net.HardwareAddr(recorded[6:12]).String()
	without := map[string]int{} // by the MAC address that the frame gives
	for _, c := range []struct {
		name, mac string
		frame     []byte
	}{
		{"in the forger's name", own, f.inOwnName(recorded)},
		{"in the former owner's name", former, recorded},
		{"in the former owner's name, from the forger's port", former, f.fromOwnPort(recorded)},
	} {
		with := f.attack(w, addr, c.frame, c.frame, c.frame)
		w.conflicting(addr, c.mac)
		if now := w.owner(addr); now != owner {
			w.Errorf("%s, replayed %s: %s has the address, want %s", addr, c.name, now, owner)
		}
		w.reachable(addr)
		if _, known := without[c.mac]; !known {
			plain := unmarked(c.frame)
			without[c.mac] = f.attack(w, addr, plain, plain, plain)
		}
		w.Logf("%s, replayed %s: %d of 12 requests answered, %d without the mark", addr, c.name, with, without[c.mac])
		if with < without[c.mac]-2 {
			w.Errorf("%s, replayed %s: %d of 12 requests answered, want %d as without the mark", addr, c.name, with, without[c.mac])
		}
		w.reachable(addr)
	}
}

// rotation is what docs/how-to/failover.md says to do to exchange the key, step by step.
func rotation(t testing.TB) (steps []string) {
	t.Helper()
	document, err := os.ReadFile(filepath.Join(box.Config().Root, "docs/how-to/failover.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "\n## The key\n")
	section, _, _ = strings.Cut(section, "\n## ")
	step := ""
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "       "); ok {
			step += command
		} else if step != "" && strings.TrimSpace(line) != "" {
			steps, step = append(steps, step), ""
		}
	}
	if len(steps) != 3 {
		t.Fatalf("docs/how-to/failover.md exchanges the key in three steps, not %q", steps)
	}
	return steps
}

// counted is the sum over the nodes of what their speakers count under a name, with labels.
func (w *world) counted(name, labels string) (sum float64) {
	w.Helper()
	for _, node := range box.Nodes() {
		metrics := ""
		w.quietly("metrics of "+node, func() (err error) {
			metrics, err = box.Get(w.ctx, node, "http://127.0.0.1:7472/metrics")
			return err
		})
		for line := range strings.Lines(metrics) {
			if !strings.HasPrefix(line, name+labels) {
				continue
			}
			fields := strings.Fields(line)
			n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			w.must(err)
			sum += n
		}
	}
	return sum
}

// shell is a bash with kubectl, which runs commands one after the other and keeps its variables.
func (w *world) shell() (run func(commands string)) {
	w.Helper()
	cmd := exec.CommandContext(w.ctx, "bash", "-e")
	path := filepath.Dir(box.KubernetesProgram("kubectl")) + ":" + os.Getenv("PATH")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+box.Kubeconfig(), "PATH="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	w.must(err)
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	w.Cleanup(func() { _, _ = in.Close(), cmd.Wait() })
	lines := bufio.NewScanner(out)
	return func(commands string) {
		w.Helper()
		_, err := io.WriteString(in, commands+"echo done\n")
		w.must(err)
		for lines.Scan() {
			if w.Log(lines.Text()); lines.Text() == "done" {
				return
			}
		}
		w.Fatalf("failed: %s", commands)
	}
}

// The commands of docs/how-to/failover.md exchange the key, and nobody notices.
func TestKeyIsExchangedUnderWay(t *testing.T) {
	w := newWorld(t)
	scene := w.scene(families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol), box.Nodes()...)
	addresses := w.addresses("web", 2)
	v4, v6 := addresses[0], addresses[1]
	r := w.begin(scene)
	owners := []string{w.owner(v4), w.owner(v6)}
	idle := slices.DeleteFunc(box.Nodes(), func(n string) bool { return slices.Contains(owners, n) })[0]
	key := func() string {
		secret, err := kube.CoreV1().Secrets("herald-system").Get(w.ctx, "herald-bfd", metav1.GetOptions{})
		w.must(err)
		return string(secret.Data["key"])
	}
	before, forged := key(), w.counted("herald_l2_marks_total", `{worth="Forged"}`)
	up := w.counted("herald_bfd_sessions", `{state="Up"}`)
	shell := w.shell()
	for i, step := range rotation(t) {
		changes := w.counted("herald_bfd_transitions_total", "")
		shell(step)
		time.Sleep(3 * time.Second) // The API server here tells speakers within milliseconds.
		if now := w.counted("herald_bfd_transitions_total", ""); now != changes {
			t.Errorf("step %d: %v changes of BFD sessions, before %v", i+1, now, changes)
		}
		// A speaker that starts asks the LAN, and the owner answers with a mark.
		w.must(box.Restart(w.ctx, "speaker-"+idle))
		w.must(r.Settle(w.ctx, 0, patience))
		w.eventually(idle+" is watched again", func() error {
			if now := w.counted("herald_bfd_sessions", `{state="Up"}`); now != up {
				return fmt.Errorf("%v sessions are up, want %v", now, up)
			}
			return nil
		})
		time.Sleep(time.Second) // A session may come up at one end first.
		w.reachable(v6)
	}
	if key() == before {
		t.Error("the key is the one of before")
	}
	trace := r.end()
	unfailed(t, trace)
	if moves := trace.Moves(); len(moves) > 0 {
		t.Errorf("the address moved: %v", moves)
	}
	if now := w.counted("herald_l2_marks_total", `{worth="Forged"}`); now != forged {
		t.Errorf("%v marks are forged, before %v", now, forged)
	}
	for i, addr := range addresses {
		if now := w.owner(addr); now != owners[i] {
			t.Errorf("%s has %s, want %s as before", now, addr, owners[i])
		}
		if conditions := w.virtualIP(addr).Status.Conditions; meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionConflict) {
			t.Errorf("%s: %+v", addr, conditions)
		}
	}
}

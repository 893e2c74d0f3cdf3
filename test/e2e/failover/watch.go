package failover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/test/sandbox"
)

// MAC is a hardware address, as a value.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Probe is one question to the LAN for the address, and the hosts that said it
// was theirs.
type Probe struct {
	Sent time.Time
	// Answers are the hosts in the order of their answers, each once.
	Answers []MAC
}

// Watch asks the LAN every 10 ms who has an IPv4 address, and keeps all answers:
// unlike a neighbour table it sees when two hosts answer, or none.
type Watch struct {
	file   *os.File
	index  int
	mac    MAC
	target netip.Addr
	end    chan struct{}
	ended  sync.WaitGroup

	mu     sync.Mutex
	probes []Probe
	failed error
}

// An answer goes to the sender that the question names. It is another one for
// each question, so that a late answer is not taken for one to the next. The
// addresses are nobody's; they come round after 2.5 s.
var senders = netip.MustParsePrefix("203.0.113.0/24")

const maxSenders = 256

// arpLen is the length of a frame with an ARP message (RFC 826) in it.
const arpLen = 14 + 28

// WatchLAN starts to watch from a host; Stop ends it.
func WatchLAN(box *sandbox.Sandbox, host string, target netip.Addr) (*Watch, error) {
	if !target.Is4() {
		return nil, fmt.Errorf("watching %s: only IPv4 is watched", target)
	}
	w := &Watch{target: target, end: make(chan struct{})}
	if err := box.Do(host, w.open); err != nil {
		return nil, fmt.Errorf("watching %s from %s: %w", target, host, err)
	}
	w.ended.Go(w.send)
	w.ended.Go(w.receive)
	return w, nil
}

// open makes the socket, which stays in the host for good.
func (w *Watch) open() error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	w.index, w.mac = link.Index, MAC(link.HardwareAddr)
	protocol := binary.BigEndian.Uint16([]byte{unix.ETH_P_ARP & 0xff, unix.ETH_P_ARP >> 8})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: w.index}); err != nil {
		return errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	w.file = os.NewFile(uintptr(fd), "arp")
	return nil
}

func (w *Watch) send() {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for number := 0; ; number++ {
		frame := w.question(number)
		w.mu.Lock()
		w.probes = append(w.probes, Probe{Sent: time.Now()})
		w.mu.Unlock()
		// The queue of the interface may be full for a moment, and the link down.
		if _, err := w.file.Write(frame); err != nil && !errors.Is(err, syscall.ENOBUFS) && !errors.Is(err, syscall.ENETDOWN) {
			w.fail(err)
			return
		}
		select {
		case <-w.end:
			return
		case <-ticker.C:
		}
	}
}

// question is the ARP request with a number.
func (w *Watch) question(number int) []byte {
	frame := make([]byte, 0, arpLen)
	frame = append(frame, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	frame = append(frame, w.mac[:]...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(frame, w.mac[:]...)
	sender := senders.Addr().As4()
	sender[3] = byte(number % maxSenders)
	frame = append(frame, sender[:]...)
	frame = append(frame, make([]byte, 6)...)
	return append(frame, w.target.AsSlice()...)
}

func (w *Watch) receive() {
	frame := make([]byte, 2048)
	for {
		n, err := w.file.Read(frame)
		if errors.Is(err, syscall.ENETDOWN) {
			continue
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				w.fail(err)
			}
			return
		}
		if from, number, ok := w.answer(frame[:n]); ok {
			w.note(from, number)
		}
	}
}

// answer reads an ARP reply: who it is from and which question it is for.
func (w *Watch) answer(frame []byte) (from MAC, number int, ok bool) {
	if len(frame) < arpLen || binary.BigEndian.Uint16(frame[20:]) != 2 {
		return MAC{}, 0, false
	}
	sender, target := netip.AddrFrom4([4]byte(frame[28:32])), netip.AddrFrom4([4]byte(frame[38:42]))
	if sender != w.target || !senders.Contains(target) {
		return MAC{}, 0, false
	}
	return MAC(frame[22:28]), int(frame[41]), true
}

// note adds an answer to the last probe with the number.
func (w *Watch) note(from MAC, number int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := len(w.probes) - 1
	i := last - (last-number)%maxSenders
	if last < number || slices.Contains(w.probes[i].Answers, from) {
		return
	}
	w.probes[i].Answers = append(w.probes[i].Answers, from)
}

// unanswered tells whether nobody has answered a probe of the last while yet.
func (w *Watch) unanswered(span time.Duration) bool {
	return slices.ContainsFunc(w.since(time.Now().Add(-span)), func(p Probe) bool { return len(p.Answers) == 0 })
}

func (w *Watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
	}
}

// lastAnswers is how long is waited for the answers to the last probes: who answers may not be run for a while.
const lastAnswers = time.Second

// Stop ends the watch and returns its probes.
func (w *Watch) Stop() ([]Probe, error) {
	close(w.end)
	time.Sleep(5 * interval) // a second host may answer too
	for begin := time.Now(); time.Since(begin) < lastAnswers && w.unanswered(lastAnswers); {
		time.Sleep(interval)
	}
	if err := w.file.SetReadDeadline(time.Now()); err != nil {
		w.fail(err)
	}
	w.ended.Wait()
	w.file.Close()
	return w.since(time.Time{}), w.failed
}

// since returns the probes after a time.
func (w *Watch) since(start time.Time) []Probe {
	w.mu.Lock()
	defer w.mu.Unlock()
	var probes []Probe
	for _, p := range w.probes {
		if p.Sent.After(start) {
			probes = append(probes, Probe{Sent: p.Sent, Answers: slices.Clone(p.Answers)})
		}
	}
	return probes
}

// only returns the one host that answered every probe of the last while. A
// probe that is just out is not waited for.
func (w *Watch) only(span time.Duration) (MAC, error) {
	now := time.Now()
	probes := w.since(now.Add(-span))
	var only []MAC
	count := 0
	for _, p := range probes {
		if len(p.Answers) == 0 && now.Sub(p.Sent) > 5*interval {
			return MAC{}, fmt.Errorf("nobody answered for %s %v ago", w.target, now.Sub(p.Sent).Round(time.Millisecond))
		}
		for _, mac := range p.Answers {
			count++
			if !slices.Contains(only, mac) {
				only = append(only, mac)
			}
		}
	}
	if len(only) != 1 || count < int(span/interval/4) {
		return MAC{}, fmt.Errorf("%d answers for %s in the last %v, of %v", count, w.target, span, only)
	}
	return only[0], nil
}

package failover

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

var (
	begin   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	errLost = errors.New("lost")

	a, b = MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
)

func at(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }

func ok(sent, took int) Request {
	return Request{Sent: at(sent), Took: time.Duration(took) * time.Millisecond, Pod: "web", Node: "node1"}
}

func lost(sent, took int) Request {
	return Request{Sent: at(sent), Took: time.Duration(took) * time.Millisecond, Err: errLost}
}

func probe(sent int, answers ...MAC) Probe { return Probe{Sent: at(sent), Answers: answers} }

func TestWhatTheClientSaw(t *testing.T) {
	for _, c := range []struct {
		name           string
		requests       []Request
		gap, recovered int
		failed         int
	}{
		{"nothing happens", []Request{ok(80, 1), ok(90, 1), ok(100, 1), ok(110, 2), ok(120, 1), ok(300, 1)}, 180, 0, 0},
		{"an answer is late", []Request{ok(90, 1), ok(120, 1), ok(110, 30), ok(130, 11), ok(290, 1)}, 150, 0, 0},
		{"an outage", []Request{ok(90, 1), ok(220, 1), ok(230, 1), lost(100, 200), lost(110, 200), ok(310, 1)}, 130, 120, 2},
		{"the outage begins with a request before", []Request{ok(89, 1), ok(220, 1), lost(95, 200), ok(300, 1)}, 131, 120, 1},
		{"an earlier failure is no part of it", []Request{lost(10, 50), ok(90, 1), ok(100, 1), ok(110, 1), ok(310, 1)}, 200, 0, 0},
		{"never served again", []Request{ok(90, 1), ok(99, 3), lost(110, 100), lost(120, 100)}, 298, 300, 2},
	} {
		trace := Trace{From: at(100), Until: at(400), Requests: c.requests}
		got := fmt.Sprint(trace.Gap().Milliseconds(), trace.Recovered().Milliseconds(), len(trace.Failed()))
		if want := fmt.Sprint(c.gap, c.recovered, c.failed); got != want {
			t.Errorf("%s: gap, recovered, failed %s: want %s", c.name, got, want)
		}
	}
}

func TestWhatTheLANSaw(t *testing.T) {
	for _, c := range []struct {
		name                string
		probes              []Probe
		moves               int
		dual, silent, claim int
	}{
		{"one owner", []Probe{probe(90, a), probe(110, a), probe(120, a)}, 0, 0, 0, 0},
		{"handed over", []Probe{probe(90, a), probe(110, a), probe(120, a, b), probe(130, b, a), probe(140, b), probe(150, b)}, 1, 20, 0, 20},
		{"lost and taken over", []Probe{probe(90, a), probe(110), probe(120), probe(130, b), probe(140, b)}, 1, 0, 20, 30},
		{"away and back", []Probe{probe(90, a), probe(110), probe(120, a), probe(130, a)}, 0, 0, 10, 0},
		{"to and fro", []Probe{probe(90, a), probe(110, b), probe(120, a), probe(130, b), probe(140, b)}, 3, 0, 0, 10},
		{"a move before it began", []Probe{probe(80, a), probe(90, b), probe(110, b), probe(120, b)}, 0, 0, 0, 0},
		{"nobody at all", []Probe{probe(110), probe(120)}, 0, 0, 10, 0},
	} {
		trace := Trace{From: at(100), Until: at(400), Probes: c.probes}
		got := fmt.Sprint(len(trace.Moves()), trace.Dual().Milliseconds(), trace.Silent().Milliseconds(), trace.FirstClaim().Milliseconds())
		if want := fmt.Sprint(c.moves, c.dual, c.silent, c.claim); got != want {
			t.Errorf("%s: moves, dual, silent, first claim %s: want %s", c.name, got, want)
		}
	}
}

func reset(sent, took int) Request {
	return Request{Sent: at(sent), Took: time.Duration(took) * time.Millisecond, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
}

func TestOnlyConnectionsThatAreOpenDuringAMoveMayBeReset(t *testing.T) {
	handover := []Probe{probe(90, a), probe(110, a), probe(120, a, b), probe(130, a, b), probe(140, b), probe(150, b), probe(300, b)}
	for _, c := range []struct {
		name     string
		probes   []Probe
		requests []Request
		want     int
	}{
		{"none failed", handover, []Request{ok(110, 1), ok(140, 1)}, 0},
		{"open when it began", handover, []Request{reset(105, 6), reset(105, 100)}, 0},
		{"opened while both answered", handover, []Request{reset(125, 1), reset(139, 500)}, 0},
		{"over before it began", handover, []Request{reset(101, 8)}, 1},
		{"opened afterwards", handover, []Request{reset(151, 2)}, 1},
		{"open, and never answered", handover, []Request{lost(115, 200)}, 1},
		{"nothing moved", []Probe{probe(90, a), probe(110, a), probe(120, a), probe(130, a)}, []Request{reset(115, 10)}, 1},
		{"a move that was not seen to end", []Probe{probe(90, a), probe(110, a), probe(120)}, []Request{reset(390, 2)}, 0},
	} {
		trace := Trace{From: at(100), Until: at(400), Requests: c.requests, Probes: c.probes}
		if got := len(trace.Unaccounted()); got != c.want {
			t.Errorf("%s: %d failures are unaccounted for, want %d", c.name, got, c.want)
		}
	}
}

func TestOnlyConnectionsThatAreOpenWhenTheWaysChangeMayBeReset(t *testing.T) {
	ways := []Ways{
		{At: at(10), Nodes: []string{"node1", "node2"}, Before: at(0)}, {At: at(150), Nodes: []string{"node2"}, Before: at(140)},
	}
	trace := RoutedTrace{Trace{From: at(100), Until: at(400), Requests: []Request{
		reset(101, 38), reset(130, 20), reset(149, 100), reset(151, 1), lost(145, 10), ok(160, 1),
	}}, ways}
	got := ""
	for _, r := range trace.Unaccounted() {
		got += fmt.Sprintf("sent after %v: %v; ", r.Sent.Sub(trace.From), r.Err)
	}
	want := "sent after 1ms: read: connection reset by peer; sent after 51ms: read: connection reset by peer; sent after 45ms: lost; "
	if got != want {
		t.Errorf("unaccounted for:\n%s, want\n%s", got, want)
	}
}

func TestQuestionAndAnswerBelongTogether(t *testing.T) {
	w := &Watch{mac: a, target: netip.MustParseAddr("198.51.100.200")}
	for range 600 {
		w.probes = append(w.probes, Probe{})
	}
	for _, number := range []int{599, 598, 344} {
		answer := w.question(number)
		answer[21] = 2
		copy(answer[22:], b[:])
		copy(answer[38:], answer[28:32])
		copy(answer[28:], w.target.AsSlice())
		from, n, ok := w.answer(answer)
		if !ok || from != b {
			t.Fatalf("answer to %d: from %s, %t", number, from, ok)
		}
		w.note(from, n)
		w.note(from, n)
		if got := w.probes[number].Answers; len(got) != 1 {
			t.Errorf("probe %d has answers %v: want one", number, got)
		}
	}
	if _, _, ok := w.answer(w.question(3)); ok {
		t.Error("a question is taken for an answer")
	}
}

func TestSummaryIsALine(t *testing.T) {
	trace := Trace{
		From: at(100), Until: at(400), Names: map[MAC]string{a: "node1"},
		Requests: []Request{ok(90, 1), lost(101, 200), ok(311, 1)},
		Probes:   []Probe{probe(90, a), probe(110, a, b), probe(120, b), probe(130, b)},
	}
	s := Summary{Case: Case{Name: "x", Moves: 1, Dual: true}, Traces: []Trace{trace, trace}, Errors: 1}
	if got, want := s.String(), "case=x rounds=2 p50_ms=221 p99_ms=221 max_ms=221 failed=2 moves=2 move_ms=10 dual_ms=10 errors=1"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := trace.String(), "gap 221 ms, 1 failed (lost), served again after 211 ms, silent 0 ms, two owners 10 ms (first node1 and 02:00:00:00:00:02 after 10 ms), the client itself stood still for 210 ms, node1 → 02:00:00:00:00:02 after 20 ms"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := (Summary{Case: Case{Name: "y"}}).String(), "case=y rounds=0 p50_ms=0 p99_ms=0 max_ms=0 failed=0 moves=0"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	var values []time.Duration
	for i := range 20 {
		values = append(values, time.Duration(20-i))
	}
	for percent, want := range map[float64]time.Duration{50: 10, 95: 19, 99: 20, 100: 20} {
		if got := percentile(values, percent); got != want {
			t.Errorf("%v %%: %d, want %d", percent, got, want)
		}
	}
}

func TestWhatTheRouterDidIsALine(t *testing.T) {
	trace := RoutedTrace{
		Trace: Trace{From: at(100), Until: at(400), Requests: []Request{ok(90, 1), lost(101, 200), ok(151, 1), lost(250, 9), ok(311, 1)}},
		Ways: []Ways{
			{At: at(10), Nodes: []string{"node1", "node2"}}, {At: at(150), Nodes: []string{"node2"}}, {At: at(350), Nodes: []string{"node1", "node2"}},
		},
	}
	want := "5 requests, 2 failed (lost), the last after 211 ms, the client itself stood still for 99 ms, " +
		"node1+node2 at -90 ms, node2 at 50 ms, node1+node2 at 250 ms"
	if got := trace.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := trace.Without("node1"); got != 50*time.Millisecond {
		t.Errorf("without node1 after %v", got)
	}
	if got := trace.Without("node2"); got >= 0 {
		t.Errorf("without node2 after %v, and it never was", got)
	}
	s := RoutedSummary{Case: RoutedCase{Name: "x"}, Traces: []RoutedTrace{trace, {}}, Errors: 1}
	if got, want := s.String(), "case=x rounds=2 p50_ms=0 p99_ms=211 max_ms=211 failed=2 errors=1"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNextHopsOfARouteMessage(t *testing.T) {
	hop := func(last byte) []byte { // rtnexthop with RTA_GATEWAY, rtnetlink(7)
		return []byte{16, 0, 0, 0, 2, 0, 0, 0, 8, 0, 5, 0, 198, 51, 100, last}
	}
	whole := append(hop(31), hop(32)...)
	for name, c := range map[string]struct {
		list []byte
		want string
	}{
		"two":       {whole, "[198.51.100.31 198.51.100.32]"},
		"none":      {nil, "[]"},
		"cut off":   {whole[:30], "[198.51.100.31]"},
		"no length": {make([]byte, 16), "[]"},
	} {
		if got := fmt.Sprint(multipath(c.list)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

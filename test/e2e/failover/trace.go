package failover

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Trace is what was seen of one round.
type Trace struct {
	// From is when something was broken, Until when the client and the watch
	// were stopped. They were at it for a second or more before From.
	From, Until time.Time
	// Requests of the client, in the order in which they were done.
	Requests []Request
	// Probes of the LAN, in the order in which they were sent.
	Probes []Probe
	// Names of the nodes by their hardware addresses.
	Names map[MAC]string
}

// Gap is the longest time that the client went without an answer: between the
// ends of two successful requests of which none ended in between, the later one
// after From. Without any disturbance that is the interval of the requests, 10 ms,
// and what the machine makes late. A client that is not answered at the end has
// been without until Until.
func (t Trace) Gap() time.Duration {
	gap, last := time.Duration(0), t.From
	for _, r := range t.Requests {
		if r.Err != nil {
			continue
		}
		if done := r.Done(); done.After(t.From) {
			gap = max(gap, done.Sub(last))
		}
		last = r.Done()
	}
	// Those under way at the end take up to their patience.
	if t.Until.Sub(last) > patience {
		gap = max(gap, t.Until.Sub(last))
	}
	return gap
}

// Failed are the requests that failed after From; they may have been sent
// before.
func (t Trace) Failed() []Request {
	var failed []Request
	for _, r := range t.Requests {
		if r.Err != nil && r.Done().After(t.From) {
			failed = append(failed, r)
		}
	}
	return failed
}

// Unaccounted are the failed requests but those whose connection was reset and open while the address moved: it ends up at a
// node that does not know it, which no announcement can prevent. How many there are depends on how long requests take, and so
// on the machine.
func (t Trace) Unaccounted() []Request { return unaccounted(t.Failed(), t.changes()) }

// span is a time in which something changed.
type span struct{ from, until time.Time }

func unaccounted(failed []Request, changes []span) []Request {
	return slices.DeleteFunc(failed, func(r Request) bool {
		return errors.Is(r.Err, syscall.ECONNRESET) && slices.ContainsFunc(changes, func(c span) bool {
			return !r.Sent.After(c.until) && !r.Done().Before(c.from)
		})
	})
}

// changes are the times in which not the same host alone answered: from the last probe before to the second one after that.
func (t Trace) changes() []span {
	var changes []span
	var owner MAC
	changing := false
	for i, p := range t.Probes {
		alone := len(p.Answers) == 1
		if alone && owner == (MAC{}) {
			owner = p.Answers[0]
		}
		if !changing && (!alone || p.Answers[0] != owner) {
			changing = true
			changes = append(changes, span{t.Probes[max(0, i-1)].Sent, t.Until})
		}
		if changing && alone {
			changing, owner = false, p.Answers[0]
			if i+1 < len(t.Probes) {
				changes[len(changes)-1].until = t.Probes[i+1].Sent
			}
		}
	}
	return changes
}

// Recovered is the time from From to the sending of the first request after
// which no request fails any more; 0 when none failed.
func (t Trace) Recovered() time.Duration {
	failed := t.Failed()
	if len(failed) == 0 {
		return 0
	}
	lost := slices.MaxFunc(failed, func(a, b Request) int { return a.Sent.Compare(b.Sent) }).Sent
	first := t.Until
	for _, r := range t.Requests {
		if r.Sent.After(lost) && r.Sent.Before(first) {
			first = r.Sent
		}
	}
	return first.Sub(t.From)
}

// Late is the longest time that the client itself went without asking after
// From, or that an answer waited for it when its patience was over. Where it is
// much above 10 ms the machine was too busy to measure.
func (t Trace) Late() time.Duration {
	var sent []time.Time
	late := time.Duration(0)
	for _, r := range t.Requests {
		if r.Sent.After(t.From) {
			sent = append(sent, r.Sent)
			late = max(late, r.Late)
		}
	}
	slices.SortFunc(sent, time.Time.Compare)
	for i, s := range sent[:max(0, len(sent)-1)] {
		late = max(late, sent[i+1].Sub(s))
	}
	return late
}

// Move is the moment at which an address had another owner: the first probe that
// its owner so far did not answer and another host did. While both answer it
// has not moved, and when nobody does neither.
type Move struct {
	At       time.Time
	From, To MAC
}

// Moves lists the moves after From, in their order.
func (t Trace) Moves() []Move {
	var moves []Move
	var owner MAC
	for _, p := range t.Probes {
		if len(p.Answers) == 0 || slices.Contains(p.Answers, owner) {
			continue
		}
		if owner != (MAC{}) && p.Sent.After(t.From) {
			moves = append(moves, Move{p.Sent, owner, p.Answers[0]})
		}
		owner = p.Answers[0]
	}
	return moves
}

// FirstClaim is the time from From to the first probe that a host other than
// the owner at From answered; 0 when none did.
func (t Trace) FirstClaim() time.Duration {
	var owner MAC
	for _, p := range t.Probes {
		switch {
		case len(p.Answers) == 0:
		case !p.Sent.After(t.From):
			owner = p.Answers[0]
		case slices.ContainsFunc(p.Answers, func(m MAC) bool { return m != owner }):
			return p.Sent.Sub(t.From)
		}
	}
	return 0
}

// Dual is the time after From during which two hosts or more answered: each
// probe with two answers counts until the next probe.
func (t Trace) Dual() time.Duration {
	return t.during(func(p Probe) bool { return len(p.Answers) > 1 })
}

// Silent is the time after From during which nobody answered for the address.
func (t Trace) Silent() time.Duration {
	return t.during(func(p Probe) bool { return len(p.Answers) == 0 })
}

// dual are the probes after From that two hosts or more answered.
func (t Trace) dual() []Probe {
	return slices.DeleteFunc(slices.Clone(t.after()), func(p Probe) bool { return len(p.Answers) < 2 })
}

func (t Trace) during(is func(Probe) bool) time.Duration {
	sum := time.Duration(0)
	probes := t.after()
	for i, p := range probes[:max(0, len(probes)-1)] {
		if is(p) {
			sum += probes[i+1].Sent.Sub(p.Sent)
		}
	}
	return sum
}

func (t Trace) after() []Probe {
	i := slices.IndexFunc(t.Probes, func(p Probe) bool { return p.Sent.After(t.From) })
	if i < 0 {
		return nil
	}
	return t.Probes[i:]
}

// Name is the node with a hardware address, or the address of another host.
func (t Trace) Name(mac MAC) string {
	if name, ok := t.Names[mac]; ok {
		return name
	}
	return mac.String()
}

// String tells the round in a line.
func (t Trace) String() string {
	failed := t.Failed()
	text := fmt.Sprintf("gap %d ms, %d failed", t.Gap().Milliseconds(), len(failed))
	if len(failed) > 0 {
		text += fmt.Sprintf(" (%v)", failed[0].Err)
	}
	text += fmt.Sprintf(", served again after %d ms, silent %d ms, two owners %d ms",
		t.Recovered().Milliseconds(), t.Silent().Milliseconds(), t.Dual().Milliseconds())
	if dual := t.dual(); len(dual) > 0 {
		var names []string
		for _, mac := range dual[0].Answers {
			names = append(names, t.Name(mac))
		}
		text += fmt.Sprintf(" (first %s after %d ms)", strings.Join(names, " and "), dual[0].Sent.Sub(t.From).Milliseconds())
	}
	if late := t.Late(); late > 5*interval {
		text += fmt.Sprintf(", the client itself stood still for %d ms", late.Milliseconds())
	}
	for _, m := range t.Moves() {
		text += fmt.Sprintf(", %s → %s after %d ms", t.Name(m.From), t.Name(m.To), m.At.Sub(t.From).Milliseconds())
	}
	return text
}

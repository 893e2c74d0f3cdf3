package speaker

import (
	"fmt"
	"net"
	"time"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/l2"
)

// Phase is what a node does about one address.
type Phase string

// The phases. The zero value is Idle.
const (
	// Idle: it is not this node's turn, or it cannot serve.
	Idle Phase = ""
	// Asking: the network is asked who has the address, before this node takes it.
	Asking Phase = "Asking"
	// Waiting: it would be this node's turn, but another node has the address and keeps it while it lives.
	Waiting Phase = "Waiting"
	// Owning: this node answers, and announces.
	Owning Phase = "Owning"
	// Yielding: this node may not or cannot serve any more. It answers, and says that the address is to be taken, until
	// another has taken it.
	Yielding Phase = "Yielding"
	// Blocked: a foreign host has the address.
	Blocked Phase = "Blocked"
)

const (
	// askFirst is how long an address is asked for before its first use. RFC 5227 takes some seconds.
	askFirst = 300 * time.Millisecond
	// askAgain is how long it is asked for when the one that had it is lost: long enough for an answer on a busy LAN.
	askAgain = 25 * time.Millisecond
	// askLiving is how long it is asked for when the one that had it is alive, as far as known. A node that is back must not
	// take an address because an answer was lost.
	askLiving = 300 * time.Millisecond
	// rulesDelay is the longest wait for the service proxy to write its rules of a new address.
	rulesDelay = 3 * time.Second
	// rulesAgain is how often a route that waits for them looks: as often as the service proxy is asked. Nobody tells.
	rulesAgain = 250 * time.Millisecond
	// reask is the time between two questions for an address whose owner is well.
	reask = 5 * time.Second
	// silence is how long an owner that BFD has lost must not answer to be lost indeed; it is asked each askLost.
	silence = 700 * time.Millisecond
	askLost = 200 * time.Millisecond
	// letLie is how long each candidate has to take an address whose owner is lost, before it is the turn of the next.
	letLie = 500 * time.Millisecond
	// yieldUnfit and yieldUnlisted are how long an address is answered that nobody takes: by a node that cannot serve it,
	// and by one that the controller does not want any more.
	yieldUnfit    = 3 * time.Second
	yieldUnlisted = 10 * time.Second
	// defence is the least time between two defences against our own kind; against strangers it is that of RFC 5227, 2.4.
	defence = 50 * time.Millisecond
	// standUp is how long a speaker has to stand up for its claim, and doubtEnds how long a claim is doubted.
	standUp        = 200 * time.Millisecond
	doubtEnds      = 30 * time.Second
	defenceForeign = 10 * time.Second
	// askOwned is the time between two looks for strangers by an owner, askStranger that for an address that one has, and
	// strangerGone the silence after which it is gone.
	askOwned     = 30 * time.Second
	askStranger  = 5 * time.Second
	strangerGone = 12 * time.Second
)

// Role is what is remembered of an address from one decision to the next.
type Role struct {
	Phase Phase
	// Since when in this phase.
	Since time.Time
	// First says of Asking that the address has not been used before.
	First bool
	// Why this node owns the address, a sentence without its subject.
	Why string
	// Other is the node that has the address, as far as known, while Waiting; Alive whether it was when last looked at.
	Other string
	Alive bool
	// Heard is when the last claim was taken in, Met when the last one of a speaker.
	Heard, Met time.Time
	// DoubtAt is when a claim was heard that may be replayed, and that nobody has stood up for since.
	DoubtAt time.Time
	// Foreign is a stranger that claimed the address, and when it did so last.
	Foreign   [6]byte
	ForeignAt time.Time
	// Asks counts the questions, Round the announcements that were begun anew, and Defended says when last.
	Asks     uint64
	Round    uint64
	Defended time.Time
}

// enter goes to another phase.
func (r Role) enter(phase Phase, now time.Time) Role {
	if r.Phase == phase {
		return r
	}
	r.Phase, r.Since = phase, now
	return r
}

// conflict says whether a stranger has the address.
func (r Role) conflict(now time.Time) bool {
	return !r.ForeignAt.IsZero() && now.Before(r.conflictEnd())
}

// conflictEnd is when a stranger is gone that is not heard again.
func (r Role) conflictEnd() time.Time { return r.ForeignAt.Add(strangerGone) }

// answers says whether this node answers for the address.
func (r Role) answers() bool { return r.Phase == Owning || r.Phase == Yielding }

// view is all that the role of this node for one address depends on.
type view struct {
	now time.Time
	// bar says why nobody here may answer for the address at once: it is held, nobody claims it, there is no interface.
	bar v1alpha1.Reason
	// quarantined: nobody may, since a stranger has the address; it is this node's part to see whether it still does.
	quarantined bool
	// listed says whether this node is a candidate, and rank at which place.
	listed bool
	rank   int
	// unfit says why this node cannot serve the address.
	unfit v1alpha1.Reason
	// turn: no candidate before this node is alive, or those that are have let the address lie.
	turn bool
	// present: the host of the last owner, which is lost, has answered since it was asked for; stall is how long its speaker
	// may stand still then.
	present bool
	stall   time.Duration
	// fresh: nobody has announced the address yet. ready: the service proxy has written its rules.
	fresh, ready bool
	// owner is who had the address last, by the VirtualIP's status.
	owner string
	node  string
	term  uint64
	// claims of others to the address, one a host, in any order.
	claims []claim
	// kernel is the MAC of an interface of this node that has the address itself; zero when none has.
	kernel [6]byte
	// peers are the other candidates.
	peers []peer
}

// life tells of a candidate.
func (v *view) life(node string) life {
	for i := range v.peers {
		if v.peers[i].node == node {
			return v.peers[i].life
		}
	}
	return life{gone: true, how: "which is no candidate any more"}
}

// claim is a claim with what is known of its host.
type claim struct {
	l2.Claim
	// node with that MAC, empty if unknown; rank of the node among the candidates, -1 if it is none.
	node string
	rank int
}

// speaks reports whether a speaker makes the claim. A node that answers without a mark is a foreign host: its kernel has
// the address on an interface, left there by another provider. The one exception is the owner that the status names. Its
// mark may have been lost on the way, and whether its own kernel has the address it sees itself.
func (v *view) speaks(c *claim) bool { return c.Marked || c.node != "" && c.node == v.owner }

// next is the rule by which an address has one owner:
//
//   - The first candidate that lives and can serve takes the address. It asks the network first, and takes nothing that
//     another speaker answers for. So an owner keeps the address until it is lost, and who comes back waits.
//   - An owner that may not or cannot serve any more goes on answering, and says with each answer that the address is to
//     be taken, until another has taken it: make before break.
//   - Of two owners the one with the newer VirtualIP keeps the address, of two with the same the one that is listed first.
//     It announces itself again, and the other stops when it hears that.
//   - A stranger that has the address before its first use keeps it. One that comes later is reported.
func next(r Role, v *view) Role {
	r = hear(r, v)
	if v.bar != "" {
		return r.barred(v)
	}
	may := v.listed && v.unfit == ""
	switch r.Phase {
	case Owning:
		if !may {
			return r.enter(Yielding, v.now)
		}
	case Yielding:
		switch {
		case may:
			return r.enter(Owning, v.now)
		case v.now.Sub(r.Since) >= v.yieldLimit():
			return r.enter(Idle, v.now)
		}
	case Blocked:
		if !v.listed || !v.turn {
			return r.enter(Idle, v.now)
		}
		if !r.conflict(v.now) {
			return r.ask(v)
		}
	case Idle:
		if may && v.turn {
			return r.ask(v)
		}
	case Asking, Waiting:
		if !may || !v.turn {
			return r.enter(Idle, v.now)
		}
		return r.wait(v)
	}
	return r
}

// yieldLimit is how long to answer for an address that nobody takes.
func (v *view) yieldLimit() time.Duration {
	if v.listed {
		return yieldUnfit
	}
	return yieldUnlisted
}

// barred is the role for an address that nobody may announce.
func (r Role) barred(v *view) Role {
	if !v.quarantined {
		return r.enter(Idle, v.now)
	}
	if r.Phase != Blocked {
		r = r.enter(Blocked, v.now)
		r.ForeignAt = v.now // as the VirtualIP says; unknown is which host
	}
	return r
}

func (r Role) ask(v *view) Role {
	r = r.enter(Asking, v.now)
	r.First, r.Other = v.fresh, ""
	r.Foreign, r.ForeignAt, r.DoubtAt = [6]byte{}, time.Time{}, time.Time{}
	r.Asks++
	return r
}

// wait is the role of a node whose turn it is, but for what the network says.
func (r Role) wait(v *view) Role {
	if r.Phase == Waiting {
		alive := r.Other != "" && v.life(r.Other).alive()
		died := r.Alive && !alive
		r.Alive = alive
		waited := v.now.Sub(r.Since)
		switch {
		case died, alive && waited >= reask, !alive && v.now.Sub(r.Met) >= silence && waited >= silence:
			return r.ask(v)
		}
		return r
	}
	least := r.patience(v)
	asked := v.now.Sub(r.Since)
	if asked < least || r.First && !v.ready && asked < rulesDelay {
		return r
	}
	return r.own(v, "", nil)
}

// patience is how long to ask before the address is taken. When the host of the lost owner answers, and only its speaker does
// not, there is time: the host forwards for all who know it. The speaker may be dead, or just not have got a processor.
func (r Role) patience(v *view) time.Duration {
	switch {
	case r.First:
		return askFirst
	case v.owner != v.node && v.life(v.owner).alive():
		return askLiving
	case v.present:
		return askAgain + v.stall
	}
	return askAgain
}

// own takes the address, from a node that has claimed it last or without having heard of any.
func (r Role) own(v *view, from string, last *claim) Role {
	r = r.enter(Owning, v.now)
	r.Round++
	switch {
	case last != nil && !last.Yielding:
		r.Why = "took over from node " + from + ", which is no candidate any more"
	case last != nil:
		r.Why = "took over from node " + from + ", which handed it over"
	case v.owner == "":
		r.Why = "is the first candidate that can serve"
	case v.owner == v.node:
		r.Why = "had it before"
	default:
		r.Why = fmt.Sprintf("took over from node %s, %s", v.owner, v.life(v.owner))
	}
	return r
}

// hear takes in the claims of others that came since the last decision.
func hear(r Role, v *view) Role {
	last := r.Heard
	for i := range v.claims {
		c := &v.claims[i]
		if !c.Time.After(last) {
			continue
		}
		if c.Time.After(r.Heard) {
			r.Heard = c.Time
		}
		switch {
		case c.Recorded:
			r = r.doubt(v, c)
		case v.speaks(c):
			r.DoubtAt, r.Met = time.Time{}, later(r.Met, c.Time)
			r = r.meet(v, c)
		default:
			r = r.meetStranger(v, c)
		}
	}
	if v.kernel != ([6]byte{}) {
		r = r.meetStranger(v, &claim{Claim: l2.Claim{MAC: v.kernel, Time: v.now}})
	}
	return r
}

// meet is another speaker's claim.
func (r Role) meet(v *view, c *claim) Role {
	name := c.node
	if name == "" {
		name = net.HardwareAddr(c.MAC[:]).String()
	}
	switch r.Phase {
	case Asking:
		if c.Time.Before(r.Since) {
			return r
		}
		if v.takes(c) {
			if v.bar == "" && v.listed && v.unfit == "" && v.turn {
				return r.own(v, name, c)
			}
			return r
		}
		r = r.enter(Waiting, v.now)
		r.Other, r.Alive = c.node, c.node != "" && v.life(c.node).alive()
	case Waiting:
		if v.takes(c) && v.turn {
			return r.ask(v)
		}
		r.Other = c.node
	case Yielding:
		if !c.Yielding && !c.Time.Before(r.Since) {
			r.Other = c.node
			return r.enter(Idle, v.now)
		}
	case Owning:
		if c.Yielding {
			return r
		}
		if v.loses(c) {
			r.Other = c.node
			return r.enter(Idle, v.now)
		}
		r = r.defend(v)
	}
	return r
}

// defend announces the address again.
func (r Role) defend(v *view) Role {
	if v.now.Sub(r.Defended) >= defence {
		r.Round++
		r.Defended = v.now
	}
	return r
}

// doubt is a claim that a speaker has made at some time: it may be replayed. Whoever made it is asked whether it still holds,
// and a speaker answers at once. What is claimed again when there was time to answer is replayed, and a foreign host's. One
// single claim is no such host yet: a speaker that has just let go of the address has nothing to answer.
func (r Role) doubt(v *view, c *claim) Role {
	if r.Phase != Asking && r.Phase != Owning && r.Phase != Blocked {
		return r
	}
	since := c.Time.Sub(r.DoubtAt)
	if !r.DoubtAt.IsZero() && since >= standUp && since < doubtEnds {
		return r.meetStranger(v, c)
	}
	if r.DoubtAt.IsZero() || since >= doubtEnds {
		r.DoubtAt = c.Time
	}
	if r.Phase == Owning {
		return r.defend(v)
	}
	return r
}

// takes says whether an address may be taken from who has it: who yields it, or goes by an older VirtualIP and is not a
// candidate any more, as one that is cut off from the API server.
func (v *view) takes(c *claim) bool {
	return c.Yielding || c.Marked && c.Term < v.term && c.rank < 0
}

// loses says whether another owner has the better right: it goes by a newer VirtualIP, or is listed before this node in
// the same. A claim without a term is taken to be by the same.
func (v *view) loses(c *claim) bool {
	if c.Marked && c.Term != v.term {
		return c.Term > v.term
	}
	return c.rank >= 0 && c.rank < v.rank
}

func (r Role) meetStranger(v *view, c *claim) Role {
	r.Foreign, r.ForeignAt = c.MAC, c.Time
	switch r.Phase {
	case Asking:
		if r.First && !c.Time.Before(r.Since) {
			return r.enter(Blocked, v.now)
		}
	case Owning:
		if v.now.Sub(r.Defended) >= defenceForeign {
			r.Round++
			r.Defended = v.now
		}
	}
	return r
}

// wake is when the role may change though nothing else does; zero for never.
func (r Role) wake(v *view) time.Time {
	after := func(d time.Duration) time.Time { return r.Since.Add(d) }
	switch r.Phase {
	case Asking:
		if least := r.patience(v); v.now.Sub(r.Since) < least {
			return after(least)
		}
		return v.now.Add(100 * time.Millisecond) // the proxy's rules
	case Waiting:
		if r.Alive {
			return after(reask)
		}
		return later(r.Since, r.Met).Add(silence)
	case Yielding:
		return after(v.yieldLimit())
	}
	if r.conflict(v.now) {
		return r.conflictEnd()
	}
	return time.Time{}
}

// question is how often the network is asked for the address: zero for once, false for not at all.
func (r Role) question(now time.Time) (every time.Duration, ask bool) {
	switch r.Phase {
	case Asking:
		return askFirst / 3, true
	case Waiting:
		return askLost, !r.Alive
	case Blocked:
		return askStranger, true
	case Owning:
		if r.conflict(now) {
			return askStranger, true
		}
		return askOwned, true
	}
	return 0, false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

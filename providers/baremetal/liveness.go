package baremetal

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// There are two thresholds for the death of a speaker. liveness is that of
// placement, which doubts that many die at once: to move addresses has a price.
// vigil is that of what statuses say: a speaker is told lost when its Lease has
// ended, provided that our own requests to the API server succeed.
//
// A Lease lives for its duration after we saw it renewed: clocks of nodes are
// not compared with ours.

// liveness tells which speakers live, as far as placement goes.
type liveness struct {
	leases map[string]heartbeat
	// doubt is when most speakers first seemed dead at once.
	doubt time.Time
	// heard is when any Lease was last seen renewed.
	heard time.Time
}

// deaf is how long no Lease at all has to go without being renewed for us to be
// the ones who do not hear: speakers renew theirs every 3 s. That time then
// counts against nobody.
const deaf = 5 * time.Second

type heartbeat struct {
	renewed  string // the last renewTime seen, to tell a renewal from a relist
	seen     time.Time
	duration time.Duration
	dead     bool
	// unproven says that the Lease looked long expired when we first saw it, and
	// was not renewed since: its node is dead, or its clock is wrong.
	unproven bool
	// left says that the speaker has given its Lease up. It may only be
	// restarted: it is taken to come back until then, as long as a Lease lives
	// whose speaker has died, and to settle for as long.
	left  bool
	until time.Time
}

// staleAtFirstSight is how old a Lease may be that we see for the first time
// and take for one that is renewed: clocks may differ by some. An older one has
// its duration to be renewed.
const staleAtFirstSight = time.Minute

// renew takes in a Lease. One that nobody holds has been given up by a speaker
// that is leaving or restarting.
func (l *liveness) renew(lease *coordinationv1.Lease, now time.Time) {
	if l.leases == nil {
		l.leases = map[string]heartbeat{}
	}
	spec := lease.Spec
	if spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		delete(l.leases, lease.Name)
		return
	}
	beat := heartbeat{
		renewed:  spec.RenewTime.UTC().Format(time.RFC3339Nano),
		seen:     now,
		duration: time.Duration(*spec.LeaseDurationSeconds) * time.Second,
		left:     spec.HolderIdentity == nil || *spec.HolderIdentity == "",
	}
	before, known := l.leases[lease.Name]
	if known && before.renewed == beat.renewed && before.left == beat.left {
		return
	}
	beat.until = before.until
	if beat.left && !before.left || before.left && !before.until.IsZero() {
		beat.until = now.Add(beat.duration)
	}
	if !known && !beat.left && now.Sub(spec.RenewTime.Time) > beat.duration+staleAtFirstSight {
		beat.unproven = true
	}
	l.hear(now)
	l.leases[lease.Name] = beat
}

// hear takes down that the API server told of a renewal. If it had told of none
// for long, it was away, or we were: who was alive before is given that time.
func (l *liveness) hear(now time.Time) {
	if gap := now.Sub(l.heard); !l.heard.IsZero() && gap > deaf {
		for node, beat := range l.leases {
			if !beat.dead && !beat.left {
				if beat.seen = beat.seen.Add(gap); beat.seen.After(now) {
					beat.seen = now
				}
				l.leases[node] = beat
			}
		}
	}
	l.heard = now
}

func (l *liveness) forget(node string) { delete(l.leases, node) }

func (l *liveness) alive(node string) bool {
	beat, ok := l.leases[node]
	return ok && !beat.dead && !beat.left && !beat.unproven
}

// unproven reports whether a speaker may live, though its Lease looks expired:
// it keeps what it has, and is given nothing.
func (l *liveness) unproven(node string) bool {
	beat := l.leases[node]
	return beat.unproven && !beat.dead
}

// returning says that a speaker has been stopped so short a time ago that it
// may be just restarting, or is back for so short a time.
func (l *liveness) returning(node string) bool { return !l.leases[node].until.IsZero() }

// expire marks who is dead by now and says whether that changed anything, and
// when to look again (zero: not before the next renewal).
//
// When more than half of several speakers fall silent together, the API server
// or we were away: they get the time of one more Lease before that counts, all
// of it also when the first of them are back.
func (l *liveness) expire(now time.Time) (changed bool, next time.Time) {
	var silent []string
	living := 0
	for node, beat := range l.leases {
		if !beat.until.IsZero() && !now.Before(beat.until) {
			beat.until, changed = time.Time{}, true
			l.leases[node] = beat
		}
		if !beat.until.IsZero() {
			next = earlier(next, beat.until)
		}
		switch {
		case beat.dead, beat.left:
		case beat.unproven && now.Sub(beat.seen) >= beat.duration:
			beat.dead, changed = true, true
			l.leases[node] = beat
		case beat.unproven:
			next = earlier(next, beat.seen.Add(beat.duration))
		case now.Sub(beat.seen) >= beat.duration:
			silent = append(silent, node)
		default:
			living++
			next = earlier(next, beat.seen.Add(beat.duration))
		}
	}
	if len(silent) == 0 {
		l.doubt = time.Time{}
		return changed, next
	}
	alone := len(silent)+living == 1
	if l.doubt.IsZero() && !alone && (len(silent) > living || now.Sub(l.heard) > deaf) {
		l.doubt = now
	}
	if !l.doubt.IsZero() {
		if until := l.doubt.Add(l.leases[silent[0]].duration); now.Before(until) {
			return changed, earlier(next, until)
		}
		l.doubt = time.Time{}
	}
	for _, node := range silent {
		beat := l.leases[node]
		beat.dead = true
		l.leases[node] = beat
	}
	return true, next
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

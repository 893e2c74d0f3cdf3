package l2

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// gaps are the times between one announcement of an address and the next. Neighbours that were deaf for a moment, a switch
// that was still learning, a port that spanning tree held back for 30 s: each gets another chance, at little cost.
var gaps = [...]time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 700 * time.Millisecond, // 1 s after the first
	time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 28 * time.Second, // 1 min
}

const (
	// pace is the least time per address: 10,000 addresses are all announced within a second, by at most 20,000 of the
	// smallest frames there are, which is some 13 Mbit/s of broadcast.
	pace = 100 * time.Microsecond
	// batch is how many addresses are announced or asked about in one go.
	batch = 100
	// insist is the time from the first request of a question to the second.
	insist = 10 * time.Millisecond
)

// duty is to announce an address on an interface, or to ask for it.
type duty struct {
	addr     netip.Addr
	name     string // of the interface
	question bool
}

// The stages of a duty, in order of urgency: of many that come at once, each has its first turn before any has a later
// one. An announcement goes from firstAnnouncement to secondAnnouncement and on to the last stage; a question from
// firstQuestion to secondQuestion and then to the repetitions.
const (
	firstAnnouncement = iota
	firstQuestion
	secondQuestion
	secondAnnouncement
	stages = secondAnnouncement + len(gaps)
	// repetition is the stage of a question that is asked for as long as it stands. Those of all questions come last:
	// should there be more than the pace allows, they slow down, and nothing else does.
	repetition = stages
)

// schedule says which announcements and questions are due.
//
// Within a stage all wait equally long, so a queue per stage is in order of time, and nothing needs to be sorted.
type schedule struct {
	queues    [stages]queue
	repeated  []*repeatedQueue
	runs      map[duty]run // turns of other runs are skipped
	lastRun   int
	notBefore time.Time
	due       []duty // what take returned
}

// run is one start of a duty.
type run struct {
	id        int
	every     time.Duration // zero: no repetition
	repeating bool          // the stages before are over
}

type turn struct {
	duty
	run int
	due time.Time
}

type repeatedQueue struct {
	queue
	every time.Duration
}

// start begins the stages of a duty, or begins them again. Every is that of a question.
func (s *schedule) start(d duty, every time.Duration, now time.Time) {
	stage := firstAnnouncement
	if d.question {
		stage = firstQuestion
	}
	t := turn{d, s.begin(d, run{every: every}), now}
	s.queues[stage].push(t)
}

// repeat changes how often a question is asked from now on.
func (s *schedule) repeat(d duty, every time.Duration, now time.Time) {
	current, asking := s.runs[d]
	if asking && !current.repeating {
		current.every = every
		s.runs[d] = current
		return
	}
	delete(s.runs, d)
	if every > 0 {
		s.pushRepetition(turn{d, s.begin(d, run{every: every, repeating: true}), now.Add(every)}, every)
	}
}

func (s *schedule) begin(d duty, r run) (id int) {
	if s.runs == nil {
		s.runs = map[duty]run{}
	}
	s.lastRun++
	r.id = s.lastRun
	s.runs[d] = r
	return r.id
}

// keep ends all duties but the active ones.
func (s *schedule) keep(active func(duty) bool) {
	maps.DeleteFunc(s.runs, func(d duty, _ run) bool { return !active(d) })
}

// take returns what is to be sent now. It is overwritten by the next call.
func (s *schedule) take(now time.Time) []duty {
	if now.Before(s.notBefore) {
		return nil
	}
	s.due = s.due[:0]
	for len(s.due) < batch {
		t, stage, ok := s.pop(now)
		if !ok {
			break
		}
		s.due = append(s.due, t.duty)
		s.follow(t, stage, now)
	}
	s.notBefore = now.Add(time.Duration(len(s.due)) * pace)
	return s.due
}

// pop takes the most urgent turn; of the repetitions that is the one that has waited longest.
func (s *schedule) pop(now time.Time) (t turn, stage int, ok bool) {
	for stage := range s.queues {
		if head := s.head(&s.queues[stage]); head != nil && !head.due.After(now) {
			return s.queues[stage].pop(), stage, true
		}
	}
	var longest *queue
	due := now
	for _, q := range s.repeated {
		if head := s.head(&q.queue); head != nil && !head.due.After(due) {
			longest, due = &q.queue, head.due
		}
	}
	if longest == nil {
		return turn{}, 0, false
	}
	return longest.pop(), repetition, true
}

// follow queues the turn that comes after one.
func (s *schedule) follow(t turn, stage int, now time.Time) {
	r := s.runs[t.duty]
	switch {
	case stage == firstQuestion:
		t.due = now.Add(insist)
		s.queues[secondQuestion].push(t)
	case t.question && r.every > 0:
		if !r.repeating {
			r.repeating = true
			s.runs[t.duty] = r
		}
		t.due = now.Add(r.every)
		s.pushRepetition(t, r.every)
	case t.question, stage == stages-1:
		delete(s.runs, t.duty)
	case stage == firstAnnouncement:
		t.due = now.Add(gaps[0])
		s.queues[secondAnnouncement].push(t)
	default:
		t.due = now.Add(gaps[stage-secondAnnouncement+1])
		s.queues[stage+1].push(t)
	}
}

func (s *schedule) pushRepetition(t turn, every time.Duration) {
	i := slices.IndexFunc(s.repeated, func(q *repeatedQueue) bool { return q.every == every })
	if i < 0 {
		i = len(s.repeated)
		s.repeated = append(s.repeated, &repeatedQueue{every: every})
	}
	s.repeated[i].push(t)
}

// next returns when take has something to return, or false when all is said.
func (s *schedule) next() (next time.Time, more bool) {
	look := func(q *queue) (empty bool) {
		head := s.head(q)
		if head != nil && (!more || head.due.Before(next)) {
			next, more = head.due, true
		}
		return head == nil
	}
	for stage := range s.queues {
		look(&s.queues[stage])
	}
	s.repeated = slices.DeleteFunc(s.repeated, func(q *repeatedQueue) bool { return look(&q.queue) })
	if more && next.Before(s.notBefore) {
		return s.notBefore, true
	}
	return next, more
}

// head returns the first turn of a queue that counts, or nil.
func (s *schedule) head(q *queue) *turn {
	for ; q.first < len(q.turns); q.first++ {
		if head := &q.turns[q.first]; s.runs[head.duty].id == head.run {
			return head
		}
	}
	return nil
}

// queue is first in, first out.
type queue struct {
	turns []turn
	first int // those before are taken
}

func (q *queue) push(t turn) {
	if len(q.turns) == cap(q.turns) && 2*q.first >= len(q.turns) {
		q.turns = slices.Delete(q.turns, 0, q.first) // so that a queue that goes on for ever does not grow
		q.first = 0
	}
	q.turns = append(q.turns, t)
}

func (q *queue) pop() turn {
	t := q.turns[q.first]
	q.first++
	if q.first == len(q.turns) {
		q.turns, q.first = q.turns[:0], 0
		if cap(q.turns) > batch {
			q.turns = nil // many came at once, and that is over
		}
	}
	return t
}

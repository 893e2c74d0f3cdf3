package l2

import (
	"maps"
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
	// batch is how many addresses are announced in one go.
	batch = 100
)

// schedule says which announcements are due. Each goes through the same rounds, and an early round goes before a late
// one: of many addresses that come at once, each is announced before any is repeated.
//
// Within a round all wait equally long, so a queue per round is in order of time, and nothing needs to be sorted.
type schedule struct {
	rounds    [len(gaps) + 1][]turn
	runs      map[Announcement]int // the run that counts; turns of others are skipped
	lastRun   int
	notBefore time.Time
}

type turn struct {
	Announcement
	run int
	due time.Time
}

// start begins the rounds of an announcement, or begins them again.
func (s *schedule) start(a Announcement, now time.Time) {
	if s.runs == nil {
		s.runs = map[Announcement]int{}
	}
	s.lastRun++
	s.runs[a] = s.lastRun
	s.rounds[0] = append(s.rounds[0], turn{a, s.lastRun, now})
}

// keep stops all announcements but the active ones.
func (s *schedule) keep(active map[Announcement]struct{}) {
	maps.DeleteFunc(s.runs, func(a Announcement, _ int) bool { _, ok := active[a]; return !ok })
}

// take returns the announcements to send now.
func (s *schedule) take(now time.Time) []Announcement {
	if now.Before(s.notBefore) {
		return nil
	}
	var due []Announcement
	for round := range s.rounds {
		for s.skipStopped(round); len(due) < batch && len(s.rounds[round]) > 0; s.skipStopped(round) {
			t := s.rounds[round][0]
			if t.due.After(now) {
				break
			}
			s.rounds[round] = s.rounds[round][1:]
			due = append(due, t.Announcement)
			if round == len(gaps) {
				delete(s.runs, t.Announcement)
				continue
			}
			t.due = now.Add(gaps[round])
			s.rounds[round+1] = append(s.rounds[round+1], t)
		}
	}
	s.notBefore = now.Add(time.Duration(len(due)) * pace)
	return due
}

// next returns when take has something to return, or false when all is said.
func (s *schedule) next() (time.Time, bool) {
	var next time.Time
	for round := range s.rounds {
		s.skipStopped(round)
		if queue := s.rounds[round]; len(queue) > 0 && (next.IsZero() || queue[0].due.Before(next)) {
			next = queue[0].due
		}
	}
	if next.IsZero() {
		return next, false
	}
	if next.Before(s.notBefore) {
		return s.notBefore, true
	}
	return next, true
}

func (s *schedule) skipStopped(round int) {
	queue := s.rounds[round]
	for len(queue) > 0 && s.runs[queue[0].Announcement] != queue[0].run {
		queue = queue[1:]
	}
	s.rounds[round] = queue
}

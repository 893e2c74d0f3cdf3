package speaker

import "time"

const (
	// silenceLost is how long a speaker says nothing of an address at least once another speaker has replaced its word.
	silenceLost = 30 * time.Second
	// wordPauseMost bounds the pause before a word that was changed again and again is said once more.
	wordPauseMost = 10 * time.Minute
)

// word is what this speaker said last in the status of one object. An object has one writer at a time: two speakers that
// both believe to be the owner, as on two parts of a LAN, would otherwise replace each other's word as fast as the API server
// lets them.
//
//   - What is new is said at once.
//   - A word that the controller, or a person, has changed is said again at once, and after growing pauses if it is changed
//     each time.
//   - A word that another speaker has replaced is said again only after a long and growing pause, or in another role.
type word struct {
	role  role
	text  string
	at    time.Time     // when it was said
	lost  time.Time     // when it was first seen to be changed since; zero if it was not
	pause time.Duration // before it is said again
}

// role tells one time in a role from the next: a node that took an address anew has something new to say.
type role struct {
	since time.Time
	round uint64
}

func roleOf(r Role) role { return role{r.Since, r.Round} }

// say reports whether to write now; if not, it returns how long to wait before the next look. replaced reports that another
// speaker's word stands there now.
func (w word) say(r role, text string, replaced bool, now time.Time) (next word, wait time.Duration, ok bool) {
	if w.role != r || w.text != text {
		return word{role: r, text: text, at: now}, 0, true
	}
	if w.lost.IsZero() {
		w.lost = now
	}
	pause := w.pause
	if w.lost.Sub(w.at) > wordPauseMost {
		pause = 0 // it stood for long
	}
	if replaced {
		pause = max(pause, silenceLost)
	}
	if wait := pause - now.Sub(w.lost); wait > 0 {
		return w, wait, false
	}
	next = word{role: r, text: text, at: now, pause: min(max(2*pause, time.Second), wordPauseMost)}
	return next, 0, true
}

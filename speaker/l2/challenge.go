package l2

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// challengePause is the least time between two questions that claims call forth, for an address.
	challengePause = 20 * time.Millisecond
	// answerTime is how long a question may be answered.
	answerTime = time.Second
)

// challenges are the questions of an interface that may still be answered. A claim is fresh if it carries the nonce of one
// of them: who replays what a speaker has said before cannot know it. Nobody needs the time of another
// node for that.
type challenges struct {
	mu    sync.Mutex
	asked map[netip.Addr]challenge
}

// challenge is the nonce of the last question for an address, and that of the one before, whose answer may be under way.
type challenge struct {
	last, before uint64
	at           time.Time
}

// next returns the nonce of the next question for an address.
func (c *challenges) next(addr netip.Addr, now time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked == nil {
		c.asked = map[netip.Addr]challenge{}
	}
	nonce := newNonce()
	c.asked[addr] = challenge{last: nonce, before: c.asked[addr].last, at: now}
	return nonce
}

// fresh reports whether a nonce is that of a question which was asked just now.
func (c *challenges) fresh(addr netip.Addr, nonce uint64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked[addr]
	return nonce != 0 && now.Sub(asked.at) < answerTime && (nonce == asked.last || nonce == asked.before)
}

// due reports whether the last question for an address is long enough ago for another one.
func (c *challenges) due(addr netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.asked[addr].at) >= challengePause
}

// forget voids the questions for an address: answers to them count no more.
func (c *challenges) forget(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, addr)
}

// keep voids the questions for all addresses that an interface neither announces nor asks for.
func (c *challenges) keep(t *table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for addr := range c.asked {
		if !t.concerns(addr) {
			delete(c.asked, addr)
		}
	}
}

package speaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// hangTime is how long a decision with all that it takes may last. A machine that is busy, and very many addresses, take
	// seconds.
	hangTime = 20 * time.Second
	// askTime is how long the answers may take of those who do what is decided.
	askTime = 2 * time.Second
)

// pulse says when the next decision is due. The zero value is before the start: nothing is due.
type pulse struct{ due atomic.Pointer[time.Time] }

// beat says that the next one comes within a time, at the latest.
func (p *pulse) beat(within time.Duration) {
	due := time.Now().Add(within + hangTime)
	p.due.Store(&due)
}

// Healthy returns an error when the speaker hangs: no decision has come to its end in time, or one of those who do what is
// decided does not answer. Only a restart helps then. Meanwhile the node may still answer for addresses, and others may not
// know that they have moved.
func (s *Speaker) Healthy() error {
	if due := s.pulse.due.Load(); due != nil && time.Now().After(*due) {
		return fmt.Errorf("no decision was made in time: it was due %s ago", time.Since(*due).Round(time.Second))
	}
	return s.effectors.ask(map[string]func(){
		"the BFD watcher":   func() { s.Watcher.States() },
		"the health prober": func() { s.Prober.States() },
		"the BGP speaker":   func() { s.Advertiser.Statuses() },
	})
}

// effectors are asked whether they still answer. One that hangs is asked once, not again and again.
type effectors struct {
	mu     sync.Mutex
	asking map[string]chan struct{}
}

func (e *effectors) ask(questions map[string]func()) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asking == nil {
		e.asking = map[string]chan struct{}{}
	}
	for name, question := range questions {
		if e.asking[name] != nil {
			continue
		}
		done := make(chan struct{})
		e.asking[name] = done
		go func() { question(); close(done) }()
	}
	timeout, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	var hung []error
	for name, done := range e.asking {
		select {
		case <-done:
		case <-timeout.Done():
		}
		select {
		case <-done:
			delete(e.asking, name)
		default:
			hung = append(hung, fmt.Errorf("%s does not answer", name))
		}
	}
	return errors.Join(hung...)
}

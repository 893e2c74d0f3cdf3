package sandbox

import (
	"context"
	"time"
)

// Supervise starts a process again whenever it has ended by itself, as a kubelet does, until ctx ends. A controller manager ends when it loses
// its Lease, which a busy machine is enough for. What Stop or Kill ended stays so. It calls ended with the end of the process's log.
func (s *Sandbox) Supervise(ctx context.Context, name string, ended func(lastLog string)) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.startIfEnded(name, ended)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Sandbox) startIfEnded(name string, ended func(lastLog string)) {
	s.supervising.Lock()
	defer s.supervising.Unlock()
	r, err := s.record(name)
	if err != nil || r.PID == 0 || s.ending[name] > 0 || r.alive() {
		return
	}
	ended(s.lastLog(name))
	if err := s.Start(r.Process); err != nil {
		ended(err.Error())
	}
}

// onPurpose keeps Supervise off a process until the function it returns is called.
func (s *Sandbox) onPurpose(name string) (done func()) {
	s.supervising.Lock()
	defer s.supervising.Unlock()
	if s.ending == nil {
		s.ending = map[string]int{}
	}
	s.ending[name]++
	return func() {
		s.supervising.Lock()
		defer s.supervising.Unlock()
		s.ending[name]--
	}
}

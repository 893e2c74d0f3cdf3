package awsfake

import (
	"slices"
	"sync"
)

// The APIs that calls go to.
const (
	ELB   = "elb"
	ELBV2 = "elbv2"
	EC2   = "ec2"
)

// Call is one request to AWS.
type Call struct {
	API, Operation string
	// N counts the calls to the cloud, from 1 after New and after ResetCalls.
	N int
	// Input is what the caller gave, such as *ec2.DescribeSubnetsInput.
	Input any
}

// String is "elbv2.CreateListener".
func (c Call) String() string { return c.API + "." + c.Operation }

// Fault is something that goes wrong with one call or with some of them.
type Fault struct {
	// Operation is "elbv2.CreateListener", or "elbv2" for any of that API; empty
	// is any at all.
	Operation string
	// Nth is which of these calls goes wrong, counted from 1 since the fault
	// was injected; 0 is the first.
	Nth int
	// Times is how many calls in a row go wrong; 0 is one, -1 is all from then
	// on.
	Times int
	// Err is the error that the caller gets. Without one the call is throttled.
	Err error
	// Late lets the call do its work first: the answer is lost. A call that AWS
	// refuses is answered so all the same.
	Late bool
	// Do runs when it happens, for example to end the caller's context.
	Do func()

	met int
}

// meets counts a call and says whether it is one that goes wrong.
func (f *Fault) meets(call Call) bool {
	if f.Operation != "" && f.Operation != call.API && f.Operation != call.String() {
		return false
	}
	f.met++
	first := max(f.Nth, 1)
	if f.Times < 0 {
		return f.met >= first
	}
	return f.met >= first && f.met < first+max(f.Times, 1)
}

// recorder counts calls and makes them fail.
type recorder struct {
	mu     sync.Mutex
	log    []Call
	faults []*Fault
	before func(Call) error
	after  func(Call) error
}

// Before sets what runs before every call; an error of it is the answer, and
// nothing happens in the cloud. nil sets nothing. It runs outside of the
// cloud's lock, so it may change the world.
func (c *Cloud) Before(hook func(Call) error) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.calls.before = hook
}

// After sets what runs after every call that succeeded; an error of it takes
// the place of the answer, though the call did its work.
func (c *Cloud) After(hook func(Call) error) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.calls.after = hook
}

// Inject adds faults to those that are still to come.
func (c *Cloud) Inject(faults ...Fault) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	for _, f := range faults {
		c.calls.faults = append(c.calls.faults, &f)
	}
}

// Heal ends all faults and hooks.
func (c *Cloud) Heal() {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.calls.faults, c.calls.before, c.calls.after = nil, nil, nil
}

// Calls are the calls so far, also those that failed.
func (c *Cloud) Calls() []Call {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return slices.Clone(c.calls.log)
}

// Counts are how many calls there were of each operation, such as
// "elbv2.CreateListener".
func (c *Cloud) Counts() map[string]int {
	counts := map[string]int{}
	for _, call := range c.Calls() {
		counts[call.String()]++
	}
	return counts
}

// ResetCalls forgets the calls so far.
func (c *Cloud) ResetCalls() {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.calls.log = nil
}

// recorded is a call that the recorder has taken in, with what is to happen
// to it.
type recorded struct {
	Call
	before, after func(Call) error
	early, late   *Fault
}

// record takes in a call and decides on its faults.
func (r *recorder) record(api, operation string, input any) recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	call := recorded{Call: Call{API: api, Operation: operation, N: len(r.log) + 1, Input: input}, before: r.before, after: r.after}
	r.log = append(r.log, call.Call)
	for _, f := range r.faults {
		if !f.meets(call.Call) {
			continue
		}
		if f.Late && call.late == nil {
			call.late = f
		} else if !f.Late && call.early == nil {
			call.early = f
		}
	}
	return call
}

// strike lets the fault happen.
func (f *Fault) strike(call Call) error {
	if f == nil {
		return nil
	}
	if f.Do != nil {
		f.Do()
	}
	if f.Err == nil {
		return Throttling(call)
	}
	return f.Err
}

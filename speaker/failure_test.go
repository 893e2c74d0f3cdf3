package speaker

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/l2"
)

// What the responder refuses is not said to be announced, and is tried again.
func TestWhatTheResponderRefusesIsNotOwned(t *testing.T) {
	p := newPlay(t, []byte(vipYAML))
	name := p.s.VirtualIPs[0].Name
	decide := func(after time.Duration) Verdict {
		p.s.Now = p.s.Now.Add(after)
		p.s.Before = Decide(p.s)
		return p.s.Before.Verdicts[name]
	}
	decide(0)
	if v := decide(time.Second); v.Reason != "" {
		t.Fatalf("not owned: %+v", v)
	}
	refused := errors.Join(errors.New("another"), fmt.Errorf("x"), errors.Join(&l2.AddressError{Addr: vipAddr, Interface: "eth0", Err: errors.New("no such group")}))
	if !p.s.Before.fail(refused, p.s.Now) {
		t.Fatal("not taken in")
	}
	v := decide(time.Millisecond)
	if v.Reason != v1alpha1.AnnounceFailed || !v.Tells || v.Why != "eth0: no such group" || len(p.s.Before.L2)+len(p.s.Before.Questions) > 0 {
		t.Fatalf("%+v", v)
	}
	if want := "Node node-1 cannot answer for the address on eth0: no such group."; v.message("node-1") != want {
		t.Error(v.message("node-1"))
	}
	if v := decide(failureTime); v.Reason != v1alpha1.Asking {
		t.Errorf("not tried again: %+v", v)
	}
	if v := decide(time.Second); v.Reason != "" {
		t.Errorf("not owned after the failure: %+v", v)
	}
}

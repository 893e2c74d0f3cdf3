package speaker

import (
	"math"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/l2"
)

// forge sends claims to all hosts, every 20 ms for a time.
func (f *fleet) forge(t *testing.T, d time.Duration, claims ...l2.Claim) {
	t.Helper()
	for end := f.now.Add(d); f.now.Before(end); f.pass(t, 20*time.Millisecond) {
		for _, h := range f.hosts {
			for _, c := range claims {
				if c.MAC != nodeMAC(h.name) { // the responder drops its own
					c.Addr = vipAddr
					f.overhear(h, c)
				}
			}
		}
	}
}

// What the responder makes of frames that another host sends: none of them silences the owner or keeps others from taking
// its place, and the owner sees the host.
func TestForgedMarksSilenceNobody(t *testing.T) {
	stranger, third := [6]byte{0xfe, 1, 2, 3, 4, 5}, nodeMAC("node-3")
	for name, c := range map[string]l2.Claim{
		"no key or an old one":             {MAC: stranger},
		"a mark of the earlier version":    {MAC: stranger, Marked: true, Unsigned: true, Term: math.MaxUint64},
		"the same in a candidate's name":   {MAC: third, Marked: true, Unsigned: true, Term: math.MaxUint64},
		"the same, yielding":               {MAC: third, Marked: true, Unsigned: true, Term: math.MaxUint64, Yielding: true},
		"a replay of a former owner":       {MAC: third, Recorded: true},
		"a replay of who is no candidate":  {MAC: nodeMAC("node-9"), Recorded: true},
		"a replay of the owner that fails": {MAC: nodeMAC("node-1"), Recorded: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, owner := owned(t, 1, 3)
			f.forge(t, 3*time.Second, c)
			if all, _ := f.owners(0); len(all) != 1 || all[0] != owner.name {
				t.Fatalf("%v have it, want %s\n%s", all, owner.name, f)
			}
			role := owner.s.Before.Roles[vipText]
			if foreign := nodeMAC(owner.name) != c.MAC; role.conflict(f.now) != foreign || foreign && role.Foreign != c.MAC {
				t.Errorf("in conflict with %x: %v, want %x", role.Foreign, role.conflict(f.now), c.MAC)
			}
			f.change("power of %s is lost", owner.name)
			owner.power = false
			f.forge(t, time.Second, c)
			if next := f.wantOne(t); next == owner.name {
				t.Fatalf("nobody took over\n%s", f)
			}
		})
	}
}

// A new address is blocked by a host that has it, whatever that says, and by nothing that is said once.
func TestReplayedMarkBlocksANewAddressLikeAnyHost(t *testing.T) {
	for name, c := range map[string]l2.Claim{
		"unmarked": {MAC: [6]byte{0xfe, 1, 2, 3, 4, 5}},
		"replayed": {MAC: nodeMAC("node-9"), Recorded: true},
	} {
		f := newFleet(1, 3)
		f.forge(t, 3*time.Second, c)
		if all, _ := f.owners(0); len(all) > 0 {
			t.Errorf("%s: %v have it\n%s", name, all, f)
		}
	}
}

// An upgrade passes node by node, and the last of the old ones may be an owner.
func TestUpgradeKeepsOneOwner(t *testing.T) {
	f := newFleet(3, 3)
	for _, h := range f.hosts {
		h.old = true
		f.startSpeaker(h)
	}
	f.pass(t, 6*time.Second)
	for _, name := range []string{"node-3", "node-1", "node-2"} {
		h := f.host(name)
		f.change("%s is upgraded", name)
		h.leaving, h.due = f.now, true
		f.pass(t, 2*time.Second)
		f.wantOne(t)
		h.old = false
		f.startSpeaker(h)
		f.pass(t, 6*time.Second)
		kept := f.wantOne(t)
		f.change("%s is cut off", kept)
		f.host(kept).part = 1
		f.pass(t, 3*time.Second)
		f.change("the LAN is whole again")
		f.host(kept).part = 0
		f.pass(t, 300*time.Millisecond)
		f.wantOne(t)
		f.pass(t, 6*time.Second)
	}
	if !f.truth.Spec.L2.SignedMarks {
		t.Error("unsigned marks still count")
	}
}

package speaker

import (
	"fmt"
	"testing"
	"time"
)

// owned lets a fleet start, and returns it with the one that has the address.
func owned(t *testing.T, seed uint64, size int) (*fleet, *host) {
	f := newFleet(seed, size)
	f.pass(t, 6*time.Second)
	owner := f.host(f.wantOne(t))
	return f, owner
}

func TestLostOwnerIsReplacedByTheNext(t *testing.T) {
	f, owner := owned(t, 1, 3)
	f.change("power of %s is lost", owner.name)
	owner.power = false
	f.pass(t, 400*time.Millisecond)
	if next := f.wantOne(t); next != "node-2" {
		t.Fatalf("%s has it\n%s", next, f)
	}
	f.pass(t, 15*time.Second)
	f.change("power of %s is back", owner.name)
	owner.power = true
	f.startSpeaker(owner)
	f.pass(t, 15*time.Second)
	if next := f.wantOne(t); next != "node-2" {
		t.Fatalf("it came back to %s\n%s", next, f)
	}
}

func TestKilledSpeakerThatIsBackAtOnceMovesTheAddressOnceAtMost(t *testing.T) {
	for _, milliseconds := range []int{0, 50, 250, 290, 300, 310, 330, 500, 2000} {
		pause := time.Duration(milliseconds) * time.Millisecond
		f, owner := owned(t, 2, 3)
		f.change("the speaker of %s is killed for %v", owner.name, pause)
		owner.running = false
		f.pass(t, pause+time.Millisecond)
		f.startSpeaker(owner)
		f.pass(t, 2*time.Second)
		first := f.wantOne(t)
		f.pass(t, 15*time.Second)
		if f.wantOne(t) != first {
			t.Fatalf("moved twice after %v\n%s", pause, f)
		}
	}
}

func TestLeavingNeverLeavesNobody(t *testing.T) {
	f, owner := owned(t, 3, 3)
	f.change("%s leaves", owner.name)
	owner.leaving, owner.due = f.now, true
	for range 3000 {
		f.pass(t, time.Millisecond)
		if all, _ := f.owners(0); len(all) == 0 {
			t.Fatalf("nobody has it\n%s", f)
		}
	}
	if f.wantOne(t) == owner.name || owner.running {
		t.Fatalf("it did not leave\n%s", f)
	}
}

func TestDeadServiceProxyHandsOver(t *testing.T) {
	f, owner := owned(t, 4, 3)
	f.change("the proxy of %s hangs", owner.name)
	owner.well = false
	f.measure(owner)
	f.pass(t, 20*time.Millisecond)
	next := f.wantOne(t)
	f.pass(t, 5*time.Second)
	f.change("the proxy of %s is well again", owner.name)
	owner.well = true
	f.measure(owner)
	f.pass(t, 10*time.Second)
	if f.wantOne(t) != next {
		t.Fatalf("it moved back\n%s", f)
	}
}

func TestCutMeshMovesNothing(t *testing.T) {
	f, owner := owned(t, 5, 3)
	f.change("the mesh is cut")
	f.cutMesh = true
	for range 20_000 {
		f.pass(t, time.Millisecond)
		if all, _ := f.owners(0); len(all) != 1 || all[0] != owner.name {
			t.Fatalf("%v have it\n%s", all, f)
		}
	}
	f.change("%s dies with the mesh cut", owner.name)
	owner.power = false
	f.pass(t, 2*time.Second)
	f.wantOne(t)
}

func TestHealedPartitionHasOneOwnerAtOnce(t *testing.T) {
	for _, size := range []int{2, 3} {
		for _, seconds := range []int{1, 3, 9, 12, 30} {
			for _, api := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d nodes, %d s, API %v", size, seconds, api), func(t *testing.T) {
					f, owner := owned(t, 6, size)
					f.apiDown = !api
					f.change("%s is cut off", owner.name)
					owner.part = 1
					f.pass(t, time.Duration(seconds)*time.Second)
					f.wantOne(t)
					if all, _ := f.owners(1); len(all) != 1 {
						t.Fatalf("the one that is cut off does not go on\n%s", f)
					}
					f.change("the LAN is whole again, the API server not yet for %s", owner.name)
					owner.part = 0
					f.apiDown = true
					f.pass(t, 300*time.Millisecond)
					kept := f.wantOne(t)
					f.pass(t, 3*time.Second)
					f.apiDown = false
					f.pass(t, 15*time.Second)
					if f.wantOne(t) != kept {
						t.Fatalf("it moved again\n%s", f)
					}
				})
			}
		}
	}
}

func TestOwnerThatIsCutOffFromTheAPIServerIsReplacedAndYields(t *testing.T) {
	f, owner := owned(t, 8, 3)
	f.change("%s is cut off from the API server", owner.name)
	owner.deaf = true
	f.pass(t, 12*time.Second)
	kept := f.wantOne(t)
	if kept == owner.name {
		t.Fatalf("it was not replaced\n%s", f)
	}
	f.change("%s hears the API server again", owner.name)
	owner.deaf = false
	f.pass(t, 10*time.Second)
	if f.wantOne(t) != kept {
		t.Fatalf("it came back\n%s", f)
	}
}

// Whatever happens, and in whatever order: when all is well again there is one owner, and there were never two for longer
// than it takes to hear of each other.
func TestOneOwnerWhateverHappens(t *testing.T) {
	runs := 24
	if testing.Short() {
		runs = 10
	}
	for seed := range uint64(runs) {
		f, _ := owned(t, seed, 2+int(seed%4))
		for range 12 {
			f.fault()
			f.pass(t, time.Duration(f.random.IntN(4000))*time.Millisecond)
		}
		f.change("all is well")
		f.apiDown, f.cutMesh = false, false
		for _, h := range f.hosts {
			h.part, h.power, h.deaf = 0, true, false
			if !h.well {
				h.well = true
				f.measure(h)
			}
			if !h.running || !h.leaving.IsZero() {
				f.startSpeaker(h)
			}
		}
		f.pass(t, 20*time.Second)
		kept := f.wantOne(t)
		f.pass(t, 20*time.Second)
		if f.wantOne(t) != kept {
			t.Fatalf("seed %d: it moved without need\n%s", seed, f)
		}
	}
}

// fault does something to the fleet, or mends it.
func (f *fleet) fault() {
	h := f.hosts[f.random.IntN(len(f.hosts))]
	switch f.random.IntN(9) {
	case 0:
		h.part = 1 - h.part
		f.change("%s is in part %d", h.name, h.part)
	case 1:
		if h.power = !h.power; h.power {
			f.startSpeaker(h)
		}
		f.change("power of %s: %v", h.name, h.power)
	case 2:
		h.running = false
		f.change("the speaker of %s is killed", h.name)
		f.after(time.Duration(f.random.IntN(2000))*time.Millisecond, func() {
			if !h.running {
				f.change("the speaker of %s starts", h.name)
				f.startSpeaker(h)
			}
		})
	case 3:
		h.well = !h.well
		f.change("the proxy of %s is well: %v", h.name, h.well)
		f.measure(h)
	case 4:
		f.cutMesh = !f.cutMesh
		f.change("the mesh is cut: %v", f.cutMesh)
	case 5:
		f.apiDown = !f.apiDown
		f.change("the API server is down: %v", f.apiDown)
	case 6:
		if h.running && h.leaving.IsZero() {
			h.leaving, h.due = f.now, true
			f.change("%s leaves", h.name)
		}
	case 7:
		h.deaf = !h.deaf
		f.change("%s is cut off from the API server: %v", h.name, h.deaf)
	case 8:
		f.change("nothing")
	}
}

// A candidate that lives and cannot serve the address says so, and the next one has it within two seconds, with the API
// server away too.
func TestCandidateThatRefusesTheAddressIsSkipped(t *testing.T) {
	for _, refusing := range []int{1, 2} {
		for _, api := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d refuse, API %v", refusing, api), func(t *testing.T) {
				f := newFleet(11, 3)
				f.local()
				for _, h := range f.hosts[:refusing] {
					h.refuses = true
				}
				f.apiDown = !api
				f.pass(t, 2*time.Second)
				if owner := f.wantOne(t); owner != f.hosts[refusing].name {
					t.Fatalf("%s has it\n%s", owner, f)
				}
				f.apiDown = false
				f.pass(t, 10*time.Second)
				for _, h := range f.hosts {
					f.refuse(h, false)
				}
				f.pass(t, 10*time.Second)
				if owner := f.wantOne(t); owner != f.hosts[refusing].name {
					t.Fatalf("it moved back to %s\n%s", owner, f)
				}
			})
		}
	}
}

func TestOwnerThatRefusesTheAddressIsReplaced(t *testing.T) {
	for _, also := range []bool{false, true} {
		for _, api := range []bool{true, false} {
			t.Run(fmt.Sprintf("the next refuses too: %v, API %v", also, api), func(t *testing.T) {
				f := newFleet(12, 3)
				f.local()
				f.pass(t, 6*time.Second)
				owner := f.host(f.wantOne(t))
				f.apiDown = !api
				if also {
					f.refuse(f.hosts[1], true)
				}
				f.pass(t, time.Second)
				f.refuse(owner, true)
				f.pass(t, 1500*time.Millisecond)
				next := f.wantOne(t)
				if want := map[bool]string{false: "node-2", true: "node-3"}[also]; next != want {
					t.Fatalf("%s has it, want %s\n%s", next, want, f)
				}
				f.apiDown = false
				f.pass(t, 10*time.Second)
				f.refuse(owner, false)
				f.pass(t, 10*time.Second)
				if f.wantOne(t) != next {
					t.Fatalf("it moved again\n%s", f)
				}
			})
		}
	}
}

// When all candidates refuse, one of them says why, and the first that can serve again takes the address.
func TestAddressThatAllRefuseIsToldByOneAndTakenAgain(t *testing.T) {
	f := newFleet(13, 3)
	f.local()
	for _, h := range f.hosts {
		h.refuses = true
	}
	f.pass(t, 10*time.Second)
	var tell []string
	for _, h := range f.hosts {
		if h.s.Before.Verdicts[vipText].Tells {
			tell = append(tell, h.name)
		}
	}
	if all, _ := f.owners(0); len(all) != 0 || len(tell) != 1 || tell[0] != "node-1" {
		t.Fatalf("owners %v, told by %v\n%s", all, tell, f)
	}
	f.refuse(f.hosts[2], false)
	f.pass(t, 2500*time.Millisecond)
	if owner := f.wantOne(t); owner != "node-3" {
		t.Fatalf("%s has it\n%s", owner, f)
	}
}

package speaker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func TestTold(t *testing.T) {
	owned := Verdict{Interfaces: []string{"eth0"}, Why: "had it before", Asked: true}
	stranger := owned
	stranger.Conflict, stranger.Foreign = true, [6]byte{0xfe, 0, 0, 0, 0, 1}
	dead := Verdict{Reason: v1alpha1.ProxyNotHealthy, Why: "ProxyHung", Tells: true}
	quiet := Verdict{Reason: v1alpha1.NotFirst}
	for _, tt := range []struct {
		name     string
		verdicts []Verdict // one after the other
		want     string
	}{
		{"the owner says so", []Verdict{owned}, "node-1 Announced=True/Announced: Node node-1 answers on eth0; it had it before."},
		{"who is none says nothing", []Verdict{quiet}, "nothing"},
		{"and leaves what the owner said", []Verdict{owned, quiet}, "node-1 Announced=True/Announced: Node node-1 answers on eth0; it had it before."},
		{"nobody can serve", []Verdict{owned, dead}, " Announced=False/ProxyNotHealthy: Node node-1 cannot serve: its service proxy is not well (ProxyHung), and no other candidate is alive."},
		{"a stranger has it", []Verdict{stranger}, "node-1 Announced=True/Announced: Node node-1 answers on eth0; it had it before. Conflict=True/Conflict: The host with the MAC address fe:00:00:00:00:01 answers for 198.51.100.200."},
		{"and is gone", []Verdict{stranger, owned}, "node-1 Announced=True/Announced: Node node-1 answers on eth0; it had it before. Conflict=False/NoConflict: No other host answers for the address any more."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vip := newPlay(t, []byte(vipYAML)).s.VirtualIPs[0]
			for _, verdict := range tt.verdicts {
				vip, _ = told(vip, "node-1", verdict, epoch)
				if _, again := told(vip, "node-1", verdict, epoch.Add(time.Hour)); again {
					t.Error("would be written again")
				}
			}
			got := "nothing"
			for i, kind := range []string{v1alpha1.ConditionAnnounced, v1alpha1.ConditionConflict} {
				c := meta.FindStatusCondition(vip.Status.Conditions, kind)
				if c == nil {
					continue
				}
				if i == 0 {
					got = vip.Status.Owner
				}
				got += fmt.Sprintf(" %s=%s/%s: %s", c.Type, c.Status, c.Reason, c.Message)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// heldLease is a Lease that has been renewed just now.
func heldLease() *lease {
	l, now := newLease(Options{Node: "node-1"}, nil, nil), time.Now()
	l.renewed.Store(&now)
	return l
}

// A speaker with very many addresses looks again only at those of which something has changed.
func TestOnlyWhatHasChangedIsTold(t *testing.T) {
	w := newStatusWriter(Options{Node: "node-1"}, nil, heldLease())
	defer w.queue.ShutDown()
	mine, other := byL2(0), byL2(1)
	verdicts := func(of *v1alpha1.VirtualIP, why string) *Decision {
		return &Decision{Verdicts: map[string]Verdict{
			mine.Name:  {Of: of, Interfaces: []string{"eth0"}, Why: why},
			other.Name: {Of: other, Reason: v1alpha1.NotFirst},
		}}
	}
	older := mine.DeepCopy()
	older.Status = v1alpha1.VirtualIPStatus{}
	for _, step := range []struct {
		name     string
		decision *Decision
		want     []string
	}{
		{"at the start the Speaker, and what is not said yet", verdicts(older, "had it before"), []string{"", mine.Name}},
		{"the same again", verdicts(older, "had it before"), nil},
		{"the VirtualIP says it by now", verdicts(mine, "had it before"), nil},
		{"another reason", verdicts(mine, "took over"), []string{mine.Name}},
		{"a status that somebody took away", verdicts(older, "took over"), []string{mine.Name}},
	} {
		w.want(&Snapshot{Node: "node-1"}, step.decision)
		var got []string
		for w.queue.Len() > 0 {
			name, _ := w.queue.Get()
			w.queue.Done(name)
			got = append(got, name)
		}
		slices.Sort(got)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", step.name, diff)
		}
	}
}

// BenchmarkDecide is what a node with a third of the addresses does each time something happens.
func BenchmarkDecide(b *testing.B) {
	for _, count := range []int{100, 1000, 3000} {
		b.Run(fmt.Sprintf("addresses=%d", count), func(b *testing.B) {
			f := newFleet(1, 3)
			h := f.hosts[0]
			for i := range count {
				vip := f.truth.DeepCopy()
				vip.Spec.Address = fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
				vip.Name = vip.Spec.Address
				names := []string{"node-1", "node-2", "node-3"}
				vip.Spec.L2.Candidates = slices.Concat(names[i%3:], names[:i%3])
				h.s.VirtualIPs = append(h.s.VirtualIPs, vip)
			}
			h.s.Now = epoch
			for b.Loop() {
				h.s.Now = h.s.Now.Add(time.Millisecond)
				h.s.Before = Decide(h.s)
			}
		})
	}
}

func TestCountersAlone(t *testing.T) {
	one, two := int32(1), int32(2)
	before := v1alpha1.SpeakerStatus{Announcing: &one, BGP: []v1alpha1.SpeakerBGPSession{{Peer: "tor", State: "Established", Advertised: 1, AdvertisedIPv4: 1}}}
	for name, c := range map[string]struct {
		edit func(*v1alpha1.SpeakerStatus)
		want bool
	}{
		"addresses":    {func(s *v1alpha1.SpeakerStatus) { s.Announcing = &two }, true},
		"routes":       {func(s *v1alpha1.SpeakerStatus) { s.BGP[0].Advertised, s.BGP[0].AdvertisedIPv6 = 2, 1 }, true},
		"refusals":     {func(s *v1alpha1.SpeakerStatus) { s.BGP[0].Refused = 7 }, true},
		"not known":    {func(s *v1alpha1.SpeakerStatus) { s.Announcing = nil }, false},
		"a session":    {func(s *v1alpha1.SpeakerStatus) { s.BGP[0].State = "Active" }, false},
		"an interface": {func(s *v1alpha1.SpeakerStatus) { s.Interfaces = []v1alpha1.SpeakerInterface{{Name: "eth0"}} }, false},
		"a condition": {func(s *v1alpha1.SpeakerStatus) {
			s.Announcing, s.Conditions = &two, []metav1.Condition{{Type: v1alpha1.ConditionReady}}
		}, false},
	} {
		after := *before.DeepCopy()
		c.edit(&after)
		if got := countersAlone(&before, &after); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// The admission policy refuses it, and there would be no end of tries.
func TestACandidateLeavesTheOwnersNameInTheStatus(t *testing.T) {
	cannot := Verdict{Reason: v1alpha1.Conflict, Tells: true}
	for _, tt := range []struct {
		before, node string
		verdict      Verdict
		writes       bool
	}{
		{"", "node-1", cannot, true},
		{"node-1", "node-1", cannot, true},
		{"node-2", "node-1", cannot, false},
		{"node-2", "node-1", Verdict{}, true},
	} {
		vip := byL2(1)
		vip.Status.Owner = tt.before
		desired, changed := told(vip, tt.node, tt.verdict, epoch)
		if changed != tt.writes {
			t.Errorf("owner %q, %s (%s): writes %t, want %t", tt.before, tt.node, tt.verdict.Reason, changed, tt.writes)
		}
		if want := tt.node; tt.verdict.Reason == "" && desired.Status.Owner != want {
			t.Errorf("owner %q, want %q", desired.Status.Owner, want)
		}
	}
}

package speaker

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func TestAWordIsSaidAgain(t *testing.T) {
	first, other := role{since: epoch}, role{since: epoch.Add(time.Hour)}
	for _, tt := range []struct {
		name string
		// said are the words so far, a second apart, and replaced says of the last whether another speaker's stands there.
		said     []string
		then     role
		text     string
		replaced bool
		after    time.Duration
		want     time.Duration // to wait
	}{
		{name: "the first word", then: first, text: "a"},
		{name: "another word", said: []string{"a"}, then: first, text: "b"},
		{name: "a word that the controller has changed", said: []string{"a"}, then: first, text: "a"},
		{name: "a second time within a second", said: []string{"a", "a"}, then: first, text: "a", want: time.Second},
		{name: "many times", said: []string{"a", "a", "a", "a", "a"}, then: first, text: "a", want: 8 * time.Second},
		{name: "a word that another speaker has replaced", said: []string{"a"}, then: first, text: "a", replaced: true, want: 30 * time.Second},
		{name: "in another role", said: []string{"a"}, then: other, text: "a", replaced: true},
		{name: "after a long time", said: []string{"a", "a", "a"}, then: first, text: "a", after: time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, now := word{}, epoch
			for _, text := range tt.said {
				for ok := false; !ok; now = now.Add(time.Second) {
					w, _, ok = w.say(first, text, false, now)
				}
			}
			now = now.Add(tt.after)
			next, wait, ok := w.say(tt.then, tt.text, tt.replaced, now)
			if wait != tt.want || ok != (tt.want == 0) {
				t.Fatalf("wait %v, %v; want %v", wait, ok, tt.want)
			}
			if _, wait, ok = next.say(tt.then, tt.text, tt.replaced, now.Add(tt.want)); tt.want > 0 && !ok {
				t.Errorf("after %v it is to wait for %v more", tt.want, wait)
			}
		})
	}
}

// Two speakers that both believe to be the owner write a few words in an hour, and each the first one at once.
func TestTwoWritersLeaveEachOtherAlone(t *testing.T) {
	vip := newPlay(t, []byte(vipYAML)).s.VirtualIPs[0]
	words, writes := map[string]word{}, 0
	for now := epoch; now.Before(epoch.Add(time.Hour)); now = now.Add(100 * time.Millisecond) {
		for _, node := range []string{"node-1", "node-2"} {
			verdict := Verdict{Of: vip, Interfaces: []string{"eth0"}, Why: "had it before"}
			desired, changed := told(vip, node, verdict, now)
			if !changed {
				continue
			}
			next, _, ok := words[node].say(verdict.Role, verdict.word(desired), verdict.replaced(node), now)
			words[node] = next
			if ok {
				vip, writes = desired, writes+1
			}
		}
		if writes > 2 && now.Sub(epoch) < silenceLost {
			t.Fatalf("%d writes within %v", writes, now.Sub(epoch))
		}
	}
	if writes > 20 {
		t.Errorf("%d writes in an hour", writes)
	}
}

// Three speakers without carrier say so without replacing each other's word for ever.
func TestThreeThatCannotAnnounceLeaveEachOtherAlone(t *testing.T) {
	vip := newPlay(t, []byte(vipYAML)).s.VirtualIPs[0]
	words, writes := map[string]word{}, 0
	for now := epoch; now.Before(epoch.Add(time.Minute)); now = now.Add(100 * time.Millisecond) {
		for _, node := range []string{"node-1", "node-2", "node-3"} {
			verdict := Verdict{Of: vip, Reason: v1alpha1.NoInterface, Why: "eth0", Tells: true}
			desired, changed := told(vip, node, verdict, now)
			if !changed {
				continue
			}
			next, _, ok := words[node].say(verdict.Role, verdict.word(desired), verdict.replaced(node), now)
			words[node] = next
			if ok {
				vip, writes = desired, writes+1
			}
		}
	}
	if writes > 8 {
		t.Errorf("%d writes in a minute", writes)
	}
}

func TestWhoYieldsDoesNotTakeTheWordBack(t *testing.T) {
	vip := newPlay(t, []byte(vipYAML)).s.VirtualIPs[0].DeepCopy()
	vip.Status.Owner = "node-2"
	if _, changed := told(vip, "node-1", Verdict{Of: vip, Interfaces: []string{"eth0"}, Yielding: true}, epoch); changed {
		t.Error("a node that yields says that it is the owner")
	}
}

// What the controller says of a Speaker whose Lease has ended is replaced as a whole by the speaker that is back, and by nothing
// less.
func TestASpeakerTakesItsWholeWordBack(t *testing.T) {
	said := v1alpha1.SpeakerStatus{Node: "node-1", Conditions: []metav1.Condition{watchedCondition(&Snapshot{})}}
	mine, changed := saying(&v1alpha1.Speaker{}, said)
	if !changed {
		t.Fatal("nothing is said at the start")
	}
	if _, again := saying(mine, said); again {
		t.Error("would be written again")
	}
	meta.SetStatusCondition(&mine.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: string(v1alpha1.LeaseExpired)})
	mine.Status.Node = ""
	back, changed := saying(mine, said)
	if !changed || !meta.IsStatusConditionTrue(back.Status.Conditions, v1alpha1.ConditionReady) || back.Status.Node != "node-1" {
		t.Errorf("changed %v: %+v", changed, back.Status)
	}
	if c := meta.FindStatusCondition(back.Status.Conditions, v1alpha1.ConditionWatched); c == nil || c.Reason != string(v1alpha1.NoKey) {
		t.Errorf("Watched: %+v", c)
	}
}

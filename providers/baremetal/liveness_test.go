package baremetal

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// heldLease is a Lease of ten seconds that its node renewed at that time.
func heldLease(node string, renewed time.Time) *coordinationv1.Lease {
	seconds, at := int32(10), metav1.NewMicroTime(renewed)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds, RenewTime: &at},
	}
}

// A moment is something that happens some seconds after noon, and what is then
// to be so.
type moment struct {
	at   int
	what string // "a renews", "a again" (a relist), "a released", "a gone", "a since -100", "a left -100" (renewed, released then, by its clock)
	want string // who lives, (who is to come back), who has* just come, when to look again
}

func (l *liveness) string(nodes []string, next time.Time) string {
	var living []string
	for _, node := range nodes {
		switch alive, returning := l.alive(node), l.returning(node); {
		case alive && returning:
			living = append(living, node+"*")
		case alive:
			living = append(living, node)
		case returning:
			living = append(living, "("+node+")")
		}
	}
	if next.IsZero() {
		return strings.Join(living, " ")
	}
	return fmt.Sprintf("%s, next %d", strings.Join(living, " "), int(next.Sub(noon).Seconds()))
}

func TestLiveness(t *testing.T) {
	for _, c := range []struct {
		name string
		then []moment
	}{
		{"nobody", []moment{{0, "", ""}}},
		{"a Lease lives for its duration", []moment{{0, "a renews", "a, next 10"}, {9, "", "a, next 10"}, {10, "", ""}}},
		{"and as long again when it is renewed", []moment{{0, "a renews", "a, next 10"}, {8, "a renews", "a, next 18"}, {17, "", "a, next 18"}, {18, "", ""}}},
		{"a relist renews nothing", []moment{{0, "a renews", "a, next 10"}, {8, "a again", "a, next 10"}, {10, "", ""}}},
		{"and revives nobody", []moment{{0, "a renews", "a, next 10"}, {10, "", ""}, {12, "a again", ""}}},
		{"a renewal does", []moment{{0, "a renews", "a, next 10"}, {10, "", ""}, {12, "a renews", "a, next 22"}}},
		{"a released Lease is nobody's at once, and who had it may come back", []moment{{0, "a renews", "a, next 10"}, {3, "a released", "(a), next 13"}, {12, "", "(a), next 13"}}},
		{"for as long as a Lease lives", []moment{{0, "a renews", "a, next 10"}, {3, "a released", "(a), next 13"}, {13, "", ""}, {20, "a renews", "a, next 30"}}},
		{"and it can be taken again", []moment{
			{0, "a renews", "a, next 10"}, {3, "a released", "(a), next 13"}, {7, "a renews", "a*, next 17"}, {10, "a renews", "a*, next 17"}, {17, "", "a, next 20"}}},
		{"whoever comes back and dies is dead", []moment{{0, "a renews", "a, next 10"}, {3, "a released", "(a), next 13"}, {7, "a renews", "a*, next 17"}, {17, "", ""}}},
		{"a relist holds no place", []moment{{0, "a renews", "a, next 10"}, {3, "a released", "(a), next 13"}, {9, "a again", "(a), next 13"}, {13, "", ""}}},
		{"nor does the silence of others", []moment{
			{0, "a renews", "a, next 10"}, {1, "b renews", "a b, next 10"}, {2, "a released", "(a) b, next 11"}, {9, "b renews", "(a) b, next 12"}, {12, "", "b, next 19"}}},
		{"one that was released before we looked, maybe just now", []moment{{0, "a left -60", "(a), next 10"}, {10, "", ""}}},
		{"and one that was long before, by its clock", []moment{{0, "a left -100", "(a), next 10"}, {10, "", ""}}},
		{"a deleted one, too", []moment{{0, "a renews", "a, next 10"}, {3, "a gone", ""}}},
		{"one that expired long before we looked does not prove to live, and has a Lease's time to", []moment{{0, "a since -100", ", next 10"}, {9, "", ", next 10"}, {10, "", ""}}},
		{"by which it lives, whatever its clock says", []moment{{0, "a since -100", ", next 10"}, {3, "a since -97", "a, next 13"}}},
		{"one that may only have another clock is not", []moment{{0, "a since -60", "a, next 10"}}},
		{"nor one of the future", []moment{{0, "a since 3600", "a, next 10"}, {10, "", ""}}},
		{"clocks are not compared later", []moment{{0, "a renews", "a, next 10"}, {5, "a since -7200", "a, next 15"}}},

		{"one of three falls silent", []moment{{0, "a renews", "a, next 10"}, {4, "b renews", "a b, next 10"}, {5, "c renews", "a b c, next 10"}, {10, "", "b c, next 14"}}},
		{"most of three at once: doubt, for one more Lease", []moment{
			{0, "a renews", "a, next 10"}, {0, "b renews", "a b, next 10"}, {5, "c renews", "a b c, next 10"},
			{9, "c renews", "a b c, next 10"}, {10, "", "a b c, next 19"}, {13, "c renews", "a b c, next 20"},
			{18, "c renews", "a b c, next 20"}, {20, "", "c, next 28"}}},
		{"all of two: doubt", []moment{{0, "a renews", "a, next 10"}, {0, "b renews", "a b, next 10"}, {10, "", "a b, next 20"}, {19, "", "a b, next 20"}, {20, "", ""}}},
		{"doubt ends when they are back", []moment{
			{0, "a renews", "a, next 10"}, {0, "b renews", "a b, next 10"}, {12, "", "a b, next 22"}, {13, "a renews", "a b, next 23"},
			{14, "b renews", "a b, next 23"}, {18, "b renews", "a b, next 23"}, {22, "b renews", "a b, next 23"},
			{23, "", "b, next 32"}}},
		{"who comes back last is not dead for it", []moment{
			{0, "a renews", "a, next 10"}, {0, "b renews", "a b, next 10"}, {0, "c renews", "a b c, next 10"}, {10, "", "a b c, next 20"},
			{12, "a renews", "a b c, next 22"}, {13, "b renews", "a b c, next 22"}, {15, "c renews", "a b c, next 22"}}},
		{"who does not come back is", []moment{
			{0, "a renews", "a, next 10"}, {0, "b renews", "a b, next 10"}, {0, "c renews", "a b c, next 10"}, {10, "", "a b c, next 20"},
			{12, "a renews", "a b c, next 22"}, {13, "b renews", "a b c, next 22"}, {16, "a renews", "a b c, next 22"},
			{17, "b renews", "a b c, next 22"}, {22, "", "a b, next 26"}}},
		{"time in which nobody is heard counts against nobody", []moment{
			{0, "a renews", "a, next 10"}, {1, "b renews", "a b, next 10"}, {2, "c renews", "a b c, next 10"},
			{9, "a renews", "a b c, next 18"}, {11, "", "a b c, next 18"}, {13, "a renews", "a b c, next 18"}, {18, "", "a c, next 19"}}},
		{"nor while it lasts", []moment{
			{0, "a renews", "a, next 10"}, {1, "b renews", "a b, next 10"}, {2, "c renews", "a b c, next 10"},
			{10, "", "a b c, next 11"}, {12, "", "a b c, next 20"}, {14, "a renews", "a b c, next 23"}, {15, "b renews", "a b c, next 24"}}},
		{"one doubt after the other has its own time", []moment{
			{0, "a renews", "a, next 10"}, {0, "b renews", "a b, next 10"}, {10, "", "a b, next 20"}, {20, "", ""},
			{21, "a renews", "a, next 31"}, {21, "b renews", "a b, next 31"}, {31, "", "a b, next 41"}, {41, "", ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var live liveness
			last := map[string]*coordinationv1.Lease{}
			for _, m := range c.then {
				now := noon.Add(time.Duration(m.at) * time.Second)
				node, what, _ := strings.Cut(m.what, " ")
				switch {
				case what == "renews":
					last[node] = heldLease(node, now)
				case what == "released":
					last[node] = last[node].DeepCopy()
					nobody, at := "", metav1.NewMicroTime(now)
					last[node].Spec.HolderIdentity, last[node].Spec.RenewTime = &nobody, &at
				case strings.HasPrefix(what, "since"), strings.HasPrefix(what, "left"):
					var how string
					var ago int
					if _, err := fmt.Sscanf(what, "%s %d", &how, &ago); err != nil {
						t.Fatal(err)
					}
					last[node] = heldLease(node, noon.Add(time.Duration(ago)*time.Second))
					if how == "left" {
						last[node].Spec.HolderIdentity = nil
					}
				}
				switch {
				case what == "gone":
					live.forget(node)
				case what != "":
					live.renew(last[node], now)
				}
				_, next := live.expire(now)
				if got := live.string([]string{"a", "b", "c"}, next); got != m.want {
					t.Fatalf("%ds, %q: %q lives, want %q", m.at, m.what, got, m.want)
				}
			}
		})
	}
}

func TestExpireSaysOnceWhatChanged(t *testing.T) {
	var live liveness
	live.renew(heldLease("a", noon), noon)
	var got []bool
	for _, seconds := range []int{5, 10, 10, 30} {
		changed, _ := live.expire(noon.Add(time.Duration(seconds) * time.Second))
		got = append(got, changed)
	}
	if want := []bool{false, true, false, false}; !slices.Equal(got, want) {
		t.Errorf("changed %v, want %v", got, want)
	}
}

// A Lease without the fields that matter is none.
func TestIncompleteLease(t *testing.T) {
	for name, edit := range map[string]func(*coordinationv1.LeaseSpec){
		"no holder":   func(s *coordinationv1.LeaseSpec) { s.HolderIdentity = nil },
		"no renewal":  func(s *coordinationv1.LeaseSpec) { s.RenewTime = nil },
		"no duration": func(s *coordinationv1.LeaseSpec) { s.LeaseDurationSeconds = nil },
		"nothing":     func(s *coordinationv1.LeaseSpec) { *s = coordinationv1.LeaseSpec{} },
	} {
		var live liveness
		lease := heldLease("a", noon)
		edit(&lease.Spec)
		live.renew(lease, noon)
		if live.alive("a") {
			t.Errorf("%s: it lives", name)
		}
	}
}

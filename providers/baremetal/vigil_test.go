package baremetal

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// A watchMoment is something that happens some seconds after noon.
type watchMoment struct {
	at   int
	what string // "a renews", "a again" (a relist), "a released", "a gone", "fails" (a request of ours), "a unsure"
	want string // who speaks, (who is lost), whose Lease is asked for?, when to look again
}

func (v *vigil) string(asked []string, next time.Time) string {
	var words []string
	for _, node := range []string{"a", "b", "c"} {
		_, lost := v.lost(node)
		switch {
		case lost:
			words = append(words, "("+node+")")
		case slices.Contains(asked, node) && v.speaks(node):
			words = append(words, node+"?")
		case slices.Contains(asked, node):
			words = append(words, "-"+node+"?")
		case v.speaks(node):
			words = append(words, node)
		case v.knows(node):
			words = append(words, "-"+node)
		}
	}
	if next.IsZero() {
		return strings.Join(words, " ")
	}
	return fmt.Sprintf("%s, next %d", strings.Join(words, " "), int(next.Sub(noon).Seconds()))
}

// What is told counts from the end of the Lease, and not while our own requests
// fail; whether many fall silent at once makes no difference.
func TestVigil(t *testing.T) {
	for _, c := range []struct {
		name string
		then []watchMoment
	}{
		{"nobody", []watchMoment{{0, "", ""}}},
		{"a Lease that is renewed", []watchMoment{{0, "a renews", "a, next 4"}, {3, "a renews", "a, next 7"}, {6, "", "a, next 7"}}},
		{"one that is overdue is asked for, and lost when it has ended", []watchMoment{
			{0, "a renews", "a, next 4"}, {4, "", "a?, next 5"}, {9, "", "a?, next 10"}, {10, "", "(a)"}, {60, "", "(a)"}}},
		{"a relist renews nothing", []watchMoment{{0, "a renews", "a, next 4"}, {9, "a again", "a?, next 10"}, {10, "", "(a)"}, {11, "a again", "(a)"}}},
		{"a renewal ends the loss", []watchMoment{{0, "a renews", "a, next 4"}, {10, "", "(a)"}, {12, "a renews", "a, next 16"}}},
		{"all at once: no doubt", []watchMoment{
			{0, "a renews", "a, next 4"}, {0, "b renews", "a b, next 4"}, {0, "c renews", "a b c, next 4"}, {10, "", "(a) (b) (c)"}}},
		{"an outage: nobody is lost until a Lease's time after it", []watchMoment{
			{0, "a renews", "a, next 4"}, {1, "b renews", "a b, next 4"}, {5, "fails", "a? b?, next 6"}, {30, "fails", "a? b?, next 31"},
			{31, "", "a? b?, next 32"}, {33, "a renews", "a b?, next 34"}, {36, "a renews", "a b?, next 37"}, {39, "a renews", "a b?, next 40"}, {40, "", "a (b), next 43"}}},
		{"a short one, too", []watchMoment{{0, "a renews", "a, next 4"}, {5, "fails", "a?, next 6"}, {10, "", "a?, next 11"}, {14, "", "a?, next 15"}, {15, "", "(a)"}}},
		{"one given up and taken back", []watchMoment{{0, "a renews", "a, next 4"}, {3, "a released", "-a, next 7"}, {8, "a renews", "a, next 12"}}},
		{"one given up for good", []watchMoment{{0, "a renews", "a, next 4"}, {3, "a released", "-a, next 7"}, {12, "", "-a?, next 13"}, {13, "", "(a)"}}},
		{"given up after it was lost", []watchMoment{{0, "a renews", "a, next 4"}, {10, "", "(a)"}, {11, "a released", "(a)"}}},
		{"one deleted", []watchMoment{{0, "a renews", "a, next 4"}, {3, "a gone", "-a, next 7"}, {13, "", "(a)"}, {14, "a gone", "(a)"}, {20, "a renews", "a, next 24"}}},
		{"one deleted and made again", []watchMoment{{0, "a renews", "a, next 4"}, {3, "a gone", "-a, next 7"}, {5, "a renews", "a, next 9"}}},
		{"one that never was", []watchMoment{{0, "a gone", "-a, next 4"}, {9, "a gone", "-a?, next 10"}, {10, "", "(a)"}}},
		{"a loss that could not be written", []watchMoment{{0, "a renews", "a, next 4"}, {10, "", "(a)"}, {11, "a unsure", "a?, next 12"}, {20, "", "a?, next 21"}, {21, "", "(a)"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v vigil
			last := map[string]*coordinationv1.Lease{}
			for _, m := range c.then {
				now := noon.Add(time.Duration(m.at) * time.Second)
				node, what, _ := strings.Cut(m.what, " ")
				switch {
				case what == "renews":
					last[node] = heldLease(node, now)
				case what == "released":
					last[node] = heldLease(node, now)
					last[node].Spec.HolderIdentity = nil
				}
				switch {
				case node == "fails":
					v.fail(now)
				case what == "gone":
					v.miss(node, now)
				case what == "unsure":
					v.unsure(node, now)
				case what != "":
					v.see(last[node], now)
				}
				asked, _ := v.doubtful(now)
				v.lose(asked, now)
				asked, next := v.doubtful(now)
				if got := v.string(asked, next); got != m.want {
					t.Fatalf("%ds, %q: %q, want %q", m.at, m.what, got, m.want)
				}
			}
		})
	}
}

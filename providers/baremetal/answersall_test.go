package baremetal

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func TestStreaks(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// Each word is an address made a minute after the one before: the number of the host that has it, "." if it was announced,
	// "?" if a host has it that is not named, "r" if a host had it later, when it had been announced.
	for _, c := range []struct {
		made  string
		count int
		hosts int
		all   bool
		wait  time.Duration
	}{
		{"", 0, 0, false, retryOther},
		{"1 1 1", 3, 1, false, retryOther},
		{"1 1 1 1", 4, 1, true, retryOther},
		{"1 2 1 2", 4, 2, true, retryOther},
		{"1 2 3 1", 4, 3, false, retryOther},
		{"1 2 3 1 2 3 1", 7, 3, true, 6 * time.Minute},
		{"1 1 . 1 1", 2, 1, false, retryOther},
		{". . 1 1 1 1 1", 5, 1, true, retryOther},
		{"1 1 1 1 .", 0, 0, false, retryOther},
		{"1 1 r 1 1", 2, 1, false, retryOther},
		{"? ? ? ?", 4, 0, true, retryOther},
		{"1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", 15, 15, false, 14 * time.Minute},
		{"1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", 16, 16, true, 15 * time.Minute},
		{strings.Repeat("1 ", 200), 200, 1, true, retryOtherLast},
	} {
		l := newLedger(func(*v1alpha1.Claim, string) ipam.Claim { return ipam.Claim{} })
		other := vip(netip.MustParseAddr("203.0.113.255"), "web")
		other.Spec.Pool, other.CreationTimestamp = "other", metav1.NewTime(began.Add(time.Hour))
		ownedBy("a")(&other.Status)
		l.put(netip.MustParseAddr("203.0.113.255"), other)
		var newest time.Time
		for i, word := range strings.Fields(c.made) {
			addr := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
			v := vip(addr, "web")
			v.Spec.Pool, v.CreationTimestamp = "public", metav1.NewTime(began.Add(time.Duration(i)*time.Minute))
			switch word {
			case ".":
				ownedBy("a")(&v.Status)
			case "?":
				disputed(&v.Status)
				v.Status.Conditions[0].Message = "Another host answers."
			case "r":
				ownedBy("a")(&v.Status)
				disputed(&v.Status)
			default:
				disputed(&v.Status)
				number := 0
				_, _ = fmt.Sscan(word, &number)
				v.Status.Conditions[0].Message = fmt.Sprintf("The host with the MAC address 02:00:00:00:00:%02x answers for %s.", number, addr)
			}
			if word != "." && word != "r" {
				newest = v.CreationTimestamp.Time
			}
			l.put(addr, v)
		}
		got := l.streakOf(part{"public", ipam.IPv4})
		if got.count != c.count || len(got.macs) != c.hosts || got.answersAll() != c.all || got.wait() != c.wait || c.count > 0 && !got.newest.Equal(newest) {
			t.Errorf("%q: %d in a row of %v, newest %s, all %t, wait %s; want %+v", c.made, got.count, got.macs, got.newest, got.answersAll(), got.wait(), c)
		}
		if six := l.streakOf(part{"public", ipam.IPv6}); six.count > 0 {
			t.Errorf("%q: IPv6 %+v", c.made, six)
		}
	}
}

// answering has the foreign host answer for every new address, until nothing changes any more.
func (w *world) answering() {
	w.Helper()
	for quiet := 0; quiet < 20; quiet++ {
		list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
		must(w, err)
		for i := range list.Items {
			v := &list.Items[i]
			if meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionConflict) == nil && v.Status.Owner == "" {
				w.says(v.Spec.Address, disputed)
				quiet = 0
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
}

func (w *world) poolReady(name string) *metav1.Condition {
	w.Helper()
	w.rest()
	pool, err := w.herald.AddressPools.Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	return meta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
}

// A host that answers for every address burns no pool: a handful of addresses are tried, then Services keep what they have and
// say why, and so does the pool; when the host is silent, all of them are served.
func TestHostThatAnswersForEveryAddress(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		_, stop := w.controller()
		w.create(lb("old"))
		w.endpoints("old", "a")
		w.until("old", "1", func() string { return strings.Repeat("1", len(shownBy(w.get("old")))) })
		inUse := shownBy(w.get("old"))[0].String()
		w.rest()
		w.says(inUse, ownedBy("a"))
		time.Sleep(time.Minute)
		services := []string{"one", "two", "three"}
		for _, name := range services {
			w.endpoints(name, "a")
			w.create(lb(name))
		}
		w.answering()
		w.says(inUse, disputed) // it is told, and nothing else
		w.rest()
		if n := len(w.vips()); n > 9 {
			w.Errorf("%d addresses for four Services: %q", n, w.vips())
		}
		check := func() {
			w.Helper()
			for _, name := range services {
				c := w.ready(name)
				if c.Status != metav1.ConditionFalse || c.Reason != string(v1alpha1.HostAnswersAll) ||
					!strings.Contains(c.Message, "Host 02:00:00:00:00:66 answers for every address (proxy ARP?)") {
					w.Errorf("%s: %+v", name, c)
				}
			}
			if c := w.poolReady("public"); c.Status != metav1.ConditionFalse || c.Reason != string(v1alpha1.HostAnswersAll) || !strings.Contains(c.Message, "02:00:00:00:00:66") {
				w.Errorf("the pool: %+v", c)
			}
			if got := shownBy(w.get("old")); len(got) != 1 || got[0].String() != inUse {
				w.Errorf("the Service in use has %v, it had %s", got, inUse)
			}
			if c := w.ready("old"); c.Status != metav1.ConditionTrue {
				w.Errorf("the Service in use: %+v", c)
			}
		}
		check()

		// A restart changes nothing.
		stop()
		before := len(w.rest())
		w.controller()
		w.writes(before)

		// One more is tried after some minutes, by one of them, and then less and less often.
		had := len(w.vips())
		time.Sleep(7 * time.Minute)
		w.answering()
		if n := len(w.vips()); n != had+1 {
			w.Errorf("%d addresses after some minutes: want one more than %d", n, had)
		}
		check()
		for range 30 {
			time.Sleep(time.Minute)
			w.answering()
		}
		if n := len(w.vips()); n > had+3 {
			w.Errorf("%d addresses after half an hour: it was %d", n, had)
		}
		check()

		// The host is silent: what Services have is announced, the rest is free, and nothing moves.
		held := map[string]string{}
		for _, name := range services {
			held[name] = shownBy(w.get(name))[0].String()
		}
		for _, line := range w.vips() {
			address, _, _ := strings.Cut(line, " ")
			w.says(address, silent)
			if slices.Contains(slices.Collect(maps.Values(held)), address) {
				w.says(address, ownedBy("a"))
			}
		}
		w.until("addresses", "4", func() string { return fmt.Sprint(len(w.vips())) })
		w.rest()
		for _, name := range services {
			if c := w.ready(name); c.Status != metav1.ConditionTrue || shownBy(w.get(name))[0].String() != held[name] {
				w.Errorf("%s has %s, it had %s: %+v", name, tell(w.get(name)), held[name], c)
			}
		}
		if c := w.poolReady("public"); c.Status != metav1.ConditionTrue {
			w.Errorf("the pool: %+v", c)
		}
		// From now on an address that a host has is replaced again.
		time.Sleep(time.Second)
		w.create(lb("five"))
		w.until("five", "1", func() string { return strings.Repeat("1", len(shownBy(w.get("five")))) })
		static := shownBy(w.get("five"))[0].String()
		w.says(static, disputed)
		w.until("five has another one", "true", func() string {
			got := shownBy(w.get("five"))
			return fmt.Sprint(len(got) == 1 && got[0].String() != static)
		})
	})
}

// A host that answers for a part of the pool keeps no Service from the rest of it.
func TestHostThatAnswersForAPart(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web"))
		w.answering()
		w.rest()
		w.until("web", string(v1alpha1.HostAnswersAll), func() string { return w.ready("web").Reason })
		last := shownBy(w.get("web"))[0]
		deadline := time.Now().Add(10 * time.Minute)
		for shownBy(w.get("web"))[0] == last && time.Now().Before(deadline) {
			time.Sleep(10 * time.Second)
		}
		address := shownBy(w.get("web"))[0].String()
		w.says(address, ownedBy("a"))
		w.rest()
		if c := w.ready("web"); c.Status != metav1.ConditionTrue || address == last.String() {
			w.Errorf("%s: %+v", address, c)
		}
		if c := w.poolReady("public"); c.Status != metav1.ConditionTrue {
			w.Errorf("the pool: %+v", c)
		}
	})
}

// In a full pool, with no other address to try, a Service goes on to say why.
func TestHostThatAnswersForEveryAddressOfASmallPool(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		w.controller()
		for _, name := range []string{"one", "two", "three", "four", "five"} {
			w.endpoints(name, "a")
			w.create(lb(name))
		}
		w.answering()
		w.rest()
		for range 3 {
			reasons := map[string]int{}
			for _, name := range []string{"one", "two", "three", "four", "five"} {
				reasons[w.ready(name).Reason]++
			}
			if len(w.vips()) != 4 || reasons[string(v1alpha1.HostAnswersAll)] != 4 || reasons[string(v1alpha1.PoolExhausted)] != 1 {
				w.Errorf("%v, %q", reasons, w.vips())
			}
			time.Sleep(15 * time.Minute)
			w.answering()
		}
		for _, line := range w.vips() {
			address, _, _ := strings.Cut(line, " ")
			w.says(address, silent)
			w.says(address, ownedBy("a"))
		}
		w.rest()
		if c := w.poolReady("public"); c.Status != metav1.ConditionTrue {
			w.Errorf("the pool: %+v", c)
		}
	})
}

// A Service that asked for its address is not moved, and an older version's many addresses in quarantine are freed.
func TestQuarantineIsBounded(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		for i := range 60 {
			addr := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
			v := vip17(addr.String())
			v.Spec.Pool, v.Spec.Hold, v.Spec.L2 = "public", v1alpha1.Conflict, &v1alpha1.L2Placement{Candidates: []string{"a"}}
			must(w, first(w.herald.VirtualIPs.Create(w.ctx, v, metav1.CreateOptions{})))
			w.says(addr.String(), disputed)
			time.Sleep(time.Second)
		}
		retained := vip17("203.0.113.70")
		retained.Spec.Pool, retained.Spec.ReservedFor = "public", &v1alpha1.ServiceReference{Namespace: "shop", Name: "later"}
		must(w, first(w.herald.VirtualIPs.Create(w.ctx, retained, metav1.CreateOptions{})))
		w.says("203.0.113.70", disputed)
		w.controller()
		w.until("VirtualIPs", fmt.Sprint(quarantineMost+1), func() string { return fmt.Sprint(len(w.vips())) })
		if lines := w.vips(); !slices.Contains(lines, "203.0.113.59 (Conflict)") || slices.Contains(lines, "203.0.113.0 (Conflict)") {
			w.Errorf("left are %q: want the newest", lines)
		}
		w.create(lb("asks", annotated(annotations.Addresses, "203.0.113.5")))
		w.until("asks", "1", func() string { return strings.Repeat("1", len(shownBy(w.get("asks")))) })
		w.says("203.0.113.5", disputed)
		w.rest()
		if got := shownBy(w.get("asks")); len(got) != 1 || got[0].String() != "203.0.113.5" {
			w.Errorf("asks has %v", got)
		}
		if c := w.ready("asks"); c.Status != metav1.ConditionFalse || c.Reason != string(v1alpha1.HostAnswersAll) {
			w.Errorf("asks: %+v", c)
		}
	})
}

// Both families at once: the one that is answered for is kept, the other is announced.
func TestHostThatAnswersForEveryAddressOfAFamily(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24", "2001:db8::/120")
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web", func(s *corev1.Service) {
			both := corev1.IPFamilyPolicyRequireDualStack
			s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &both, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		}))
		for range 20 {
			w.rest()
			for _, addr := range shownBy(w.get("web")) {
				v := w.vip(addr.String())
				if addr.Is4() && v.Status.Owner == "" {
					w.says(addr.String(), ownedBy("a"))
				}
				if addr.Is6() && !conflicted(v) {
					w.says(addr.String(), disputed)
				}
			}
		}
		var four, six int
		for _, line := range w.vips() {
			if strings.Contains(line, ":") {
				six++
			} else {
				four++
			}
		}
		if c := w.ready("web"); four != 1 || six != streakOfHosts || c.Reason != string(v1alpha1.HostAnswersAll) || !strings.Contains(c.Message, "IPv6") || strings.Contains(c.Message, "IPv4 addresses") {
			w.Errorf("%d and %d addresses: %+v", four, six, c)
		}
	})
}

package baremetal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func plainLedger() *ledger {
	l := newLedger(func(claim *v1alpha1.Claim, pool string) ipam.Claim { return holdingFor(claim, pool, nil) })
	ranges, err := ipam.ParseRange("203.0.113.0/24")
	if err != nil {
		panic(err)
	}
	l.allocator.SetPools([]ipam.Pool{{Name: "public", Ranges: []ipam.Range{ranges}, AutoAssign: true}})
	return l
}

// life is a version of a VirtualIP: its UID and resource version.
func life(v *v1alpha1.VirtualIP, uid string, version int) *v1alpha1.VirtualIP {
	v = v.DeepCopy()
	v.UID, v.ResourceVersion = types.UID(uid), strconv.Itoa(version)
	return v
}

// holders are the Services that the allocator has on the address.
func (l *ledger) holders(addr netip.Addr) string {
	var names []string
	for _, key := range l.allocator.Holders(addr) {
		names = append(names, key.Name)
	}
	return fmt.Sprint(names)
}

func (l *ledger) want(t *testing.T, when, holders string) {
	t.Helper()
	if got := l.holders(seventeen); got != holders {
		t.Errorf("%s: held by %s, want %s", when, got, holders)
	}
}

func TestLedgerTakesTheNewestVersion(t *testing.T) {
	l := plainLedger()
	for _, c := range []struct {
		vip   *v1alpha1.VirtualIP
		fresh bool
		want  string
	}{
		{life(vip(seventeen, "web"), "u1", 9), true, "[web]"},
		{life(vip(seventeen, "api", "web"), "u1", 10), true, "[api web]"},
		{life(vip(seventeen, "web"), "u1", 9), false, "[api web]"},  // the watch, late
		{life(vip(seventeen, "api"), "u1", 10), false, "[api web]"}, // the same again
		{life(vip(seventeen, "api"), "u1", 100), true, "[api]"},
		{life(vip(seventeen), "u2", 101), true, "[]"},
	} {
		_, fresh := l.see(c.vip)
		if got := l.holders(seventeen); fresh != c.fresh || got != c.want {
			t.Errorf("version %s: fresh %t, held by %s, want %t, %s", c.vip.ResourceVersion, fresh, got, c.fresh, c.want)
		}
	}
}

func TestLedgerBuriesForGood(t *testing.T) {
	l := plainLedger()
	last := life(vip(seventeen, "web"), "u1", 10)
	l.see(last)
	if !l.bury(last, false) {
		t.Error("it was not there")
	}
	l.want(t, "deleted by us", "[]")
	l.see(life(vip(seventeen, "web"), "u1", 9))
	l.see(life(vip(seventeen, "web"), "u1", 10))
	l.want(t, "the watch tells of its earlier life", "[]")
	l.see(life(vip(seventeen, "api"), "u2", 12))
	l.want(t, "made again", "[api]")
	if l.bury(life(vip(seventeen, "web"), "u1", 11), true) {
		t.Error("the end of the first life ended the second")
	}
	l.want(t, "the watch tells of the end of the first life", "[api]")
	if len(l.buried) > 0 {
		t.Errorf("it still remembers %v", l.buried)
	}
	if !l.bury(life(vip(seventeen, "api"), "u2", 13), true) {
		t.Error("somebody deleted it and it was not there")
	}
	l.want(t, "deleted by somebody", "[]")
}

func TestLedgerKeepsWhatIsBeingWritten(t *testing.T) {
	l := plainLedger()
	l.begin(seventeen, keyNamed("web"), "a")
	l.allocator.Hold(seventeen, keyNamed("web"), ipam.Claim{Pool: "public"})
	if l.load["a"] != 1 {
		t.Errorf("load %v, want the coming owner's", l.load)
	}
	l.see(life(vip(seventeen, "api"), "u1", 5))
	l.want(t, "another one's claim came first", "[api web]")
	l.bury(life(vip(seventeen, "api"), "u1", 6), true)
	l.want(t, "and went", "[web]")
	l.done(seventeen, keyNamed("web"))
	l.want(t, "the write failed", "[]")
	if len(l.load) > 0 || len(l.writing) > 0 {
		t.Errorf("load %v, writing %v", l.load, l.writing)
	}
}

// While a release is written the Service holds the address: another one that
// got it would be refused by the API server, or worse, not.
func TestLedgerHoldsUntilTheReleaseIsWritten(t *testing.T) {
	l := plainLedger()
	l.see(life(vip(seventeen, "web"), "u1", 5))
	l.begin(seventeen, keyNamed("web"), "")
	l.allocator.Release(seventeen, keyNamed("web"))
	l.mirror(seventeen)
	l.want(t, "released and not written", "[web]")
	l.see(life(vip(seventeen), "u1", 6))
	l.want(t, "the answer is there", "[web]")
	l.done(seventeen, keyNamed("web"))
	l.want(t, "done", "[]")
}

// Who may join an address depends on what its VirtualIP says, and neither on
// what was known before nor on what the Service asks for meanwhile.
func TestLedgerTakesTheSharingKeyOfTheVirtualIP(t *testing.T) {
	under := func(share string, version int) *v1alpha1.VirtualIP {
		v := life(vip(seventeen, "web"), "u1", version)
		v.Spec.Claims[0].Share = share
		return v
	}
	joins := func(l *ledger, share string) bool {
		return l.allocator.Check(&ipam.Request{
			Key: keyNamed("api"), Families: []ipam.Family{ipam.IPv4}, Share: share, Ports: []ipam.Port{{Protocol: "TCP", Port: 443}},
		}, seventeen) == nil
	}
	l := plainLedger()
	for _, c := range []struct {
		name  string
		do    func()
		joins string
	}{
		{"as it was found", func() { l.see(under("dns", 5)) }, "dns"},
		{"another controller wrote it", func() { l.see(under("web", 6)) }, "web"},
		{"decided, on its way", func() {
			l.allocator.Hold(seventeen, keyNamed("web"), ipam.Claim{Pool: "public", Share: "new"})
			l.begin(seventeen, keyNamed("web"), "")
		}, "new"},
		{"told of while on its way", func() { l.see(under("other", 7)) }, "new"},
		{"not written", func() { l.done(seventeen, keyNamed("web")) }, "other"},
	} {
		c.do()
		for _, share := range []string{"dns", "web", "new", "other"} {
			if got, want := joins(l, share), share == c.joins; got != want {
				t.Errorf("%s: joined with key %q %t, want %t", c.name, share, got, want)
			}
		}
	}
}

func TestLedgerReservations(t *testing.T) {
	assigned := func(l *ledger, name string) string {
		given, err := l.allocator.Assign(&ipam.Request{Key: keyNamed(name), Families: []ipam.Family{ipam.IPv4}, Addresses: []netip.Addr{seventeen}})
		if err != nil {
			return string(err.(*ipam.Refusal).Reason)
		}
		return given.Addresses[0].Addr.String()
	}
	reservedFor := func(v *v1alpha1.VirtualIP, name string) *v1alpha1.VirtualIP {
		v.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: "shop", Name: name}
		return v
	}
	for _, c := range []struct {
		name     string
		then     func(l *ledger)
		web, api string // what each gets that asks for the address
	}{
		{"free", func(*ledger) {}, "203.0.113.17", "203.0.113.17"},
		{"kept for a Service", func(l *ledger) { l.see(life(reservedFor(vip(seventeen), "web"), "u1", 1)) }, "203.0.113.17", "Reserved"},
		{"kept from everyone", func(l *ledger) { l.see(life(vip(seventeen), "u1", 1)) }, "Reserved", "Reserved"},
		{"kept for one and held by another", func(l *ledger) { l.see(life(reservedFor(vip(seventeen, "api"), "web"), "u1", 1)) }, "NotShared", "203.0.113.17"},
		{"the reservation is deleted", func(l *ledger) {
			v := life(reservedFor(vip(seventeen), "web"), "u1", 1)
			l.see(v)
			l.bury(v, true)
		}, "203.0.113.17", "203.0.113.17"},
		{"shown by a Service", func(l *ledger) { l.adopt(seventeen, shownTo("web")) }, "203.0.113.17", "NotShared"},
		{"shown by two, the first has it", func(l *ledger) {
			l.adopt(seventeen, shownTo("api"))
			l.adopt(seventeen, shownTo("web"))
		}, "NotShared", "203.0.113.17"},
		{"shown by one and held by another", func(l *ledger) {
			l.see(life(vip(seventeen, "api"), "u1", 1))
			l.adopt(seventeen, shownTo("web"))
		}, "NotShared", "203.0.113.17"},
		{"not shown any more", func(l *ledger) {
			l.adopt(seventeen, shownTo("web"))
			l.disown(keyNamed("web"), nil)
		}, "203.0.113.17", "203.0.113.17"},
		{"still shown", func(l *ledger) {
			l.adopt(seventeen, shownTo("web"))
			l.disown(keyNamed("web"), []netip.Addr{seventeen})
			l.disown(keyNamed("api"), nil)
		}, "203.0.113.17", "NotShared"},
		{"deleted by somebody", func(l *ledger) {
			v := life(vip(seventeen, "web"), "u1", 1)
			l.see(v)
			l.bury(v, true)
			l.keep(seventeen, v, func(ipam.Key) bool { return true })
		}, "203.0.113.17", "NotShared"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, want := range map[string]string{"web": c.web, "api": c.api} {
				l := plainLedger()
				c.then(l)
				if got := assigned(l, name); got != want {
					t.Errorf("%s gets %s, want %s", name, got, want)
				}
			}
		})
	}
}

// shownTo is the request of a Service that shares under the key "key", port by
// port.
func shownTo(name string, ports ...uint16) *ipam.Request {
	r := &ipam.Request{Key: keyNamed(name), Families: []ipam.Family{ipam.IPv4}}
	for _, port := range ports {
		r.Share, r.Ports = "key", append(r.Ports, ipam.Port{Protocol: "TCP", Port: port})
	}
	return r
}

func TestLedgerAdoptsWhoShares(t *testing.T) {
	l := plainLedger()
	l.adopt(seventeen, shownTo("web", 80))
	l.adopt(seventeen, shownTo("api", 443))
	l.adopt(seventeen, shownTo("mail", 443))
	l.adopt(seventeen, shownTo("news"))
	l.want(t, "those who go together", "[api web]")
	l.see(life(vip(seventeen, "web"), "u1", 1))
	l.want(t, "one has its VirtualIP", "[api web]")
	l.disown(keyNamed("api"), nil)
	l.want(t, "the other one asks for something else", "[web]")
}

// What a VirtualIP says counts more than what a status shows.
func TestLedgerAdoptsOneAddressOfAFamily(t *testing.T) {
	l := plainLedger()
	l.see(life(vip(seventeen, "web"), "u1", 1))
	l.adopt(netip.MustParseAddr("203.0.113.1"), shownTo("web"))
	if held := l.allocator.Held(keyNamed("web")); len(held) != 1 {
		t.Errorf("it holds %v", held)
	}
}

func TestLedgerAdoptsOnlyFromPools(t *testing.T) {
	l := plainLedger()
	l.adopt(netip.MustParseAddr("192.0.2.1"), shownTo("web"))
	if len(l.allocator.Held(keyNamed("web"))) > 0 {
		t.Error("it keeps an address that no pool gives")
	}
	l.adopt(seventeen, shownTo("web"))
	l.want(t, "shown", "[web]")
	l.see(life(vip(seventeen, "web"), "u1", 1))
	if len(l.adopted) > 0 {
		t.Error("it is adopted beside its VirtualIP")
	}
}

// store is an API server for VirtualIPs of a few addresses: every version
// there ever was, in order.
type store struct {
	version int
	lives   int
	now     map[netip.Addr]*v1alpha1.VirtualIP
	log     []happening
}

type happening struct {
	vip     *v1alpha1.VirtualIP
	deleted bool
}

// set writes a VirtualIP, or with nil deletes it, if the version is still the
// one that the writer knew.
func (s *store) set(addr netip.Addr, known, v *v1alpha1.VirtualIP) (written *v1alpha1.VirtualIP, ok bool) {
	current := s.now[addr]
	if (current == nil) != (known == nil) || current != nil && (current.UID != known.UID || current.ResourceVersion != known.ResourceVersion) {
		return nil, false
	}
	if current == nil && v == nil {
		return nil, true
	}
	s.version++
	if v == nil {
		last := life(current, string(current.UID), s.version)
		delete(s.now, addr)
		s.log = append(s.log, happening{last, true})
		return nil, true
	}
	if current == nil {
		s.lives++
	}
	uid := fmt.Sprintf("u%d", s.lives)
	if current != nil {
		uid = string(current.UID)
	}
	written = life(v, uid, s.version)
	s.now[addr] = written
	s.log = append(s.log, happening{written, false})
	return written, true
}

// letter is one of our writes on its way: planned, then executed by the API
// server, then answered, each at any time.
type letter struct {
	addr           netip.Addr
	key            ipam.Key
	known, desired *v1alpha1.VirtualIP
	sent           bool
	answer         *v1alpha1.VirtualIP
}

// The watch and the answers to writes come in any order and as late as they
// like, and others write as well: in the end the ledger says what the API
// server says.
func TestLedgerEndsWithTheTruth(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 300 {
		if !runLedger(t, rnd) {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

func runLedger(t *testing.T, rnd *rand.Rand) bool {
	s := &store{now: map[netip.Addr]*v1alpha1.VirtualIP{}}
	l := plainLedger()
	addrs := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}
	services := []string{"a", "b", "c"}
	var letters []*letter
	told := 0

	tell := func() {
		h := s.log[told]
		told++
		if h.deleted {
			l.bury(h.vip, true)
			return
		}
		l.see(h.vip)
	}
	plan := func(addr netip.Addr, name string) {
		key := keyNamed(name)
		if _, busy := l.writing[addr][key]; busy {
			return
		}
		known := l.vips[addr]
		w := &letter{addr: addr, key: key, known: known}
		if known != nil && findClaim(known, key.Namespace, key.Name) >= 0 {
			w.desired = unclaimed(known, key)
		} else {
			w.desired, _ = claimed(known, addr, "public", v1alpha1.ReclaimDelete, claimOf(name))
			w.desired.Spec.L2 = &v1alpha1.L2Placement{Candidates: []string{"node-" + name}}
		}
		l.begin(addr, key, ownerOf(w.desired))
		letters = append(letters, w)
	}
	answer := func(w *letter) {
		if w.answer != nil {
			l.answered(w.answer)
		} else if w.known != nil {
			l.bury(w.known, false)
		}
		l.done(w.addr, w.key)
	}
	send := func(w *letter) {
		w.sent = true
		written, ok := s.set(w.addr, w.known, w.desired)
		if !ok {
			written = s.now[w.addr] // it is read again
		}
		w.answer = written
	}
	step := func(i int) {
		w := letters[i]
		if !w.sent {
			send(w)
			return
		}
		letters = slices.Delete(letters, i, i+1)
		answer(w)
	}

	for range 150 {
		addr, name := addrs[rnd.IntN(len(addrs))], services[rnd.IntN(len(services))]
		switch n := rnd.IntN(10); {
		case n < 3:
			plan(addr, name)
		case n < 4: // somebody else
			current := s.now[addr]
			if rnd.IntN(2) == 0 && current != nil {
				s.set(addr, current, nil)
				continue
			}
			other, _ := claimed(current, addr, "public", v1alpha1.ReclaimDelete, claimOf(name))
			s.set(addr, current, other)
		case n < 7:
			if len(letters) > 0 {
				step(rnd.IntN(len(letters)))
			}
		default:
			if told < len(s.log) {
				tell()
			}
		}
	}
	for len(letters) > 0 || told < len(s.log) {
		if told < len(s.log) && (len(letters) == 0 || rnd.IntN(2) == 0) {
			tell()
			continue
		}
		step(rnd.IntN(len(letters)))
	}
	return l.is(t, s, addrs)
}

func ownerOf(v *v1alpha1.VirtualIP) string {
	if v == nil {
		return ""
	}
	return firstOf(v.Spec.L2)
}

// is says whether the ledger is what the store has.
func (l *ledger) is(t *testing.T, s *store, addrs []netip.Addr) bool {
	t.Helper()
	ok := true
	same := func(what string, want, got any) {
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			ok = false
			t.Errorf("%s: -API server +ledger\n%s", what, diff)
		}
	}
	load := map[string]int{}
	for _, addr := range addrs {
		var want []ipam.Key
		if v := s.now[addr]; v != nil {
			for _, claim := range v.Spec.Claims {
				want = append(want, ipam.Key{Namespace: claim.Namespace, Name: claim.Name})
			}
			if node := firstOf(v.Spec.L2); node != "" {
				load[node]++
			}
		}
		same(addr.String()+" is held by", want, l.allocator.Holders(addr))
	}
	same("VirtualIPs", versions(s.now), versions(l.vips))
	same("load", load, l.load)
	same("being written", 0, len(l.writing))
	same("remembered dead", map[types.UID]bool{}, l.buried)
	return ok
}

func versions(vips map[netip.Addr]*v1alpha1.VirtualIP) map[string]string {
	all := map[string]string{}
	for addr := range maps.Keys(vips) {
		all[addr.String()] = string(vips[addr].UID) + " at " + vips[addr].ResourceVersion
	}
	return all
}

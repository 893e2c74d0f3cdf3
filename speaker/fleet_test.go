package speaker

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// fleet is a few nodes with their speakers, a LAN, an API server and a controller, in a time that a test lets pass. It has one
// address. Packets take a millisecond, what the API server tells some more.
type fleet struct {
	now    time.Time
	random *rand.Rand
	hosts  []*host
	// truth is the VirtualIP at the API server. apiDown: nobody reaches it.
	truth     *v1alpha1.VirtualIP
	apiDown   bool
	cutMesh   bool // BFD does not pass
	later     []event
	lastBeat  map[string]time.Time // when a speaker last renewed its Lease
	changedAt time.Time            // the last fault or its end
	history   []string
}

type event struct {
	at time.Time
	do func()
}

// host is a node. Hosts of one part reach each other; those of part 0 reach the API server.
type host struct {
	old     bool // a version that does not sign its marks
	name    string
	part    int
	power   bool
	running bool // the speaker
	deaf    bool // cut off from the API server alone
	leaving time.Time
	well    bool // kube-proxy
	refuses bool // its health check node port says 503
	s       Snapshot
	due     bool
	asked   map[l2.Question]time.Time
	said    map[netip.Addr]l2.Announcement
	up      map[string]time.Time // since when packets of another speaker have come
	heardOf map[string]time.Time // when the last one came
	goodbye map[string]bool      // AdminDown was the last word
	refused map[string]bool      // ConcatenatedPathDown was
}

const vipText = "198.51.100.200"

var vipAddr = netip.MustParseAddr(vipText)

func newFleet(seed uint64, size int) *fleet {
	f := &fleet{now: epoch, random: rand.New(rand.NewPCG(seed, 7)), lastBeat: map[string]time.Time{}}
	var names []string
	for i := range size {
		h := &host{name: fmt.Sprintf("node-%d", i+1), power: true, well: true}
		f.hosts = append(f.hosts, h)
		names = append(names, h.name)
	}
	f.truth = &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: vipText, Generation: 1, CreationTimestamp: metav1.NewTime(epoch)},
		Spec: v1alpha1.VirtualIPSpec{
			Address: vipText, Claims: []v1alpha1.Claim{{Namespace: "shop", Name: "web"}},
			L2: &v1alpha1.L2Placement{Candidates: names, Peers: peersOf(names)},
		},
	}
	for _, h := range f.hosts {
		f.startSpeaker(h)
	}
	return f
}

func (f *fleet) note(format string, args ...any) {
	f.history = append(f.history, fmt.Sprintf("%8s ", f.now.Sub(epoch))+fmt.Sprintf(format, args...))
}

func (f *fleet) startSpeaker(h *host) {
	h.running, h.leaving, h.due = true, time.Time{}, true
	h.asked, h.said = map[l2.Question]time.Time{}, map[netip.Addr]l2.Announcement{}
	h.up, h.heardOf, h.goodbye = map[string]time.Time{}, map[string]time.Time{}, map[string]bool{}
	h.refused = map[string]bool{}
	// Without the API server it goes by what is on disk.
	known := h.s.VirtualIPs
	if f.reachesAPI(h) || known == nil {
		known = []*v1alpha1.VirtualIP{f.truth}
	}
	h.s = Snapshot{
		Node: h.name, InternalIPs: []netip.Addr{nodeAddr(h.name)}, ProxyURL: health.DefaultProxyURL, VirtualIPs: known,
		Links: []link.Link{{Index: 2, Name: "eth0", MAC: nodeMAC(h.name), Up: true, ARP: true, Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr(h.name), 24)}}},
		Watch: &Watch{Interval: 100 * time.Millisecond, Multiplier: 3}, Claims: map[netip.Addr][]l2.Claim{},
	}
	if !h.old {
		h.s.MarkKeys[0] = []byte("key")
	}
	f.measure(h)
}

// measure is what the prober says.
func (f *fleet) measure(h *host) {
	state := health.State{Healthy: h.well, Since: f.now, Written: health.Written{IPv4: epoch.Add(time.Minute)}}
	if !h.well {
		state.Reason = health.ProxyHung
	}
	h.s.Health = map[health.Target]health.State{proxyTarget: state}
	if h.s.Before != nil {
		for _, target := range h.s.Before.Targets {
			if target.Kind == health.Local {
				h.s.Health[target] = health.State{Healthy: !h.refuses, Since: f.now, Reason: map[bool]health.Reason{true: health.NoLocalEndpoints}[h.refuses]}
			}
		}
	}
	h.due = true
}

func (f *fleet) reachesAPI(h *host) bool { return h.power && h.part == 0 && !h.deaf && !f.apiDown }
func (f *fleet) linked(a, b *host) bool  { return a.power && b.power && a.part == b.part }
func (f *fleet) host(name string) *host {
	return f.hosts[slices.IndexFunc(f.hosts, func(h *host) bool { return h.name == name })]
}

func (f *fleet) after(d time.Duration, do func()) { f.later = append(f.later, event{f.now.Add(d), do}) }

// pass lets time pass, a millisecond at a time.
func (f *fleet) pass(t *testing.T, d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(time.Millisecond)
		var due []event
		f.later = slices.DeleteFunc(f.later, func(e event) bool {
			if e.at.After(f.now) {
				return false
			}
			due = append(due, e)
			return true
		})
		for _, e := range due {
			e.do()
		}
		f.exchangeBFD()
		for _, h := range f.hosts {
			f.decide(h)
		}
		f.control()
		f.check(t)
	}
}

func (f *fleet) decide(h *host) {
	if !h.power || !h.running {
		return
	}
	before := h.s.Before
	if !h.due && (before == nil || before.Again.IsZero() || before.Again.After(f.now)) {
		f.ask(h, before)
		return
	}
	h.due = false
	h.s.Now, h.s.Leaving = f.now, !h.leaving.IsZero()
	h.s.States = f.states(h)
	d := Decide(h.s)
	h.s.Before = d
	if !slices.EqualFunc(d.Targets, f.targets(before), func(a, b health.Target) bool { return a == b }) {
		f.after(5*time.Millisecond, func() { f.measure(h) })
	}
	was := Role{}
	if before != nil {
		was = before.Roles[vipText]
	}
	if role := d.Roles[vipText]; role.Phase != was.Phase {
		f.note("%s is %s (%s) %s", h.name, phaseName(role.Phase), d.Verdicts[vipText].Reason, d.Verdicts[vipText].Why)
	}
	said := map[netip.Addr]l2.Announcement{}
	for _, a := range d.L2 {
		said[a.Addr] = a
		if last, ok := h.said[a.Addr]; (!ok || last.Round != a.Round || last.Yielding) && !a.Yielding {
			f.announce(h, a)
		}
	}
	h.said = said
	f.ask(h, d)
	if v := d.Verdicts[vipText]; v.Reason == "" && d.Roles[vipText].Phase == Owning || v.Tells {
		f.tell(h)
	}
	if !h.leaving.IsZero() && (!d.handsOver() || f.now.Sub(h.leaving) > handOver) {
		h.running = false
		f.note("%s has left", h.name)
	}
}

func (f *fleet) targets(d *Decision) []health.Target {
	if d == nil {
		return nil
	}
	return d.Targets
}

// local makes the Service of policy Local, so that hosts can refuse it. It is told before the first decision.
func (f *fleet) local() {
	f.truth.Spec.Claims[0].HealthCheckNodePort = 31000
}

// refuse has a host refuse the address, or serve it again.
func (f *fleet) refuse(h *host, refuses bool) {
	f.change("%s refuses the address: %v", h.name, refuses)
	h.refuses = refuses
	f.measure(h)
}

func (f *fleet) announce(h *host, a l2.Announcement) {
	for _, o := range f.hosts {
		if o != h && f.linked(h, o) {
			f.after(time.Millisecond, func() { f.hearAnnouncement(o, h, a) })
		}
	}
}

// hearAnnouncement delivers a claim that nobody has asked for: it may be replayed. The other asks, and is answered if it holds.
func (f *fleet) hearAnnouncement(to, from *host, a l2.Announcement) {
	c := claimOf(from, a)
	if from.old || to.old {
		f.deliverClaim(to, from, c)
		return
	}
	c.Recorded, c.Marked, c.Term, c.Yielding = true, false, 0, false
	f.deliverClaim(to, from, c)
	f.after(2*time.Millisecond, func() {
		if said, holds := from.said[a.Addr]; holds && from.running {
			f.hear(to, from, said)
		}
	})
}

func claimOf(from *host, a l2.Announcement) l2.Claim {
	return l2.Claim{Addr: a.Addr, MAC: nodeMAC(from.name), Marked: a.Addr == vipAddr, Unsigned: a.Addr == vipAddr && from.old, Term: a.Term, Yielding: a.Yielding}
}

// hear delivers the answer to a question.
func (f *fleet) hear(to, from *host, a l2.Announcement) { f.deliverClaim(to, from, claimOf(from, a)) }

// deliverClaim delivers a claim, if the other asks or answers for the address.
func (f *fleet) deliverClaim(to, from *host, c l2.Claim) {
	if f.linked(to, from) {
		f.overhear(to, c)
	}
}

// overhear is deliverClaim for whoever sends it.
func (f *fleet) overhear(to *host, c l2.Claim) {
	if !to.power || !to.running || to.s.Before == nil {
		return
	}
	_, answers := to.said[c.Addr]
	if !answers && !slices.ContainsFunc(to.s.Before.Questions, func(q l2.Question) bool { return q.Addr == c.Addr }) {
		return
	}
	if to.old { // it cannot tell
		c.Unsigned = c.Marked
	}
	c.Time = f.now
	claims := map[netip.Addr][]l2.Claim{}
	for addr, known := range to.s.Claims {
		claims[addr] = slices.DeleteFunc(slices.Clone(known), func(o l2.Claim) bool {
			return addr == c.Addr && o.MAC == c.MAC && proven(o) == proven(c)
		})
	}
	claims[c.Addr] = append(claims[c.Addr], c)
	to.s.Claims, to.due = claims, true
}

// ask sends the questions that are due; who has the address answers a millisecond later.
func (f *fleet) ask(h *host, d *Decision) {
	if d == nil {
		return
	}
	asked := map[l2.Question]time.Time{}
	for _, q := range d.Questions {
		last, ok := h.asked[q]
		if ok && (q.Every == 0 || f.now.Sub(last) < q.Every) {
			asked[q] = last
			continue
		}
		asked[q] = f.now
		f.after(time.Millisecond, func() {
			for _, o := range f.hosts {
				if o == h || !f.linked(h, o) {
					continue
				}
				if a, ok := o.said[q.Addr]; ok && o.running {
					f.after(time.Millisecond, func() { f.hear(h, o, a) })
				}
				if nodeAddr(o.name) == q.Addr { // the kernel answers
					f.after(time.Millisecond, func() { f.hear(h, o, l2.Announcement{Addr: q.Addr}) })
				}
			}
		})
	}
	h.asked = asked
}

// exchangeBFD has packets exchanged.
func (f *fleet) exchangeBFD() {
	for _, h := range f.hosts {
		if !h.running {
			continue
		}
		for _, o := range f.hosts {
			if o == h {
				continue
			}
			mine, theirs := f.session(h, o), f.session(o, h)
			if mine == nil {
				delete(h.up, o.name)
				delete(h.heardOf, o.name)
				delete(h.goodbye, o.name)
				continue
			}
			heard := theirs != nil && o.running && f.linked(h, o) && !f.cutMesh
			switch before := h.goodbye[o.name]; {
			case heard && theirs.AdminDown:
				h.goodbye[o.name] = true
				h.heardOf[o.name] = f.now
				delete(h.up, o.name)
				h.due = h.due || !before
			case heard && !mine.AdminDown:
				if _, up := h.up[o.name]; !up {
					h.up[o.name] = f.now.Add(time.Second) // the slow rate until then
				}
				h.due = h.due || before || f.now.Equal(h.up[o.name]) || theirs.ConcatenatedDown != h.refused[o.name]
				h.refused[o.name] = theirs.ConcatenatedDown
				h.goodbye[o.name] = false
				h.heardOf[o.name] = f.now
			case before && f.now.Sub(h.heardOf[o.name]) >= 3*time.Second:
				h.goodbye[o.name], h.due = false, true // it has fallen silent
			case !heard:
				if _, up := h.up[o.name]; up && f.now.Sub(h.heardOf[o.name]) >= 300*time.Millisecond {
					h.due = true
					delete(h.up, o.name)
				}
			}
		}
	}
}

func (f *fleet) session(h, o *host) *bfd.Session {
	if h.s.Before == nil {
		return nil
	}
	for i := range h.s.Before.Sessions {
		if h.s.Before.Sessions[i].Peer == nodeAddr(o.name) {
			return &h.s.Before.Sessions[i]
		}
	}
	return nil
}

func (f *fleet) states(h *host) map[bfd.Path]bfd.Status {
	states := map[bfd.Path]bfd.Status{}
	for _, o := range f.hosts {
		s := f.session(h, o)
		if s == nil {
			continue
		}
		before := h.s.States[s.Path]
		now := bfd.Status{Event: bfd.Event{Path: s.Path, State: bfd.Down, RemoteState: bfd.Down, Time: f.now}}
		up, ok := h.up[o.name]
		switch {
		case s.AdminDown:
			now.State, now.Diag = bfd.AdminDown, bfd.AdministrativelyDown
		case h.goodbye[o.name]:
			now.RemoteState, now.Diag = bfd.AdminDown, bfd.NeighborSignaledDown
		case ok && !f.now.Before(up):
			now.State, now.RemoteState = bfd.Up, bfd.Up
			if h.refused[o.name] {
				now.RemoteDiag = bfd.ConcatenatedPathDown
			}
		case !before.Time.IsZero() && before.RemoteState == bfd.AdminDown || before.Diag == bfd.NeighborSignaledDown:
			now.Diag = bfd.NeighborSignaledDown
		case before.State == bfd.Up || before.Diag == bfd.DetectionTimeExpired:
			now.Diag = bfd.DetectionTimeExpired
		}
		if before.State == now.State && before.Diag == now.Diag && before.RemoteState == now.RemoteState && !before.Time.IsZero() {
			now.Time = before.Time
		}
		states[s.Path] = now
	}
	return states
}

// tell writes the status.
func (f *fleet) tell(h *host) {
	f.after(time.Duration(5+f.random.IntN(20))*time.Millisecond, func() {
		if !f.reachesAPI(h) || !h.running || h.s.Before == nil {
			f.after(100*time.Millisecond, func() { h.due = true })
			return
		}
		v := h.s.Before.Verdicts[vipText]
		owner := ""
		switch {
		case v.Reason == "" && h.s.Before.Roles[vipText].Phase == Owning:
			owner = h.name
		case !v.Tells:
			return
		}
		if f.truth.Status.Owner == owner {
			return
		}
		next := f.truth.DeepCopy()
		next.Status.Owner = owner
		f.publish(next)
	})
}

func (f *fleet) publish(vip *v1alpha1.VirtualIP) {
	f.truth = vip
	f.note("VirtualIP: owner %q, candidates %v, generation %d", vip.Status.Owner, vip.Spec.L2.Candidates, vip.Generation)
	for _, h := range f.hosts {
		f.deliver(h, vip)
	}
}

// deliver brings a version to a speaker once it reaches the API server.
func (f *fleet) deliver(h *host, vip *v1alpha1.VirtualIP) {
	f.after(time.Duration(2+f.random.IntN(30))*time.Millisecond, func() {
		if vip != f.truth {
			return
		}
		if !f.reachesAPI(h) || !h.running {
			f.after(200*time.Millisecond, func() { f.deliver(h, vip) })
			return
		}
		h.s.VirtualIPs, h.due = []*v1alpha1.VirtualIP{vip}, true
	})
}

// control is the controller: the owner leads, and who has no Lease or must not serve is no candidate.
func (f *fleet) control() {
	if f.apiDown {
		return
	}
	for _, h := range f.hosts {
		if f.reachesAPI(h) && h.running && h.leaving.IsZero() {
			f.lastBeat[h.name] = f.now
		}
	}
	if f.now.UnixMilli()%50 != 0 {
		return
	}
	var candidates []string
	fit := func(h *host) bool { return f.now.Sub(f.lastBeat[h.name]) < 10*time.Second && h.leaving.IsZero() }
	for _, name := range f.truth.Spec.L2.Candidates {
		if fit(f.host(name)) {
			candidates = append(candidates, name)
		}
	}
	for _, h := range f.hosts {
		if fit(h) && !slices.Contains(candidates, h.name) && len(candidates) < 3 {
			candidates = append(candidates, h.name)
		}
	}
	if i := slices.Index(candidates, f.truth.Status.Owner); i > 0 {
		candidates = slices.Concat(candidates[i:], candidates[:i])
	}
	signed := !slices.ContainsFunc(candidates, func(name string) bool { return f.host(name).old })
	if len(candidates) == 0 || slices.Equal(candidates, f.truth.Spec.L2.Candidates) && signed == f.truth.Spec.L2.SignedMarks {
		return
	}
	next := f.truth.DeepCopy()
	next.Spec.L2.SignedMarks = signed
	next.Spec.L2.Candidates, next.Spec.L2.Peers = candidates, peersOf(candidates)
	next.Generation++
	f.publish(next)
}

// owners are the hosts of a part that answer; firm are those that do not say that the address is to be taken.
func (f *fleet) owners(part int) (all, firm []string) {
	for _, h := range f.hosts {
		if a, ok := h.said[vipAddr]; ok && h.part == part && h.power && h.running {
			all = append(all, h.name)
			if !a.Yielding {
				firm = append(firm, h.name)
			}
		}
	}
	return all, firm
}

// check holds at any time: no part has two owners for longer than it takes to hear of each other.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	for part := range 2 {
		if _, firm := f.owners(part); len(firm) > 1 && f.now.Sub(f.changedAt) > 300*time.Millisecond {
			if f.changedAt.IsZero() || f.twoSince(part) > 300*time.Millisecond {
				t.Fatalf("%v have the address\n%s", firm, f)
			}
		}
	}
}

func (f *fleet) twoSince(part int) time.Duration {
	_, firm := f.owners(part)
	longest := time.Duration(1 << 62)
	for _, name := range firm {
		longest = min(longest, f.now.Sub(f.host(name).s.Before.Roles[vipText].Since))
	}
	return longest
}

func (f *fleet) String() string {
	return strings.Join(f.history[max(0, len(f.history)-60):], "\n")
}

// wantOne holds some time after the last change: exactly one owner, on a host that can serve.
func (f *fleet) wantOne(t *testing.T) string {
	t.Helper()
	all, _ := f.owners(0)
	if len(all) != 1 || !f.host(all[0]).well {
		t.Fatalf("owners %v\n%s", all, f)
	}
	return all[0]
}

func (f *fleet) change(format string, args ...any) {
	f.changedAt = f.now
	f.note("--- "+format, args...)
}

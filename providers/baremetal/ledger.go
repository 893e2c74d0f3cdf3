package baremetal

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// ledger is the newest known version of every VirtualIP, and an allocator that
// mirrors them. The API server has the truth; what the ledger adds is what is
// being written at the moment, so that workers do not wait for each other. The
// caller locks.
type ledger struct {
	allocator *ipam.Allocator
	vips      map[netip.Addr]*v1alpha1.VirtualIP
	// buried are VirtualIPs that we deleted; the informer may still tell of
	// their earlier lives.
	buried map[types.UID]bool
	// told is the resource version that the informer has come to.
	told string
	// writing are assignments on their way to the API server, each with the
	// node that will own the address if that is decided with it.
	writing map[netip.Addr]map[ipam.Key]string
	// adopted are Services on addresses whose VirtualIP does not say so: their
	// status shows it (a restore, a migration), or somebody deleted it.
	adopted map[netip.Addr]map[ipam.Key]ipam.Claim
	// load is how many addresses each node owns or is about to.
	load map[string]int
	// holding completes what a VirtualIP says of a claim.
	holding func(claim *v1alpha1.Claim, pool string) ipam.Claim
	// created is when a Service was made.
	created func(ipam.Key) time.Time
	// unsettled are addresses whose VirtualIP at the API server lacks what an
	// older version did not write.
	unsettled map[netip.Addr]bool
	// taken are addresses that a foreign host had before their first use.
	// announced is when the newest address of a pool was made that was announced.
	taken     map[netip.Addr]bool
	announced map[part]time.Time
}

func newLedger(holding func(*v1alpha1.Claim, string) ipam.Claim) *ledger {
	return &ledger{
		allocator: ipam.New(),
		vips:      map[netip.Addr]*v1alpha1.VirtualIP{},
		buried:    map[types.UID]bool{},
		writing:   map[netip.Addr]map[ipam.Key]string{},
		adopted:   map[netip.Addr]map[ipam.Key]ipam.Claim{},
		load:      map[string]int{},
		holding:   holding,
		created:   func(ipam.Key) time.Time { return time.Time{} },
		unsettled: map[netip.Addr]bool{},
		taken:     map[netip.Addr]bool{},
		announced: map[part]time.Time{},
	}
}

// see takes in a version of a VirtualIP that the informer tells of. An older
// one than known changes nothing. It returns the version known before.
func (l *ledger) see(vip *v1alpha1.VirtualIP) (before *v1alpha1.VirtualIP, fresh bool) {
	if newer(vip.ResourceVersion, l.told) {
		l.told = vip.ResourceVersion
	}
	return l.take(vip)
}

// rewind takes in the VirtualIPs that the informer has after etcd was restored
// from a backup. What is remembered of newer versions says nothing any more. It
// calls changed with each that is not as it was known.
func (l *ledger) rewind(vips []*v1alpha1.VirtualIP, changed func(before, after *v1alpha1.VirtualIP)) {
	l.told = ""
	clear(l.buried)
	for _, vip := range vips {
		addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
		if err != nil {
			continue
		}
		before := l.vips[addr]
		if before != nil && before.UID == vip.UID && before.ResourceVersion == vip.ResourceVersion {
			continue
		}
		l.put(addr, vip)
		changed(before, vip)
	}
}

// answered takes in the VirtualIP that the API server answered us with. The
// answer may come late: one that the informer has passed, and that we know
// nothing of, has been deleted since. It returns the version known before.
func (l *ledger) answered(vip *v1alpha1.VirtualIP) (before *v1alpha1.VirtualIP, fresh bool) {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil || l.vips[addr] == nil && !newer(vip.ResourceVersion, l.told) {
		return nil, false
	}
	return l.take(vip)
}

func (l *ledger) take(vip *v1alpha1.VirtualIP) (before *v1alpha1.VirtualIP, fresh bool) {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil || l.buried[vip.UID] {
		return nil, false
	}
	before = l.vips[addr]
	if before != nil && !newer(vip.ResourceVersion, before.ResourceVersion) {
		return before, false
	}
	l.put(addr, vip)
	return before, true
}

// newer says whether a resource version is newer than another one; one that
// cannot be compared counts as newer.
func newer(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err != nil || order > 0
}

// ahead reports whether the version that is known of a VirtualIP is newer.
func (l *ledger) ahead(vip *v1alpha1.VirtualIP) bool {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	known := l.vips[addr]
	return err == nil && known != nil && older(vip.ResourceVersion, known.ResourceVersion)
}

// older reports whether a resource version is older than another one. What
// cannot be compared is not.
func older(version, than string) bool { return !newer(version, than) && newer(than, version) }

// bury takes in that a VirtualIP is deleted. told says that the informer says
// so: it will tell no more of it. Without a resource version it was not in a
// list, and when it was deleted is not known.
func (l *ledger) bury(vip *v1alpha1.VirtualIP, told bool) (gone bool) {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil {
		return false
	}
	if told {
		delete(l.buried, vip.UID)
		if vip.ResourceVersion != "" && newer(vip.ResourceVersion, l.told) {
			l.told = vip.ResourceVersion
		}
	}
	if known := l.vips[addr]; known == nil || known.UID != vip.UID {
		return false
	}
	if !told {
		l.buried[vip.UID] = true
	}
	l.put(addr, nil)
	return true
}

func (l *ledger) put(addr netip.Addr, vip *v1alpha1.VirtualIP) {
	l.count(l.vips[addr], -1)
	delete(l.unsettled, addr)
	if vip == nil {
		delete(l.vips, addr)
	} else {
		told := vip
		if vip = settled(told, l.created); vip != told {
			l.unsettled[addr] = true
		}
		l.vips[addr] = vip
		for i := range vip.Spec.Claims {
			l.orphan(addr, ipam.Key{Namespace: vip.Spec.Claims[i].Namespace, Name: vip.Spec.Claims[i].Name})
		}
	}
	l.count(vip, 1)
	l.judge(addr, vip)
	l.mirror(addr)
}

// count adds the address to its owner's load.
func (l *ledger) count(vip *v1alpha1.VirtualIP, by int) {
	if vip != nil {
		l.burden(firstOf(vip.Spec.L2), by)
	}
}

func (l *ledger) burden(node string, by int) {
	if node == "" {
		return
	}
	if l.load[node] += by; l.load[node] == 0 {
		delete(l.load, node)
	}
}

// firstOf is the node that should own an address of that placement.
func firstOf(l2 *v1alpha1.L2Placement) string {
	if l2 == nil || len(l2.Candidates) == 0 {
		return ""
	}
	return l2.Candidates[0]
}

// mirror makes the allocator say of an address what its VirtualIP says, and
// what is being written.
func (l *ledger) mirror(addr netip.Addr) {
	vip := l.vips[addr]
	wanted := map[ipam.Key]bool{}
	for key := range l.writing[addr] {
		wanted[key] = true
	}
	if vip != nil {
		for i := range vip.Spec.Claims {
			claim := &vip.Spec.Claims[i]
			key := ipam.Key{Namespace: claim.Namespace, Name: claim.Name}
			wanted[key] = true
			// What is on its way is newer than what the VirtualIP says.
			if _, busy := l.writing[addr][key]; !busy || !slices.Contains(l.allocator.Held(key), addr) {
				l.allocator.Hold(addr, key, l.holding(claim, vip.Spec.Pool))
			}
		}
	}
	for key, claim := range l.adopted[addr] {
		wanted[key] = true
		if !slices.Contains(l.allocator.Held(key), addr) {
			l.allocator.Hold(addr, key, claim)
		}
	}
	for _, key := range l.allocator.Holders(addr) {
		if !wanted[key] {
			l.allocator.Release(addr, key)
		}
	}
	l.mirrorReservation(addr, vip, len(wanted) > 0)
	if quarantined(vip) {
		l.allocator.Quarantine(addr)
	} else {
		l.allocator.Unquarantine(addr)
	}
}

func (l *ledger) mirrorReservation(addr netip.Addr, vip *v1alpha1.VirtualIP, held bool) {
	switch {
	case vip != nil && vip.Spec.ReservedFor != nil:
		l.allocator.Reserve(addr, ipam.Key{Namespace: vip.Spec.ReservedFor.Namespace, Name: vip.Spec.ReservedFor.Name})
	case vip != nil && !held:
		// Somebody made it to keep the address from everyone.
		l.allocator.Reserve(addr, ipam.Key{})
	default:
		l.allocator.Unreserve(addr)
	}
}

// adopt keeps an address for the Service whose status shows it, as far as a
// pool gives it and nobody has it who would not share it.
func (l *ledger) adopt(addr netip.Addr, request *ipam.Request) {
	pool, ok := l.allocator.PoolOf(addr)
	if l.vips[addr] != nil || !ok {
		return
	}
	for _, held := range l.allocator.Held(request.Key) {
		if ipam.FamilyOf(held) == ipam.FamilyOf(addr) {
			return // this is what it has, whatever the status shows
		}
	}
	if len(l.allocator.Holders(addr)) > 0 && l.allocator.Check(request, addr) != nil {
		return
	}
	l.foster(addr, request.Key, ipam.Claim{
		Pool: pool, Share: request.Share, Consent: request.Consent, Ports: request.Ports, Local: request.Local, Backend: request.Backend,
		Since: l.allocator.After(addr, request.Now),
	})
}

// keep adopts the Services of a VirtualIP that somebody deleted, as far as they
// show the address, and says whether there are any. Who is being written for
// finds out without.
func (l *ledger) keep(addr netip.Addr, vip *v1alpha1.VirtualIP, shows func(ipam.Key) bool) (kept bool) {
	for i := range vip.Spec.Claims {
		claim := &vip.Spec.Claims[i]
		key := ipam.Key{Namespace: claim.Namespace, Name: claim.Name}
		if _, busy := l.writing[addr][key]; !busy && shows(key) {
			l.foster(addr, key, l.holding(claim, vip.Spec.Pool))
			kept = true
		}
	}
	return kept
}

func (l *ledger) foster(addr netip.Addr, key ipam.Key, claim ipam.Claim) {
	if l.adopted[addr] == nil {
		l.adopted[addr] = map[ipam.Key]ipam.Claim{}
	}
	l.adopted[addr][key] = claim
	l.mirror(addr)
}

// disown ends what adopt began, for the addresses that the Service does not
// show any more.
func (l *ledger) disown(key ipam.Key, shown []netip.Addr) {
	for addr := range l.adopted {
		if l.orphan(addr, key, shown...) {
			l.mirror(addr)
		}
	}
}

// orphan takes the Service from the adopted of an address, unless it is among
// those that it shows.
func (l *ledger) orphan(addr netip.Addr, key ipam.Key, shown ...netip.Addr) bool {
	if _, ok := l.adopted[addr][key]; !ok || slices.Contains(shown, addr) {
		return false
	}
	delete(l.adopted[addr], key)
	if len(l.adopted[addr]) == 0 {
		delete(l.adopted, addr)
	}
	return true
}

// begin says that the address is being written for the Service, to be owned by
// the node if that is new, and done that it is written or has failed.
func (l *ledger) begin(addr netip.Addr, key ipam.Key, owner string) {
	if l.writing[addr] == nil {
		l.writing[addr] = map[ipam.Key]string{}
	}
	l.writing[addr][key] = owner
	l.burden(owner, 1)
}

func (l *ledger) done(addr netip.Addr, key ipam.Key) {
	l.burden(l.writing[addr][key], -1)
	delete(l.writing[addr], key)
	if len(l.writing[addr]) == 0 {
		delete(l.writing, addr)
	}
	l.mirror(addr)
}

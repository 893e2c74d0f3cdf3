package l2

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// portPlan is what an interface is to answer and ask for.
type portPlan struct {
	Interface
	table table
	addrs [len(protocols)][]netip.Addr // of table.here and table.asked, sorted
}

// plan returns the ports to have, by the name of the interface: one for each that is up and has an address to answer or to
// ask for. Of several announcements or questions that differ in neither address nor interface, the last counts.
// They are signed with the first of the keys; what the ports before have signed is not signed again.
func plan(interfaces []Interface, announcements []Announcement, questions []Question, keys keyring, before map[string]*port) map[string]portPlan {
	all, own := map[netip.Addr]struct{}{}, map[mac]struct{}{}
	here, asked := map[string]map[netip.Addr]*assertion{}, map[string]map[netip.Addr]Question{}
	signers := map[string]*signer{} // by interface; those of interfaces that are not there say nothing
	for _, i := range interfaces {
		signers[i.Name] = newSigner(i.MAC, keys, before[i.Name])
	}
	for _, a := range announcements {
		all[a.Addr] = struct{}{}
		if here[a.Interface] == nil {
			here[a.Interface] = map[netip.Addr]*assertion{}
		}
		if s, ok := signers[a.Interface]; ok {
			here[a.Interface][a.Addr] = s.assertion(a)
		}
	}
	for _, q := range questions {
		if asked[q.Interface] == nil {
			asked[q.Interface] = map[netip.Addr]Question{}
		}
		asked[q.Interface][q.Addr] = q
	}
	for _, i := range interfaces {
		own[i.MAC] = struct{}{}
	}
	planned := map[string]portPlan{}
	for _, i := range interfaces {
		if !i.Up || i.MAC == (mac{}) || len(here[i.Name])+len(asked[i.Name]) == 0 {
			continue
		}
		next := portPlan{Interface: i, table: table{mac: i.MAC, own: own, here: here[i.Name], asked: asked[i.Name], all: all, keys: keys}}
		addrs := slices.AppendSeq(slices.Collect(maps.Keys(next.table.here)), maps.Keys(next.table.asked))
		slices.SortFunc(addrs, netip.Addr.Compare)
		for _, addr := range slices.Compact(addrs) {
			p := protocolOf(addr)
			next.addrs[p] = append(next.addrs[p], addr)
		}
		planned[i.Name] = next
	}
	return planned
}

// signer makes what is said of the announcements of an interface.
type signer struct {
	from mac
	key  *key
	said map[netip.Addr]*assertion // before, with the same key
}

func newSigner(from mac, keys keyring, before *port) *signer {
	s := &signer{from: from}
	if len(keys) > 0 {
		s.key = keys[0]
	}
	if before != nil && before.MAC == from && before.table.key() == s.key {
		s.said = before.table.here
	}
	return s
}

func (s *signer) assertion(a Announcement) *assertion {
	m := mark{a.Term, a.Yielding}
	before := s.said[a.Addr]
	if before != nil && before.mark == m && before.round == a.Round {
		return before
	}
	next := &assertion{}
	if before != nil && before.mark == m {
		*next = *before
	} else {
		*next = newAssertion(a.Addr, s.from, m, s.key, 0)
	}
	next.round = a.Round
	return next
}

// port is an interface in service. A socket per protocol is open while there are addresses for it.
type port struct {
	Interface
	network network
	conns   [len(protocols)]conn
	addrs   [len(protocols)][]netip.Addr // that the filters of conns are made for; none where conn is nil
	retired []conn                       // no longer needed, and to be closed, which takes a while
	groups  groups
	asking  challenges

	// replying is held while a reply is made and sent, so that none follows when setTable has returned.
	replying sync.RWMutex
	table    table
}

func newPort(next portPlan, n network) *port {
	return &port{
		Interface: next.Interface,
		network:   n,
		table:     next.table,
		groups:    groups{open: func() (groupSocket, error) { return n.groups(next.Interface) }},
	}
}

func (p *port) setTable(t table) {
	p.replying.Lock()
	defer p.replying.Unlock()
	p.table = t
	p.asking.keep(&t)
}

// reply answers a frame, or says why not, and whether it claims an address that is announced or asked about.
func (p *port) reply(c conn, frame, buf []byte) (claimed bool, dropped Reason) {
	p.replying.RLock()
	defer p.replying.RUnlock()
	reply, claimed, dropped := p.table.handle(frame, buf)
	if dropped != "" {
		return claimed, dropped
	}
	if _, err := c.Write(reply); err != nil {
		return claimed, SendFailed
	}
	return claimed, ""
}

// claim returns what a frame claims, and how far it is to be believed.
func (p *port) claim(frame []byte) (Claim, seal) {
	p.replying.RLock()
	defer p.replying.RUnlock()
	c, how := p.table.claim(frame, &p.asking)
	c.Interface = p.Name
	return c, how
}

// challenge asks for an address again that a speaker may have claimed: only an answer proves that it does now. An address
// that is asked about alone needs it if nobody has asked for the claim; else those that ask would call each other forth.
func (p *port) challenge(c conn, addr netip.Addr, asked bool, buf []byte) (sent bool, dropped Reason) {
	p.replying.RLock()
	defer p.replying.RUnlock()
	_, here := p.table.here[addr]
	_, wanted := p.table.asked[addr]
	now := time.Now()
	if !here && (asked || !wanted) || !p.asking.due(addr, now) {
		return false, ""
	}
	if _, err := c.Write(appendQuestion(buf[:0], p.MAC, addr, p.asking.next(addr, now))); err != nil {
		return false, SendFailed
	}
	return true, ""
}

// listen makes the socket of a protocol fit the addresses, and says whether it has opened one.
func (p *port) listen(proto protocol, addrs []netip.Addr) (opened bool, err error) {
	if slices.Equal(addrs, p.addrs[proto]) {
		return false, nil
	}
	if p.conns[proto] != nil {
		if len(addrs) > 0 && p.conns[proto].setFilter(filter(proto, addrs)) == nil {
			p.addrs[proto] = addrs
			return false, nil
		}
		p.retired = append(p.retired, p.conns[proto])
		p.conns[proto], p.addrs[proto] = nil, nil
	}
	if len(addrs) == 0 {
		return false, nil
	}
	c, err := p.network.listen(p.Interface, proto, filter(proto, addrs))
	if err != nil {
		return false, err
	}
	p.conns[proto], p.addrs[proto] = c, addrs
	return true, nil
}

// silence ends the service of the port. What it has open is closed separately, as that takes long.
func (p *port) silence() {
	p.setTable(table{})
	for _, proto := range protocols {
		_, _ = p.listen(proto, nil)
	}
}

// closeRetired closes the sockets that are no longer needed. For each the kernel waits until no processor uses it.
func (p *port) closeRetired() {
	for _, c := range p.retired {
		_ = c.Close()
	}
	p.retired = nil
}

// leave closes what silence has left of ports.
func leave(silenced []*port) {
	for _, p := range silenced {
		p.closeRetired()
		p.groups.close()
	}
}

// duties returns what is to be sent again and again, as far as a socket is open for it. Who yields does not announce.
func (p *port) duties() iter.Seq2[duty, terms] {
	return func(yield func(duty, terms) bool) {
		for _, addrs := range p.addrs {
			for _, addr := range addrs {
				a, here := p.table.here[addr]
				if here && !a.yielding && !yield(duty{addr: addr, name: p.Name}, terms{round: a.round}) {
					return
				}
				q, asked := p.table.asked[addr]
				if asked && !yield(duty{addr, p.Name, true}, terms{q.Round, q.Every}) {
					return
				}
			}
		}
	}
}

// answered returns the addresses that are announced, as far as a socket is open for them.
func (p *port) answered(proto protocol) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(p.addrs[proto]), func(addr netip.Addr) bool {
		_, here := p.table.here[addr]
		return !here
	})
}

// solicitedNodes returns the groups in which addresses are asked for. Several addresses may share one.
func solicitedNodes(addrs []netip.Addr) map[netip.Addr]struct{} {
	set := map[netip.Addr]struct{}{}
	for _, a := range addrs {
		set[solicitedNode(a)] = struct{}{}
	}
	return set
}

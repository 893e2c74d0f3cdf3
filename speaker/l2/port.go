package l2

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// portPlan is what an interface is to answer for.
type portPlan struct {
	Interface
	table table
	addrs [len(protocols)][]netip.Addr // of table.here, sorted
}

// plan returns the ports to have, by the name of the interface: one for each that is up and has an address to answer.
func plan(interfaces []Interface, desired []Announcement) map[string]portPlan {
	all, own := map[netip.Addr]struct{}{}, map[mac]struct{}{}
	here := map[string]map[netip.Addr]struct{}{}
	for _, a := range desired {
		all[a.Addr] = struct{}{}
		if here[a.Interface] == nil {
			here[a.Interface] = map[netip.Addr]struct{}{}
		}
		here[a.Interface][a.Addr] = struct{}{}
	}
	for _, i := range interfaces {
		own[i.MAC] = struct{}{}
	}
	planned := map[string]portPlan{}
	for _, i := range interfaces {
		if !i.Up || i.MAC == (mac{}) || len(here[i.Name]) == 0 {
			continue
		}
		next := portPlan{Interface: i, table: table{mac: i.MAC, own: own, here: here[i.Name], all: all}}
		for _, addr := range slices.SortedFunc(maps.Keys(here[i.Name]), netip.Addr.Compare) {
			p := protocolOf(addr)
			next.addrs[p] = append(next.addrs[p], addr)
		}
		planned[i.Name] = next
	}
	return planned
}

// port is an interface in service. A socket per protocol is open while there are addresses for it.
type port struct {
	Interface
	network network
	conns   [len(protocols)]conn
	addrs   [len(protocols)][]netip.Addr // that the filters of conns are made for; none where conn is nil
	groups  groups

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
}

// reply answers a frame, or says why not.
func (p *port) reply(c conn, frame, buf []byte) (dropped Reason) {
	p.replying.RLock()
	defer p.replying.RUnlock()
	reply, dropped := p.table.handle(frame, buf)
	if dropped != "" {
		return dropped
	}
	if _, err := c.Write(reply); err != nil {
		return SendFailed
	}
	return ""
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
		_ = p.conns[proto].Close()
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

// close silences the port. Its groups are left separately, as that takes long.
func (p *port) close() {
	p.setTable(table{})
	for _, proto := range protocols {
		_, _ = p.listen(proto, nil)
	}
}

// leave closes what close has left of ports.
func leave(closed []*port) {
	for _, p := range closed {
		p.groups.close()
	}
}

// solicitedNodes returns the groups in which addresses are asked for. Several addresses may share one.
func solicitedNodes(addrs []netip.Addr) map[netip.Addr]struct{} {
	set := map[netip.Addr]struct{}{}
	for _, a := range addrs {
		set[solicitedNode(a)] = struct{}{}
	}
	return set
}

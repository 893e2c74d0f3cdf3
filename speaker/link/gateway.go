package link

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Gateway is a default gateway of the node.
type Gateway struct {
	// Addr has a zone if it is link-local.
	Addr netip.Addr
	// Interface that leads to it.
	Interface string
	// Metric of the route: the lowest one is used.
	Metric int
}

// WatchGateways calls notify with all default gateways of the main table, best first, IPv4 before IPv6, at once, and again each
// time they have changed, until ctx is done; then it returns nil. Routes that are no default routes do not wake it.
func WatchGateways(ctx context.Context, notify func([]Gateway)) error {
	return watchGateways(ctx, netns.None(), notify)
}

func watchGateways(ctx context.Context, ns netns.NsHandle, notify func([]Gateway)) error {
	// IPv4 routes go without a word when their link or its address does.
	return follow(ctx, ns, aboutGateways, func() ([]Gateway, error) { return gateways(ns) }, notify,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
}

// aboutGateways says whether a message may be about a default gateway: all may be that are not about another route.
func aboutGateways(m syscall.NetlinkMessage) bool {
	isRoute := m.Header.Type == unix.RTM_NEWROUTE || m.Header.Type == unix.RTM_DELROUTE
	return !isRoute || len(m.Data) < unix.SizeofRtMsg || nl.DeserializeRtMsg(m.Data).Dst_len == 0
}

func isDefault(r *netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

func gateways(ns netns.NsHandle) ([]Gateway, error) {
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	defer handle.Close()
	var found []Gateway
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		for i := range routes {
			if isDefault(&routes[i]) {
				found = append(found, hops(handle, &routes[i])...)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Gateway) int {
		return cmp.Or(cmp.Compare(a.Addr.BitLen(), b.Addr.BitLen()), cmp.Compare(a.Metric, b.Metric), a.Addr.Compare(b.Addr))
	})
	return found, nil
}

// hops are the gateways of a route, which has several if the load is spread over them.
func hops(handle *netlink.Handle, route *netlink.Route) (found []Gateway) {
	add := func(ip []byte, index int) {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		device, err := handle.LinkByIndex(index)
		if err != nil {
			return // it has gone
		}
		name := device.Attrs().Name
		if addr = addr.Unmap(); addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(name)
		}
		found = append(found, Gateway{addr, name, route.Priority})
	}
	add(route.Gw, route.LinkIndex)
	for _, hop := range route.MultiPath {
		add(hop.Gw, hop.LinkIndex)
	}
	return found
}

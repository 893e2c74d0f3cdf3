package sandbox

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// BlockUDP makes the switch drop the datagrams from and to a host that have one
// of the ports at either end. Nothing else is touched and no end can see it, as
// when a firewall on the way closes. A second call replaces the first.
func (s *Sandbox) BlockUDP(ctx context.Context, host string, ports ...uint16) error {
	if len(ports) == 0 {
		return fmt.Errorf("blocking UDP of %s: no ports", host)
	}
	return s.blockUDP(ctx, host, ports)
}

// UnblockUDP ends BlockUDP; without one there is nothing to do.
func (s *Sandbox) UnblockUDP(ctx context.Context, host string) error {
	return s.blockUDP(ctx, host, nil)
}

func (s *Sandbox) blockUDP(ctx context.Context, host string, ports []uint16) error {
	if lanNumber(host) == 0 {
		return fmt.Errorf("%s is not a host on the LAN", host)
	}
	_, err := s.Exec(ctx, lan, "nft", blockRules(host, ports))
	return err
}

// blockRules is what nft is told in the switch's namespace. The table is the
// host's alone; that it is made before it is deleted makes a missing one fine.
func blockRules(host string, ports []uint16) string {
	table := "bridge block-" + host
	lines := []string{"add table " + table, "delete table " + table}
	if len(ports) == 0 {
		return strings.Join(lines, "; ")
	}
	lines = append(lines, "add table "+table,
		"add chain "+table+" forward { type filter hook forward priority 0; policy accept; }")
	var words []string
	for _, port := range ports {
		words = append(words, strconv.Itoa(int(port)))
	}
	set := "{ " + strings.Join(words, ", ") + " }"
	for _, direction := range []string{"iifname", "oifname"} {
		for _, end := range []string{"sport", "dport"} {
			lines = append(lines, fmt.Sprintf("add rule %s forward %s %q udp %s %s drop", table, direction, host, end, set))
		}
	}
	return strings.Join(lines, "; ")
}

// KillProxy ends the kube-proxy of a node at once and takes away the rules that
// it made: the node is on the LAN and serves no Service. StartProxy mends it.
func (s *Sandbox) KillProxy(ctx context.Context, node string) error {
	if err := s.Kill(ctx, kubeProxy+"-"+node); err != nil {
		return err
	}
	return s.flushProxyRules(ctx, node)
}

// RunProxy starts the kube-proxy of a node, in place of the one that runs, with
// further arguments; without any it is as it was.
func (s *Sandbox) RunProxy(ctx context.Context, node string, args ...string) error {
	proxy := s.kubeProxy(node)
	if err := s.Stop(ctx, proxy.Name); err != nil {
		return err
	}
	proxy.Args = append(proxy.Args, args...)
	if err := s.Start(proxy); err != nil {
		return err
	}
	return s.WaitForProxy(ctx, node)
}

// StartProxy starts the kube-proxy of a node again and returns when it is
// healthy.
func (s *Sandbox) StartProxy(ctx context.Context, node string) error {
	if err := s.StartAgain(kubeProxy + "-" + node); err != nil {
		return err
	}
	return s.WaitForProxy(ctx, node)
}

func (s *Sandbox) flushProxyRules(ctx context.Context, node string) error {
	for _, command := range flushCommands(s.state.Config.KubeProxyMode) {
		if _, err := s.Exec(ctx, node, command...); err != nil {
			return fmt.Errorf("flushing the rules of kube-proxy on %s: %w", node, err)
		}
	}
	return nil
}

// flushCommands take away what kube-proxy makes in a mode. The namespace of a
// node has no other rules of iptables.
func flushCommands(mode string) [][]string {
	var commands [][]string
	if mode == "nftables" {
		for _, family := range []string{"ip", "ip6"} {
			table := family + " kube-proxy"
			commands = append(commands, []string{"nft", "add table " + table + "; delete table " + table})
		}
		return commands
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"nat", "filter", "mangle"} {
			for _, action := range []string{"-F", "-X"} {
				commands = append(commands, []string{program, "-w", "-t", table, action})
			}
		}
	}
	return commands
}

// AddSegment makes a second LAN with a leg, eth1, of each host: a switch of its
// own, without a way to the API server or to any other LAN. The hosts have
// 100.65.0.N/24 and 2001:db8:65::N/64, with the N of their addresses on the
// first one. RemoveSegment ends it.
func (s *Sandbox) AddSegment(ctx context.Context, hosts ...string) error {
	if _, err := s.Exec(ctx, lan, "ip", "link", "add", "name", segmentBridge, "up", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"); err != nil {
		return fmt.Errorf("making a second LAN: %w", err)
	}
	for _, host := range hosts {
		number, port := lanNumber(host), segmentPort(host)
		if number == 0 {
			return fmt.Errorf("%s is not a host on the LAN", host)
		}
		batches := []struct {
			host  string
			lines []string
		}{
			{lan, []string{
				fmt.Sprintf("link add name %s type veth peer name eth1 netns %s", port, s.NetnsName(host)),
				fmt.Sprintf("link set %s master %s up", port, segmentBridge),
			}},
			{host, []string{
				"link set eth1 up",
				fmt.Sprintf("addr add 100.65.0.%d/24 dev eth1", number),
				fmt.Sprintf("addr add 2001:db8:65::%d/64 dev eth1 nodad", number),
			}},
		}
		for _, b := range batches {
			if err := ipBatch(ctx, s.NetnsName(b.host), b.lines); err != nil {
				return fmt.Errorf("connecting %s to a second LAN: %w", host, err)
			}
		}
	}
	return nil
}

// RemoveSegment takes away what AddSegment has made, for the same hosts.
func (s *Sandbox) RemoveSegment(ctx context.Context, hosts ...string) error {
	lines := []string{"link del " + segmentBridge}
	for _, host := range hosts {
		lines = append(lines, "link del "+segmentPort(host))
	}
	return ipBatch(ctx, s.NetnsName(lan), lines)
}

// Unplug pulls the cable of a host on the second LAN: eth1 loses its carrier.
// Plug puts it back.
func (s *Sandbox) Unplug(ctx context.Context, host string) error {
	return s.plug(ctx, host, "down")
}

// Plug ends Unplug; without one there is nothing to do.
func (s *Sandbox) Plug(ctx context.Context, host string) error { return s.plug(ctx, host, "up") }

func (s *Sandbox) plug(ctx context.Context, host, state string) error {
	_, err := s.Exec(ctx, lan, "ip", "link", "set", segmentPort(host), state)
	return err
}

// CutSegment parts a host from the others on the second LAN, and every cable
// keeps its carrier. MendSegment ends it.
func (s *Sandbox) CutSegment(ctx context.Context, host string) error {
	rules := []string{"add table bridge cut", "delete table bridge cut", "add table bridge cut",
		"add chain bridge cut forward { type filter hook forward priority 0; policy accept; }"}
	for _, direction := range []string{"iifname", "oifname"} {
		rules = append(rules, fmt.Sprintf("add rule bridge cut forward %s %q drop", direction, segmentPort(host)))
	}
	_, err := s.Exec(ctx, lan, "nft", strings.Join(rules, "; "))
	return err
}

// MendSegment ends CutSegment; without one there is nothing to do.
func (s *Sandbox) MendSegment(ctx context.Context) error {
	_, err := s.Exec(ctx, lan, "nft", "add table bridge cut; delete table bridge cut")
	return err
}

const segmentBridge = "br1"

// segmentPort is the switch's end of a host's cable on the second LAN.
func segmentPort(host string) string { return host + "-1" }

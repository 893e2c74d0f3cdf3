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

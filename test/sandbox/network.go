package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// network is a plan: what to feed to "ip -batch", in this order. The batches of
// hosts are independent of each other.
type network struct {
	namespaces []string
	links      []string
	hosts      map[string][]string
}

// planNetwork lays out a sandbox of so many nodes.
func planNetwork(name string, nodes int) network {
	plan := network{hosts: map[string][]string{}}
	for _, host := range allHosts(nodes) {
		plan.namespaces = append(plan.namespaces, namespaceName(name, host))
	}

	plan.hosts[lan] = []string{
		"link add name br0 type bridge forward_delay 0 mcast_snooping 0",
		"link set br0 up",
	}
	for _, host := range lanHosts(nodes) {
		plan.links = append(plan.links, veth(name, host, "eth0", lan, host))
		plan.hosts[lan] = append(plan.hosts[lan], fmt.Sprintf("link set %s master br0 up", host))
		plan.hosts[host] = lanLines(host)
	}
	plan.links = append(plan.links, veth(name, core, "eth0", router, core))
	plan.hosts[core] = coreLines()
	plan.hosts[router] = append(plan.hosts[router], routerLines()...)
	for n := 1; n <= nodes; n++ {
		plan.links = append(plan.links, veth(name, podHost(n), "eth0", nodeName(n), "pods"))
		plan.hosts[nodeName(n)] = append(plan.hosts[nodeName(n)], nodeLines(n, nodes)...)
		plan.hosts[podHost(n)] = podLines(n)
	}
	return plan
}

func veth(sandbox, hostA, linkA, hostB, linkB string) string {
	return fmt.Sprintf("link add name %s netns %s type veth peer name %s netns %s",
		linkA, namespaceName(sandbox, hostA), linkB, namespaceName(sandbox, hostB))
}

func lanLines(host string) []string {
	v4, v6 := lanAddrs(host)
	lines := []string{
		"link set lo up",
		"link set eth0 up",
		fmt.Sprintf("addr add %s/24 dev eth0", v4),
		fmt.Sprintf("addr add %s/64 dev eth0 nodad", v6),
	}
	if host == router {
		return lines
	}
	gw4, gw6 := lanAddrs(router)
	return append(lines, fmt.Sprintf("route add 0.0.0.0/0 via %s", gw4), fmt.Sprintf("route add ::/0 via %s", gw6))
}

// routerLines gives the router its leg towards the core.
func routerLines() []string {
	v4, v6 := coreAddrs(router)
	return []string{
		"link set core up",
		fmt.Sprintf("addr add %s/24 dev core", v4),
		fmt.Sprintf("addr add %s/64 dev core nodad", v6),
	}
}

// coreLines puts the core behind the router: from there it is one hop to the LAN.
func coreLines() []string {
	v4, v6 := coreAddrs(core)
	gw4, gw6 := coreAddrs(router)
	return []string{
		"link set lo up",
		"link set eth0 up",
		fmt.Sprintf("addr add %s/24 dev eth0", v4),
		fmt.Sprintf("addr add %s/64 dev eth0 nodad", v6),
		fmt.Sprintf("route add 0.0.0.0/0 via %s", gw4),
		fmt.Sprintf("route add ::/0 via %s", gw6),
	}
}

// nodeLines gives node n its side of the pod network, and the way to the pods
// of the other nodes.
func nodeLines(n, nodes int) []string {
	gw4, gw6 := podAddrs(n, 1)
	lines := []string{
		"link set pods up",
		fmt.Sprintf("addr add %s/24 dev pods", gw4),
		fmt.Sprintf("addr add %s/64 dev pods nodad", gw6),
	}
	for other := 1; other <= nodes; other++ {
		if other == n {
			continue
		}
		pods4, pods6 := podCIDRs(other)
		via4, via6 := lanAddrs(nodeName(other))
		lines = append(lines, fmt.Sprintf("route add %s via %s", pods4, via4), fmt.Sprintf("route add %s via %s", pods6, via6))
	}
	return lines
}

func podLines(n int) []string {
	gw4, gw6 := podAddrs(n, 1)
	own4, own6 := podAddrs(n, podHostNumber)
	return []string{
		"link set lo up",
		"link set eth0 up",
		// The routes would go with the last address, so one always stays.
		fmt.Sprintf("addr add %s/32 dev eth0", own4),
		fmt.Sprintf("addr add %s/128 dev eth0 nodad", own6),
		fmt.Sprintf("route add %s dev eth0", gw4),
		fmt.Sprintf("route add %s dev eth0", gw6),
		fmt.Sprintf("route add 0.0.0.0/0 via %s", gw4),
		fmt.Sprintf("route add ::/0 via %s", gw6),
	}
}

// sysctls lists what a host needs before its links are made, which inherit it.
func sysctls(host string) map[string]string {
	settings := map[string]string{
		"ipv6/conf/default/accept_dad": "0",
		"ipv6/conf/default/accept_ra":  "0",
		"ipv4/conf/all/rp_filter":      "0",
		"ipv4/conf/default/rp_filter":  "0",
		// A node that has no rule yet for a load balancer's address sends the
		// packet back to the LAN with a redirect, which would outlive the rule.
		"ipv4/conf/all/accept_redirects":     "0",
		"ipv4/conf/default/accept_redirects": "0",
		"ipv6/conf/all/accept_redirects":     "0",
		"ipv6/conf/default/accept_redirects": "0",
	}
	if host == lan {
		// A switch has no address: without this its ports would speak IPv6.
		settings["ipv6/conf/all/disable_ipv6"] = "1"
		settings["ipv6/conf/default/disable_ipv6"] = "1"
	}
	if isRouter(host) || strings.HasPrefix(host, "node") {
		settings["ipv4/ip_forward"] = "1"
		settings["ipv6/conf/all/forwarding"] = "1"
	}
	if isRouter(host) {
		// Connections are spread over equal routes, not pairs of hosts.
		settings["ipv4/fib_multipath_hash_policy"] = "1"
		settings["ipv6/fib_multipath_hash_policy"] = "1"
	}
	return settings
}

// buildNetwork makes the namespaces, links, addresses and routes.
func (s *Sandbox) buildNetwork(ctx context.Context) error {
	nodes := s.state.Config.Nodes
	plan := planNetwork(s.state.Config.Name, nodes)
	var lines []string
	for _, namespace := range plan.namespaces {
		lines = append(lines, "netns add "+namespace)
	}
	if err := ipBatch(ctx, "", lines); err != nil {
		return fmt.Errorf("making network namespaces: %w", err)
	}
	for _, host := range allHosts(nodes) {
		if err := s.setSysctls(host); err != nil {
			return fmt.Errorf("sysctls of %s: %w", host, err)
		}
	}
	if err := ipBatch(ctx, "", plan.links); err != nil {
		return fmt.Errorf("making links: %w", err)
	}
	var tasks []func() error
	for host, lines := range plan.hosts {
		tasks = append(tasks, func() error {
			if err := ipBatch(ctx, s.NetnsName(host), lines); err != nil {
				return fmt.Errorf("network of %s: %w", host, err)
			}
			return nil
		})
	}
	return together(tasks...)
}

// Link joins two hosts by a cable of their own, which has a name at either end
// and link-local addresses only.
func (s *Sandbox) Link(ctx context.Context, hostA, linkA, hostB, linkB string) error {
	if err := ipBatch(ctx, "", []string{veth(s.Name(), hostA, linkA, hostB, linkB)}); err != nil {
		return fmt.Errorf("joining %s and %s: %w", hostA, hostB, err)
	}
	return errors.Join(
		ipBatch(ctx, s.NetnsName(hostA), []string{"link set " + linkA + " up"}),
		ipBatch(ctx, s.NetnsName(hostB), []string{"link set " + linkB + " up"}),
	)
}

// Unlink takes the cable away, by the name at one of its ends.
func (s *Sandbox) Unlink(ctx context.Context, host, link string) error {
	return ipBatch(ctx, s.NetnsName(host), []string{"link del " + link})
}

func (s *Sandbox) setSysctls(host string) error {
	return s.Do(host, func() error {
		for name, value := range sysctls(host) {
			// /proc/sys/net shows the namespace of the thread that opens it.
			if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeNamespaces deletes the namespaces of a sandbox, also those that no
// record mentions.
func removeNamespaces(ctx context.Context, name string) error {
	namespaces, err := namespacesOf(name)
	if err != nil || len(namespaces) == 0 {
		return err
	}
	var lines []string
	for _, namespace := range namespaces {
		lines = append(lines, "netns del "+namespace)
	}
	return ipBatch(ctx, "", lines)
}

// namespacesOf lists the existing namespaces of a sandbox.
func namespacesOf(name string) ([]string, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, entry := range entries {
		host, ok := strings.CutPrefix(entry.Name(), namespaceName(name, ""))
		// The sandboxes "a" and "a-b" share a prefix; their hosts do not.
		if ok && isHost(host) {
			found = append(found, entry.Name())
		}
	}
	return found, err
}

// ipBatch runs lines of ip(8) in a namespace; "" is the machine itself.
func ipBatch(ctx context.Context, namespace string, lines []string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// together calls the functions at the same time, waits for all of them and
// joins their errors.
func together(tasks ...func() error) error {
	errs := make([]error, len(tasks))
	var group sync.WaitGroup
	for i, task := range tasks {
		group.Go(func() { errs[i] = task() })
	}
	group.Wait()
	return errors.Join(errs...)
}

package sandbox

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// needRouters skips a test that wants FRR and BIRD.
func needRouters(t *testing.T) {
	t.Helper()
	needCluster(t)
	if !exists(frrDir+"/bgpd") || notInstalled("bird") {
		t.Skip("FRR and BIRD are not installed: run hack/deps test")
	}
}

// spread takes what nodes advertise, and spreads connections over them.
const spread = `
router bgp 64513
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as 64512
 bgp listen range 198.51.100.0/24 peer-group NODES
 address-family ipv4 unicast
  maximum-paths 16
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
  maximum-paths 16
 exit-address-family
`

const (
	routed4 = "203.0.113.10"
	routed6 = "2001:db8:100::10"
)

// advertises is the BIRD of a node with two routes.
func advertises(s *Sandbox, node string) string {
	v4, v6 := s.Addrs(node)
	return fmt.Sprintf(`
router id %s;
protocol device {}
protocol static { ipv4; route %s/32 blackhole; }
protocol static { ipv6; route %s/128 blackhole; }
protocol bgp tor {
	local %s as 64512; neighbor 198.51.100.1 as 64513; connect retry time 1; connect delay time 1;
	ipv4 { import none; export all; };
	ipv6 { import none; export all; next hop address %s; };
}`, v4, routed4, routed6, v4, v6)
}

func TestRoutersSpreadConnections(t *testing.T) {
	needRouters(t)
	s := up(t, Config{Name: "t-routers", Nodes: 2})
	startService(t, s)
	_, err := s.Kubectl(t.Context(), "patch", "service", "web", "--subresource=status", "--type=merge", "-p",
		`{"status":{"loadBalancer":{"ingress":[{"ip":"`+routed4+`"},{"ip":"`+routed6+`"}]}}}`)
	must(t, err)
	frr, err := s.StartFRR(t.Context(), "router", spread)
	must(t, err)
	var birds []*BIRD
	for _, node := range s.Nodes() {
		bird, err := s.StartBIRD(t.Context(), node, advertises(s, node))
		must(t, err)
		birds = append(birds, bird)
	}
	for _, addr := range []string{routed4, "[" + routed6 + "]"} {
		must(t, within(t, func(context.Context) error { return fromBoth(t.Context(), s, "http://"+addr+"/") }))
	}

	var table struct {
		Routes map[string][]struct {
			Nexthops []struct{ IP string }
		}
	}
	must(t, frr.Read(t.Context(), "show bgp ipv4 unicast", &table))
	if paths := table.Routes[routed4+"/32"]; len(paths) != 2 {
		t.Errorf("the router has %+v, want two paths to %s", table.Routes, routed4)
	}
	said, err := birds[0].Show(t.Context(), "protocols")
	must(t, err)
	if !strings.Contains(said, "Established") {
		t.Errorf("BIRD says %s", said)
	}

	must(t, birds[0].Stop(t.Context()))
	must(t, within(t, func(context.Context) error {
		out, err := s.Exec(t.Context(), "router", "ip", "route", "show", routed4)
		if err == nil && !strings.Contains(out, "via 198.51.100.32") {
			err = fmt.Errorf("the router has %s", out)
		}
		return err
	}))
	must(t, frr.Stop(t.Context()))
	for _, what := range []string{"nexthop", "route"} {
		out, err := s.Exec(t.Context(), "router", "ip", what, "show")
		must(t, err)
		if what == "nexthop" && out != "" || strings.Contains(out, routed4) {
			t.Errorf("FRR has left this in the kernel: %s", out)
		}
	}
	if _, err := s.StartFRR(t.Context(), "router", "router bgp 64513\n neighbor nobody nothing\n"); err == nil {
		t.Error("a configuration that FRR does not understand is taken")
	}
	_, err = s.StartFRR(t.Context(), "router", spread)
	must(t, err)
	must(t, within(t, func(ctx context.Context) error {
		_, err := s.Get(ctx, "client", "http://"+routed4+"/")
		return err
	}))
}

// fromBoth fails until pods of both nodes have answered.
func fromBoth(ctx context.Context, s *Sandbox, url string) error {
	seen := map[bool]int{}
	for range 30 {
		try, cancel := context.WithTimeout(ctx, time.Second)
		body, err := s.Get(try, "client", url)
		cancel()
		if err != nil {
			return err
		}
		seen[strings.Contains(body, "node=node1")]++
	}
	if len(seen) != 2 {
		return fmt.Errorf("of 30 answers from %s, %d were of node1", url, seen[true])
	}
	return nil
}

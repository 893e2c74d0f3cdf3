package bgp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/internal/netlab"
	"github.com/heraldlb/herald/internal/vtysh"
)

// The tests against routers run in a network namespace of their own, the node: the test binary starts itself again in there.
// Each router is another namespace with a link to the node:
//
//	node tor1 10.0.1.1, fd00:1::1 --- 10.0.1.2, fd00:1::2 eth0 router tor1

const (
	// kind is in the names of the namespaces, and insideNode is their prefix for the test binary in there.
	kind       = "bgptest"
	insideNode = "HERALD_BGPTEST_NODE"
	asChild    = "HERALD_BGPTEST_CHILD"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(asChild); config != "" {
		child(config)
	}
	if os.Getuid() != 0 || os.Getenv(insideNode) != "" {
		os.Exit(m.Run())
	}
	netlab.Sweep(kind)
	if err := inNode(netlab.Prefix(kind)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func inNode(prefix string) error {
	node := prefix + "node"
	if out, err := exec.Command("ip", "netns", "add", node).CombinedOutput(); err != nil {
		return fmt.Errorf("making a namespace: %w: %s", err, out)
	}
	defer exec.Command("ip", "netns", "del", node).Run()
	for _, command := range []string{"ip link set lo up", "sysctl -qw net.ipv6.conf.default.accept_dad=0"} {
		exec.Command("ip", append([]string{"netns", "exec", node}, strings.Fields(command)...)...).Run()
	}
	test := exec.Command("ip", append([]string{"netns", "exec", node}, os.Args...)...)
	test.Env = append(os.Environ(), insideNode+"="+prefix)
	test.Stdin, test.Stdout, test.Stderr = os.Stdin, os.Stdout, os.Stderr
	return test.Run()
}

// lab is a test with routers.
type lab struct{ netlab.Lab }

func newLab(t testing.TB) lab {
	return lab{netlab.Lab{TB: t, Prefix: os.Getenv(insideNode), Patience: time.Minute, Poll: 20 * time.Millisecond}}
}

// place is a router's namespace: the i-th router has 10.0.i.2 and fd00:i::2 on its link to the node.
type place struct {
	lab
	name string
	i    int
}

func (l lab) place(i int) place {
	l.Helper()
	p := place{l, fmt.Sprintf("tor%d", i), i}
	l.Host(p.name)
	p.in("sysctl -qw net.ipv4.conf.all.rp_filter=0")
	l.Here("ip link add " + p.name + " type veth peer name eth0 netns " + l.Full(p.name))
	l.Cleanup(func() { exec.Command("ip", "link", "del", p.name).Run() })
	l.Here("ip link set " + p.name + " up")
	p.in("ip link set eth0 up")
	l.Here("ip addr add " + p.node4().String() + "/24 dev " + p.name)
	l.Here("ip addr add " + p.node6().String() + "/64 dev " + p.name + " nodad")
	p.in("ip addr add " + p.addr4().String() + "/24 dev eth0")
	p.in("ip addr add " + p.addr6().String() + "/64 dev eth0 nodad")
	return p
}

// beyond is a namespace behind the router, 203.0.113.2 and one hop further away.
func (p place) beyond() place {
	p.Helper()
	far := place{p.lab, p.name + "-far", p.i}
	p.Host(far.name)
	p.in("ip link add eth1 type veth peer name eth0 netns " + p.Full(far.name))
	p.in("ip link set eth1 up")
	p.in("ip addr add 203.0.113.1/24 dev eth1")
	p.in("sysctl -qw net.ipv4.ip_forward=1")
	far.in("ip link set eth0 up")
	far.in("ip addr add 203.0.113.2/24 dev eth0")
	far.in("ip route add 10.0.0.0/16 via 203.0.113.1")
	p.Here("ip route add 203.0.113.0/24 via " + p.addr4().String())
	return far
}

func (p place) addr4() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.0.%d.2", p.i)) }
func (p place) node4() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.0.%d.1", p.i)) }
func (p place) addr6() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:%d::2", p.i)) }
func (p place) node6() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:%d::1", p.i)) }

func (p place) in(command string) string {
	p.Helper()
	return p.In(p.name, command)
}

// eventuallyIs waits until a value is the wanted one.
func (l lab) eventuallyIs(what, want string, is func() string) {
	l.Helper()
	var got string
	for start := time.Now(); time.Since(start) < l.Patience; time.Sleep(l.Poll) {
		if got = is(); got == want {
			return
		}
	}
	l.Errorf("%s:\nis   %s\nwant %s", what, got, want)
}

type frr struct {
	place
	*netlab.FRR
}

func (p place) frr(config string) frr {
	p.Helper()
	return frr{p, p.FRR(p.name, "bgpd", config)}
}

// session is what FRR knows of a neighbor.
type session struct {
	State       string `json:"bgpState"`
	UpMs        int    `json:"bgpTimerUpMsec"`
	Established int    `json:"connectionsEstablished"`
	LastReset   string `json:"lastResetDueTo"`
	Reason      string `json:"lastNotificationReason"`
	HoldMs      int    `json:"bgpTimerHoldTimeMsecs"`
}

func (f frr) session(addr string) session {
	var all map[string]session
	json.Unmarshal([]byte(f.Vtysh("show bgp neighbors "+addr+" json")), &all)
	for _, s := range all {
		return s
	}
	return session{}
}

// route is what FRR has in its table, in one line; "" when it has not.
func (f frr) route(prefix string) string {
	var table vtysh.Table
	json.Unmarshal([]byte(f.Vtysh(vtysh.ShowTable(prefix)+" json")), &table)
	var lines []string
	for _, p := range table.Paths {
		lines = append(lines, "via "+p.Via()+" "+p.String())
	}
	return strings.Join(lines, "; ")
}

// running is a Speaker that runs.
type running struct {
	*Speaker
	lab
	stop func()

	mu  sync.Mutex
	log []Status
}

var routerID = netip.MustParseAddr("10.9.9.9")

func (l lab) speaker(peers []Peer, routes []Route, options ...func(*Options)) *running {
	l.Helper()
	r := &running{lab: l}
	o := Options{RouterID: routerID, Notify: func(s Status) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.log = append(r.log, s)
	}}
	for _, option := range options {
		option(&o)
	}
	r.Speaker = New(o)
	r.set(peers, routes)
	l.Cleanup(func() {
		if l.Failed() {
			for _, s := range r.history() {
				l.Logf("%s %s %s %s", s.Since.Format("05.000"), s.Peer, s.State, s.LastError)
			}
		}
	})
	r.stop = l.Running(context.Background(), r.Run)
	return r
}

func (r *running) set(peers []Peer, routes []Route) {
	r.Helper()
	if err := r.Set(peers, routes); err != nil {
		r.Fatal(err)
	}
}

func (r *running) history() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

func (r *running) status(name string) Status {
	for _, s := range r.Statuses() {
		if s.Peer == name {
			return s
		}
	}
	return Status{}
}

func (r *running) established(names ...string) time.Duration {
	r.Helper()
	return r.Eventually(fmt.Sprint(names, " are established"), func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return r.status(name).State != established })
	})
}

// childConfig is what a Speaker in a process of its own is to do, which can be killed.
type childConfig struct {
	Peers      []Peer
	Routes     []Route
	Restarting bool
}

func child(config string) {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	s := New(Options{RouterID: routerID, Restarting: c.Restarting})
	if err := errors.Join(s.Set(c.Peers, c.Routes), s.Run(context.Background())); err != nil {
		panic(err)
	}
}

func (l lab) child(c childConfig) *exec.Cmd {
	l.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		l.Fatal(err)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), asChild+"="+string(config))
	if err := process.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		process.Process.Kill()
		process.Wait()
	})
	return process
}

// peer is in AS 64512, over IPv4. It is quick to try again; what holds a session up for a while, as a busy machine does, ends none.
func (p place) peer(asn uint32, changes ...func(*Peer)) Peer {
	peer := Peer{
		Name: p.name, LocalASN: 64512, PeerASN: asn, Address: p.addr4(), Source: p.node4(),
		HoldTime: time.Minute, KeepaliveTime: time.Second, ConnectRetryTime: time.Second,
	}
	for _, change := range changes {
		change(&peer)
	}
	return peer
}

// frrConfig is a bgpd that has the node for its neighbor, over either family, with more lines for both.
func (p place) frrConfig(asn, nodeASN int, lines ...string) string {
	config := fmt.Sprintf("router bgp %d\n bgp router-id %s\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n", asn, p.addr4())
	neighbors := []string{p.node4().String(), p.node6().String()}
	for _, n := range neighbors {
		config += fmt.Sprintf(" neighbor %s remote-as %d\n neighbor %s timers 1 60\n neighbor %s timers connect 1\n", n, nodeASN, n, n)
		for _, line := range lines {
			config += fmt.Sprintf(" neighbor %s %s\n", n, line)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		config += " address-family " + family + " unicast\n"
		for _, n := range neighbors {
			config += fmt.Sprintf("  neighbor %s activate\n", n)
		}
		config += " exit-address-family\n"
	}
	return config
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func to(n uint32) *uint32          { return &n }

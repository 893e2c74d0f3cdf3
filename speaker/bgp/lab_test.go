package bgp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests against routers run in a network namespace of their own, the node: the test binary starts itself again in there.
// Each router is another namespace with a link to the node:
//
//	node tor1 10.0.1.1, fd00:1::1 --- 10.0.1.2, fd00:1::2 eth0 router tor1
//
// Names have the process's ID in them, so that nothing else is touched.

const (
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
	sweep()
	node := fmt.Sprintf("herald-bgptest-%d-node", os.Getpid())
	if err := inNode(node); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func inNode(node string) error {
	if out, err := exec.Command("ip", "netns", "add", node).CombinedOutput(); err != nil {
		return fmt.Errorf("making a namespace: %w: %s", err, out)
	}
	defer exec.Command("ip", "netns", "del", node).Run()
	for _, command := range []string{"ip link set lo up", "sysctl -qw net.ipv6.conf.default.accept_dad=0"} {
		exec.Command("ip", append([]string{"netns", "exec", node}, strings.Fields(command)...)...).Run()
	}
	test := exec.Command("ip", append([]string{"netns", "exec", node}, os.Args...)...)
	test.Env = append(os.Environ(), insideNode+"="+strings.TrimSuffix(node, "-node"))
	test.Stdin, test.Stdout, test.Stderr = os.Stdin, os.Stdout, os.Stderr
	return test.Run()
}

// sweep deletes the namespaces of test runs that did not live to do it.
func sweep() {
	names, _ := filepath.Glob("/run/netns/herald-bgptest-*")
	for _, name := range names {
		var pid int
		fmt.Sscanf(filepath.Base(name), "herald-bgptest-%d-", &pid)
		if pid > 0 && unix.Kill(pid, 0) != nil {
			exec.Command("ip", "netns", "del", filepath.Base(name)).Run()
		}
	}
}

// lab is a test with routers.
type lab struct{ testing.TB }

func newLab(t testing.TB) lab {
	t.Helper()
	if os.Getenv(insideNode) == "" {
		t.Skip("making network namespaces needs root")
	}
	return lab{t}
}

// place is a router's namespace: the i-th router has 10.0.i.2 and fd00:i::2 on its link to the node.
type place struct {
	lab
	name, netns string
	i           int
}

func (l lab) place(i int) place {
	l.Helper()
	p := place{l, fmt.Sprintf("tor%d", i), fmt.Sprintf("%s-tor%d", os.Getenv(insideNode), i), i}
	l.run("ip", "netns", "add", p.netns)
	l.Cleanup(func() {
		exec.Command("ip", "link", "del", p.name).Run()
		exec.Command("ip", "netns", "del", p.netns).Run()
	})
	p.in("ip link set lo up")
	p.in("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0")
	l.run("ip", "link", "add", p.name, "type", "veth", "peer", "name", "eth0", "netns", p.netns)
	l.run("ip", "link", "set", p.name, "up")
	p.in("ip link set eth0 up")
	l.run("ip", "addr", "add", p.node4().String()+"/24", "dev", p.name)
	l.run("ip", "addr", "add", p.node6().String()+"/64", "dev", p.name, "nodad")
	p.in("ip addr add " + p.addr4().String() + "/24 dev eth0")
	p.in("ip addr add " + p.addr6().String() + "/64 dev eth0 nodad")
	return p
}

// beyond is a namespace behind the router, 203.0.113.2 and one hop further away.
func (p place) beyond() place {
	p.Helper()
	far := place{p.lab, p.name + "-far", p.netns + "-far", p.i}
	p.run("ip", "netns", "add", far.netns)
	p.Cleanup(func() { exec.Command("ip", "netns", "del", far.netns).Run() })
	p.in("ip link add eth1 type veth peer name eth0 netns " + far.netns)
	p.in("ip link set eth1 up")
	p.in("ip addr add 203.0.113.1/24 dev eth1")
	p.in("sysctl -qw net.ipv4.ip_forward=1")
	far.in("ip link set lo up")
	far.in("ip link set eth0 up")
	far.in("ip addr add 203.0.113.2/24 dev eth0")
	far.in("ip route add 10.0.0.0/16 via 203.0.113.1")
	p.run("ip", "route", "add", "203.0.113.0/24", "via", p.addr4().String())
	return far
}

func (p place) addr4() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.0.%d.2", p.i)) }
func (p place) node4() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.0.%d.1", p.i)) }
func (p place) addr6() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:%d::2", p.i)) }
func (p place) node6() netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:%d::1", p.i)) }

func (l lab) run(args ...string) {
	l.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (p place) in(command string) string {
	p.Helper()
	args := append([]string{"netns", "exec", p.netns}, strings.Fields(command)...)
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		p.Fatalf("%s: %s: %v: %s", p.name, command, err, out)
	}
	return string(out)
}

// eventually waits for a condition, and returns how long that took.
func (l lab) eventually(what string, condition func() bool) time.Duration {
	l.Helper()
	start := time.Now()
	for !condition() {
		if time.Since(start) > 20*time.Second {
			l.Fatalf("not in time: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(start)
}

// eventuallyIs waits until a value is the wanted one.
func (l lab) eventuallyIs(what, want string, is func() string) {
	l.Helper()
	var got string
	for start := time.Now(); time.Since(start) < 12*time.Second; time.Sleep(20 * time.Millisecond) {
		if got = is(); got == want {
			return
		}
	}
	l.Errorf("%s:\nis   %s\nwant %s", what, got, want)
}

// daemon is a process in a router's namespace.
type daemon struct {
	place
	command []string
	process *exec.Cmd
	output  lockedBuilder
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (p place) daemon(args ...string) *daemon {
	d := &daemon{place: p, command: append([]string{"ip", "netns", "exec", p.netns}, args...)}
	d.start()
	p.Cleanup(func() {
		d.kill()
		if p.Failed() {
			p.Logf("%s in %s said: %s", args[0], p.name, d.output.String())
		}
	})
	return d
}

func (d *daemon) start() {
	d.process = exec.Command(d.command[0], d.command[1:]...)
	d.process.Stdout, d.process.Stderr = &d.output, &d.output
	if err := d.process.Start(); err != nil {
		d.Fatal(err)
	}
}

// kill is kill -9: nobody is told. "ip netns exec" has become the daemon.
func (d *daemon) kill() {
	if d.process.ProcessState == nil {
		d.process.Process.Kill()
		d.process.Wait()
	}
}

// frr is zebra, which bgpd asks about next hops, and bgpd.
type frr struct {
	place
	dir  string
	bgpd *daemon
}

func (p place) frr(config string) *frr {
	p.Helper()
	const bin = "/usr/lib/frr/"
	if _, err := os.Stat(bin + "bgpd"); err != nil {
		p.Skip("FRR's bgpd is not installed")
	}
	f := &frr{place: p, dir: p.daemonDir("frr")}
	args := func(name, config string) []string {
		conf := filepath.Join(f.dir, name+".conf")
		if err := os.WriteFile(conf, []byte(config), 0o644); err != nil {
			p.Fatal(err)
		}
		return []string{bin + name, "-f", conf, "-i", filepath.Join(f.dir, name+".pid"), "-z", filepath.Join(f.dir, "zserv.api"),
			"--vty_socket", f.dir, "-P", "0", "--log", "stdout"}
	}
	p.daemon(args("zebra", "")...)
	p.eventually("zebra listens", func() bool { _, err := os.Stat(filepath.Join(f.dir, "zserv.api")); return err == nil })
	f.bgpd = p.daemon(args("bgpd", config)...)
	p.eventually("bgpd listens", func() bool { _, err := os.Stat(filepath.Join(f.dir, "bgpd.vty")); return err == nil })
	return f
}

// daemonDir is a folder that a daemon may use after giving up root.
func (l lab) daemonDir(owner string) string {
	dir, err := os.MkdirTemp("", fmt.Sprintf("herald-bgptest-%d-", os.Getpid()))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { os.RemoveAll(dir) })
	u, err := user.Lookup(owner)
	if err != nil {
		l.Skipf("no user %s: %v", owner, err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if g, err := user.LookupGroup(owner + "vty"); err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		l.Fatal(err)
	}
	return dir
}

func (f *frr) vtysh(commands ...string) string {
	args := []string{"--vty_socket", f.dir}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, _ := exec.Command("vtysh", args...).CombinedOutput()
	return string(out)
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

func (f *frr) session(addr string) session {
	var all map[string]session
	json.Unmarshal([]byte(f.vtysh("show bgp neighbors "+addr+" json")), &all)
	for _, s := range all {
		return s
	}
	return session{}
}

// route is what FRR has in its table, in one line; "" when it has not.
func (f *frr) route(prefix string) string {
	family := "ipv4"
	if strings.Contains(prefix, ":") {
		family = "ipv6"
	}
	type text struct{ String string }
	var table struct {
		Paths []struct {
			Valid     bool
			ASPath    text
			Metric    *int
			LocalPref *int `json:"locPrf"`
			Communtiy text `json:"community"`
			Large     text `json:"largeCommunity"`
			Extended  text `json:"extendedCommunity"`
			Stale     bool
			Nexthops  []struct {
				IP   string
				Used bool
			}
		}
	}
	json.Unmarshal([]byte(f.vtysh("show bgp "+family+" unicast "+prefix+" json")), &table)
	var lines []string
	for _, p := range table.Paths {
		var hop string
		for _, n := range p.Nexthops {
			if n.Used || hop == "" {
				hop = n.IP
			}
		}
		line := "via " + hop + " path " + p.ASPath.String
		if p.Metric != nil && *p.Metric != 0 {
			line += fmt.Sprintf(" med %d", *p.Metric)
		}
		if p.LocalPref != nil {
			line += fmt.Sprintf(" pref %d", *p.LocalPref)
		}
		for _, t := range []text{p.Communtiy, p.Large, p.Extended} {
			if t.String != "" {
				line += " [" + t.String + "]"
			}
		}
		if p.Stale {
			line += " stale"
		}
		if !p.Valid {
			line += " invalid"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// bird is BIRD; show asks it.
func (p place) bird(config string) (show func(string) string) {
	p.Helper()
	if _, err := exec.LookPath("bird"); err != nil {
		p.Skip("BIRD is not installed")
	}
	dir := p.TempDir()
	conf, control := filepath.Join(dir, "bird.conf"), filepath.Join(dir, "ctl")
	if err := os.WriteFile(conf, []byte("log stderr all;\nprotocol device {}\n"+config), 0o644); err != nil {
		p.Fatal(err)
	}
	p.daemon("bird", "-f", "-c", conf, "-s", control)
	p.eventually("BIRD listens", func() bool { _, err := os.Stat(control); return err == nil })
	return func(command string) string {
		args := append([]string{"-s", control}, strings.Fields(command)...)
		out, _ := exec.Command("birdc", args...).CombinedOutput()
		return string(out)
	}
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
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.Errorf("Run has returned %v", err)
		}
	})
	l.Cleanup(func() {
		r.stop()
		if l.Failed() {
			for _, s := range r.history() {
				l.Logf("%s %s %s %s", s.Since.Format("05.000"), s.Peer, s.State, s.LastError)
			}
		}
	})
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
	return r.eventually(fmt.Sprint(names, " are established"), func() bool {
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

// peer is a quick one in AS 64512, over IPv4.
func (p place) peer(asn uint32, changes ...func(*Peer)) Peer {
	peer := Peer{
		Name: p.name, LocalASN: 64512, PeerASN: asn, Address: p.addr4(), Source: p.node4(),
		HoldTime: 3 * time.Second, KeepaliveTime: time.Second, ConnectRetryTime: time.Second,
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
		config += fmt.Sprintf(" neighbor %s remote-as %d\n neighbor %s timers 1 3\n neighbor %s timers connect 1\n", n, nodeASN, n, n)
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

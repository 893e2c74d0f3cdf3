package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	vip4 = "198.51.100.130"
	vip6 = "2001:db8:51:0:1::130"
)

// service has an address from no provider but this test.
const service = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: echo, port: 80, targetPort: 8080, protocol: UDP}
`

const serviceStatus = `{"status":{"loadBalancer":{"ingress":[{"ip":"` + vip4 + `"},{"ip":"` + vip6 + `"}]}}}`

// needCluster skips a test that cannot run here, and says why.
func needCluster(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces takes root")
	}
	if err := CheckMachine(false); err != nil {
		t.Fatal(err)
	}
	root, err := findRoot("")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := buildDir(t.Context(), kubernetesSource(root), "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if !exists(dir) {
		t.Skip("Kubernetes is not built, which takes longer than a test may: run herald-sandbox build")
	}
}

func up(t *testing.T, config Config) *Sandbox {
	t.Helper()
	config.WithoutHerald = true
	s, err := Up(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// patience is how long a test waits for what takes milliseconds: the machine may be busy.
const patience = time.Minute

// eventually waits until a URL fetched from a host says all of want.
func eventually(t *testing.T, s *Sandbox, host, url string, want ...string) {
	t.Helper()
	err := within(t, func(ctx context.Context) error {
		body, err := s.Get(ctx, host, url)
		if err != nil {
			return err
		}
		for _, part := range want {
			if !strings.Contains(body, part) {
				return fmt.Errorf("%s from %s: %q lacks %q", url, host, body, part)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// within waits until f succeeds. Each try may take a second.
func within(t *testing.T, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return poll(ctx, 50*time.Millisecond, func() error {
		try, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return f(try)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// routeVIPs leads a host's packets for the load balancer's addresses to a node,
// as a speaker's ARP and NDP would.
func routeVIPs(t *testing.T, s *Sandbox, host, node string) {
	t.Helper()
	v4, v6 := s.Addrs(node)
	must(t, ipBatch(t.Context(), s.NetnsName(host), []string{
		fmt.Sprintf("route replace %s via %s", vip4, v4), fmt.Sprintf("route replace %s via %s", vip6, v6),
	}))
}

func startService(t *testing.T, s *Sandbox) {
	t.Helper()
	for i, node := range s.Nodes() {
		_, err := s.AddPod(t.Context(), Pod{Name: fmt.Sprintf("web-%d", i+1), Labels: map[string]string{"app": "web"}, Node: node})
		must(t, err)
	}
	must(t, s.KubectlApply(t.Context(), service))
	_, err := s.Kubectl(t.Context(), "patch", "service", "web", "--subresource=status", "--type=merge", "-p", serviceStatus)
	must(t, err)
}

func TestCluster(t *testing.T) {
	needCluster(t)
	begin := time.Now()
	s := up(t, Config{Name: "t-cluster", Nodes: 2})
	startService(t, s)
	routeVIPs(t, s, "client", "node1")
	routeVIPs(t, s, "client2", "node2")
	url4, url6 := "http://"+vip4+"/", "http://["+vip6+"]/"

	eventually(t, s, "client", url4, "pod=web-1 node=node1 client=198.51.100.10")
	t.Logf("first answer %.1f s after Up began", time.Since(begin).Seconds())

	t.Run("policy Local keeps the client's address", func(t *testing.T) {
		eventually(t, s, "client", url6, "pod=web-1 node=node1 client=2001:db8:51::10")
		eventually(t, s, "client2", url4, "pod=web-2 node=node2 client=198.51.100.11")
		eventually(t, s, "client2", url6, "pod=web-2 node=node2 client=2001:db8:51::11")
	})
	t.Run("UDP reaches the pod", func(t *testing.T) {
		for _, vip := range []string{vip4, vip6} {
			must(t, within(t, func(ctx context.Context) error { return echoes(ctx, s, vip) }))
		}
	})
	t.Run("a pod in another sandbox is out of reach", func(t *testing.T) {
		other := up(t, Config{Name: "t-cluster-2", Nodes: 1, KubeProxyMode: "iptables"})
		startService(t, other)
		routeVIPs(t, other, "client", "node1")
		eventually(t, other, "client", url4, "client=198.51.100.10")
		must(t, other.KillProxy(t.Context(), "node1"))
		must(t, unanswered(t.Context(), other, url4))
		_, err := other.AddPod(t.Context(), Pod{Name: "only-here", Node: "node1"})
		must(t, err)
		if _, err := s.Kubectl(t.Context(), "get", "pod", "only-here"); err == nil {
			t.Error("a pod of one sandbox is an object in the other")
		}
		eventually(t, s, "client", url4, "pod=web-1")
	})
	t.Run("a pod that is not ready gets no requests", func(t *testing.T) {
		must(t, s.SetPodReady(t.Context(), "default", "web-1", false))
		must(t, within(t, func(ctx context.Context) error { return unanswered(ctx, s, url4) }))
		must(t, s.SetPodReady(t.Context(), "default", "web-1", true))
		eventually(t, s, "client", url4, "pod=web-1")
	})
	t.Run("a terminating pod serves until it is deleted", func(t *testing.T) {
		must(t, s.TerminatePod(t.Context(), "default", "web-1"))
		must(t, within(t, func(context.Context) error { return sliceSays(t, s, `"terminating":true`) }))
		eventually(t, s, "client", url4, "pod=web-1")
		must(t, s.DeletePod(t.Context(), "default", "web-1"))
		must(t, within(t, func(ctx context.Context) error { return unanswered(ctx, s, url4) }))
		pod, err := s.AddPod(t.Context(), Pod{Name: "web-1", Labels: map[string]string{"app": "web"}, Node: "node1"})
		must(t, err)
		if pod.IPv4 != netip.MustParseAddr("10.244.1.2") {
			t.Errorf("the new pod has %s, want the address that is free again", pod.IPv4)
		}
		eventually(t, s, "client", url4, "pod=web-1")
	})
	t.Run("the API server can be restarted", func(t *testing.T) {
		pid := s.PID(apiServer)
		begin := time.Now()
		must(t, s.Restart(t.Context(), apiServer))
		must(t, s.WaitForAPI(t.Context()))
		t.Logf("%.1f s", time.Since(begin).Seconds())
		if now := s.PID(apiServer); now == pid || now == 0 {
			t.Errorf("process %d, was %d", now, pid)
		}
		eventually(t, s, "client", url4, "pod=web-1")
	})
	t.Run("a node without power is gone until it is back", func(t *testing.T) {
		must(t, s.PowerOff(t.Context(), "node1"))
		if s.Running("kube-proxy-node1") || s.Running("pod-default.web-1") {
			t.Error("processes run without power")
		}
		must(t, unanswered(t.Context(), s, url4))
		must(t, s.PowerOn(t.Context(), "node1"))
		must(t, s.WaitForProxy(t.Context(), "node1"))
		eventually(t, s, "client", url4, "pod=web-1")
		eventually(t, s, "client", url6, "pod=web-1")
	})
	t.Run("an isolated node keeps its carrier", func(t *testing.T) {
		must(t, s.Isolate(t.Context(), "node1"))
		must(t, unanswered(t.Context(), s, url4))
		out, err := s.Exec(t.Context(), "node1", "ip", "-o", "link", "show", "eth0")
		if err != nil || !strings.Contains(out, "LOWER_UP") {
			t.Errorf("%s %v", out, err)
		}
		must(t, s.Rejoin(t.Context(), "node1"))
		eventually(t, s, "client", url4, "pod=web-1")
	})
	t.Run("blocked UDP ports are silent and nothing else is", func(t *testing.T) {
		must(t, s.BlockUDP(t.Context(), "node1", 79, 80))
		must(t, s.BlockUDP(t.Context(), "node1", 80, 81)) // replaces the first
		for _, vip := range []string{vip4, vip6} {
			if err := echoes(t.Context(), s, vip); err == nil {
				t.Errorf("%s answers over UDP", vip)
			}
		}
		eventually(t, s, "client", url4, "pod=web-1")
		for range 2 {
			must(t, s.UnblockUDP(t.Context(), "node1"))
		}
		for _, vip := range []string{vip4, vip6} {
			must(t, within(t, func(ctx context.Context) error { return echoes(ctx, s, vip) }))
		}
	})
	t.Run("a killed proxy leaves no rules", func(t *testing.T) {
		must(t, s.KillProxy(t.Context(), "node1"))
		must(t, unanswered(t.Context(), s, url4))
		must(t, unanswered(t.Context(), s, url6))
		must(t, s.StartProxy(t.Context(), "node1"))
		eventually(t, s, "client", url4, "pod=web-1")
	})
	t.Run("neighbours are seen", func(t *testing.T) {
		want, err := s.MAC("node1")
		must(t, err)
		v4, _ := s.Addrs("node1")
		got, err := s.Neighbour(t.Context(), "client", v4)
		if err != nil || got.String() != want.String() {
			t.Errorf("%s %v, want %s", got, err, want)
		}
		got, err = s.Neighbour(t.Context(), "client", netip.MustParseAddr("198.51.100.99"))
		if err != nil || got != nil {
			t.Errorf("%s %v, want none", got, err)
		}
	})
	t.Run("a process can be an ordinary user with capabilities", func(t *testing.T) {
		out, err := s.Run(t.Context(), Process{
			Host: "node1", Args: []string{"grep", "-E", "^(Uid|CapEff)", "/proc/self/status"},
			UID: 65532, GID: 65532, Capabilities: []Capability{CapNetRaw},
		})
		if err != nil || !strings.Contains(out, "65532") || !strings.Contains(out, "0000000000002000") {
			t.Errorf("%s %v", out, err)
		}
	})
	t.Run("a ServiceAccount's kubeconfig has its rights and no more", func(t *testing.T) {
		path, err := s.KubeconfigFor(t.Context(), "node1", "default", "default")
		must(t, err)
		kubectl := s.KubernetesProgram("kubectl")
		out, err := s.Exec(t.Context(), "node1", kubectl, "--kubeconfig", path, "auth", "whoami")
		if err != nil || !strings.Contains(out, "system:serviceaccount:default:default") {
			t.Errorf("%s %v", out, err)
		}
		if _, err := s.Exec(t.Context(), "node1", kubectl, "--kubeconfig", path, "get", "nodes"); err == nil || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("error %v, want forbidden", err)
		}
	})
	t.Run("another process can open it", func(t *testing.T) {
		opened, err := Open("t-cluster")
		must(t, err)
		eventually(t, opened, "client", url4, "pod=web-1")
		if _, err := Up(t.Context(), Config{Name: "t-cluster", WithoutHerald: true}); err == nil || !strings.Contains(err.Error(), "already running") {
			t.Errorf("second Up: %v, want: already running", err)
		}
	})
	t.Run("down leaves nothing", func(t *testing.T) {
		pids, err := s.Processes()
		must(t, err)
		begin := time.Now()
		must(t, s.Down(t.Context()))
		t.Logf("%.1f s", time.Since(begin).Seconds())
		nothingLeft(t, "t-cluster", pids)
	})
}

// sliceSays fails while the EndpointSlices of the service lack a text.
func sliceSays(t *testing.T, s *Sandbox, want string) error {
	answer, err := s.API(t.Context(), http.MethodGet, "/apis/discovery.k8s.io/v1/endpointslices", "", nil)
	if err == nil && !strings.Contains(string(answer), want) {
		return errors.New("no EndpointSlice says " + want)
	}
	return err
}

// echoes sends a datagram to the service and fails if no pod answers.
func echoes(ctx context.Context, s *Sandbox, vip string) error {
	conn, err := s.Dialer("client")(ctx, "udp", netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	if err == nil && !strings.HasPrefix(string(answer[:n]), "pod=web-1 node=node1 client=") {
		return fmt.Errorf("answer %q", answer[:n])
	}
	return err
}

// unanswered fails if a URL is answered within half a second.
func unanswered(ctx context.Context, s *Sandbox, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if body, err := s.Get(ctx, "client", url); err == nil {
		return fmt.Errorf("%s is answered: %s", url, body)
	}
	return nil
}

func nothingLeft(t *testing.T, name string, pids map[string]int) {
	t.Helper()
	if left, err := namespacesOf(name); err != nil || len(left) > 0 {
		t.Errorf("namespaces %v, %v", left, err)
	}
	if dir := filepath.Join(stateDir, name); exists(dir) {
		t.Errorf("%s is still there", dir)
	}
	for process, pid := range pids {
		if stat, err := readStat(pid); pid != 0 && err == nil && !stat.zombie {
			t.Errorf("%s (%d) is still running", process, pid)
		}
	}
	if _, err := Open(name); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Open: %v, want %v", err, ErrNotRunning)
	}
}

// crashAt makes this test binary start a sandbox as a process of its own, which
// is killed as soon as its progress says a text.
func crashAt(t *testing.T, name, text string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStartForCrash$", "-test.v")
	cmd.Env = append(os.Environ(), "HERALD_SANDBOX_CRASH="+name)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		if strings.Contains(scanner.Text(), text) {
			break
		}
	}
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	cmd.Wait()
}

// TestStartForCrash is the process that crashAt kills.
func TestStartForCrash(t *testing.T) {
	name := os.Getenv("HERALD_SANDBOX_CRASH")
	if name == "" {
		t.Skip("part of TestUpAfterCrash")
	}
	if _, err := Up(t.Context(), Config{Name: name, Nodes: 1, WithoutHerald: true, Progress: os.Stdout}); err != nil {
		fmt.Println(err)
	}
	time.Sleep(time.Minute)
}

func TestUpAfterCrash(t *testing.T) {
	needCluster(t)
	const name = "t-crash"
	for _, moment := range []string{"network:", "API server:", "ready in"} {
		t.Run("after "+strings.Trim(moment, ":"), func(t *testing.T) {
			crashAt(t, name, moment)
			left := &Sandbox{dir: filepath.Join(stateDir, name)}
			pids, err := left.Processes()
			must(t, err)
			s := up(t, Config{Name: name, Nodes: 1})
			for process, pid := range pids {
				if stat, err := readStat(pid); pid != 0 && err == nil && !stat.zombie {
					t.Errorf("%s (%d) of the crashed run is still running", process, pid)
				}
			}
			must(t, s.Down(t.Context()))
			nothingLeft(t, name, nil)
		})
	}
}

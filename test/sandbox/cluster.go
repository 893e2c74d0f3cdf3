package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// The processes of the cluster by the names they are recorded under. The proxy
// of node1 is kube-proxy-node1.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	apiForwarder      = "api-forwarder"
	controllerManager = "kube-controller-manager"
	kubeProxy         = "kube-proxy"
)

const proxyHealthPort = 10256

// startControlPlane starts etcd and the API server and returns when the latter
// is ready.
func (s *Sandbox) startControlPlane(ctx context.Context) error {
	if err := s.writeAuditPolicy(); err != nil {
		return err
	}
	for _, p := range []Process{s.etcd(), s.apiServer(), s.apiForwarder()} {
		if err := s.Start(p); err != nil {
			return err
		}
	}
	return s.WaitForAPI(ctx)
}

// startCluster starts what needs the API server: the controllers, the nodes and
// their proxies. It returns when the proxies are healthy.
func (s *Sandbox) startCluster(ctx context.Context) error {
	if err := s.Start(s.controllerManager()); err != nil {
		return err
	}
	var tasks []func() error
	for _, node := range s.Nodes() {
		tasks = append(tasks, func() error { return s.addNode(ctx, node) })
	}
	return together(tasks...)
}

func (s *Sandbox) addNode(ctx context.Context, node string) error {
	if err := s.apply(ctx, "/api/v1/nodes/"+node, nodeObject(node)); err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	if err := s.SetNodeReady(ctx, node, true); err != nil {
		return err
	}
	if err := s.Start(s.kubeProxy(node)); err != nil {
		return err
	}
	return s.WaitForProxy(ctx, node)
}

func (s *Sandbox) etcd() Process {
	return Process{Name: etcd, Host: controlPlane, Args: []string{
		s.KubernetesProgram("etcd"), "--data-dir=" + s.etcdDir(),
	}}
}

func (s *Sandbox) apiServer() Process {
	v4, _ := lanAddrs(controlPlane)
	return Process{Name: apiServer, Host: controlPlane, Args: []string{
		s.KubernetesProgram("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=::",
		fmt.Sprintf("--secure-port=%d", apiServerPort),
		"--advertise-address=" + v4.String(),
		"--endpoint-reconciler-type=master-count",
		"--tls-cert-file=" + s.pki("apiserver.crt"),
		"--tls-private-key-file=" + s.pki("apiserver.key"),
		"--client-ca-file=" + s.pki("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + s.pki("service-account.key"),
		"--service-account-key-file=" + s.pki("service-account.pub"),
		"--service-cluster-ip-range=" + serviceCIDRs,
		"--authorization-mode=Node,RBAC",
		"--audit-policy-file=" + s.auditPolicyPath(),
		"--audit-log-path=" + s.auditLogPath(),
		// No kubelet mounts tokens into pods or reports a node ready.
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--enable-priority-and-fairness=false",
		"--profiling=false",
		// Otherwise stopping waits a minute for clients to close their watches.
		"--shutdown-send-retry-after=true",
	}}
}

// apiForwarder makes the API server reachable from outside its host.
func (s *Sandbox) apiForwarder() Process {
	return Process{Name: apiForwarder, Host: controlPlane, Listen: s.state.API, Args: []string{
		s.state.HostProgram, "forward", "--target", strings.TrimPrefix(lanURL(), "https://"),
	}}
}

func (s *Sandbox) controllerManager() Process {
	kubeconfig := s.kubeconfigPath("kube-controller-manager")
	return Process{Name: controllerManager, Host: controlPlane, Args: []string{
		s.KubernetesProgram("kube-controller-manager"),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--authentication-skip-lookup=true",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + s.pki("service-account.key"),
		"--root-ca-file=" + s.pki("ca.crt"),
		"--bind-address=127.0.0.1",
		"--controllers=" + strings.Join([]string{
			"serviceaccount-token-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller",
			"namespace-controller", "garbage-collector-controller", "endpointslice-controller",
			"endpointslice-mirroring-controller", "endpoints-controller", "clusterrole-aggregation-controller",
			"service-cidr-controller",
		}, ","),
	}}
}

func (s *Sandbox) kubeProxy(node string) Process {
	return Process{Name: kubeProxy + "-" + node, Host: node, Args: []string{
		s.KubernetesProgram("kube-proxy"),
		"--kubeconfig=" + s.kubeconfigPath("kube-proxy"),
		"--hostname-override=" + node,
		"--proxy-mode=" + s.state.Config.KubeProxyMode,
		"--cluster-cidr=" + clusterCIDRs,
		// The kernel's conntrack settings are read-only in a namespace.
		"--conntrack-max-per-core=0",
		"--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
		fmt.Sprintf("--healthz-bind-address=0.0.0.0:%d", proxyHealthPort),
		"--metrics-bind-address=127.0.0.1:10249",
	}}
}

func nodeObject(node string) object {
	pods4, pods6 := podCIDRs(nodeNumber(node))
	return object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": node, "labels": object{
			"kubernetes.io/hostname": node, "kubernetes.io/os": "linux",
		}},
		"spec": object{"podCIDR": pods4.String(), "podCIDRs": []string{pods4.String(), pods6.String()}},
	}
}

// SetNodeReady sets the conditions that a kubelet would report.
func (s *Sandbox) SetNodeReady(ctx context.Context, node string, ready bool) error {
	v4, v6 := lanAddrs(node)
	status := object{"status": object{
		"addresses": []object{
			{"type": "InternalIP", "address": v4.String()},
			{"type": "InternalIP", "address": v6.String()},
			{"type": "Hostname", "address": node},
		},
		"conditions": []object{condition("Ready", ready), condition("NetworkUnavailable", false)},
	}}
	if _, err := s.send(ctx, http.MethodPatch, "/api/v1/nodes/"+node+"/status", MergePatch, status); err != nil {
		return fmt.Errorf("status of node %s: %w", node, err)
	}
	return nil
}

func condition(kind string, value bool) object {
	status := "False"
	if value {
		status = "True"
	}
	now := time.Now().UTC().Format(time.RFC3339)
	return object{"type": kind, "status": status, "reason": "Sandbox", "lastTransitionTime": now}
}

// WaitForAPI waits until the API server is ready, and no longer than ctx.
func (s *Sandbox) WaitForAPI(ctx context.Context) error {
	return s.waitFor(ctx, apiServer, func() error {
		_, err := s.API(ctx, http.MethodGet, "/readyz", "", nil)
		return err
	})
}

// WaitForProxy waits until the kube-proxy of a node is healthy, and no longer
// than ctx.
func (s *Sandbox) WaitForProxy(ctx context.Context, node string) error {
	url := fmt.Sprintf("http://%s/healthz", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), proxyHealthPort))
	return s.waitFor(ctx, kubeProxy+"-"+node, func() error {
		_, err := s.Get(ctx, node, url)
		return err
	})
}

// waitFor waits until ready succeeds, or the process ends, or ctx does.
func (s *Sandbox) waitFor(ctx context.Context, process string, ready func() error) error {
	var ended error
	err := poll(ctx, 50*time.Millisecond, func() error {
		if !s.Running(process) {
			ended = fmt.Errorf("%s ended: %s", process, s.lastLog(process))
			return nil
		}
		return ready()
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", process, err)
	}
	return ended
}

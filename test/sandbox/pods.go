package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultPodPort is where a pod serves when it is not told otherwise, over TCP
// and UDP alike.
const DefaultPodPort = 8080

// Pod is a pod that serves HTTP over TCP, and echoes over UDP; each answer is
//
//	pod=web-1 node=node1 client=198.51.100.10
//
// with the address of the client as the pod sees it.
type Pod struct {
	// Namespace is "default" when empty; it must exist.
	Namespace string
	Name      string
	Labels    map[string]string
	// Node is where it runs.
	Node string
	// TCPPorts and UDPPorts are the ports it serves; DefaultPodPort when empty.
	TCPPorts, UDPPorts []int
	// IPv4 and IPv6 are its addresses, chosen by AddPod.
	IPv4, IPv6 netip.Addr
}

// AddPod makes a pod: its addresses, a process that serves on them, and an
// object in the API that is Ready, so that EndpointSlices name it. It returns
// the pod with its addresses when it serves.
func (s *Sandbox) AddPod(ctx context.Context, pod Pod) (Pod, error) {
	pod = pod.withDefaults()
	if nodeNumber(pod.Node) == 0 || !strings.HasPrefix(pod.Node, "node") || nodeNumber(pod.Node) > s.state.Config.Nodes {
		return pod, fmt.Errorf("pod %s: the sandbox has no node %q", pod.Name, pod.Node)
	}
	pod, err := s.claimPod(ctx, pod)
	if err != nil {
		return pod, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	if err := s.startPod(ctx, pod); err != nil {
		err = fmt.Errorf("pod %s: %w", pod.Name, err)
		return pod, errors.Join(err, s.dropPod(ctx, pod))
	}
	return pod, nil
}

func (p Pod) withDefaults() Pod {
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	if len(p.TCPPorts) == 0 {
		p.TCPPorts = []int{DefaultPodPort}
	}
	if len(p.UDPPorts) == 0 {
		p.UDPPorts = []int{DefaultPodPort}
	}
	return p
}

// claimPod chooses free addresses for a pod and records it with them.
func (s *Sandbox) claimPod(ctx context.Context, pod Pod) (Pod, error) {
	unlock, err := lock(ctx, filepath.Join(s.dir, "pod.lock"), func() {})
	if err != nil {
		return pod, err
	}
	defer unlock()
	pods, err := s.Pods()
	if err != nil {
		return pod, err
	}
	taken := map[netip.Addr]bool{}
	for _, other := range pods {
		taken[other.IPv4] = true
		if other.Namespace == pod.Namespace && other.Name == pod.Name {
			return pod, errors.New("it exists already")
		}
	}
	for number := 2; number < podHostNumber; number++ {
		pod.IPv4, pod.IPv6 = podAddrs(nodeNumber(pod.Node), number)
		if !taken[pod.IPv4] {
			return pod, writeJSON(s.podPath(pod.Namespace, pod.Name), pod)
		}
	}
	return pod, fmt.Errorf("%s has no free pod address", pod.Node)
}

func (s *Sandbox) startPod(ctx context.Context, pod Pod) error {
	if _, err := s.send(ctx, http.MethodPost, podsURL(pod.Namespace), "", podObject(pod)); err != nil {
		return err
	}
	err := ipBatch(ctx, s.NetnsName(pod.host()), []string{
		fmt.Sprintf("addr add %s/32 dev eth0", pod.IPv4),
		fmt.Sprintf("addr add %s/128 dev eth0 nodad", pod.IPv6),
	})
	if err != nil {
		return err
	}
	if err := s.Start(s.podServer(pod)); err != nil {
		return err
	}
	if err := s.waitForPod(ctx, pod); err != nil {
		return err
	}
	return s.SetPodReady(ctx, pod.Namespace, pod.Name, true)
}

func (s *Sandbox) podServer(pod Pod) Process {
	return Process{Name: pod.process(), Host: pod.host(), Args: []string{
		s.state.HostProgram, "pod", "--name", pod.Name, "--node", pod.Node,
		"--addresses", pod.IPv4.String() + "," + pod.IPv6.String(),
		"--tcp", joinInts(pod.TCPPorts), "--udp", joinInts(pod.UDPPorts),
	}}
}

// waitForPod waits until the pod's process accepts connections.
func (s *Sandbox) waitForPod(ctx context.Context, pod Pod) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return s.waitFor(ctx, pod.process(), func() error {
		conn, err := s.Dialer(pod.host())(ctx, "tcp", netip.AddrPortFrom(pod.IPv6, uint16(pod.TCPPorts[0])).String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// SetPodReady sets what a kubelet would report of a pod. One that is not ready
// serves on all the same.
func (s *Sandbox) SetPodReady(ctx context.Context, namespace, name string, ready bool) error {
	pod, err := s.pod(namespace, name)
	if err != nil {
		return err
	}
	v4, v6 := lanAddrs(pod.Node)
	now := time.Now().UTC().Format(time.RFC3339)
	status := object{"status": object{
		"phase": "Running", "startTime": now,
		"hostIP": v4.String(), "hostIPs": []object{{"ip": v4.String()}, {"ip": v6.String()}},
		"podIP": pod.IPv4.String(), "podIPs": []object{{"ip": pod.IPv4.String()}, {"ip": pod.IPv6.String()}},
		"containerStatuses": []object{{
			"name": "server", "image": "sandbox", "imageID": "", "restartCount": 0, "ready": ready, "started": true,
			"state": object{"running": object{"startedAt": now}},
		}},
		"conditions": []object{condition("Ready", ready), condition("ContainersReady", ready), condition("PodScheduled", true)},
	}}
	_, err = s.send(ctx, http.MethodPatch, podsURL(namespace)+"/"+name+"/status", MergePatch, status)
	return err
}

// TerminatePod begins the graceful deletion of a pod: it is terminating, and
// serves on until DeletePod.
func (s *Sandbox) TerminatePod(ctx context.Context, namespace, name string) error {
	if _, err := s.pod(namespace, name); err != nil {
		return err
	}
	_, err := s.API(ctx, http.MethodDelete, podsURL(namespace)+"/"+name+"?gracePeriodSeconds=3600", "", nil)
	return err
}

// DeletePod ends a pod: object, process and addresses.
func (s *Sandbox) DeletePod(ctx context.Context, namespace, name string) error {
	pod, err := s.pod(namespace, name)
	if err != nil {
		return err
	}
	return s.dropPod(ctx, pod)
}

// dropPod takes away as much of a pod as there is.
func (s *Sandbox) dropPod(ctx context.Context, pod Pod) error {
	var errs []error
	_, err := s.API(ctx, http.MethodDelete, podsURL(pod.Namespace)+"/"+pod.Name+"?gracePeriodSeconds=0", "", nil)
	if err != nil && !notFound(err) {
		errs = append(errs, err)
	}
	if err := s.Kill(ctx, pod.process()); err != nil && !errors.Is(err, ErrNoProcess) {
		errs = append(errs, err)
	}
	s.forget(pod.process())
	for _, addr := range []netip.Addr{pod.IPv4, pod.IPv6} {
		// A failure means that it was never added, or went with its host.
		ipBatch(ctx, s.NetnsName(pod.host()), []string{fmt.Sprintf("addr del %s/%d dev eth0", addr, addr.BitLen())})
	}
	return errors.Join(append(errs, os.Remove(s.podPath(pod.Namespace, pod.Name)))...)
}

// Pods lists the pods made by AddPod.
func (s *Sandbox) Pods() ([]Pod, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "pod", "*.json"))
	if err != nil {
		return nil, err
	}
	var pods []Pod
	for _, path := range paths {
		var pod Pod
		if err := readJSON(path, &pod); err != nil {
			return nil, err
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

func (s *Sandbox) pod(namespace, name string) (Pod, error) {
	var pod Pod
	if err := readJSON(s.podPath(namespace, name), &pod); err != nil {
		return pod, fmt.Errorf("the sandbox has no pod %s/%s: %w", namespace, name, err)
	}
	return pod, nil
}

func (s *Sandbox) podPath(namespace, name string) string {
	return filepath.Join(s.dir, "pod", namespace+"."+name+".json")
}

// process is the name of the process that serves for the pod.
func (p Pod) process() string { return "pod-" + p.Namespace + "." + p.Name }

// host is where that process runs: the pods of a node share a host.
func (p Pod) host() string { return podHost(nodeNumber(p.Node)) }

func podsURL(namespace string) string { return "/api/v1/namespaces/" + namespace + "/pods" }

func podObject(pod Pod) object {
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": pod.Name, "labels": pod.Labels},
		"spec": object{
			"nodeName":                     pod.Node,
			"automountServiceAccountToken": false,
			"containers":                   []object{{"name": "server", "image": "sandbox"}},
		},
	}
}

func joinInts(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}

// Package sandbox runs a small real Kubernetes on one Linux machine: etcd,
// kube-apiserver, kube-controller-manager and one kube-proxy per node, in
// network namespaces joined by a bridge. Clients, nodes and pods are hosts of
// their own, so a load balancer in it is met the way a LAN meets it.
//
// It needs root and a handful of Debian packages, no container runtime and no
// images. It imports the standard library only: whoever tests with it does not
// inherit the dependencies of Kubernetes.
//
// The hosts, each a namespace herald-<name>-<host>:
//
//	lan                       the switch
//	router, router2           198.51.100.1…   2001:db8:51::1…
//	core                      100.64.0.2      2001:db8:64::2    one hop behind the router
//	client, client2           198.51.100.10…  2001:db8:51::10…
//	cp                        198.51.100.20   2001:db8:51::20   the control plane
//	node1, node2…             198.51.100.31…  2001:db8:51::31…
//	pod1, pod2…               10.244.N.0/24   fd00:244:N::/64   the pods of node N
//
// Addresses from 198.51.100.128/25 and 2001:db8:51:0:1::/80 are on the LAN and
// free for load balancers. The router is the default gateway of all; FRR and BIRD
// run on a router when [Sandbox.StartFRR] or [Sandbox.StartBIRD] is called, and its
// kernel then spreads connections over equal routes. No scheduler and no kubelet runs: pods are made by
// [Sandbox.AddPod].
package sandbox

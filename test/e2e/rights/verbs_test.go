//go:build rights

package rights

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

// right is one verb on one resource that a Role or ClusterRole of ours grants to a ServiceAccount.
type right struct {
	account, role, namespace string // namespace is that of a Role; "" for a ClusterRole
	group, resource, verb    string
	name                     string // of a rule with resourceNames
}

func (r right) String() string {
	text := fmt.Sprintf("%s: %s %s", r.account, r.verb, r.resource)
	if r.group != "" {
		text += "." + r.group
	}
	if r.name != "" {
		text += "/" + r.name
	}
	if r.namespace != "" {
		text += " in " + r.namespace
	}
	return text
}

// lacks reports whether a request was refused for want of this right.
func (r right) lacks(q sandbox.Request) bool {
	resource, subresource, _ := strings.Cut(r.resource, "/")
	return q.Account == r.account && q.Group == r.group && q.Verb == r.verb && q.Resource == resource && q.Subresource == subresource &&
		(r.namespace == "" || q.Namespace == r.namespace) && (r.name == "" || q.Name == r.name)
}

// policyRules is a Role or ClusterRole.
type policyRules struct {
	account, name, namespace string
	rules                    []rbacv1.PolicyRule
}

// roles are ours, by the ServiceAccounts that have them.
func roles(t *testing.T) []policyRules {
	t.Helper()
	var all []policyRules
	ctx, rbac := t.Context(), admin.kube.RbacV1()
	account := func(subjects []rbacv1.Subject) string {
		if len(subjects) == 1 && subjects[0].Namespace == namespace {
			return subjects[0].Name
		}
		return ""
	}
	clusterwide, err := rbac.ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	must(t, err)
	for _, b := range clusterwide.Items {
		if name := account(b.Subjects); name != "" && strings.HasPrefix(b.RoleRef.Name, "herald-") {
			role, err := rbac.ClusterRoles().Get(ctx, b.RoleRef.Name, metav1.GetOptions{})
			must(t, err)
			all = append(all, policyRules{name, role.Name, "", role.Rules})
		}
	}
	inNamespaces, err := rbac.RoleBindings("").List(ctx, metav1.ListOptions{})
	must(t, err)
	for _, b := range inNamespaces.Items {
		if name := account(b.Subjects); name != "" && strings.HasPrefix(b.RoleRef.Name, "herald-") {
			role, err := rbac.Roles(b.Namespace).Get(ctx, b.RoleRef.Name, metav1.GetOptions{})
			must(t, err)
			all = append(all, policyRules{name, role.Name, role.Namespace, role.Rules})
		}
	}
	return all
}

// rights takes a role apart.
func (p policyRules) rights() []right {
	var all []right
	for _, rule := range p.rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					for _, name := range names {
						all = append(all, right{p.account, p.name, p.namespace, group, resource, verb, name})
					}
				}
			}
		}
	}
	return all
}

// without is the role without one right.
func (p policyRules) without(r right) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, other := range p.rights() {
		if other == r {
			continue
		}
		rule := rbacv1.PolicyRule{APIGroups: []string{other.group}, Resources: []string{other.resource}, Verbs: []string{other.verb}}
		if other.name != "" {
			rule.ResourceNames = []string{other.name}
		}
		rules = append(rules, rule)
	}
	return rules
}

// grant writes the rules of a role.
func (p policyRules) grant(ctx context.Context, rules []rbacv1.PolicyRule) error {
	if p.namespace == "" {
		role, err := admin.kube.RbacV1().ClusterRoles().Get(ctx, p.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		role.Rules = rules
		_, err = admin.kube.RbacV1().ClusterRoles().Update(ctx, role, metav1.UpdateOptions{})
		return err
	}
	role, err := admin.kube.RbacV1().Roles(p.namespace).Get(ctx, p.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	role.Rules = rules
	_, err = admin.kube.RbacV1().Roles(p.namespace).Update(ctx, role, metav1.UpdateOptions{})
	return err
}

// TestEachRightIsNeeded takes each verb of each resource away in turn, runs through a scenario, and wants to see a refusal
// for want of just that. RIGHTS chooses some of them by a part of their text.
func TestEachRightIsNeeded(t *testing.T) {
	s := newScenario(t)
	counted, needless := 0, []string{}
	for _, p := range roles(t) {
		for _, r := range p.rights() {
			if !strings.Contains(r.String(), os.Getenv("RIGHTS")) {
				continue
			}
			counted++
			must(t, p.grant(t.Context(), p.without(r)))
			refusal, after := s.lacking(r)
			must(t, p.grant(t.Context(), p.rules))
			if refusal == nil {
				needless = append(needless, r.String())
				t.Errorf("%s: nothing fails without it", r)
				continue
			}
			t.Logf("%s: refused after %v: %s", r, after.Round(time.Millisecond), refusal.Message)
		}
	}
	if counted == 0 {
		t.Error("there are no rights")
	}
	t.Logf("%d rights, %d of them needless", counted, len(needless))
}

// scenario is what uses every right: Herald starts, and lives through what happens in a cluster.
type scenario struct {
	*testing.T
	router       *sandbox.FRR
	round, edits int
}

// router is a router that takes all nodes for neighbors.
func router(t *testing.T) *sandbox.FRR {
	t.Helper()
	address, _ := box.Addrs("router")
	frr, err := box.StartFRR(t.Context(), "router", `
router bgp 64513
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as 64512
 bgp listen range 198.51.100.0/24 peer-group NODES
exit
`)
	must(t, err)
	t.Cleanup(func() { must(t, frr.Stop(context.Background())) })
	asn := int64(64513)
	_, err = admin.herald.BGPPeers.Create(t.Context(), &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: "router"}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerASN: &asn, Address: address.String()},
	}, metav1.CreateOptions{})
	must(t, err)
	return frr
}

func newScenario(t *testing.T) *scenario {
	t.Helper()
	// The API server shows which list is refused only to a client that asks for lists.
	t.Setenv("KUBE_FEATURE_WatchListClient", "false")
	ctx := t.Context()
	for _, pool := range []*v1alpha1.AddressPool{
		{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"198.51.100.128/30"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "routed"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/28"}}},
	} {
		_, err := admin.herald.AddressPools.Create(ctx, pool, metav1.CreateOptions{})
		must(t, err)
	}
	asn := int64(64513)
	for i, name := range []string{"tor", "other"} {
		peer := &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerASN: &asn, Address: fmt.Sprintf("198.51.100.%d", 240+i)}}
		if i == 1 {
			peer.Spec.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: "herald-bgp"}
		}
		_, err := admin.herald.BGPPeers.Create(ctx, peer, metav1.CreateOptions{})
		must(t, err)
	}
	_, err := admin.herald.Advertisements.Create(ctx, &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: "fabric"},
		Spec:       v1alpha1.AdvertisementSpec{Pools: []string{"routed"}, BGP: &v1alpha1.BGPAdvertisement{}},
	}, metav1.CreateOptions{})
	must(t, err)
	s := &scenario{T: t, router: router(t)}
	must(t, box.StartHerald(ctx))
	for {
		if speaker, err := admin.herald.Speakers.Get(ctx, lost, metav1.GetOptions{}); err == nil && len(speaker.Status.Conditions) > 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	must(t, box.Kill(ctx, "speaker-"+lost))
	return s
}

// lost is the node whose speaker is dead.
const lost = "node2"

// revive says of the dead speaker that it runs, which the controller takes back.
func (s *scenario) revive(ctx context.Context) {
	speaker, err := admin.herald.Speakers.Get(ctx, lost, metav1.GetOptions{})
	if err != nil {
		return
	}
	meta.SetStatusCondition(&speaker.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Running)})
	_, _ = admin.herald.Speakers.UpdateStatus(ctx, speaker, metav1.UpdateOptions{})
}

// lacking runs through the scenario until a right is missed, and says how long that took.
func (s *scenario) lacking(r right) (*sandbox.Request, time.Duration) {
	s.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(s.Context(), 40*time.Second)
	defer cancel()
	s.restart(r.account)
	go s.stir(ctx)
	for ctx.Err() == nil {
		s.live(ctx)
		for range 10 {
			refused, err := box.Refused(start)
			must(s.T, err)
			if i := slices.IndexFunc(refused, r.lacks); i >= 0 {
				return &refused[i], time.Since(start)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil, 0
}

// stir writes VirtualIPs all the time, so that what others write is refused as too old now and then.
func (s *scenario) stir(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		vips, err := admin.herald.VirtualIPs.List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		for i := range vips.Items {
			edit := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/stir":"%d"}}}`, n)
			_, _ = admin.herald.VirtualIPs.Patch(ctx, vips.Items[i].Name, types.MergePatchType, edit, metav1.PatchOptions{})
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// restart has the programs of a ServiceAccount ask for everything anew, also for what there is no more.
func (s *scenario) restart(account string) {
	s.Helper()
	ctx := s.Context()
	// Seldom, as the controller gives sessions time after an edit.
	s.edits++
	selector := fmt.Appendf(nil, `{"spec":{"nodeSelector":{"matchLabels":{"kubernetes.io/hostname":"node%d"}}}}`, 1+s.edits%2)
	_, err := admin.herald.BGPPeers.Patch(ctx, "tor", types.MergePatchType, selector, metav1.PatchOptions{})
	must(s.T, err)
	processes := []string{"controller"}
	if account == "herald-speaker" {
		processes = []string{"speaker-node1"}
		must(s.T, ignore(admin.kube.CoordinationV1().Leases(namespace).Delete(ctx, "node1", metav1.DeleteOptions{})))
		must(s.T, ignore(admin.herald.Speakers.Delete(ctx, "node1", metav1.DeleteOptions{})))
	} else {
		must(s.T, ignore(admin.kube.CoreV1().Secrets(namespace).Delete(ctx, v1alpha1.BFDSecret, metav1.DeleteOptions{})))
		must(s.T, ignore(admin.kube.CoordinationV1().Leases(namespace).Delete(ctx, "herald-controller-manager", metav1.DeleteOptions{})))
	}
	for _, process := range processes {
		if box.Running(process) {
			must(s.T, box.Kill(ctx, process))
		}
		must(s.T, box.StartAgain(process))
	}
}

func ignore(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// live has Services come, change and go, by ARP and by BGP, with one too many and one that asks for what it cannot have.
func (s *scenario) live(ctx context.Context) {
	s.round++
	services := admin.kube.CoreV1().Services("default")
	old, err := services.List(ctx, metav1.ListOptions{LabelSelector: "rights"})
	if err != nil {
		return
	}
	for _, service := range old.Items {
		_ = services.Delete(ctx, service.Name, metav1.DeleteOptions{})
	}
	local := corev1.ServiceExternalTrafficPolicyLocal
	for i, annotations := range []map[string]string{
		{"heraldlb.io/pool": "small"}, {"heraldlb.io/pool": "routed"}, {"heraldlb.io/addresses": "192.0.2.77"},
		{"heraldlb.io/pool": "small", "heraldlb.io/share": "x"}, {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"},
	} {
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("r%d-%d", s.round, i), Labels: map[string]string{"rights": ""}, Annotations: annotations},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: local, Ports: []corev1.ServicePort{{Port: int32(80 + i)}},
				AllocateLoadBalancerNodePorts: ptr.To(true),
			},
		}
		if i%2 == 0 {
			service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		}
		if _, err := services.Create(ctx, service, metav1.CreateOptions{}); err == nil {
			s.serve(ctx, service.Name)
		}
	}
	s.edit(ctx)
	s.revive(ctx)
	_, _ = s.router.Show(ctx, "clear bgp *") // sessions end and come back
	// The same is told twice, which is counted in the event.
	for _, value := range []string{`null`, `"192.0.2.77"`} {
		time.Sleep(300 * time.Millisecond)
		edit := fmt.Appendf(nil, `{"metadata":{"annotations":{"heraldlb.io/addresses":%s}}}`, value)
		_, _ = services.Patch(ctx, fmt.Sprintf("r%d-2", s.round), types.MergePatchType, edit, metav1.PatchOptions{})
	}
}

// serve gives a Service an endpoint on each node.
func (s *scenario) serve(ctx context.Context, service string) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for i, node := range box.Nodes() {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.%d.2", i+1)}, NodeName: ptr.To(node), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	_, _ = admin.kube.DiscoveryV1().EndpointSlices("default").Create(ctx, slice, metav1.CreateOptions{})
}

// edit changes what has a status that is written anew, and takes objects away that Herald makes again.
func (s *scenario) edit(ctx context.Context) {
	patch := func(format string, args ...any) []byte { return fmt.Appendf(nil, format, args...) }
	wants := patch(`{"spec":{"addresses":["198.51.100.128/30","198.51.100.%d/32"]}}`, 140+s.round%50)
	_, _ = admin.herald.AddressPools.Patch(ctx, "small", types.MergePatchType, wants, metav1.PatchOptions{})
	_, _ = admin.herald.Advertisements.Patch(ctx, "fabric", types.MergePatchType, patch(`{"spec":{"bgp":{"localPreference":%d}}}`, 100+s.round), metav1.PatchOptions{})
}

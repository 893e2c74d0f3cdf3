package rights

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Writes here are dry runs, which go through RBAC and admission as others do.
var (
	creating = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	updating = metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}
	patching = metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
	deleting = metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
)

// attempt is something that the speaker of node1 tries with its token.
type attempt struct {
	name string
	do   func(ctx context.Context, c clients) error
	// fine says that it is the speaker's to do.
	fine bool
	// policy is what the admission policy answers a speaker that RBAC allows everything; empty when the policy has no say.
	policy string
}

const otherLease, otherSpeaker = "the Lease of its own node only", "the Speaker of its own node only"

func lease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.SpeakerLabel: ""}}}
}

func speaker(name string) *v1alpha1.Speaker {
	return &v1alpha1.Speaker{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// leases are what a speaker may do to Leases, and what not.
func leases() []attempt {
	update := func(in, name string) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			now, err := admin.kube.CoordinationV1().Leases(in).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			holder := "attacker"
			now.Spec.HolderIdentity = &holder
			_, err = c.kube.CoordinationV1().Leases(in).Update(ctx, now, updating)
			return err
		}
	}
	create := func(in, name string) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			_, err := c.kube.CoordinationV1().Leases(in).Create(ctx, lease(name), creating)
			return err
		}
	}
	patch := func(kind types.PatchType, name string) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			_, err := c.kube.CoordinationV1().Leases(namespace).Patch(ctx, name, kind, []byte(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","spec":{"holderIdentity":"x"}}`), patchOptions(kind))
			return err
		}
	}
	return []attempt{
		{name: "read its own Lease", fine: true, do: func(ctx context.Context, c clients) error {
			_, err := c.kube.CoordinationV1().Leases(namespace).Get(ctx, "node1", metav1.GetOptions{})
			return err
		}},
		{name: "renew its own Lease", fine: true, do: update(namespace, "node1")},
		{name: "create its own Lease", fine: true, do: func(ctx context.Context, c clients) error {
			return alreadyThere(create(namespace, "node1")(ctx, c))
		}},
		{name: "renew another node's Lease", do: update(namespace, "node2"), policy: otherLease},
		{name: "create another node's Lease", do: create(namespace, "node3"), policy: otherLease},
		{name: "take the leader's Lease", do: update(namespace, "herald-controller-manager"), policy: otherLease},
		{name: "patch the leader's Lease", do: patch(types.MergePatchType, "herald-controller-manager"), policy: otherLease},
		{name: "apply another node's Lease", do: patch(types.ApplyPatchType, "node2"), policy: otherLease},
		{name: "write the kubelet's Lease", do: update("kube-node-lease", "node1"), policy: otherLease},
		{name: "create a Lease in another namespace", do: create("default", "node1"), policy: otherLease},
		{name: "create a Lease of a made-up name", policy: otherLease, do: func(ctx context.Context, c clients) error {
			made := lease("")
			made.GenerateName = "node"
			_, err := c.kube.CoordinationV1().Leases(namespace).Create(ctx, made, creating)
			return err
		}},
		{name: "delete another node's Lease", policy: otherLease, do: func(ctx context.Context, c clients) error {
			return c.kube.CoordinationV1().Leases(namespace).Delete(ctx, "node2", deleting)
		}},
		{name: "delete all Leases", policy: otherLease, do: func(ctx context.Context, c clients) error {
			return c.kube.CoordinationV1().Leases(namespace).DeleteCollection(ctx, deleting, metav1.ListOptions{})
		}},
	}
}

// speakers are what a speaker may do to Speakers, and what not.
func speakers() []attempt {
	status := func(name string) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			now, err := admin.herald.Speakers.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			now.Status = v1alpha1.SpeakerStatus{Interfaces: []v1alpha1.SpeakerInterface{{Name: "eth0", MAC: "02:00:00:00:00:66"}}}
			_, err = c.herald.Speakers.UpdateStatus(ctx, now, updating)
			return err
		}
	}
	update := func(name string) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			now, err := admin.herald.Speakers.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			now.Labels = map[string]string{"a": "b"}
			_, err = c.herald.Speakers.Update(ctx, now, updating)
			return err
		}
	}
	return []attempt{
		{name: "read its own Speaker", fine: true, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.Speakers.Get(ctx, "node1", metav1.GetOptions{})
			return err
		}},
		{name: "say what it does in its own Speaker", fine: true, do: status("node1")},
		{name: "create its own Speaker", fine: true, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.Speakers.Create(ctx, speaker("node1"), creating)
			return alreadyThere(err)
		}},
		{name: "write another node's Speaker", do: status("node2"), policy: otherSpeaker},
		{name: "write the labels of another node's Speaker", do: update("node2"), policy: otherSpeaker},
		{name: "create another node's Speaker", policy: otherSpeaker, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.Speakers.Create(ctx, speaker("node3"), creating)
			return err
		}},
		{name: "patch the status of another node's Speaker", policy: otherSpeaker, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.Speakers.Patch(ctx, "node2", types.MergePatchType, []byte(`{"status":{"announcing":7}}`), patching, "status")
			return err
		}},
		{name: "delete another node's Speaker", policy: otherSpeaker, do: func(ctx context.Context, c clients) error {
			return c.herald.Speakers.Delete(ctx, "node2", deleting)
		}},
		{name: "delete all Speakers", policy: otherSpeaker, do: func(ctx context.Context, c clients) error {
			return c.herald.Speakers.DeleteCollection(ctx, deleting, metav1.ListOptions{})
		}},
	}
}

// elsewhere are writes and reads of what is no speaker's.
func elsewhere() []attempt {
	const no = "may not write"
	vip := &v1alpha1.VirtualIP{ObjectMeta: metav1.ObjectMeta{Name: "192.0.2.1"}, Spec: v1alpha1.VirtualIPSpec{Address: "192.0.2.1"}}
	secret := func(name string) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			only := metav1.ListOptions{}
			if name != "" {
				only.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
			}
			_, err := c.kube.CoreV1().Secrets(namespace).List(ctx, only)
			return err
		}
	}
	return []attempt{
		{name: "create a VirtualIP", policy: no, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.VirtualIPs.Create(ctx, vip, creating)
			return err
		}},
		{name: "write the candidates of a VirtualIP", policy: no, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.VirtualIPs.Patch(ctx, "192.0.2.10", types.MergePatchType, []byte(`{"spec":{"l2":{"candidates":["node1"]}}}`), patching)
			return err
		}},
		{name: "delete a VirtualIP", policy: no, do: func(ctx context.Context, c clients) error {
			return c.herald.VirtualIPs.Delete(ctx, "192.0.2.10", deleting)
		}},
		{name: "delete all VirtualIPs", policy: no, do: func(ctx context.Context, c clients) error {
			return c.herald.VirtualIPs.DeleteCollection(ctx, deleting, metav1.ListOptions{})
		}},
		{name: "create a pool", policy: no, do: func(ctx context.Context, c clients) error {
			_, err := c.herald.AddressPools.Create(ctx, &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"192.0.2.0/24"}}}, creating)
			return err
		}},
		{name: "create a BGPPeer", policy: no, do: func(ctx context.Context, c clients) error {
			asn := int64(64513)
			_, err := c.herald.BGPPeers.Create(ctx, &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerASN: &asn, Address: "192.0.2.1"}}, creating)
			return err
		}},
		{name: "read the key of the speakers", do: secret(v1alpha1.BFDSecret), fine: true},
		{name: "read the passwords of routers", do: secret("herald-bgp"), fine: true},
		{name: "read another Secret", do: secret("tls")},
		{name: "list all Secrets", do: secret("")},
		{name: "get a Secret by its name", do: func(ctx context.Context, c clients) error {
			_, err := c.kube.CoreV1().Secrets("kube-system").Get(ctx, "x", metav1.GetOptions{})
			return err
		}},
		{name: "read Services", do: func(ctx context.Context, c clients) error {
			_, err := c.kube.CoreV1().Services("").List(ctx, metav1.ListOptions{})
			return err
		}},
		{name: "write its Node", do: func(ctx context.Context, c clients) error {
			_, err := c.kube.CoreV1().Nodes().Patch(ctx, "node1", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), patching)
			return err
		}},
		{name: "ask for a token", do: func(ctx context.Context, c clients) error {
			_, err := c.kube.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, creating)
			return err
		}},
	}
}

// events are what a speaker may say in events, and what not.
func events() []attempt {
	of := func(change func(*corev1.Event)) func(context.Context, clients) error {
		return func(ctx context.Context, c clients) error {
			e := &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Name: "tor.1", Namespace: "default"},
				InvolvedObject: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BGPPeer", Name: "tor"},
				Source:         corev1.EventSource{Component: "herald-speaker", Host: "node1"},
				Reason:         "SessionLost", Message: "x", Type: corev1.EventTypeWarning,
			}
			change(e)
			_, err := c.kube.CoreV1().Events(e.Namespace).Create(ctx, e, creating)
			return err
		}
	}
	const source, on = "whose source is herald-speaker on that node", "only events on BGPPeers"
	return []attempt{
		{name: "an event on a BGPPeer", fine: true, do: of(func(*corev1.Event) {})},
		{name: "an event of another speaker", policy: source, do: of(func(e *corev1.Event) { e.Source.Host = "node2" })},
		{name: "an event of the controller", policy: source, do: of(func(e *corev1.Event) { e.Source.Component = "herald-controller-manager" })},
		{name: "an event of nobody", policy: source, do: of(func(e *corev1.Event) { e.Source = corev1.EventSource{} })},
		{name: "an event on a Node", policy: on, do: of(func(e *corev1.Event) {
			e.InvolvedObject = corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "node2"}
		})},
		{name: "a very long event", policy: "up to 1024 characters", do: of(func(e *corev1.Event) { e.Message = strings.Repeat("x", 1025) })},
		{name: "a change of another's event", policy: source, do: func(ctx context.Context, c clients) error {
			_, err := c.kube.CoreV1().Events("default").Patch(ctx, "others.1", types.StrategicMergePatchType, []byte(`{"source":{"component":"herald-speaker","host":"node1"}}`), patching)
			return err
		}},
	}
}

// verdicts are writes of the status of a VirtualIP, by who owned it, who may, and who would own it then.
func verdicts() []attempt {
	var all []attempt
	for _, c := range []struct {
		before, candidates, after string
		fine                      bool
	}{
		{"", "node1 node2", "node1", true},
		{"", "node1 node2", "", true}, // a candidate that says why not
		{"", "node1", "node2", false},
		{"", "node2", "node1", false},
		{"", "node2", "", false},
		{"", "", "node1", false},
		{"", "", "", false},
		{"node1", "node1 node2", "node1", true},
		{"node1", "node1 node2", "", true},
		{"node1", "node2", "node1", true}, // it does not know yet
		{"node1", "node2", "", true},
		{"node1", "", "", true},
		{"node1", "node1 node2", "node2", false},
		{"node2", "node1 node2", "node1", true},
		{"node2", "node1 node2", "", false},
		{"node2", "node1 node2", "node2", false},
		{"node2", "node2", "node1", false},
		{"node2", "node2", "node2", false},
		{"node2", "", "", false},
		{"node3", "node1", "node1", true},
	} {
		do := func(ctx context.Context, user clients) error {
			return changeOwner(ctx, user, c.before, c.candidates, c.after)
		}
		a := attempt{name: fmt.Sprintf("owner %q, candidates %q, becomes %q", c.before, c.candidates, c.after), do: do, fine: c.fine}
		if !c.fine {
			a.policy = "may not write the status of VirtualIP 192.0.2.10"
		}
		all = append(all, a)
	}
	return append(all, attempt{name: "merge a conflict into another's VirtualIP", policy: "may not write the status", do: func(ctx context.Context, c clients) error {
		if err := prepare(ctx, "node2", "node1 node2"); err != nil {
			return err
		}
		_, err := c.herald.VirtualIPs.Patch(ctx, "192.0.2.10", types.MergePatchType, []byte(`{"status":{"conditions":[]}}`), patching, "status")
		return err
	}})
}

// prepare gives the VirtualIP an owner and candidates.
func prepare(ctx context.Context, owner, candidates string) error {
	vip, err := admin.herald.VirtualIPs.Get(ctx, "192.0.2.10", metav1.GetOptions{})
	if err != nil {
		return err
	}
	vip.Spec.L2 = nil
	if candidates != "" {
		vip.Spec.L2 = &v1alpha1.L2Placement{Candidates: strings.Fields(candidates)}
	}
	vip, err = admin.herald.VirtualIPs.Update(ctx, vip, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	vip.Status = v1alpha1.VirtualIPStatus{Owner: owner}
	_, err = admin.herald.VirtualIPs.UpdateStatus(ctx, vip, metav1.UpdateOptions{})
	return err
}

func changeOwner(ctx context.Context, user clients, before, candidates, after string) error {
	if err := prepare(ctx, before, candidates); err != nil {
		return err
	}
	vip, err := admin.herald.VirtualIPs.Get(ctx, "192.0.2.10", metav1.GetOptions{})
	if err != nil {
		return err
	}
	vip.Status = v1alpha1.VirtualIPStatus{Owner: after, Conditions: []metav1.Condition{{
		Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: "Conflict", LastTransitionTime: metav1.Now(),
	}}}
	vip.Spec.L2 = &v1alpha1.L2Placement{Candidates: []string{"node1"}} // which a write of the status does not change
	_, err = user.herald.VirtualIPs.UpdateStatus(ctx, vip, updating)
	return err
}

func patchOptions(kind types.PatchType) metav1.PatchOptions {
	options := patching
	if kind == types.ApplyPatchType {
		force := true
		options.FieldManager, options.Force = "attacker", &force
	}
	return options
}

// alreadyThere takes an object that exists for one that could be made.
func alreadyThere(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func attempts() map[string][]attempt {
	return map[string][]attempt{"Leases": leases(), "Speakers": speakers(), "VirtualIPs": verdicts(), "events": events(), "elsewhere": elsewhere()}
}

// objects are what the attempts are about.
func objects(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for _, name := range []string{"node1", "node2", "herald-controller-manager"} {
		_, err := admin.kube.CoordinationV1().Leases(namespace).Create(ctx, lease(name), metav1.CreateOptions{})
		must(t, alreadyThere(err))
	}
	_, err := admin.kube.CoordinationV1().Leases("kube-node-lease").Create(ctx, lease("node1"), metav1.CreateOptions{})
	must(t, alreadyThere(err))
	for _, name := range []string{"node1", "node2"} {
		_, err := admin.herald.Speakers.Create(ctx, speaker(name), metav1.CreateOptions{})
		must(t, alreadyThere(err))
	}
	vip := &v1alpha1.VirtualIP{ObjectMeta: metav1.ObjectMeta{Name: "192.0.2.10"}, Spec: v1alpha1.VirtualIPSpec{Address: "192.0.2.10"}}
	_, err = admin.herald.VirtualIPs.Create(ctx, vip, metav1.CreateOptions{})
	must(t, alreadyThere(err))
	_, err = admin.kube.CoreV1().Events("default").Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "others.1"},
		InvolvedObject: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BGPPeer", Name: "tor"},
		Source:         corev1.EventSource{Component: "herald-speaker", Host: "node2"},
	}, metav1.CreateOptions{})
	must(t, alreadyThere(err))
}

// inForce waits until the API server goes by the policies and the rights.
func inForce(t *testing.T, c clients) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		_, err := c.herald.Speakers.Create(t.Context(), speaker("node9"), creating)
		_, eventErr := c.kube.CoreV1().Events("default").Create(t.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, creating)
		if denied(err, "") == nil && denied(eventErr, "ValidatingAdmissionPolicy") == nil {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("the policies are not in force: %v; %v", err, eventErr)
		}
	}
}

// denied says what is wrong when an answer is not a refusal with the given words.
func denied(err error, words string) error {
	switch {
	case err == nil:
		return errors.New("it is allowed")
	case !apierrors.IsForbidden(err), !strings.Contains(err.Error(), words):
		return fmt.Errorf("it is answered with: %w", err)
	}
	return nil
}

func TestASpeakersTokenIsGoodForItsOwnNodesObjects(t *testing.T) {
	objects(t)
	node1 := speakerOn(t, "node1")
	inForce(t, node1)
	for kind, all := range attempts() {
		for _, a := range all {
			err := a.do(t.Context(), node1)
			if a.fine && err != nil {
				t.Errorf("%s: %s: %v", kind, a.name, err)
			}
			if problem := denied(err, ""); !a.fine && problem != nil {
				t.Errorf("%s: %s: %v", kind, a.name, problem)
			}
		}
	}
}

// The policies hold without RBAC: a right that is granted by mistake opens nothing of another node.
func TestThePolicyAloneBindsASpeakerToItsNode(t *testing.T) {
	objects(t)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "too-much"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "herald-speaker", Namespace: namespace}},
	}
	_, err := admin.kube.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{})
	must(t, err)
	defer func() {
		must(t, admin.kube.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{}))
	}()
	node1 := speakerOn(t, "node1")
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if _, err := node1.kube.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err == nil {
			break
		}
	}
	inForce(t, node1)
	for kind, all := range attempts() {
		for _, a := range all {
			err := a.do(t.Context(), node1)
			if a.fine && err != nil {
				t.Errorf("%s: %s: %v", kind, a.name, err)
			}
			if a.policy == "" {
				continue
			}
			if problem := denied(err, a.policy); problem != nil {
				t.Errorf("%s: %s: want %q, but %v", kind, a.name, a.policy, problem)
			}
		}
	}
}

// A token that names no node, as all did before, writes nothing at all.
func TestATokenWithoutANodeWritesNothing(t *testing.T) {
	objects(t)
	inForce(t, speakerOn(t, "node1"))
	unbound := nowhere(t)
	for kind, all := range attempts() {
		for _, a := range all {
			if strings.HasPrefix(a.name, "read ") || strings.HasPrefix(a.name, "create its own ") {
				continue
			}
			if problem := denied(a.do(t.Context(), unbound), ""); problem != nil {
				t.Errorf("%s: %s: %v", kind, a.name, problem)
			}
		}
	}
	_, err := unbound.herald.Speakers.Create(t.Context(), speaker("node4"), creating)
	if problem := denied(err, "this one names no node"); problem != nil {
		t.Error("a new Speaker:", problem)
	}
}

// The policies are about speakers: others' Leases are not looked at.
func TestOthersAreNotBoundByThePolicy(t *testing.T) {
	objects(t)
	for _, a := range []attempt{leases()[3], leases()[5], speakers()[3], verdicts()[4]} {
		if err := a.do(t.Context(), admin); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}

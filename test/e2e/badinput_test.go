package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

func TestAPIServerRefusesBrokenObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ name, manifest, want string }{
		{"no addresses", `{"kind": "AddressPool", "spec": {"addresses": []}}`, "spec.addresses"},
		{"two dashes", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.7-203.0.113.8-203.0.113.9"]}}`, "a prefix such as 203.0.113.0/24"},
		{"prefix too long", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/33"]}}`, "a prefix such as 203.0.113.0/24"},
		{"words", `{"kind": "AddressPool", "spec": {"addresses": ["some"]}}`, "a prefix such as 203.0.113.0/24"},
		{"band", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "staticBand": "Half"}}`, "staticBand must be Auto, None or a number"},
		{"band below zero", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "staticBand": -1}}`, "staticBand must be Auto, None or a number"},
		{"band beyond 32 bits", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "staticBand": 4294967296}}`, "staticBand must be Auto, None or a number"},
		{"scope", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "scope": "Public"}}`, `"External", "Internal"`},
		{"ipMode of an announced pool", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "ipMode": "Proxy"}}`, `announce: None`},
		{"announce", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "announce": "Never"}}`, `"Auto", "None"`},
		{"ipMode", `{"kind": "AddressPool", "spec": {"addresses": ["203.0.113.0/24"], "ipMode": "vip"}}`, `"VIP", "Proxy"`},
		{"name of another address", `{"kind": "VirtualIP", "spec": {"address": "203.0.113.7"}}`, "the name must be the address"},
		{"neither L2 nor BGP", `{"kind": "Advertisement", "spec": {"pools": ["a"]}}`, "an Advertisement needs l2, bgp or both"},
		{"pools and selector", `{"kind": "Advertisement", "spec": {"pools": ["a"], "poolSelector": {}, "l2": {}}}`, "pools and poolSelector exclude each other"},
		{"community", `{"kind": "Advertisement", "spec": {"bgp": {"communities": ["many"]}}}`, "each community must be 64512:100"},
		{"no address of a peer", `{"kind": "BGPPeer", "spec": {"localASN": 64512, "peerASN": 64513}}`, "exactly one of address, interface and defaultGateway"},
		{"ASN 0", `{"kind": "BGPPeer", "spec": {"localASN": 0, "peerASN": 64513, "address": "198.51.100.1"}}`, "spec.localASN"},
		{"hold time", `{"kind": "BGPPeer", "spec": {"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "holdTime": "1s"}}`, "holdTime must be whole seconds such as 90s, from 3s"},
	} {
		manifest := strings.Replace(c.manifest, "{", `{"apiVersion": "heraldlb.io/v1alpha1", "metadata": {"name": "`+w.namespace+`"}, `, 1)
		err := box.KubectlApply(w.ctx, manifest)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		if err := has(err.Error(), c.want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// condition waits until the Ready condition that get returns is False for the
// reason, with the words in its message.
func (w *world) condition(what string, reason v1alpha1.Reason, get func() ([]metav1.Condition, error), words ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("%s says %s", what, reason), func() error {
		conditions, err := get()
		w.must(err)
		condition := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
		if condition == nil || condition.Reason != string(reason) || condition.Status == metav1.ConditionTrue {
			return fmt.Errorf("condition %+v", condition)
		}
		return has(condition.Message, words...)
	})
}

func (w *world) poolSays(name string, reason v1alpha1.Reason, words ...string) {
	w.Helper()
	w.condition("AddressPool "+name, reason, func() ([]metav1.Condition, error) {
		pool, err := herald.AddressPools.Get(w.ctx, name, metav1.GetOptions{})
		return pool.Status.Conditions, err
	}, words...)
}

func TestBrokenPoolIsToldOnThePoolAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.v4.Addr().String() + "/28"
	// The range is backwards: the CRD cannot see that.
	backwards := w.v4.Addr().Next().String() + "-" + w.v4.Addr().String()
	pool := w.pool("broken", nil, backwards, good)
	w.poolSays(pool.Name, v1alpha1.InvalidRange, "spec.addresses", backwards)
	w.told("AddressPool", pool.Name, v1alpha1.InvalidRange)
	w.service("web", nil)
	w.address("web")

	younger := w.pool("younger", nil, good)
	w.poolSays(younger.Name, v1alpha1.Overlap, pool.Name)

	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Addresses = []string{good} })
	w.eventually("the mended pool is Ready", func() error {
		now, err := herald.AddressPools.Get(w.ctx, pool.Name, metav1.GetOptions{})
		w.must(err)
		if !meta.IsStatusConditionTrue(now.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("conditions %+v", now.Status.Conditions)
		}
		return nil
	})
}

func TestBrokenAdvertisementIsToldOnItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	advert, err := herald.Advertisements.Create(w.ctx, &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: v1alpha1.AdvertisementSpec{
			Pools:        []string{w.namespace + "-missing"},
			NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like", Values: []string{"b"}}}},
			L2:           &v1alpha1.L2Advertisement{Interfaces: []string{"eth["}},
		},
	}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		if err := herald.Advertisements.Delete(t.Context(), advert.Name, metav1.DeleteOptions{}); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	w.condition("Advertisement "+advert.Name, v1alpha1.InvalidSelector, func() ([]metav1.Condition, error) {
		now, err := herald.Advertisements.Get(w.ctx, advert.Name, metav1.GetOptions{})
		return now.Status.Conditions, err
	}, "spec.nodeSelector", w.namespace+"-missing", "eth[")
	w.told("Advertisement", advert.Name, v1alpha1.InvalidSelector)
	w.must(herald.Advertisements.Delete(w.ctx, advert.Name, metav1.DeleteOptions{}))
}

func TestBrokenAnnotationIsToldOnTheService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.service("web", annotated("heraldlb.io/addresses", "203.0.113.300"))
	w.refused("web", v1alpha1.InvalidAddress, "heraldlb.io/addresses", "203.0.113.300", "want")
	w.service("other", nil)
	w.address("other")
	w.annotate("web", "heraldlb.io/addresses", "")
	w.address("web")
}

func TestSpeakerThatCannotWorkSaysWhyInOneLine(t *testing.T) {
	w := newWorld(t)
	kubeconfig, err := box.KubeconfigFor(w.ctx, "node1", "herald-system", "herald-speaker")
	w.must(err)
	program := box.Config().BinDir + "/herald-speaker"
	for _, c := range []struct {
		name         string
		args         []string
		capabilities []sandbox.Capability
		want         string
	}{
		{"without CAP_NET_RAW", []string{"--node-name=node1", "--kubeconfig=" + kubeconfig}, nil, "CAP_NET_RAW"},
		{"without its Node", []string{"--node-name=nobody", "--kubeconfig=" + kubeconfig}, []sandbox.Capability{sandbox.CapNetRaw}, `no Node "nobody"`},
		{"without a node's name", []string{"--kubeconfig=" + kubeconfig}, []sandbox.Capability{sandbox.CapNetRaw}, "--node-name"},
		{"with an unreadable kubeconfig", []string{"--node-name=node1", "--kubeconfig=/nowhere"}, []sandbox.Capability{sandbox.CapNetRaw}, "/nowhere"},
		{"with an unknown flag", []string{"--speed=11"}, []sandbox.Capability{sandbox.CapNetRaw}, "--speed"},
	} {
		process := sandbox.Process{
			Name: "speaker-bad", Host: "node1", Capabilities: c.capabilities,
			Args: append([]string{program, "--metrics-bind-address=127.0.0.1:7999"}, c.args...),
		}
		if c.capabilities == nil {
			process.UID, process.GID = 65532, 65532
			process.Args = slices.DeleteFunc(process.Args, func(a string) bool { return strings.HasPrefix(a, "--kubeconfig") })
			process.Args = append(process.Args, "--kubeconfig="+readableCopy(t, kubeconfig))
		}
		out, err := box.Run(w.ctx, process)
		if err == nil {
			t.Errorf("%s: exits with 0:\n%s", c.name, out)
			continue
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if last := lines[len(lines)-1]; len(lines) != 1 || !strings.HasPrefix(last, "Error: ") || !strings.Contains(last, c.want) {
			t.Errorf("%s: want one line with %q, got:\n%s", c.name, c.want, out)
		}
	}
}

// readableCopy is a copy of a file that every user can read.
func readableCopy(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.CreateTemp("", "herald-e2e-kubeconfig-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file.Name()) })
	_, err = file.Write(text)
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

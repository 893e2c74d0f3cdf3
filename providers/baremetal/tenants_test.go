package baremetal

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// game is two tenants who edit their Services as they like.
type game struct {
	*world
	rnd  *rand.Rand
	stop func()
	// put is what the tenants have written last, by Service.
	written map[string]*corev1.Service
}

var players = []string{"alice", "bob"}

// board is all that can be seen between two edits.
type board struct {
	services map[string]*corev1.Service
	// holder is the Service with the oldest claim of each address, claims are the Services on it.
	holder map[string]string
	claims map[string][]string
	events int
}

func (g *game) look() board {
	g.Helper()
	b := board{map[string]*corev1.Service{}, map[string]string{}, map[string][]string{}, len(g.events.all())}
	for _, namespace := range players {
		services, err := g.kube.CoreV1().Services(namespace).List(g.ctx, metav1.ListOptions{})
		must(g.world, err)
		for i := range services.Items {
			b.services[namespace+"/"+services.Items[i].Name] = &services.Items[i]
		}
	}
	list, err := g.herald.VirtualIPs.List(g.ctx, metav1.ListOptions{})
	must(g.world, err)
	for i := range list.Items {
		v := &list.Items[i]
		claims := slices.SortedFunc(slices.Values(v.Spec.Claims), func(x, y v1alpha1.Claim) int {
			if x.Since == nil || y.Since == nil {
				g.Fatalf("a claim on %s does not say since when", v.Name)
			}
			return cmp.Or(x.Since.Compare(y.Since.Time), strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name))
		})
		for _, c := range claims {
			b.claims[v.Spec.Address] = append(b.claims[v.Spec.Address], c.Namespace+"/"+c.Name)
		}
		if len(claims) > 0 {
			b.holder[v.Spec.Address] = b.claims[v.Spec.Address][0]
		}
	}
	return b
}

// on are the addresses that a Service has and shows.
func (b *board) on(service string) (addresses []string) {
	s := b.services[service]
	if s == nil {
		return nil
	}
	for _, addr := range shownBy(s) {
		if slices.Contains(b.claims[addr.String()], service) {
			addresses = append(addresses, addr.String())
		}
	}
	return addresses
}

// lacking reports whether a Service is told that it does not have what it asks for.
func (b *board) lacking(service string) bool {
	condition := meta.FindStatusCondition(b.services[service].Status.Conditions, v1alpha1.ServiceReady)
	if condition == nil || condition.Status == metav1.ConditionTrue {
		return condition == nil
	}
	return condition.Reason != string(v1alpha1.Announcing) && condition.Reason != string(v1alpha1.NoReadyEndpoints)
}

func (b *board) String() string {
	var lines []string
	for _, addr := range slices.Sorted(maps.Keys(b.claims)) {
		lines = append(lines, fmt.Sprintf("%s: %v", addr, b.claims[addr]))
	}
	for _, name := range slices.Sorted(maps.Keys(b.services)) {
		s := b.services[name]
		lines = append(lines, fmt.Sprintf("%s: %s; ports %v, %s, families %v, %v: %s", name, tell(s), portsOf(s), s.Spec.ExternalTrafficPolicy, s.Spec.IPFamilies, s.Annotations, message(s)))
	}
	return strings.Join(lines, "\n")
}

// lasting is what a restart does not change: all but the words for a Service that lacks something. Of several things in its way
// it is told one, and not told anew when that is another one.
func (b *board) lasting() string {
	lines := fmt.Sprint(b.claims)
	for _, name := range slices.Sorted(maps.Keys(b.services)) {
		lines += fmt.Sprintf("\n%s: %v %t", name, b.on(name), b.lacking(name))
		if !b.lacking(name) {
			lines += message(b.services[name])
		}
	}
	return lines
}

func portsOf(s *corev1.Service) (ports []string) {
	for _, p := range s.Spec.Ports {
		ports = append(ports, strconv.Itoa(int(p.Port)))
	}
	return ports
}

// edit is one edit of one tenant; it returns whose Service it was.
func (g *game) edit() (service string) {
	namespace, name := players[g.rnd.IntN(2)], []string{"x", "y"}[g.rnd.IntN(2)]
	service = namespace + "/" + name
	if g.written[service] != nil && g.rnd.IntN(6) == 0 {
		must(g.world, g.kube.CoreV1().Services(namespace).Delete(g.ctx, name, metav1.DeleteOptions{}))
		delete(g.written, service)
		return service
	}
	s := g.written[service]
	if s == nil || g.rnd.IntN(3) == 0 {
		s = g.drawn(namespace, name)
	} else { // one thing about it
		s = s.DeepCopy()
		fresh := g.drawn(namespace, name)
		switch g.rnd.IntN(6) {
		case 0:
			s.Spec.Ports = fresh.Spec.Ports
		case 1:
			s.Spec.ExternalTrafficPolicy, s.Spec.Selector = fresh.Spec.ExternalTrafficPolicy, fresh.Spec.Selector
		case 2:
			s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = fresh.Spec.IPFamilies, fresh.Spec.IPFamilyPolicy
		default:
			annotation := []string{share, consent, asks}[g.rnd.IntN(3)]
			delete(s.Annotations, annotation)
			if value, ok := fresh.Annotations[annotation]; ok {
				s.Annotations[annotation] = value
			}
		}
	}
	g.written[service] = s
	g.put(s)
	return service
}

// drawn is any Service. What one tenant writes can be told from what the other does, but for keys and ports, on which they
// have to agree to share.
func (g *game) drawn(namespace, name string) *corev1.Service {
	s := of(namespace, name, []int32{7101, 7102, 7103, 7104}[g.rnd.IntN(4)])
	if g.rnd.IntN(4) == 0 {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "more", Protocol: "TCP", Port: 7105})
	}
	if g.rnd.IntN(4) > 0 {
		s.Annotations[share] = []string{"sesame", "secret"}[g.rnd.IntN(4)/3]
	}
	if g.rnd.IntN(3) > 0 {
		other := players[1-slices.Index(players, namespace)]
		s.Annotations[consent] = []string{other, "*", "nobody-" + namespace}[g.rnd.IntN(4)*2/3]
	}
	if g.rnd.IntN(4) == 0 {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.Selector = set{"app": "same"}
	}
	n := g.rnd.IntN(3)
	single, dual := corev1.IPFamilyPolicySingleStack, []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicyPreferDualStack}[g.rnd.IntN(2)]
	s.Spec.IPFamilyPolicy = &single
	switch g.rnd.IntN(4) {
	case 0, 1:
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &dual, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	case 2:
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	}
	var asked []string
	for _, family := range s.Spec.IPFamilies {
		if g.rnd.IntN(3) == 0 {
			asked = append(asked, fmt.Sprintf(map[corev1.IPFamily]string{corev1.IPv4Protocol: "10.0.0.%d", corev1.IPv6Protocol: "2001:db8::%d"}[family], 1+n))
		}
	}
	if len(asked) > 0 {
		s.Annotations[asks] = strings.Join(asked, ",")
	}
	return s
}

// silent checks that nothing of one tenant is in what the other gets.
func (g *game) silent(before, now *board) {
	g.Helper()
	secrets := map[string]map[string]bool{}
	for _, namespace := range players {
		secrets[namespace] = map[string]bool{"nobody-" + namespace: true, namespace: true, "sesame": true, "secret": true}
	}
	for _, b := range []*board{before, now} {
		for name, s := range b.services {
			for _, port := range portsOf(s) {
				secrets[strings.Split(name, "/")[0]][port] = true
			}
		}
	}
	check := func(namespace, what, said string) {
		g.Helper()
		own, others := secrets[namespace], secrets[players[1-slices.Index(players, namespace)]]
		for word := range others {
			if keys := word == "sesame" || word == "secret"; (keys || !own[word]) && strings.Contains(said, word) {
				g.Fatalf("%s of %s tells of %q: %s", what, namespace, word, said)
			}
		}
	}
	for name, s := range now.services {
		namespace := strings.Split(name, "/")[0]
		for _, condition := range s.Status.Conditions {
			check(namespace, "condition "+condition.Type, condition.Message)
		}
		if want := g.written[name]; want == nil || !maps.Equal(s.Annotations, want.Annotations) {
			g.Fatalf("%s has the annotations %v", name, s.Annotations)
		}
	}
	lines := g.events.all()
	for i, line := range lines[before.events:] {
		if namespace := g.events.space(before.events + i); namespace != "" {
			check(namespace, "an event", line)
		}
	}
}

func commonPort(a, b *corev1.Service) bool {
	return slices.ContainsFunc(portsOf(a), func(port string) bool { return slices.Contains(portsOf(b), port) })
}

// together reports whether two Services may share an address, by what they ask for.
func together(a, b *corev1.Service) bool {
	if a.Annotations[share] == "" || a.Annotations[share] != b.Annotations[share] || commonPort(a, b) {
		return false
	}
	names := func(s *corev1.Service, namespace string) bool {
		return s.Annotations[consent] == "*" || s.Annotations[consent] == namespace
	}
	if a.Namespace != b.Namespace && (!names(a, b.Namespace) || !names(b, a.Namespace)) {
		return false
	}
	return !isLocal(a) && !isLocal(b) || a.Namespace == b.Namespace && maps.Equal(a.Spec.Selector, b.Spec.Selector)
}

// lawful checks that no two Services show one address who may not share it.
func (g *game) lawful(now *board) {
	g.Helper()
	for addr, claims := range now.claims {
		for i, one := range claims {
			for _, two := range claims[:i] {
				a, b := now.services[one], now.services[two]
				if a == nil || b == nil || !slices.Contains(now.on(one), addr) || !slices.Contains(now.on(two), addr) {
					g.Fatalf("%s: %s and %s have it and do not show it\n%s", addr, one, two, now)
				}
				// Services of one namespace that had a key in common may stay when they have it no more.
				if commonPort(a, b) || a.Namespace != b.Namespace && !together(a, b) {
					g.Fatalf("%s and %s share %s\n%s", one, two, addr, now)
				}
			}
		}
	}
}

// judge checks that nobody moved by an edit who should not have.
func (g *game) judge(before, now *board, editor string) {
	g.Helper()
	for service := range before.services {
		if service == editor {
			continue
		}
		for _, addr := range before.on(service) {
			if slices.Contains(now.on(service), addr) || g.waited(before, now, service, addr) {
				continue
			}
			holder := before.holder[addr]
			if holder != service && before.lacking(service) && !now.lacking(service) && !together(before.services[service], before.services[holder]) {
				continue // it had to leave, and had nowhere to go until now
			}
			if holder == service || holder != editor {
				g.Fatalf("%s left %s by an edit of %s; the holder was %s\nbefore:\n%s\nnow:\n%s\n%s", service, addr, editor, holder, before, now, g.since(before))
			}
			for _, name := range []string{service, holder} {
				if now.services[name] != nil && !g.told(before, name, v1alpha1.SharingEnded) {
					g.Fatalf("%s left %s, of its holder %s, by an edit of %s, and %s was not told\nbefore:\n%s\nnow:\n%s\n%s",
						service, addr, holder, editor, name, before, now, g.since(before))
				}
			}
		}
	}
}

// waited reports whether a Service left an address as it got all that it had asked for in vain so far. Its own edit has moved
// it then, from an address that it did not ask for any more.
func (g *game) waited(before, now *board, service, addr string) bool {
	if !before.lacking(service) || now.lacking(service) {
		return false
	}
	replaced := false // by one that it asked for
	for _, asked := range strings.Split(before.services[service].Annotations[asks], ",") {
		other, err := netip.ParseAddr(asked)
		if err == nil && other.Is4() == netip.MustParseAddr(addr).Is4() && asked != addr {
			replaced = true
		}
	}
	family := corev1.IPv4Protocol
	if netip.MustParseAddr(addr).Is6() {
		family = corev1.IPv6Protocol
	}
	return replaced || !slices.Contains(before.services[service].Spec.IPFamilies, family)
}

func (g *game) told(before *board, service string, reason v1alpha1.Reason) bool {
	namespace, name, _ := strings.Cut(service, "/")
	for i, line := range g.events.all()[before.events:] {
		if g.events.space(before.events+i) == namespace && strings.HasPrefix(line, name+" ") && strings.Contains(line, " "+string(reason)+":") {
			return true
		}
	}
	return false
}

func (g *game) since(before *board) string {
	var lines []string
	for i, line := range g.events.all()[before.events:] {
		lines = append(lines, g.events.space(before.events+i)+"/"+line)
	}
	return strings.Join(lines, "\n")
}

// space is the namespace of the object that an event is on.
func (e *events) space(i int) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.spaces[i]
}

// restart starts another controller, with an edit meanwhile or without.
func (g *game) restart(edit func()) {
	g.stop()
	edit()
	time.Sleep(time.Second)
	_, g.stop = g.controller()
	g.rest()
}

// play plays a game of so many edits.
func (g *game) play(edits int) {
	g.Helper()
	g.written = map[string]*corev1.Service{}
	_, g.stop = g.controller()
	for i := range edits {
		before, editor := g.look(), ""
		if i%10 == 9 {
			g.restart(func() { editor = g.edit() })
		} else {
			editor = g.edit()
			g.rest()
		}
		now := g.look()
		g.judge(&before, &now, editor)
		g.lawful(&now)
		g.silent(&before, &now)
		if i%15 == 14 {
			g.restart(func() {})
			if after := g.look(); after.lasting() != now.lasting() {
				g.Fatalf("a restart changes something:\n%s\nbefore:\n%s", &after, &now)
			}
		}
	}
}

// Two tenants edit as they like, and controllers restart in between: the holder of an address never moves by another's
// edit; a guest moves when its holder's edit is in its way, and both are told; a stranger moves nobody; nobody learns
// anything; two Services never show an address that they may not share. TENANTS_SEED replays a game, and TENANTS_GAMES
// plays more of them.
func TestTwoTenants(t *testing.T) {
	games, seed := 2, rand.Uint64()
	if n, err := strconv.Atoi(os.Getenv("TENANTS_GAMES")); err == nil {
		games = n
	}
	if n, err := strconv.ParseUint(os.Getenv("TENANTS_SEED"), 10, 64); err == nil {
		seed = n
	}
	for i := range games {
		for name, pools := range map[string][]string{
			"room": {"10.0.0.1-10.0.0.12", "2001:db8::1-2001:db8::12"},
			"full": {"10.0.0.1-10.0.0.2", "2001:db8::1-2001:db8::3"},
		} {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed+uint64(i)), func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.tenants()
					w.pool("public", nil, pools...)
					(&game{world: w, rnd: rand.New(rand.NewPCG(seed+uint64(i), 0))}).play(100)
				})
			})
		}
	}
}

package speaker

import (
	"slices"
	"time"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// A live candidate can be unable to serve one address: its kube-proxy has no endpoint of a Service of policy Local, or
// its health check node port cannot be asked. It refuses the address, and the candidates after it must not wait:
//
//   - The one that refuses says so to the others by BFD: the session stays Up with the diagnostic ConcatenatedPathDown
//     (RFC 5880, section 6.8.17). That needs no API server, is authenticated, and costs no packet at rest.
//   - BFD does not say which address is meant. The others ask the network: an address that a speaker answers for without
//     yielding stays where it is.
//   - An address without an owner that nobody takes is taken by the next candidate also when nobody refuses it.
const (
	// vacant is how long each live candidate has to take an address without an owner, before it is the turn of the next.
	// One that refuses has letLie.
	vacant = time.Second
	// refusal is how long a refusal is told: longer than it takes the last candidate to take the address.
	refusal = 3 * time.Second
)

// refuse tells the other candidates that this node is expected to serve an address, and cannot.
func (c *course) refuse(name string, v *view, p *place, role Role) {
	unable := v.bar == "" && v.unfit != "" && !p.unknown || v.bar == v1alpha1.NoInterface || v.bar == v1alpha1.AnnounceFailed
	expected := v.listed && c.Unfit == "" && (v.owner == "" || v.owner == c.Node || role.Phase == Yielding)
	if !unable || !expected {
		return
	}
	since, refused := c.Before.Refused[name]
	if !refused {
		since = c.Now
	}
	c.Refused[name] = since
	until := since.Add(refusal)
	if !c.Now.Before(until) {
		return
	}
	c.again(until)
	for _, o := range p.peers {
		if o.path.Peer.IsValid() {
			c.refusals[o.path] = true
		}
	}
}

// vacancy gives this node its turn when the candidates before it live and do not take the address.
func (c *course) vacancy(vip *v1alpha1.VirtualIP, v *view, p *place, before Role) {
	if v.turn || !v.listed || v.bar != "" || v.unfit != "" || before.answers() {
		return
	}
	wait, open := v.vacancy(p.rank, hasLocal(vip))
	if !open {
		return
	}
	since, waiting := c.Before.Vacant[vip.Name]
	if !waiting {
		since = c.Now
	}
	c.Vacant[vip.Name] = since
	if !v.ready {
		wait += rulesDelay // as others wait for the rules of their kube-proxy
	}
	at := since.Add(wait)
	v.turn = !c.Now.Before(at)
	if !v.turn {
		c.again(at)
		c.againForRules(v)
	}
}

// againForRules looks again soon while the rules of kube-proxy are missing: nobody tells.
func (c *course) againForRules(v *view) {
	if !v.ready {
		c.again(c.Now.Add(rulesAgain))
	}
}

// vacancy is how long the candidates before this one have to take the address. It is open when nobody is known to have
// it, or its owner lives and refuses some address; that can only be one with a Service of policy Local.
func (v *view) vacancy(rank int, local bool) (wait time.Duration, open bool) {
	owner := slices.IndexFunc(v.peers, func(o peer) bool { return o.node == v.owner })
	if owner >= 0 && !(local && v.peers[owner].refuses) {
		return 0, false
	}
	for i := range v.peers {
		o := &v.peers[i]
		if o.rank > rank || i == owner || !o.life.alive() {
			continue
		}
		if o.refuses || owner >= 0 {
			wait += letLie
		} else {
			wait += vacant
		}
	}
	return wait, true
}

func hasLocal(vip *v1alpha1.VirtualIP) bool {
	return slices.ContainsFunc(vip.Spec.Claims, func(claim v1alpha1.Claim) bool { return claim.HealthCheckNodePort != 0 })
}

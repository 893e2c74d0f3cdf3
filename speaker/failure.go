package speaker

import (
	"net/netip"
	"slices"
	"time"

	"github.com/heraldlb/herald/lan"
	"github.com/heraldlb/herald/speaker/l2"
)

// failureTime is how long an address is left alone on an interface where the responder could not serve it: another node may
// serve it meanwhile.
const failureTime = 15 * time.Second

// Failure is what the responder refused.
type Failure struct {
	Addr      netip.Addr
	Interface string
	Why       string
	Until     time.Time
}

// fail notes what was refused in carrying out the decision, and reports whether there was anything.
func (d *Decision) fail(err error, now time.Time) bool {
	refused := l2.Refused(err)
	for _, r := range refused {
		known := slices.ContainsFunc(d.Failures, func(f Failure) bool { return f.Addr == r.Addr && f.Interface == r.Interface })
		if !known {
			d.Failures = append(d.Failures, Failure{r.Addr, r.Interface, r.Err.Error(), now.Add(failureTime)})
		}
	}
	return len(refused) > 0
}

// recall keeps the failures that are not over.
func (c *course) recall() {
	for _, f := range c.Before.Failures {
		if c.Now.Before(f.Until) {
			c.Failures = append(c.Failures, f)
			c.again(f.Until)
		}
	}
}

// working leaves the interfaces on which the responder has not refused the address.
func (c *course) working(p *place, addr netip.Addr) {
	if len(c.Failures) == 0 || len(p.interfaces) == 0 {
		return
	}
	why := ""
	p.interfaces = slices.DeleteFunc(p.interfaces, func(i lan.Interface) bool {
		at := slices.IndexFunc(c.Failures, func(f Failure) bool { return f.Addr == addr && f.Interface == i.Name })
		if at >= 0 {
			why = i.Name + ": " + c.Failures[at].Why
		}
		return at >= 0
	})
	if len(p.interfaces) == 0 {
		p.none, p.failed = true, why
	}
}

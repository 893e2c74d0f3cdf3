package baremetal

import (
	"context"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
)

const (
	// askTimeout is how long an answer may take, as for speakers.
	askTimeout = 2 * time.Second
	// defaultLease is how long a speaker without a Lease has to make one.
	defaultLease = 10 * time.Second
	// mostAsked is how many Leases are asked for one by one: more are listed.
	mostAsked = 3
)

// vigil tells which speakers are lost, as far as statuses go. A request of ours
// that fails may mean that no speaker can renew its Lease either: from then on,
// each has the time of a whole Lease.
type vigil struct {
	leases map[string]watchedLease
	// failed is when a request of ours last failed.
	failed time.Time
}

type watchedLease struct {
	renewed string // the last renewTime seen, to tell a renewal from a relist
	held    bool   // somebody holds it: false when it was given up, or is missing
	// seen is when it was last seen renewed, or first seen given up or missing.
	seen     time.Time
	duration time.Duration
	// lost is since when the speaker is told lost.
	lost time.Time
}

// see takes in a Lease, and reports whether that ends a loss.
func (v *vigil) see(lease *coordinationv1.Lease, now time.Time) (back bool) {
	spec := lease.Spec
	if spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		v.miss(lease.Name, now)
		return false
	}
	before, known := v.leases[lease.Name]
	fresh := watchedLease{
		renewed:  spec.RenewTime.UTC().Format(time.RFC3339Nano),
		held:     spec.HolderIdentity != nil && *spec.HolderIdentity != "",
		seen:     now,
		duration: time.Duration(*spec.LeaseDurationSeconds) * time.Second,
	}
	if known && before.renewed == fresh.renewed && before.held == fresh.held {
		return false
	}
	if !fresh.held {
		fresh.lost = before.lost
	}
	v.put(lease.Name, fresh)
	return !before.lost.IsZero() && fresh.lost.IsZero()
}

// miss takes in that a speaker which should have a Lease has none.
func (v *vigil) miss(node string, now time.Time) {
	before, known := v.leases[node]
	if known && before.renewed == "" {
		return
	}
	v.put(node, watchedLease{seen: now, duration: defaultLease, lost: before.lost})
}

func (v *vigil) put(node string, lease watchedLease) {
	if v.leases == nil {
		v.leases = map[string]watchedLease{}
	}
	v.leases[node] = lease
}

// overdue is how long the Lease goes without renewal before we ask the API
// server for it ourselves: 4 s of 10, as speakers renew theirs every 3 s.
func (l watchedLease) overdue() time.Duration { return l.duration * 2 / 5 }

// askAgain is how often we do: every second.
func (l watchedLease) askAgain() time.Duration { return l.duration / 10 }

// knows reports whether a speaker is watched.
func (v *vigil) knows(node string) bool {
	_, known := v.leases[node]
	return known
}

// speaks reports whether a speaker is there, as far as can be said.
func (v *vigil) speaks(node string) bool {
	lease, known := v.leases[node]
	return known && lease.held && lease.lost.IsZero()
}

// lost reports whether a speaker is told lost, and since when.
func (v *vigil) lost(node string) (since time.Time, lost bool) {
	since = v.leases[node].lost
	return since, !since.IsZero()
}

// doubtful are the speakers whose Leases we should ask for, and when to look
// again (zero: not before something changes).
func (v *vigil) doubtful(now time.Time) (nodes []string, next time.Time) {
	for node, lease := range v.leases {
		if !lease.lost.IsZero() {
			continue
		}
		if after := lease.seen.Add(lease.overdue()); now.Before(after) {
			next = earlier(next, after)
			continue
		}
		nodes = append(nodes, node)
		again := now.Add(max(lease.askAgain(), 100*time.Millisecond))
		if end := lease.seen.Add(lease.duration); end.After(now) && end.Before(again) {
			again = end
		}
		next = earlier(next, again)
	}
	slices.Sort(nodes)
	return nodes, next
}

// lose tells those lost whose Lease has ended. They have just been asked for.
func (v *vigil) lose(asked []string, now time.Time) (lost []string) {
	for _, node := range asked {
		lease, known := v.leases[node]
		switch {
		case !known, !lease.lost.IsZero():
		case now.Sub(lease.seen) < lease.duration:
		case !v.failed.IsZero() && now.Sub(v.failed) < lease.duration:
		default:
			lease.lost = now
			v.put(node, lease)
			lost = append(lost, node)
		}
	}
	return lost
}

// fail takes down that a request of ours failed.
func (v *vigil) fail(now time.Time) { v.failed = now }

// unsure takes back that a speaker is lost, as that could not be written.
func (v *vigil) unsure(node string, now time.Time) {
	v.fail(now)
	if lease, known := v.leases[node]; known {
		lease.lost = time.Time{}
		v.put(node, lease)
	}
}

// watchSpeakers tells the speakers lost whose Leases have ended.
func (p *Provider) watchSpeakers(ctx context.Context) {
	whenDue(ctx, p.watches, func() time.Time {
		p.mu.Lock()
		asked, next := p.vigil.doubtful(time.Now())
		p.mu.Unlock()
		if len(asked) > 0 {
			p.ask(ctx, asked)
		}
		return next
	})
}

// ask asks the API server for Leases that are overdue, and tells the speakers
// lost whose Leases have ended.
func (p *Provider) ask(ctx context.Context, nodes []string) {
	found, err := p.readLeases(ctx, nodes)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	p.mu.Lock()
	if err != nil {
		p.vigil.fail(now)
		p.mu.Unlock()
		klog.FromContext(ctx).V(2).Info("Leases could not be read: no speaker is told lost for a while", "err", err)
		return
	}
	for _, node := range nodes {
		lease := found[node]
		if lease == nil {
			p.vigil.miss(node, now)
			continue
		}
		p.live.renew(lease, now)
		p.vigil.see(lease, now)
	}
	lost := p.vigil.lose(nodes, now)
	p.mu.Unlock()
	for _, node := range lost {
		klog.FromContext(ctx).Info("The Lease of a speaker has ended", "node", node)
		p.speakerStatuses.Add(node)
	}
	if len(lost) > 0 {
		p.nodesChanged()
	}
}

// readLeases asks for the Leases of some speakers; those that do not exist are
// not among the answers.
func (p *Provider) readLeases(ctx context.Context, nodes []string) (map[string]*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	leases := p.Client.CoordinationV1().Leases(p.Namespace)
	found := map[string]*coordinationv1.Lease{}
	if len(nodes) > mostAsked {
		list, err := leases.List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.SpeakerLabel})
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			found[list.Items[i].Name] = &list.Items[i]
		}
		return found, nil
	}
	for _, node := range nodes {
		lease, err := leases.Get(ctx, node, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[node] = lease
	}
	return found, nil
}

// heedLease takes in what the informer tells of a Lease; the caller holds the lock.
func (p *Provider) heedLease(name string, lease *coordinationv1.Lease) (back bool) {
	if lease != nil {
		return p.vigil.see(lease, time.Now())
	}
	p.vigil.miss(name, time.Now())
	return false
}

// expectSpeaker has a speaker watched of which an object tells: it should have a Lease.
func (p *Provider) expectSpeaker(node string) {
	if node == "" {
		return
	}
	p.mu.Lock()
	known := p.vigil.knows(node)
	if !known {
		p.vigil.miss(node, time.Now())
	}
	p.mu.Unlock()
	if !known {
		p.pokeWatch()
	}
}

func (p *Provider) pokeWatch() {
	select {
	case p.watches <- struct{}{}:
	default:
	}
}

package aws

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// entry is what Herald remembers of a Service.
type entry struct {
	identity model.Identity
	// held is what AWS holds for it; nil is not known. It is replaced, never
	// changed.
	held *holding
	// left is what remains to be done of a plan when AWS asks to wait.
	left *leftover
	// written is when a call was begun last that makes something.
	written time.Time
	// touched is when any call was begun last that may change something.
	touched time.Time
	// check is when to observe again what others may have changed.
	check time.Time
	// again is when to look again whether there is now in AWS what was missing.
	again time.Time
	// unsure says that AWS may not have shown all of it when it was observed.
	unsure bool
	// accepted are the settings that it has; a refused Service keeps them.
	accepted *settings.Settings
	// ips says that endpoints are its targets.
	ips bool
	// told is what Explain says.
	told explanation
}

// settle is how long AWS may not show what was just made: until then, that
// there is nothing is no proof.
const settle = 10 * time.Second

// begin returns the entry of a Service that is to be served. One without
// finalizer never had anything.
func (p *Provider) begin(service *corev1.Service) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	e := p.entries[key]
	if e == nil || e.identity.UID != string(service.UID) {
		fresh := &entry{identity: p.identityOf(service), written: p.started}
		if !servicehelper.HasLBFinalizer(service) && e.nothing() {
			fresh.held = newHolding()
		}
		e = fresh
		p.entries[key] = e
	}
	return e
}

// nothing says that an earlier Service of the name left nothing behind.
func (e *entry) nothing() bool {
	return e == nil || e.held != nil && e.held.state.Empty()
}

// entryOf returns the entry of a Service that may have something; nil is that
// it cannot have. A Service that is gone is known by its name.
func (p *Provider) entryOf(service *corev1.Service) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	e := p.entries[key]
	switch {
	case e != nil && (service.UID == "" || e.identity.UID == string(service.UID)):
		return e
	case service.UID == "" || !servicehelper.HasLBFinalizer(service):
		return nil
	}
	e = &entry{identity: p.identityOf(service), written: p.started}
	p.entries[key] = e
	return e
}

// forget forgets a Service that is gone and has nothing.
func (p *Provider) forget(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.entries, types.NamespacedName{Namespace: e.identity.Namespace, Name: e.identity.Name})
}

func (p *Provider) held(e *entry) *holding {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.latest()
}

// expire has a Service observed anew when it is time to look for what others
// have changed.
func (p *Provider) expire(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.check.IsZero() && time.Now().After(e.check) {
		e.held, e.left, e.check = nil, nil, time.Time{}
	}
}

// underway says that a plan for the Service has begun and not ended.
func (p *Provider) underway(e *entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.left != nil
}

// latest is what is known of what AWS holds, be it in the middle of a plan.
func (e *entry) latest() *holding {
	if e.held == nil && e.left != nil {
		return e.left.held
	}
	return e.held
}

// recall returns what AWS holds for a Service, observing it when that is not
// known. sure is false when AWS may not have shown all of it.
func (p *Provider) recall(ctx context.Context, e *entry) (held *holding, sure bool, err error) {
	now := time.Now()
	p.mu.Lock()
	held, sure = e.latest(), !e.unsure
	after := now.Add(-snapshotAge)
	if e.touched.After(after) {
		after = e.touched
	}
	soon := e.written.Add(settle)
	if !now.Before(soon) && soon.After(after) {
		after = soon // what is read from then on is the proof
	}
	p.mu.Unlock()
	if held != nil {
		return held, sure, nil
	}
	held, err = p.observe(ctx, e.identity, after)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && !throttled(err) {
		e.touched = time.Now() // what was read may be out of date, and the cause
	}
	if err != nil {
		return nil, false, err
	}
	e.unsure = now.Before(soon)
	if !e.unsure || !held.state.Empty() {
		e.held = held
	}
	return held, !e.unsure, nil
}

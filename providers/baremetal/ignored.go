package baremetal

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// tellIgnored names the annotations that do nothing in an event, once: what the
// condition of the Service says already was told before, by this controller or
// by one before it, and what waits to be written there is remembered.
func (p *Provider) tellIgnored(service *corev1.Service) {
	sentences := annotations.Ignored(service)
	p.mu.Lock()
	told := p.ignored[keyOf(service)]
	p.remember(keyOf(service), sentences)
	p.mu.Unlock()
	said := ""
	if condition := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady); condition != nil {
		said = condition.Message
	}
	for _, sentence := range sentences {
		if !slices.Contains(told, sentence) && !strings.Contains(said, sentence) {
			p.Recorder.Event(service, corev1.EventTypeWarning, string(v1alpha1.AnnotationIgnored), sentence)
		}
	}
}

// remember notes what is told of a Service; the caller holds the lock.
func (p *Provider) remember(key ipam.Key, sentences []string) {
	if len(sentences) == 0 {
		delete(p.ignored, key)
		return
	}
	p.ignored[key] = sentences
}

// withIgnored appends what is told of annotations to a refusal, so that it
// stands in the condition as well.
func withIgnored(service *corev1.Service, refusal *v1alpha1.Refusal) *v1alpha1.Refusal {
	sentences := annotations.Ignored(service)
	if len(sentences) == 0 {
		return refusal
	}
	message := strings.TrimSuffix(refusal.Message, ".") + ". " + strings.Join(sentences, " ")
	return v1alpha1.Refuse(refusal.Reason, "%s", message)
}

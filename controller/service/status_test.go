package service

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
)

var (
	noon     = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	assigned = verdict{ready: true, reason: v1alpha1.AddressAssigned, message: "Assigned."}
)

func (v verdict) with(status metav1.ConditionStatus, reason v1alpha1.Reason, message string) verdict {
	v.announced = announcement{status, reason, message}
	return v
}

// Verdicts that follow each other: what the Service says, and what is told.
func TestVerdicts(t *testing.T) {
	full := verdict{reason: v1alpha1.PoolExhausted, message: "Full."}
	announcing := assigned.with("False", v1alpha1.Announcing, "Soon.")
	announced := assigned.with("True", v1alpha1.Announced, "By a.")
	for _, c := range []struct {
		name  string
		then  []verdict
		ready string
		said  string // "" is no condition
		told  string // by the last one
	}{
		{"a provider that announces nothing", []verdict{assigned}, "True AddressAssigned: Assigned.", "", "Normal AddressAssigned"},
		{"assigned first", []verdict{announcing}, "False Announcing: Assigned. Soon.", "False Announcing: Soon.", "Normal AddressAssigned"},
		{"then announced", []verdict{announcing, announced}, "True AddressAssigned: Assigned.", "True Announced: By a.", ""},
		{"and then not", []verdict{announced, assigned.with("False", v1alpha1.NoReadyEndpoints, "No pod.")},
			"False NoReadyEndpoints: Assigned. No pod.", "False NoReadyEndpoints: No pod.", "Warning NoReadyEndpoints"},
		{"for another reason", []verdict{assigned.with("False", v1alpha1.NoReadyEndpoints, "No pod."), assigned.with("False", v1alpha1.NoInterface, "No link.")},
			"False NoInterface: Assigned. No link.", "False NoInterface: No link.", "Warning NoInterface"},
		{"in other words", []verdict{assigned.with("False", v1alpha1.NoSession, "x"), assigned.with("False", v1alpha1.NoSession, "y")},
			"False NoSession: Assigned. y", "False NoSession: y", ""},
		{"and again", []verdict{assigned.with("False", v1alpha1.NoReadyEndpoints, "No pod."), announced},
			"True AddressAssigned: Assigned.", "True Announced: By a.", "Normal Announced"},
		{"by another one", []verdict{announced, assigned.with("True", v1alpha1.Announced, "By b.")}, "True AddressAssigned: Assigned.", "True Announced: By b.", ""},
		{"nobody knows", []verdict{announced, assigned.with("Unknown", v1alpha1.SpeakerLost, "Lost.")},
			"Unknown SpeakerLost: Assigned. Lost.", "Unknown SpeakerLost: Lost.", "Warning SpeakerLost"},
		{"announced by somebody else", []verdict{assigned.with("False", v1alpha1.AnnounceNone, "Not by us.")},
			"True AddressAssigned: Assigned.", "False AnnounceNone: Not by us.", "Normal AddressAssigned"},
		{"refused", []verdict{full}, "False PoolExhausted: Full.", "", "Warning PoolExhausted"},
		{"refused, and announced at what it had", []verdict{announced, full.with("True", v1alpha1.Announced, "By a.")},
			"False PoolExhausted: Full.", "True Announced: By a.", "Warning PoolExhausted"},
		{"served after all", []verdict{full, announcing}, "False Announcing: Assigned. Soon.", "False Announcing: Soon.", "Normal AddressAssigned"},
		{"another address while nobody announces", []verdict{announcing, {ready: true, reason: v1alpha1.AddressAssigned, message: "Another.", announced: announcing.announced}},
			"False Announcing: Another. Soon.", "False Announcing: Soon.", "Normal AddressAssigned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := &corev1.Service{}
			var told []string
			for _, v := range c.then {
				told = nil
				for _, n := range v.news(service) {
					told = append(told, n.kind+" "+string(n.reason))
				}
				service, _ = served(service, nil, v, metav1.NewTime(noon))
				if _, changed := served(service, nil, v, metav1.NewTime(noon.Add(time.Hour))); changed {
					t.Error("the same verdict is a change")
				}
			}
			line := func(kind string) string {
				c := meta.FindStatusCondition(service.Status.Conditions, kind)
				if c == nil {
					return ""
				}
				return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
			}
			if got := line(v1alpha1.ServiceReady); got != c.ready {
				t.Errorf("Ready %q, want %q", got, c.ready)
			}
			if got := line(v1alpha1.ServiceAnnounced); got != c.said {
				t.Errorf("Announced %q, want %q", got, c.said)
			}
			if got := strings.Join(told, ", "); got != c.told {
				t.Errorf("told %q, want %q", got, c.told)
			}
		})
	}
}

// The time of the condition Ready is when the no was last told for the first time.
func TestTransitionIsWhenItWasTold(t *testing.T) {
	at := func(minutes int) metav1.Time { return metav1.NewTime(noon.Add(time.Duration(minutes) * time.Minute)) }
	service, _ := served(&corev1.Service{}, nil, assigned.with("False", v1alpha1.NoReadyEndpoints, "x"), at(0))
	for i, c := range []struct {
		v    verdict
		want int
	}{
		{assigned.with("False", v1alpha1.NoReadyEndpoints, "y"), 0},
		{assigned.with("False", v1alpha1.NoInterface, "y"), 2},
		{verdict{reason: v1alpha1.PoolExhausted, message: "x"}, 3},
		{verdict{reason: v1alpha1.PoolExhausted, message: "y"}, 3},
	} {
		service, _ = served(service, nil, c.v, at(i+1))
		want := at(c.want)
		if got := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady).LastTransitionTime; !got.Equal(&want) {
			t.Errorf("%d: %v, want %v", i+1, got, want)
		}
	}
}

func TestPace(t *testing.T) {
	saying := func(v verdict) *corev1.Service {
		service, _ := served(&corev1.Service{}, nil, v, metav1.NewTime(noon))
		return service
	}
	no, soon := assigned.with("False", v1alpha1.NoReadyEndpoints, ""), assigned.with("False", v1alpha1.Announcing, "")
	yes := assigned.with("True", v1alpha1.Announced, "")
	for _, c := range []struct {
		name    string
		written int // seconds ago, 0 is never
		before  verdict
		v       verdict
		want    time.Duration
	}{
		{"the first change", 0, soon, yes, 0},
		{"soon after another", 3, yes, no, 7 * time.Second},
		{"long after", 11, yes, no, 0},
		{"on its way back", 11, no, soon, arrival},
		{"and written shortly before", 3, no, soon, 7 * time.Second},
		{"on its way for the first time", 0, soon, soon, 0},
	} {
		p := pace{}
		if c.written > 0 {
			p.written = noon.Add(time.Duration(-c.written) * time.Second)
		}
		if got := p.wait(saying(c.before), c.v, noon); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReminders(t *testing.T) {
	const every = 45 * time.Minute
	told := func(p *pace, from, to, step int) (at []int) {
		for minute := from; minute <= to; minute += step {
			if _, tell := p.due(noon, every, noon.Add(time.Duration(minute)*time.Minute)); tell {
				at = append(at, minute)
			}
		}
		return at
	}
	if got := fmt.Sprint(told(&pace{}, 0, 200, 1)); got != "[45 90 135 180]" {
		t.Errorf("told at %s", got)
	}
	if got := fmt.Sprint(told(&pace{}, 44, 100, 1)); got != "[45 90]" {
		t.Errorf("after a restart: told at %s", got)
	}
	if got := fmt.Sprint(told(&pace{}, 50, 100, 1)); got != "[90]" {
		t.Errorf("after a restart that passed one: told at %s", got)
	}
	p := &pace{}
	told(p, 0, 44, 1)
	if _, tell := p.due(noon.Add(44*time.Minute), every, noon.Add(46*time.Minute)); tell {
		t.Error("told again 2 minutes after it became another no")
	}
	shortest, longest := time.Hour, time.Duration(0)
	for i := range 1000 {
		e := remindEvery(types.UID(fmt.Sprint(i, "-uid")))
		shortest, longest = min(shortest, e), max(longest, e)
	}
	if shortest < 40*time.Minute || longest >= 50*time.Minute || longest-shortest < 9*time.Minute {
		t.Errorf("from %v to %v", shortest, longest)
	}
}

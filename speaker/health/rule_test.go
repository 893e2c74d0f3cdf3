package health

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNext(t *testing.T) {
	const interval = 250 * time.Millisecond
	past, now := time.Unix(1000, 0), time.Unix(2000, 0)
	healthy := State{Healthy: true, LocalEndpoints: 2, Since: past}
	unknown := State{Reason: Unknown, Since: past}
	state := func(reason Reason, endpoints int, since time.Time) State {
		return State{Healthy: reason == "", Reason: reason, LocalEndpoints: endpoints, Since: since}
	}
	down := State{Reason: ProxyUnreachable, Since: past}
	for _, tt := range []struct {
		name     string
		state    State
		failures int
		answer   answer
		want     State
		failed   int
		pause    time.Duration
	}{
		{"first yes", unknown, 0, answer{localEndpoints: 2}, state("", 2, now), 0, interval},
		{"first no", unknown, 0, answer{reason: NoLocalEndpoints}, state(NoLocalEndpoints, 0, now), 0, interval},
		{"first failure leaves it unknown", unknown, 0, answer{reason: ProxyUnreachable}, unknown, 1, 50 * time.Millisecond},
		{"second failure does not", unknown, 1, answer{reason: ProxyUnreachable}, state(ProxyUnreachable, 0, now), 2, 100 * time.Millisecond},

		{"still yes", healthy, 0, answer{localEndpoints: 2}, healthy, 0, interval},
		{"more endpoints, since as before", healthy, 0, answer{localEndpoints: 3}, state("", 3, past), 0, interval},
		{"no is believed at once", healthy, 0, answer{reason: ProxyUnhealthy, localEndpoints: 2}, state(ProxyUnhealthy, 2, now), 0, interval},
		{"to be deleted is believed at once", healthy, 0, answer{reason: NodeNotEligible}, state(NodeNotEligible, 0, now), 0, interval},
		{"one refused connection is not", healthy, 0, answer{reason: ProxyUnreachable}, healthy, 1, 50 * time.Millisecond},
		{"nor one garbled answer", healthy, 0, answer{reason: GarbledAnswer}, healthy, 1, 50 * time.Millisecond},
		{"two are, whatever they were", healthy, 1, answer{reason: UnexpectedStatus}, state(UnexpectedStatus, 0, now), 2, 100 * time.Millisecond},
		{"no answer in time is believed at once", healthy, 0, answer{reason: ProxyHung}, state(ProxyHung, 0, now), 1, 50 * time.Millisecond},
		{"an answer after a failure forgives it", healthy, 1, answer{localEndpoints: 2}, healthy, 0, interval},

		{"still down", down, 2, answer{reason: ProxyUnreachable}, down, 3, 200 * time.Millisecond},
		{"down in another way", down, 3, answer{reason: ProxyHung}, state(ProxyHung, 0, now), 4, 400 * time.Millisecond},
		{"down, fifth", down, 4, answer{reason: ProxyUnreachable}, down, 5, 800 * time.Millisecond},
		{"down, sixth", down, 5, answer{reason: ProxyUnreachable}, down, 6, time.Second},
		{"down for long", down, 1 << 40, answer{reason: ProxyUnreachable}, down, 1<<40 + 1, time.Second},
		{"the time of the last rules goes along", healthy, 0, answer{localEndpoints: 2, written: Written{IPv4: past}}, State{Healthy: true, LocalEndpoints: 2, Since: past, Written: Written{IPv4: past}}, 0, interval},
		{"back", down, 7, answer{localEndpoints: 1}, state("", 1, now), 0, interval},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, pause := progress{tt.state, tt.failures}.next(tt.answer, interval, now)
			if diff := cmp.Diff(progress{tt.want, tt.failed}, got, cmp.AllowUnexported(progress{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if pause != tt.pause {
				t.Errorf("asks again after %v, want %v", pause, tt.pause)
			}
		})
	}
}

// Whatever the answers are: a healthy state has no reason, and the next probe comes within a second.
func TestNextHoldsForAllAnswers(t *testing.T) {
	answers := []answer{{}, {localEndpoints: 3}}
	for _, r := range reasons {
		answers = append(answers, answer{reason: r})
	}
	now := time.Unix(1000, 0)
	for _, first := range answers {
		for _, second := range answers {
			for _, third := range answers {
				p := progress{State: State{Reason: Unknown, Since: now}}
				for _, a := range []answer{first, second, third} {
					var pause time.Duration
					p, pause = p.next(a, 500*time.Millisecond, now)
					if p.Healthy != (p.Reason == "") || pause <= 0 || pause > time.Second {
						t.Fatalf("after %v, %v, %v: %+v, asks again after %v", first, second, third, p, pause)
					}
				}
				if second.reason.failed() && third.reason.failed() && p.Healthy {
					t.Fatalf("healthy after %v, %v, %v", first, second, third)
				}
			}
		}
	}
}

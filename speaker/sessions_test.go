package speaker

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
)

func TestSessionEvent(t *testing.T) {
	router := netip.MustParseAddr("198.51.100.254")
	down := func(why string) bgp.Status {
		return bgp.Status{Peer: "tor", Address: router, State: "Active", LastError: why}
	}
	up := bgp.Status{Peer: "tor", Address: router, State: "Established"}
	tests := []struct {
		name        string
		before, now bgp.Status
		reason      v1alpha1.Reason
		message     string
	}{
		{"comes up", down(""), up, v1alpha1.SessionEstablished, "Node node-1 has a session with 198.51.100.254."},
		{"is lost", up, down("hold time expired"), v1alpha1.SessionLost, "Node node-1 has lost its session with 198.51.100.254: hold time expired."},
		{"is lost for no known reason", up, down(""), v1alpha1.SessionLost, "Node node-1 has lost its session with 198.51.100.254."},
		{"never was", bgp.Status{}, down("connection refused"), v1alpha1.NotEstablished, "Node node-1 has no session with 198.51.100.254: connection refused."},
		{"for another reason", down("connection refused"), down("no route"), v1alpha1.NotEstablished, "Node node-1 has no session with 198.51.100.254: no route."},
		{"for the same reason", down("no route"), down("no route"), "", ""},
		{"tries again", down("no route"), down(""), "", ""},
		{"stays", up, up, "", ""},
		{"no router was found", bgp.Status{}, bgp.Status{Peer: "uplink", State: "Idle", LastError: "no router"}, v1alpha1.NotEstablished, "Node node-1 has no session with uplink: no router."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, reason, message := sessionEvent("node-1", tt.before, tt.now)
			if reason != tt.reason || message != tt.message {
				t.Errorf("got %s %q", reason, message)
			}
		})
	}
}

// What was said of a BGPPeer is not said of another one that has its name, nor of itself once it is for this node again.
func TestASessionThatWasNotToBeIsNotLost(t *testing.T) {
	peers, events := cache.NewSharedIndexInformer(&cache.ListWatch{}, &v1alpha1.BGPPeer{}, 0, cache.Indexers{}), record.NewFakeRecorder(10)
	if err := peers.GetStore().Add(&v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}}); err != nil {
		t.Fatal(err)
	}
	s := &Speaker{Options: Options{Node: "node-1", Senses: NewSenses(), Recorder: events}, peers: peers, told: map[string]bgp.Status{}}
	routers := []Router{{Name: "tor"}}
	s.Senses.Router(bgp.Status{Peer: "tor", State: "Established"})
	s.tellSessions(routers)
	s.tellSessions(nil)
	s.Senses.Router(bgp.Status{Peer: "tor", State: "Active"})
	s.tellSessions(routers)
	s.Senses.Router(bgp.Status{Peer: "tor", State: "Established"})
	s.tellSessions(routers)
	close(events.Events)
	var said []string
	for event := range events.Events {
		said = append(said, event)
	}
	const up = "Normal SessionEstablished Node node-1 has a session with tor."
	if diff := cmp.Diff([]string{up, up}, said); diff != "" {
		t.Error(diff)
	}
}

// A router that says too much does not keep the event from being written.
func TestASessionEventIsBounded(t *testing.T) {
	peers, events := cache.NewSharedIndexInformer(&cache.ListWatch{}, &v1alpha1.BGPPeer{}, 0, cache.Indexers{}), record.NewFakeRecorder(10)
	if err := peers.GetStore().Add(&v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}}); err != nil {
		t.Fatal(err)
	}
	s := &Speaker{Options: Options{Node: "node-1", Senses: NewSenses(), Recorder: events}, peers: peers, told: map[string]bgp.Status{}}
	s.Senses.Router(bgp.Status{Peer: "tor", State: "Idle", LastError: strings.Repeat("ü", 4096)})
	s.tellSessions([]Router{{Name: "tor"}})
	close(events.Events)
	const head = "Warning NotEstablished "
	if event := <-events.Events; len(event) > len(head)+v1alpha1.MaxMessage || !strings.HasPrefix(event, head+"Node node-1 has no session with tor: ü") {
		t.Errorf("%d bytes: %s", len(event), event)
	}
}

func TestReportedSessions(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.254")
	path := bfd.Path{Peer: address}
	good := Router{Name: "tor", BFD: path, Peer: bgp.Peer{Name: "tor", Address: address, Families: []bgp.Family{bgp.IPv4, bgp.IPv6}}}
	at, later := metav1.NewTime(epoch), epoch.Add(time.Minute)
	established := v1alpha1.SpeakerBGPSession{
		Peer: "tor", Address: "198.51.100.254", State: "Established", Since: &at, Families: []string{"IPv4", "IPv6"},
		Advertised: 5, AdvertisedIPv4: 3, AdvertisedIPv6: 2, BFD: "Up",
	}
	active := v1alpha1.SpeakerBGPSession{
		Peer: "tor", Address: "198.51.100.254", State: "Active", Since: &at, Reason: v1alpha1.NotEstablished, LastError: "connection refused", BFD: "Down",
	}
	with := func(s v1alpha1.SpeakerBGPSession, change func(*v1alpha1.SpeakerBGPSession)) v1alpha1.SpeakerBGPSession {
		change(&s)
		return s
	}
	upStatus := bgp.Status{
		State: "Established", Since: epoch, Families: []bgp.Family{bgp.IPv4, bgp.IPv6}, Advertised: map[bgp.Family]int{bgp.IPv4: 3, bgp.IPv6: 2},
	}
	tests := []struct {
		name   string
		router Router
		status bgp.Status
		bfd    bfd.State
		before []v1alpha1.SpeakerBGPSession
		want   v1alpha1.SpeakerBGPSession
	}{
		{"a session", good, upStatus, bfd.Up, nil, established},
		{"none", good, bgp.Status{State: "Connect", Since: epoch, LastError: "connection refused"}, bfd.Down, nil, active},
		{
			"none yet, at another attempt", good, bgp.Status{State: "OpenSent", Since: later}, bfd.Init,
			[]v1alpha1.SpeakerBGPSession{active}, active,
		},
		{
			"lost", good, bgp.Status{State: "Idle", Since: later, LastError: "hold time expired"}, bfd.Down,
			[]v1alpha1.SpeakerBGPSession{established},
			with(active, func(s *v1alpha1.SpeakerBGPSession) {
				since := metav1.NewTime(later)
				s.Since, s.LastError = &since, "hold time expired"
			}),
		},
		{
			"impossible", Router{Name: "tor", Reason: v1alpha1.SecretMissing, Why: "there is no Secret"}, bgp.Status{}, bfd.Down, nil,
			v1alpha1.SpeakerBGPSession{Peer: "tor", State: "Idle", Reason: v1alpha1.SecretMissing, LastError: "there is no Secret"},
		},
		{
			"no hold time", good, func() bgp.Status { s := upStatus; s.NoHoldTime = true; return s }(), bfd.Up, nil,
			with(established, func(s *v1alpha1.SpeakerBGPSession) {
				s.Reason = v1alpha1.NoHoldTime
				s.LastError = "the router's hold time is 0: when it is gone, that is not noticed, and the session does not come back"
			}),
		},
		{
			"a family is missing", Router{Name: "tor", Lacks: bgp.IPv6, Peer: good.Peer},
			bgp.Status{State: "Established", Since: epoch, Families: []bgp.Family{bgp.IPv4}, Advertised: map[bgp.Family]int{bgp.IPv4: 3}}, bfd.Down, nil,
			v1alpha1.SpeakerBGPSession{
				Peer: "tor", Address: "198.51.100.254", State: "Established", Since: &at, Families: []string{"IPv4"}, Advertised: 3, AdvertisedIPv4: 3,
				Reason: v1alpha1.FamilyNotAgreed, LastError: "the router does not speak of IPv6",
			},
		},
		{
			"a router that advertises all the time", good, func() bgp.Status { s := upStatus; s.RefusedRoutes = 13; return s }(), bfd.Up,
			[]v1alpha1.SpeakerBGPSession{with(established, func(s *v1alpha1.SpeakerBGPSession) { s.Refused = 7 })},
			with(established, func(s *v1alpha1.SpeakerBGPSession) { s.Refused = 7 }),
		},
		{
			"a router that has advertised twice as much", good, func() bgp.Status { s := upStatus; s.RefusedRoutes = 14; return s }(), bfd.Up,
			[]v1alpha1.SpeakerBGPSession{with(established, func(s *v1alpha1.SpeakerBGPSession) { s.Refused = 7 })},
			with(established, func(s *v1alpha1.SpeakerBGPSession) { s.Refused = 14 }),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &Snapshot{BGP: map[string]bgp.Status{"tor": tt.status}, States: map[bfd.Path]bfd.Status{path: {Event: bfd.Event{State: tt.bfd}}}}
			got := reportedSessions(s, &Decision{Routers: []Router{tt.router}}, tt.before)
			if diff := cmp.Diff([]v1alpha1.SpeakerBGPSession{tt.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

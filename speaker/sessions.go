package speaker

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

// tellSessions says in events on BGPPeers what has become of their sessions.
func (s *Speaker) tellSessions(routers []Router) {
	// A BGPPeer that comes back is a new one.
	maps.DeleteFunc(s.told, func(name string, _ bgp.Status) bool {
		return !slices.ContainsFunc(routers, func(r Router) bool { return r.Name == name && r.Reason == "" })
	})
	for _, status := range s.Senses.sessions() {
		before := s.told[status.Peer]
		s.told[status.Peer] = status
		kind, reason, message := sessionEvent(s.Node, before, status)
		object, exists, err := s.peers.GetStore().GetByKey(status.Peer)
		if reason == "" || s.Recorder == nil || err != nil || !exists {
			continue
		}
		// A router may say in a NOTIFICATION what it likes, and the API server takes no longer message.
		s.Recorder.Event(object.(*v1alpha1.BGPPeer), kind, string(reason), v1alpha1.Cut(message, v1alpha1.MaxMessage))
	}
}

// sessionEvent is what there is to say of a session that was so before and is so now; no reason for nothing.
func sessionEvent(node string, before, now bgp.Status) (kind string, reason v1alpha1.Reason, message string) {
	with := now.Peer
	if now.Address.IsValid() {
		with = now.Address.String()
	}
	why := ""
	if now.LastError != "" {
		why = ": " + now.LastError
	}
	was, is := before.State == established, now.State == established
	switch {
	case is && !was:
		return corev1.EventTypeNormal, v1alpha1.SessionEstablished, fmt.Sprintf("Node %s has a session with %s.", node, with)
	case was && !is:
		return corev1.EventTypeWarning, v1alpha1.SessionLost, fmt.Sprintf("Node %s has lost its session with %s%s.", node, with, why)
	case !is && now.LastError != "" && now.LastError != before.LastError:
		return corev1.EventTypeWarning, v1alpha1.NotEstablished, fmt.Sprintf("Node %s has no session with %s%s.", node, with, why)
	}
	return "", "", ""
}

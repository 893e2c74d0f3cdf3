package bgp

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// The reasons why there is no session, in words, for whoever has to find out.

func noRouter(ifname string) string {
	return "no router has been heard on " + ifname
}

func tooMany(n neighbor) string {
	return fmt.Sprintf("the router advertises more than %d routes to us, which are refused but take memory: have it advertise none; the session is tried again later", n.MostRefused)
}

func wrongAS(n neighbor) string {
	switch {
	case n.PeerType == External:
		return fmt.Sprintf("wrong AS: the router is in our own, %d", n.LocalASN)
	default:
		return fmt.Sprintf("wrong AS: the router is not in AS %d", n.PeerASN)
	}
}

// unconnected is about an error of connect(2).
func unconnected(n neighbor, err string, onLink bool) string {
	to := net.JoinHostPort(n.Address.String(), strconv.Itoa(int(n.Port)))
	switch {
	case strings.Contains(err, "connection refused"):
		return "connection refused by " + to
	case strings.Contains(err, "no route to host") && tooFar(n, onLink):
		// When a router on the way says that the TTL was exceeded, connect(2) says that there is no route.
		return "no route to " + to + ", or none that a TTL of 1 is enough for: see multi-hop"
	case strings.Contains(err, "no route to host"), strings.Contains(err, "network is unreachable"):
		return "no route to " + to
	case strings.Contains(err, "cannot assign requested address"):
		return fmt.Sprintf("the source address %s is not on this node", n.Source)
	case strings.Contains(err, "connection reset"):
		return closedEarly(n)
	case strings.Contains(err, "timeout"):
		return "no answer from " + to + ": " + silence(n, onLink)
	}
	return err
}

// silence is what can be behind it when a router does not answer at all: whoever drops a packet says nothing.
func silence(n neighbor, onLink bool) string {
	var causes []string
	if n.Password != "" {
		causes = append(causes, "wrong password")
	}
	if n.TTLSecurityHops != 0 {
		causes = append(causes, fmt.Sprintf("TTL below %d", 256-int(n.TTLSecurityHops)))
	}
	if tooFar(n, onLink) {
		causes = append(causes, "a TTL of 1, which does not reach a router on another network")
	}
	if n.Password == "" {
		causes = append(causes, "a password that the router wants")
	}
	return strings.Join(append(causes, "a firewall, or the router is down"), "; ")
}

// noAnswer is about a router that takes the connection and then says nothing. Routers that take it by a TTL of 255 may go on
// with a lower one.
func noAnswer(n neighbor, onLink bool) string {
	text := "the router takes the connection and says nothing on it"
	switch {
	case n.TTLSecurityHops != 0:
		return fmt.Sprintf("%s: TTL below %d, which is what ttlSecurityHops wants", text, 256-int(n.TTLSecurityHops))
	case !onLink:
		return text + ": a TTL of 1 there, which does not reach this node: see multi-hop on the router"
	}
	return text
}

// tooFar says whether packets are sent with a TTL of 1 to where that cannot be enough.
func tooFar(n neighbor, onLink bool) bool {
	return !onLink && n.PeerASN != 0 && !n.internal() && n.EBGPMultiHop == 0 && n.TTLSecurityHops == 0
}

// closedEarly is about a router that accepts the TCP connection and closes it. BIRD does so to a neighbor that it waits with
// after an error, for a minute by default.
func closedEarly(neighbor) string {
	return "the router closes the connection at once: it does not take this node for a neighbor, or makes it wait after a session that was lost"
}

// complaint is about a NOTIFICATION that we have sent before a session was established (RFC 4271, section 6).
func complaint(n neighbor, code, subcode int64) string {
	switch {
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS:
		return wrongAS(n)
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_BGP_IDENTIFIER:
		return fmt.Sprintf("the router's ID is not valid, or it is ours, %s", n.RouterID)
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_UNACCEPTABLE_HOLD_TIME:
		return "the router's hold time cannot be accepted"
	case code == bgp.BGP_ERROR_FSM_ERROR:
		return refusedOpen(n)
	case code == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED:
		return "hold time expired: nothing was heard from the router"
	case code == bgp.BGP_ERROR_CEASE:
		return ""
	}
	return fmt.Sprintf("the router's message was refused: %s", bgp.NewNotificationErrorCode(uint8(code), uint8(subcode)))
}

// refusedOpen is about a NOTIFICATION instead of an answer to our OPEN message. GoBGP does not tell what it says.
func refusedOpen(n neighbor) string {
	return fmt.Sprintf("the router refuses our OPEN message: it expects another AS than %d, or another family or router ID", n.LocalASN)
}

// ended is about a session, or an attempt at one.
func ended(n neighbor, was string, reason api.PeerState_DisconnectReason, message string) string {
	switch reason {
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return wrongAS(n)
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return "hold time expired: nothing was heard from the router"
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED:
		message = strings.TrimPrefix(message, "notification-received ")
		// GoBGP has no word for it (RFC 9384).
		return "the router has ended the session: " + strings.Replace(message, "code 6(cease) subcode 10(undefined)", "code 6(cease) subcode 10(BFD down)", 1)
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:
		return "we have ended the session: " + strings.TrimPrefix(message, "notification-sent ")
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		if was == "OpenConfirm" || was == "OpenSent" {
			return refusedOpen(n)
		}
		return "the router has sent a message that is not valid"
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_WRITE_FAILED,
		api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		if was == established {
			return "the connection was lost"
		}
		return closedEarly(n)
	}
	return ""
}

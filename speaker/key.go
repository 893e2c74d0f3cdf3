package speaker

import (
	"crypto/sha256"

	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/speaker/bfd"
)

// keyOther is what the Secret v1alpha1.BFDSecret has beside the key while that is changed: the one before or after it, which is
// also accepted.
const keyOther = "otherKey"

// keys are the key of the speakers and the other one that is accepted, which may be missing.
type keys struct{ now, other []byte }

// keys reads the keys; without one, speakers do not watch each other.
func (s *Speaker) keys() keys {
	data, _, _ := s.secrets.get(v1alpha1.BFDSecret)
	return keys{now: data[v1alpha1.BFDSecretKey], other: data[keyOther]}
}

// watch is how to watch other speakers with these keys.
func (s *Speaker) watch(k keys) *Watch {
	if len(k.now) == 0 {
		return nil
	}
	w := &Watch{Interval: s.Interval, Multiplier: s.Multiplier, Auth: auth(k.now)}
	if len(k.other) > 0 {
		// Of two keys with one ID the other could not be told apart; one in 256 has to be chosen again.
		if other := auth(k.other); other.ID != w.Auth.ID {
			w.AlsoAccept = other
		}
	}
	return w
}

// auth makes what goes into packets of a key of any length: 20 bytes and an ID (RFC 5880, section 6.7.4).
func auth(key []byte) bfd.Auth {
	sum := sha256.Sum256(key)
	return bfd.Auth{Type: bfd.MeticulousKeyedSHA1, ID: sum[31], Key: string(sum[:20])}
}

// secretNames are the Secrets that this speaker needs: the key of the speakers, and what BGPPeers name.
func (s *Speaker) secretNames() map[string]bool {
	names := map[string]bool{v1alpha1.BFDSecret: true}
	for _, peer := range client.Objects[*v1alpha1.BGPPeer](s.peers.GetStore()) {
		if ref := peer.Spec.PasswordSecretRef; ref != nil {
			names[ref.Name] = true
		}
	}
	return names
}

// watchSecrets follows the BGPPeers with what is watched.
func (s *Speaker) watchSecrets() {
	if err := s.secrets.want(s.secretNames()); err != nil {
		klog.Background().Error(err, "Not all Secrets can be watched", "node", s.Node)
	}
}

// passwords are the Secrets that BGPPeers name, by name, and those of them that may not be read.
func (s *Speaker) passwords(peers []*v1alpha1.BGPPeer) (named map[string]map[string][]byte, withheld map[string]bool) {
	named, withheld = map[string]map[string][]byte{}, map[string]bool{}
	for _, peer := range peers {
		ref := peer.Spec.PasswordSecretRef
		if ref == nil {
			continue
		}
		data, exists, forbidden := s.secrets.get(ref.Name)
		if exists {
			named[ref.Name] = data
		}
		if forbidden {
			withheld[ref.Name] = true
		}
	}
	return named, withheld
}

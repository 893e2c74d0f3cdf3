package speaker

import (
	"crypto/sha256"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
)

// keyOther is what the Secret v1alpha1.BFDSecret has beside the key while that is changed: the one before or after it, which is
// also accepted.
const keyOther = "otherKey"

// keys are the key of the speakers and the other one that is accepted, which may be missing.
type keys struct{ now, other []byte }

// keys reads the keys; without one, speakers do not watch each other.
func (s *Speaker) keys() keys {
	object, exists, err := s.secrets.GetStore().GetByKey(s.Namespace + "/" + v1alpha1.BFDSecret)
	if err != nil || !exists {
		return keys{}
	}
	secret := object.(*corev1.Secret)
	return keys{now: secret.Data[v1alpha1.BFDSecretKey], other: secret.Data[keyOther]}
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

// passwords are the Secrets that BGPPeers name, by name.
func (s *Speaker) passwords(peers []*v1alpha1.BGPPeer) map[string]map[string][]byte {
	named := map[string]map[string][]byte{}
	for _, peer := range peers {
		ref := peer.Spec.PasswordSecretRef
		if ref == nil {
			continue
		}
		if object, exists, err := s.secrets.GetStore().GetByKey(s.Namespace + "/" + ref.Name); err == nil && exists {
			named[ref.Name] = object.(*corev1.Secret).Data
		}
	}
	return named
}

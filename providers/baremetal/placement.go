package baremetal

import (
	"cmp"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Candidates is how many nodes may own an address by turns: enough for two to
// fail, few enough to watch each other closely.
const Candidates = 3

// unfit says why a node cannot own an address, whatever the address. That
// kubelet is silent bars no node from BGP: its service proxy may go on, and its
// routes go with the speaker.
func unfit(node *corev1.Node) v1alpha1.Reason {
	if reason := v1alpha1.NodeBarred(node); reason != "" {
		return reason
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return v1alpha1.NodeNotReady
		}
	}
	return ""
}

// contender is a node that may own an address.
type contender struct {
	name string
	// weight by the preferences of the Advertisements; higher comes first.
	weight int32
}

// rank chooses the candidates of an address, best first. The order so far is
// kept as far as its nodes may still own the address, so that nothing moves
// without need and a node that comes back goes to the end. New nodes are
// ranked by weight, then by rendezvous hashing, which spreads addresses evenly
// and moves only those of a node that went; a node that owns more than its
// share comes later, so that chance does not pile addresses on one node.
//
// load is how many addresses each node owns, without this one.
func rank(address string, current []string, contenders []contender, load map[string]int, most int) []string {
	may := make(map[string]bool, len(contenders))
	for _, c := range contenders {
		may[c.name] = true
	}
	ranked := make([]string, 0, most)
	for _, name := range current {
		if may[name] && !slices.Contains(ranked, name) && len(ranked) < most {
			ranked = append(ranked, name)
		}
	}
	if len(ranked) == most || len(ranked) == len(contenders) {
		return ranked
	}

	fresh := make([]scored, 0, len(contenders))
	share := fairShare(contenders, load)
	for _, c := range contenders {
		if slices.Contains(ranked, c.name) {
			continue
		}
		fresh = append(fresh, scored{contender: c, full: load[c.name] >= share, score: score(address, c.name)})
	}
	slices.SortFunc(fresh, func(a, b scored) int {
		return cmp.Or(
			cmp.Compare(b.weight, a.weight),
			compareBool(a.full, b.full),
			cmp.Compare(b.score, a.score),
			cmp.Compare(a.name, b.name),
		)
	})
	for _, s := range fresh[:min(len(fresh), most-len(ranked))] {
		ranked = append(ranked, s.name)
	}
	return ranked
}

// lead puts the node first that has the address, if it was a candidate so far
// and still is one: it took over, and keeps the address. Those before it, which
// did not serve, go to the end.
func lead(owner string, current, ranked []string) []string {
	i := slices.Index(ranked, owner)
	if i <= 0 || !slices.Contains(current, owner) {
		return ranked
	}
	return slices.Concat(ranked[i:], ranked[:i])
}

type scored struct {
	contender
	full  bool
	score uint64
}

// fairShare is how many addresses a node may own before others come first:
// a quarter above the average, this address included.
func fairShare(contenders []contender, load map[string]int) int {
	total := 1
	for _, c := range contenders {
		total += load[c.name]
	}
	share := (total*5 + 4*len(contenders) - 1) / (4 * len(contenders))
	return max(share, 1)
}

func score(address, node string) uint64 {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(address))
	_, _ = hash.Write([]byte{0})
	_, _ = hash.Write([]byte(node))
	// FNV changes its high bits little for the last bytes: mix them (the
	// finaliser of MurmurHash3).
	h := hash.Sum64()
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

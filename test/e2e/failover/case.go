package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// bfdPorts are those that speakers watch each other on: RFC 5881, section 4,
// and RFC 5883, section 5.
var bfdPorts = []uint16{3784, 3785, 4784}

const (
	// recovery is how long Herald has to be of service again: well beyond
	// what any failure should cost, so that a slow one is a number too.
	recovery = 30 * time.Second
	// cut is how long a path is broken, apiAway how long the API server is away
	// before the power goes, grace how long a pod serves on when it is to end.
	cut     = 3 * time.Second
	apiAway = 2 * time.Second
	grace   = 2 * time.Second
	// phase is what timers of Herald have to drift before something is broken.
	phase = time.Second
)

// Case is a way to break things.
type Case struct {
	Name string
	// Moves are how many times the address is to have another owner.
	Moves int
	// Dual says that two nodes can answer at a time, which is measured.
	Dual bool
	// Local is for a Service of policy Local with one pod.
	Local bool
	// Everywhere has a pod on each node, not only where no owner can be.
	Everywhere bool
	// Break does it to the owner. It may Mark anew, so that what comes before is
	// not measured; and take back what it has done, when that is a part of it.
	Break func(ctx context.Context, r *Run) error
}

// Cases are all, in the order in which they are best read.
var Cases = []Case{
	{Name: "power-loss", Moves: 1, Break: PowerLoss},
	{Name: "sigkill", Moves: 1, Break: KillSpeaker},
	{Name: "sigterm", Moves: 1, Dual: true, Break: StopSpeaker},
	{Name: "drain", Moves: 1, Dual: true, Everywhere: true, Break: Drain},
	{Name: "proxy-killed", Moves: 1, Dual: true, Break: KillProxy},
	{Name: "proxy-hung", Moves: 1, Dual: true, Break: HangProxy},
	{Name: "partition-heal", Dual: true, Break: CutAndHeal},
	{Name: "mesh-cut", Dual: true, Break: CutMesh},
	{Name: "local-move", Moves: 1, Dual: true, Local: true, Break: MovePod},
	// The last: Kubernetes' own controllers take up to half a minute to see all
	// again after an outage, and local-move depends on them.
	{Name: "api-down", Moves: 1, Break: PowerLossWithoutAPI},
}

// PowerLoss takes the power from the owner: its links go down, all at once.
func PowerLoss(ctx context.Context, r *Run) error { return r.Box.PowerOff(ctx, r.Owner) }

// KillSpeaker ends the owner's speaker by SIGKILL. The node serves on.
func KillSpeaker(ctx context.Context, r *Run) error { return r.Box.Kill(ctx, "speaker-"+r.Owner) }

// StopSpeaker ends it by SIGTERM, as an update of the DaemonSet does.
func StopSpeaker(ctx context.Context, r *Run) error { return r.Box.Stop(ctx, "speaker-"+r.Owner) }

// Drain cordons the owner and evicts its pods, as kubectl drain does: they serve
// on for their grace period. The speaker, of a DaemonSet, stays.
func Drain(ctx context.Context, r *Run) error {
	if err := r.cordon(ctx, r.Owner, true); err != nil {
		return err
	}
	if !slices.Contains(r.Nodes, r.Owner) {
		return nil
	}
	return r.endPod(ctx, r.Owner)
}

// endPod ends a pod as a kubelet does: it is terminating, then it is gone.
func (s *Scene) endPod(ctx context.Context, node string) error {
	if err := s.Box.TerminatePod(ctx, s.Namespace, s.pod(node)); err != nil {
		return err
	}
	if err := sleep(ctx, cmp.Or(s.Grace, grace)); err != nil {
		return err
	}
	return s.Box.DeletePod(ctx, s.Namespace, s.pod(node))
}

// KillProxy ends the owner's kube-proxy and flushes its rules: the speaker is
// fine, and the node serves nothing.
func KillProxy(ctx context.Context, r *Run) error { return r.Box.KillProxy(ctx, r.Owner) }

// HangProxy stops it, so that connections to it are accepted and not answered.
// Its rules serve on, and follow no change.
func HangProxy(_ context.Context, r *Run) error {
	return r.Box.Signal("kube-proxy-"+r.Owner, syscall.SIGSTOP)
}

// CutAndHeal has the switch drop all frames of the owner until another node has
// the address, and some time longer; what comes after the end of that is measured.
func CutAndHeal(ctx context.Context, r *Run) error {
	if err := r.Box.Isolate(ctx, r.Owner); err != nil {
		return err
	}
	if err := r.Settle(ctx, 1, recovery); err != nil {
		return fmt.Errorf("while the owner was isolated: %w", err)
	}
	if err := sleep(ctx, cut); err != nil {
		return err
	}
	r.Mark()
	return r.Box.Rejoin(ctx, r.Owner)
}

// CutMesh has the switch drop the speakers' own packets of the owner for some
// time. The owner and the LAN are well.
func CutMesh(ctx context.Context, r *Run) error {
	if err := r.Box.BlockUDP(ctx, r.Owner, bfdPorts...); err != nil {
		return err
	}
	if err := sleep(ctx, cut); err != nil {
		return err
	}
	return r.Box.UnblockUDP(ctx, r.Owner)
}

// PowerLossWithoutAPI takes the power from the owner when the API server has
// been away for some time; the time before is not measured.
func PowerLossWithoutAPI(ctx context.Context, r *Run) error {
	if err := r.Box.Kill(ctx, apiServer); err != nil {
		return err
	}
	if err := sleep(ctx, apiAway); err != nil {
		return err
	}
	if failed := r.failures(); failed != nil {
		return fmt.Errorf("without the API server, and before the power went: %w", failed)
	}
	r.Mark()
	return PowerLoss(ctx, r)
}

// failures is the last failure of a request since the mark.
func (r *Run) failures() error {
	var last error
	for _, request := range r.client.since(r.from) {
		if request.Err != nil {
			last = request.Err
		}
	}
	return last
}

// MovePod moves the only pod of the Service to another node, as the rolling
// update of a Deployment does: once the new one is ready the old one is told
// to end, and serves until the end of its grace period.
func MovePod(ctx context.Context, r *Run) error {
	nodes, err := r.balancing(ctx)
	if err != nil {
		return err
	}
	next := nodes[(slices.Index(nodes, r.Owner)+1)%len(nodes)]
	if err := r.addPod(ctx, next); err != nil {
		return err
	}
	if err := r.served(ctx, next); err != nil {
		return err
	}
	r.Nodes = []string{next}
	return r.endPod(ctx, r.Owner)
}

// Play plays one round of a case. The trace is good if there is one, also beside
// an error: then the address was not where, or not served as, it should be. The
// cluster is whole when Play returns, or the error says why not.
func (s *Scene) Play(ctx context.Context, c Case) (trace *Trace, err error) {
	run, err := s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	err = sleep(ctx, rand.N(phase))
	if err == nil {
		run.Mark()
		err = c.Break(ctx, run)
	}
	if err != nil {
		err = fmt.Errorf("breaking it: %w", err)
		_, end := run.End()
		return nil, errors.Join(err, end, s.Restore(ctx))
	}
	settled := run.Settle(ctx, c.Moves, recovery)
	if settled != nil {
		settled = fmt.Errorf("%s had the address, the candidates were %v: %w", run.Owner, run.Candidates, settled)
	}
	seen, end := run.End()
	return &seen, errors.Join(settled, end, s.Restore(ctx))
}

func sleep(ctx context.Context, span time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(span):
		return nil
	}
}

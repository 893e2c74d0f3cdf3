package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	cpconfigv1alpha1 "k8s.io/cloud-provider/config/v1alpha1"
	componentbaseconfig "k8s.io/component-base/config"
	"k8s.io/component-base/configz"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	controllermanagerapp "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/controller/election"
)

// leadership has the app's controllers work while this process leads. The app
// would elect by itself; it cannot release the Lease when it ends. So it is
// told not to, and its controllers wait here until they may begin:
//
//	RunE ── configured ──► lead: the elector waits for the Lease
//	app ── start(controller) waits ◄── leading ──┘
//	SIGTERM: the controllers' context is done, they end, the Lease is released, the app ends
type leadership struct {
	configured chan *appconfig.CompletedConfig
	wanted     componentbaseconfig.LeaderElectionConfiguration // as the flags say

	// leading is closed when the controllers may begin: under ctx, in group.
	leading  chan struct{}
	ctx      context.Context
	group    *errgroup.Group
	elector  *election.Elector // nil without election
	showOnce sync.Once
}

func newLeadership() *leadership {
	return &leadership{configured: make(chan *appconfig.CompletedConfig, 1), leading: make(chan struct{})}
}

// take takes the election over from the app, which calls it before anything
// begins.
func (l *leadership) take(completed *appconfig.CompletedConfig) {
	l.wanted = completed.ComponentConfig.Generic.LeaderElection
	completed.ComponentConfig.Generic.LeaderElection.LeaderElect = false
	l.configured <- completed
}

// checkElection refuses what the elector cannot do.
func checkElection(wanted componentbaseconfig.LeaderElectionConfiguration, migrate bool) error {
	lease, renew, retry := wanted.LeaseDuration.Duration, wanted.RenewDeadline.Duration, wanted.RetryPeriod.Duration
	switch {
	case migrate:
		return fmt.Errorf("--enable-leader-migration: there are no controllers of kube-controller-manager here to migrate")
	case !wanted.LeaderElect:
		return nil
	case wanted.ResourceLock != resourcelock.LeasesResourceLock:
		return fmt.Errorf("--leader-elect-resource-lock %q: want %s", wanted.ResourceLock, resourcelock.LeasesResourceLock)
	case lease < time.Second || renew <= 0 || retry <= 0:
		return fmt.Errorf("--leader-elect-lease-duration must be 1s or longer, --leader-elect-renew-deadline and --leader-elect-retry-period longer than 0: they are %s, %s and %s", lease, renew, retry)
	case lease <= renew:
		return fmt.Errorf("--leader-elect-lease-duration %s must be longer than --leader-elect-renew-deadline %s", lease, renew)
	case renew <= retry*6/5:
		return fmt.Errorf("--leader-elect-renew-deadline %s must be longer than --leader-elect-retry-period %s by a fifth and more", renew, retry)
	}
	return nil
}

// masterStatus is the metric of client-go's election, which we do not use.
var masterStatus = metrics.NewGaugeVec(&metrics.GaugeOpts{
	Name:           "leader_election_master_status",
	Help:           "1 if this process leads, 0 if it waits to.",
	StabilityLevel: metrics.ALPHA,
}, []string{"name"})

// lead waits until this process leads, does its work, and returns when that has
// ended and the Lease is released.
func (l *leadership) lead(ctx context.Context, work func(context.Context) error) error {
	if !l.wanted.LeaderElect {
		return work(ctx)
	}
	legacyregistry.MustRegister(masterStatus)
	status := masterStatus.WithLabelValues(l.wanted.ResourceName)
	status.Set(0)
	return l.elector.Run(ctx, func(ctx context.Context) error {
		status.Set(1)
		defer status.Set(0)
		return work(ctx)
	})
}

// leaseEnds is how long it takes at most until the Lease of a leader that is
// dead can be taken.
func (l *leadership) leaseEnds() time.Duration {
	return l.wanted.LeaseDuration.Duration + 2*l.wanted.RetryPeriod.Duration
}

// notLeading says why this process never led.
func (l *leadership) notLeading() error {
	lease := l.wanted.ResourceNamespace + "/" + l.wanted.ResourceName
	if leader := l.elector.Leader(); leader != "" {
		return fmt.Errorf("another controller leads, %s has Lease %s: scale the Deployment to 0 first", leader, lease)
	}
	return fmt.Errorf("could not take Lease %s: if its namespace is gone, add --leader-elect=false", lease)
}

// elect makes the elector.
func (l *leadership) elect(completed *appconfig.CompletedConfig) error {
	if !l.wanted.LeaderElect {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	config := rest.AddUserAgent(completed.Kubeconfig, "leader-election")
	// A request that hangs leaves time for another one.
	config.Timeout = max(time.Second, l.wanted.RenewDeadline.Duration/2)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client for the leader election: %w", err)
	}
	l.elector = &election.Elector{
		Leases: client.CoordinationV1(), Namespace: l.wanted.ResourceNamespace, Name: l.wanted.ResourceName,
		Identity: host + "_" + string(uuid.NewUUID()), Recorder: completed.EventRecorder,
		LeaseDuration: l.wanted.LeaseDuration.Duration, RenewDeadline: l.wanted.RenewDeadline.Duration, RetryPeriod: l.wanted.RetryPeriod.Duration,
	}
	return nil
}

// work lets the controllers begin, and returns when all have ended: after ctx
// is done, or one of them failed.
func (l *leadership) work(ctx context.Context) error {
	l.group, l.ctx = errgroup.WithContext(ctx)
	l.group.Go(func() error { <-l.ctx.Done(); return nil })
	close(l.leading)
	return l.group.Wait()
}

// led has a controller of the app begin when this process leads.
func (l *leadership) led(constructor app.ControllerInitFuncConstructor) app.ControllerInitFuncConstructor {
	construct := constructor.Constructor
	constructor.Constructor = func(initContext app.ControllerInitContext, completed *appconfig.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
		start := construct(initContext, completed, cloud)
		return func(appCtx context.Context, controllers controllermanagerapp.ControllerContext) (controller.Interface, bool, error) {
			l.showOnce.Do(func() { l.show(completed) })
			select {
			case <-appCtx.Done():
				return nil, false, nil
			case <-l.leading:
			}
			return start(l.ctx, controllers) //nolint:contextcheck // it works as long as this process leads
		}
	}
	return constructor
}

// show has /configz show what the flags say of the election, not what the app
// was told.
func (l *leadership) show(completed *appconfig.CompletedConfig) {
	shown := completed.ComponentConfig
	shown.Generic.LeaderElection = l.wanted
	external := &cpconfigv1alpha1.CloudControllerManagerConfiguration{}
	if err := cpconfigv1alpha1.Convert_config_CloudControllerManagerConfiguration_To_v1alpha1_CloudControllerManagerConfiguration(&shown, external, nil); err != nil {
		klog.Background().Error(err, "The configuration cannot be shown")
		return
	}
	external.SetGroupVersionKind(cpconfigv1alpha1.SchemeGroupVersion.WithKind("CloudControllerManagerConfiguration"))
	configz.Delete(app.ConfigzName)
	if config, err := configz.New(app.ConfigzName); err == nil {
		_ = config.Set(external)
	}
}

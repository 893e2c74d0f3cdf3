package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/controller/service"
)

// removal is --uninstall: once, and as the leader, everything of Herald is taken
// off the Services, so that they and their namespaces can be deleted without a
// controller. It is done by the controllers themselves, for which no Service is
// theirs any more.
type removal struct {
	wanted  bool
	verbose bool
	timeout time.Duration
	out     io.Writer

	// withoutObjects is set where Herald's kinds are gone: then nothing but the
	// Services tells of it.
	withoutObjects bool
	// services is the controller, once it has been made.
	services chan *service.Controller
}

func (r *removal) addFlags(flags *pflag.FlagSet) {
	r.out, r.services = os.Stdout, make(chan *service.Controller, 1)
	flags.BoolVar(&r.wanted, "uninstall", false, "Give up every address and load balancer, take the finalizer and the conditions off every Service, and exit. The Deployment must be scaled to 0 before: as long as another controller leads, this is refused.")
	flags.DurationVar(&r.timeout, "uninstall-timeout", 10*time.Minute, "With --uninstall: how long it may take. Load balancers in AWS take minutes to go.")
}

// adjust has the app do this and nothing else: nothing is served on a port, no
// node is touched, and the log is kept for who asks for it with -v.
func (r *removal) adjust(opts *options.CloudControllerManagerOptions, constructors map[string]app.ControllerInitFuncConstructor, verbose bool) {
	r.verbose = verbose
	opts.SecureServing.BindPort, opts.WebhookServing.BindPort = 0, 0
	opts.Generic.Controllers = []string{names.ServiceLBController}
	for _, name := range nodeControllers {
		delete(constructors, name)
	}
}

// silence drops the log, unless it is asked for: what there is to say of this is
// printed.
func (r *removal) silence() {
	if r.wanted && !r.verbose {
		klog.SetLogger(logr.Discard())
	}
}

// lead lets the controllers work while this process leads: until ctx is done,
// or until everything is released if that is wanted.
func (r *removal) lead(ctx context.Context, leads *leadership, completed *appconfig.CompletedConfig) error {
	if !r.wanted {
		return leads.lead(ctx, leads.work)
	}
	served, err := servesObjects(completed.Client.Discovery())
	if err != nil {
		return err
	}
	r.withoutObjects = !served
	objects, err := client.New(completed.Kubeconfig)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	began := false
	waiting := time.AfterFunc(leads.leaseEnds(), cancel)
	err = leads.lead(ctx, func(ctx context.Context) error {
		if began = waiting.Stop(); !began {
			return nil
		}
		return r.work(ctx, leads, objects)
	})
	if err == nil && !began {
		return leads.notLeading()
	}
	return err
}

// work returns when everything is released, or ctx is done.
func (r *removal) work(ctx context.Context, leads *leadership, objects *client.Clients) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	released := make(chan error, 1)
	go func() {
		released <- r.watch(ctx, objects)
		end()
	}()
	return errors.Join(leads.work(ctx), <-released)
}

// watch returns when nothing is left, and says what is when ctx is done before.
func (r *removal) watch(ctx context.Context, objects *client.Clients) error {
	var services *service.Controller
	select {
	case services = <-r.services:
	case <-ctx.Done():
		return ctx.Err()
	}
	var first, told []string
	for began := time.Now(); ; {
		left, err := r.left(ctx, services, objects)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("after %s not everything is released: %s", time.Since(began).Round(time.Second), some(told))
		case err != nil:
			told = []string{err.Error()}
		case len(left) == 0:
			fmt.Fprintf(r.out, "Released %d of Herald's Services and addresses: nothing is left.\n", len(first))
			return nil
		default:
			if first == nil {
				first = left
			}
			if len(left) != len(told) {
				fmt.Fprintf(r.out, "%d Services and addresses are left\n", len(left))
			}
			told = left
		}
		select {
		case <-ctx.Done():
		case <-time.After(leftAgain):
		}
	}
}

// leftAgain is the time between two looks at what is left.
const leftAgain = 500 * time.Millisecond

// left lists what is not released: Services, and addresses that are claimed.
func (r *removal) left(ctx context.Context, services *service.Controller, objects *client.Clients) ([]string, error) {
	left, err := services.Unreleased(ctx)
	if err != nil || r.withoutObjects {
		return left, err
	}
	vips, err := objects.VirtualIPs.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing VirtualIPs: %w", err)
	}
	for i := range vips.Items {
		for _, claim := range vips.Items[i].Spec.Claims {
			left = append(left, fmt.Sprintf("VirtualIP %s of %s/%s", vips.Items[i].Name, claim.Namespace, claim.Name))
		}
	}
	return left, nil
}

// servesObjects reports whether the API server has all of Herald's kinds.
func servesObjects(of discovery.DiscoveryInterface) (bool, error) {
	list, err := of.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for Herald's kinds: %w", err)
	}
	have := sets.New[string]()
	for i := range list.APIResources {
		have.Insert(list.APIResources[i].Name)
	}
	return have.HasAll("addresspools", "advertisements", "bgppeers", "speakers", "virtualips"), nil
}

// some names a few of them.
func some(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(names[:few], "; "), len(names)-few)
}

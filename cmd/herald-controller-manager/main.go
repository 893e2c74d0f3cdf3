// Command herald-controller-manager is Herald's cloud controller manager: it
// gives Services of type LoadBalancer their addresses.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the client
	_ "k8s.io/component-base/metrics/prometheus/version"  // metric of the version
	controllermanagerapp "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"
	"k8s.io/controller-manager/pkg/healthz"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/cloudconfig"
	"github.com/heraldlb/herald/controller/election"
	"github.com/heraldlb/herald/controller/service"
	"github.com/heraldlb/herald/providers/baremetal"
)

// component names the program in leases, events and requests.
const component = "herald-controller-manager"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	command, told, err := newCommand(ctx)
	if err == nil {
		err = cli.RunNoErrOutput(command)
	}
	if err != nil {
		if !*told {
			fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		}
		os.Exit(1)
	}
}

// newCommand returns the command, which works until ctx is done; told says
// later whether its error has been printed, which the app does for its own.
func newCommand(ctx context.Context) (command *cobra.Command, told *bool, err error) {
	told = new(bool)
	opts, err := defaultOptions()
	if err != nil {
		return nil, told, err
	}
	var namespace string
	var removing removal
	var flags cliflag.NamedFlagSets
	flags.FlagSet("herald").StringVar(&namespace, "namespace", "herald-system", "The namespace of Herald: that of the speakers' Leases, and of the Secret that they share.")
	removing.addFlags(flags.FlagSet("herald"))

	var wanted world
	leads := newLeadership()
	constructors := map[string]app.ControllerInitFuncConstructor{
		names.ServiceLBController: leads.led(app.ControllerInitFuncConstructor{
			InitContext: app.ControllerInitContext{ClientName: component},
			Constructor: func(_ app.ControllerInitContext, completed *appconfig.CompletedConfig, _ cloudprovider.Interface) app.InitFunc {
				return func(ctx context.Context, _ controllermanagerapp.ControllerContext) (controller.Interface, bool, error) {
					services, err := newServices(completed, wanted, namespace, &removing)
					if err != nil {
						return nil, false, err
					}
					removing.services <- services
					leads.group.Go(func() error { return runServices(ctx, services) })
					return leader{leads.elector}, true, nil
				}
			},
		}),
		names.CloudNodeController: leads.led(app.ControllerInitFuncConstructor{
			InitContext: app.ControllerInitContext{ClientName: component},
			Constructor: app.StartCloudNodeControllerWrapper,
		}),
		names.CloudNodeLifecycleController: leads.led(app.ControllerInitFuncConstructor{
			InitContext: app.ControllerInitContext{ClientName: component},
			Constructor: app.StartCloudNodeLifecycleControllerWrapper,
		}),
	}
	app.ControllersDisabledByDefault.Insert(nodeControllers...)
	initialize := func(completed *appconfig.CompletedConfig) cloudprovider.Interface {
		removing.silence()
		leads.take(completed)
		return cloud{instances: wanted.amazon.instances()}
	}
	appCtx, endApp := context.WithCancel(context.WithoutCancel(ctx))
	command = app.NewCloudControllerManagerCommand(opts, initialize, constructors, names.CCMControllerAliases(), flags, appCtx.Done())
	command.Use = component
	command.Long = "herald-controller-manager gives Services of type LoadBalancer their load balancers: on bare metal it assigns virtual IPs from pools and chooses the nodes that may announce them, in AWS it makes Network and Classic Load Balancers."

	runApp := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		defer endApp()
		config, err := load(opts)
		if err != nil {
			return err
		}
		wanted.config = config
		if removing.wanted {
			removing.adjust(opts, constructors, command.Flags().Lookup("v").Value.String() != "0")
		}
		if err := chooseControllers(constructors, opts.Generic.Controllers, config.UsesAWS()); err != nil {
			return err
		}
		if err := checkElection(opts.Generic.LeaderElection, opts.Generic.LeaderMigrationEnabled); err != nil {
			return err
		}
		if wanted.amazon, err = connect(ctx, config, command.Flags().Changed("cluster-name")); err != nil {
			return err
		}
		return runLed(ctx, opts, leads, &removing, told, func() error { return runApp(command, args) })
	}
	return command, told, nil
}

// runLed runs the app, and its controllers while this process leads. It returns
// when the controllers have ended, or when the app has failed.
func runLed(ctx context.Context, opts *options.CloudControllerManagerOptions, leads *leadership, removing *removal, told *bool, runApp func() error) error {
	if answers, err := awaitAPI(ctx, opts); err != nil || !answers {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- runApp() }()
	var completed *appconfig.CompletedConfig
	select {
	case err := <-ended:
		*told = err != nil
		return err
	case completed = <-leads.configured:
	}
	if err := leads.elect(completed); err != nil {
		return err
	}
	led := make(chan error, 1)
	go func() { led <- removing.lead(ctx, leads, completed) }()
	select {
	case err := <-led:
		return err
	case err := <-ended:
		*told = err != nil
		return err
	}
}

// world is what we were told to work on.
type world struct {
	config *cloudconfig.CloudConfig
	// amazon is nil when nothing is wanted of AWS.
	amazon *amazon
}

// nodeControllers run only when --controllers names them: on bare metal there
// is nothing for them to do, and beside another cloud provider they are its.
var nodeControllers = []string{names.CloudNodeController, names.CloudNodeLifecycleController}

// chooseControllers drops the node controllers that nobody named, which the
// app would warn of, and refuses those that no provider can serve.
func chooseControllers(constructors map[string]app.ControllerInitFuncConstructor, asked []string, instances bool) error {
	full := make([]string, len(asked))
	for i, name := range asked {
		bare, off := strings.CutPrefix(name, "-")
		if canonical, ok := names.CCMControllerAliases()[bare]; ok {
			bare = canonical
		}
		full[i] = bare
		if off {
			full[i] = "-" + bare
		}
	}
	for _, name := range nodeControllers {
		switch {
		case slices.Contains(full, name) && !instances:
			return fmt.Errorf("--controllers: %s needs a provider that knows of instances: name a class of provider aws, or aws, in --cloud-config", name)
		case !slices.Contains(full, name) && !slices.Contains(full, "-"+name):
			delete(constructors, name)
		}
	}
	return nil
}

// defaultOptions are the options of the cloud provider app with our defaults.
func defaultOptions() (*options.CloudControllerManagerOptions, error) {
	opts, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("preparing the options: %w", err)
	}
	opts.KubeCloudShared.CloudProvider.Name = providerName
	opts.Generic.LeaderElection.ResourceName = component
	opts.Generic.LeaderElection.ResourceNamespace = "herald-system"
	// The API server's own fairness limits us; the client's limit would only
	// stretch a burst of Services.
	opts.Generic.ClientConnection.QPS = 1000
	opts.Generic.ClientConnection.Burst = 2000
	// A worker spends its time waiting for the API server.
	opts.ServiceController.ConcurrentServiceSyncs = 16
	// Questions about instances that are asked at the same time are one request.
	opts.NodeController.ConcurrentNodeSyncs = 100
	opts.NodeLifecycleController.ConcurrentNodeLifecycleSyncs = 100
	return opts, nil
}

// load reads what can be wrong with the files before anything starts.
func load(opts *options.CloudControllerManagerOptions) (*cloudconfig.CloudConfig, error) {
	shared := opts.KubeCloudShared.CloudProvider
	if shared.Name != providerName {
		return nil, fmt.Errorf("--cloud-provider %q: want %s", shared.Name, providerName)
	}
	config, err := cloudconfig.Load(shared.CloudConfigFile)
	if err != nil {
		return nil, err
	}
	if _, err := clientcmd.BuildConfigFromFlags(opts.Master, opts.Generic.ClientConnection.Kubeconfig); err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}

// leader is what the app knows of the controllers: whether they still lead.
type leader struct{ elector *election.Elector }

func (leader) Name() string { return names.ServiceLBController }

func (l leader) HealthChecker() healthz.UnnamedHealthChecker {
	if l.elector == nil {
		return nil
	}
	return l.elector
}

// newServices makes our service controller, in place of the stock one.
func newServices(completed *appconfig.CompletedConfig, wanted world, namespace string, removing *removal) (*service.Controller, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	config, err := completed.ClientBuilder.Config(component)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	client.SurviveRestores(config)
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	// Not those of the app, whose clients do not survive a restored etcd.
	shared := informers.NewSharedInformerFactory(kube, 0)
	recorder := completed.EventBroadcaster.NewRecorder(scheme, corev1.EventSource{Component: component})
	clusterName := wanted.config.ClusterName
	if clusterName == "" {
		clusterName = completed.ComponentConfig.KubeCloudShared.ClusterName
	}
	providers := map[string]cloudprovider.LoadBalancer{}
	if wanted.config.UsesBareMetal() && !removing.withoutObjects {
		if providers[cloudconfig.ProviderBareMetal], err = bareMetal(config, kube, shared, recorder, namespace); err != nil {
			return nil, err
		}
	}
	if wanted.amazon.serves() {
		if providers[cloudconfig.ProviderAWS], err = wanted.amazon.provider(shared, recorder, clusterName); err != nil {
			return nil, err
		}
	}
	classes := service.Classes{ByName: map[string]service.Class{}, Default: *wanted.config.Default}
	for name, class := range wanted.config.Classes {
		classes.ByName[name] = service.Class{Provider: providers[class.Provider]}
	}
	service.RegisterMetrics()
	return service.New(service.Options{
		Client:      kube,
		Informers:   shared,
		Recorder:    recorder,
		Classes:     classes,
		ClusterName: clusterName,
		Workers:     int(completed.ComponentConfig.ServiceController.ConcurrentServiceSyncs),
		Releasing:   removing.wanted,
	}), nil
}

func runServices(ctx context.Context, services *service.Controller) error {
	services.Informers.Start(ctx.Done())
	if err := services.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the service controller ended: %w", err)
	}
	return nil
}

// bareMetal makes the provider of all classes that are served on bare metal.
func bareMetal(
	config *rest.Config, kube kubernetes.Interface, shared informers.SharedInformerFactory, recorder record.EventRecorder, namespace string,
) (cloudprovider.LoadBalancer, error) {
	herald, err := client.New(config)
	if err != nil {
		return nil, err
	}
	return baremetal.New(baremetal.Options{
		Client:    kube,
		Herald:    herald,
		Informers: shared,
		Recorder:  recorder,
		Namespace: namespace,
	})
}

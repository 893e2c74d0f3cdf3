// Command herald-controller-manager is Herald's cloud controller manager: it
// gives Services of type LoadBalancer their addresses.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
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
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/cloudconfig"
	"github.com/heraldlb/herald/controller/service"
	"github.com/heraldlb/herald/providers/baremetal"
)

// component names the program in leases, events and requests.
const component = "herald-controller-manager"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	command, told, err := newCommand(ctx.Done())
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

// newCommand returns the command; told says later whether its error has been
// printed, which the app does for its own.
func newCommand(stop <-chan struct{}) (command *cobra.Command, told *bool, err error) {
	told = new(bool)
	opts, err := defaultOptions()
	if err != nil {
		return nil, told, err
	}
	var namespace string
	var flags cliflag.NamedFlagSets
	flags.FlagSet("herald").StringVar(&namespace, "namespace", "herald-system", "The namespace of Herald: that of the speakers' Leases, and of the Secret that they share.")

	config := &cloudconfig.CloudConfig{}
	constructors := map[string]app.ControllerInitFuncConstructor{
		names.ServiceLBController: {
			InitContext: app.ControllerInitContext{ClientName: component},
			Constructor: func(_ app.ControllerInitContext, completed *appconfig.CompletedConfig, _ cloudprovider.Interface) app.InitFunc {
				return func(ctx context.Context, _ controllermanagerapp.ControllerContext) (controller.Interface, bool, error) {
					return nil, true, startService(ctx, completed, config, namespace)
				}
			},
		},
	}
	initialize := func(*appconfig.CompletedConfig) cloudprovider.Interface { return cloud{} }
	command = app.NewCloudControllerManagerCommand(opts, initialize, constructors, names.CCMControllerAliases(), flags, stop)
	command.Use = component
	command.Long = "herald-controller-manager gives Services of type LoadBalancer their addresses: it assigns virtual IPs from pools and chooses the nodes that may announce them."

	run := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		loaded, err := load(opts)
		if err != nil {
			return err
		}
		*config = *loaded
		*told = true
		return run(command, args)
	}
	return command, told, nil
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

// startService starts our service controller in place of the stock one.
func startService(ctx context.Context, completed *appconfig.CompletedConfig, config *cloudconfig.CloudConfig, namespace string) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	kube, err := completed.ClientBuilder.Client(component)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	herald, err := client.New(completed.Kubeconfig)
	if err != nil {
		return err
	}
	recorder := completed.EventBroadcaster.NewRecorder(scheme, corev1.EventSource{Component: component})
	bareMetal, err := baremetal.New(baremetal.Options{
		Client:    kube,
		Herald:    herald,
		Informers: completed.SharedInformers,
		Recorder:  recorder,
		Namespace: namespace,
	})
	if err != nil {
		return err
	}
	classes := service.Classes{ByName: map[string]service.Class{}, Default: *config.Default}
	for name := range config.Classes {
		classes.ByName[name] = service.Class{Provider: bareMetal}
	}
	clusterName := config.ClusterName
	if clusterName == "" {
		clusterName = completed.ComponentConfig.KubeCloudShared.ClusterName
	}
	service.RegisterMetrics()
	services := service.New(service.Options{
		Client:      kube,
		Informers:   completed.SharedInformers,
		Recorder:    recorder,
		Classes:     classes,
		ClusterName: clusterName,
		Workers:     int(completed.ComponentConfig.ServiceController.ConcurrentServiceSyncs),
	})
	go func() {
		if err := services.Run(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The service controller ended")
			klog.FlushAndExit(klog.ExitFlushTimeout, 1)
		}
	}()
	return nil
}

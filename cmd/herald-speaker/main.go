// Command herald-speaker announces virtual IPs from the node that it runs on.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/speaker"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/version"
)

// flags of the speaker.
type flags struct {
	kubeconfig string
	nodeName   string
	namespace  string
	metrics    string
	stateDir   string
	proxyURL   string
	interval   time.Duration
	multiplier uint8
	version    bool
	logs       *logsapi.LoggingConfiguration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	klog.Flush()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		// One line: it is what an operator sees of a container that restarts.
		fmt.Fprintf(os.Stderr, "Error: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f, err := parse(args)
	if err != nil {
		return err
	}
	if f.version {
		fmt.Println(version.Version())
		return nil
	}
	if err := logsapi.ValidateAndApply(f.logs, nil); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	if err := l2.Probe(); err != nil {
		return err
	}
	if err := speaker.PrepareStateDir(f.stateDir); err != nil {
		klog.ErrorS(err, "--state-dir is of no use now: without the API server the speaker cannot start")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.metrics)
	if err != nil {
		return fmt.Errorf("--metrics-bind-address: %w", err)
	}
	defer func() { _ = listener.Close() }()
	return serve(ctx, f, config, listener)
}

func parse(args []string) (*flags, error) {
	f := &flags{logs: logsapi.NewLoggingConfiguration()}
	set := pflag.NewFlagSet("herald-speaker", pflag.ContinueOnError)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "Path of a kubeconfig file; empty uses the ServiceAccount of the pod.")
	set.StringVar(&f.nodeName, "node-name", "", "Name of the Node that the speaker runs on.")
	set.StringVar(&f.namespace, "namespace", "herald-system", "The namespace of Herald: that of the speakers' Leases and of the Secret with their key.")
	set.StringVar(&f.metrics, "metrics-bind-address", "127.0.0.1:7480", "Address to serve /metrics and /healthz on.")
	set.StringVar(&f.stateDir, "state-dir", "", "Folder to keep what is known in, so that the speaker can start while the API server is away; empty for none.")
	set.StringVar(&f.proxyURL, "proxy-healthz-url", health.DefaultProxyURL, "Where the service proxy of the node tells how it is, by status 200 or 503; empty if it is not to be asked.")
	set.DurationVar(&f.interval, "bfd-interval", 0, "Time between two BFD packets of speakers that watch each other, 10ms to 1m; 0 for 100ms with real-time priority (CAP_SYS_NICE) and 300ms without.")
	set.Uint8Var(&f.multiplier, "bfd-multiplier", 3, "How many BFD packets in a row have to be missing for the other speakers to take this one for lost.")
	set.BoolVar(&f.version, "version", false, "Print the version and exit.")
	logsapi.AddFlags(f.logs, set)
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("there are no arguments, got %q", set.Args())
	}
	if f.nodeName == "" && !f.version {
		return nil, errors.New("--node-name is needed: the name of the Node that the speaker runs on")
	}
	if f.interval != 0 && (f.interval < 10*time.Millisecond || f.interval > time.Minute) {
		return nil, fmt.Errorf("--bfd-interval: %s is not between 10ms and 1m", f.interval)
	}
	if f.multiplier == 0 {
		return nil, errors.New("--bfd-multiplier: it takes at least 1 packet")
	}
	if u, err := url.Parse(f.proxyURL); f.proxyURL != "" && (err != nil || u.Scheme != "http" || u.Hostname() == "") {
		return nil, fmt.Errorf("--proxy-healthz-url: %q is not a URL that begins with http:// and has a host", f.proxyURL)
	}
	return f, nil
}

// bfdInterval is how often other speakers are to hear of this one.
func bfdInterval(ctx context.Context, asked time.Duration) time.Duration {
	if asked != 0 {
		return asked
	}
	if err := bfd.RealTime(); err != nil {
		klog.FromContext(ctx).Info("No real-time priority: speakers watch each other at a slower pace", "interval", slowInterval, "reason", err)
		return slowInterval
	}
	return fastInterval
}

// The intervals of BFD without and with real-time priority: a thread that has to wait for a busy processor is late by some
// 200 ms at times.
const (
	slowInterval = 300 * time.Millisecond
	fastInterval = 100 * time.Millisecond
)

// serve runs the speaker and its metrics.
func serve(ctx context.Context, f *flags, config *rest.Config, listener net.Listener) error {
	ctx = klog.NewContext(ctx, klog.Background().WithValues("node", f.nodeName))
	config.UserAgent = "herald-speaker/" + version.Version()
	// Take-overs come in bursts, and the API server's own fairness limits us.
	config.QPS, config.Burst = 200, 400
	client.SurviveRestores(config)
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	herald, err := client.New(config)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	senses := speaker.NewSenses()
	responder := l2.New(l2.Options{Observe: senses.Claim})
	watcher := bfd.New(bfd.Options{Notify: senses.Session})
	prober := health.New(health.Options{Notify: senses.Health})
	// A speaker cannot tell whether there was one before it: routers that keep no routes of one do not mind.
	advertiser := bgp.New(bgp.Options{Restarting: true, Notify: senses.Router})
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), responder, watcher, prober, advertiser)
	recorder, stopEvents, err := newRecorder(kube, f.nodeName)
	if err != nil {
		return err
	}
	defer stopEvents()
	speaking, err := speaker.New(ctx, speaker.Options{
		Client:        kube,
		Herald:        herald,
		Node:          f.nodeName,
		Namespace:     f.namespace,
		Version:       version.Version(),
		StateDir:      f.stateDir,
		ProxyURL:      f.proxyURL,
		Interval:      bfdInterval(ctx, f.interval),
		Multiplier:    f.multiplier,
		Responder:     responder,
		Watcher:       watcher,
		Prober:        prober,
		Advertiser:    advertiser,
		Senses:        senses,
		Watch:         link.Watch,
		WatchGateways: link.WatchGateways,
		Recorder:      recorder,
		Metrics:       registry,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", healthz(speaking.Healthy))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	group, work := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer func() { _ = server.Close() }()
		return speaking.Run(work)
	})
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving metrics: %w", err)
		}
		return nil
	})
	return group.Wait()
}

// healthz answers 200 unless the speaker hangs.
func healthz(healthy func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := healthy(); err != nil {
			http.Error(w, strings.ReplaceAll(err.Error(), "\n", "; "), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// newRecorder returns what writes events of the speaker of a node; stop ends it. The API server refuses events of another node.
func newRecorder(kube kubernetes.Interface, node string) (recorder record.EventRecorder, stop func(), err error) {
	scheme, err := client.NewScheme()
	if err != nil {
		return nil, nil, err
	}
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kube.CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme, corev1.EventSource{Component: "herald-speaker", Host: node}), broadcaster.Shutdown, nil
}

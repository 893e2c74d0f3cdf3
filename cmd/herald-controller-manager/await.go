package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/cloud-provider/options"
	"k8s.io/klog/v2"
)

const (
	// answerPatience is how long an API server may take to answer.
	answerPatience = 5 * time.Second
	askAgain       = time.Second
)

// awaitAPI waits for an API server that answers, which the app does for some
// seconds only. Meanwhile /healthz says that this process lives. It returns
// false if ctx is done before.
func awaitAPI(ctx context.Context, opts *options.CloudControllerManagerOptions) (bool, error) {
	config, err := clientcmd.BuildConfigFromFlags(opts.Master, opts.Generic.ClientConnection.Kubeconfig)
	if err != nil {
		return false, fmt.Errorf("--kubeconfig: %w", err)
	}
	config = rest.AddUserAgent(config, component)
	config.Timeout = answerPatience
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return false, fmt.Errorf("making a client: %w", err)
	}
	if answers(ctx, client) == nil {
		return true, nil
	}
	stop, err := serveAlive(opts)
	if err != nil {
		return false, err
	}
	defer stop()
	for {
		err := answers(ctx, client)
		if err == nil {
			return true, nil
		}
		klog.FromContext(ctx).Info("Waiting for the API server", "reason", err.Error())
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(askAgain):
		}
	}
}

// answers returns nil if the API server says that it is healthy, or that it
// does not tell us.
func answers(ctx context.Context, client kubernetes.Interface) error {
	err := client.Discovery().RESTClient().Get().AbsPath("/healthz").Do(ctx).Error()
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return nil
	}
	return err
}

// serveAlive serves /healthz where the app is going to, until it is stopped.
func serveAlive(opts *options.CloudControllerManagerOptions) (stop func(), err error) {
	if opts.SecureServing.BindPort == 0 {
		return func() {}, nil
	}
	if err := opts.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	var info *server.SecureServingInfo
	var loopback *rest.Config
	if err := opts.SecureServing.ApplyTo(&info, &loopback); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("ok"))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "waiting for the API server", http.StatusServiceUnavailable)
	})
	done := make(chan struct{})
	stopped, _, err := info.Serve(mux, 0, done)
	if err != nil {
		return nil, err
	}
	return func() {
		close(done)
		<-stopped
		opts.SecureServing.Listener = nil // the app makes its own
	}, nil
}

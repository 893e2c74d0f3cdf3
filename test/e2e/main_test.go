// Package e2e proves on a real cluster what Herald promises: a real API server,
// real kube-proxies, hosts of their own, and the shipped programs with the
// shipped ServiceAccounts.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/test/sandbox"
)

// The cluster that all tests use, one after the other or side by side: each
// has namespaces, pools and address ranges of its own. What disturbs others
// (losing a node, restarting Herald) is done by tests that are not parallel.
var (
	box    *sandbox.Sandbox
	kube   kubernetes.Interface
	herald *client.Clients
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the end-to-end tests need root: they make network namespaces")
		return 1
	}
	ctx := context.Background()
	var err error
	box, err = sandbox.Up(ctx, sandbox.Config{
		Name:           fmt.Sprintf("e2e-%d", os.Getpid()),
		ControllerArgs: []string{"-v=2"},
		SpeakerArgs:    []string{"-v=2"},
		Progress:       os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the cluster:", err)
		return 1
	}
	code := 1
	if err := connect(); err != nil {
		fmt.Fprintln(os.Stderr, "connecting to the cluster:", err)
	} else {
		code = supervised(m.Run)
	}
	if crashed() || refused() {
		code = 1
	}
	if code != 0 {
		saveLogs()
	}
	if err := box.Down(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ending the cluster:", err)
		return 1
	}
	return code
}

// supervised keeps the controller running, as a kubelet would.
func supervised(run func() int) int {
	ctx, cancel := context.WithCancel(context.Background())
	var supervising sync.WaitGroup
	supervising.Go(func() {
		box.Supervise(ctx, "controller", func(lastLog string) {
			fmt.Fprintln(os.Stderr, "started again: the controller, which had ended:", lastLog)
		})
	})
	defer supervising.Wait() // or it would start what the end of the cluster ends
	defer cancel()
	return run()
}

// crash is how Go says that a program did not end by itself.
var crash = regexp.MustCompile(`(?m)^(panic: |fatal error: )`)

// crashed tells whether one of Herald's programs ever did, also where a test did not mind.
func crashed() bool {
	logs, err := filepath.Glob(box.Dir() + "/log/*.log")
	found := false
	for _, log := range logs {
		data, readErr := os.ReadFile(log)
		err = errors.Join(err, readErr)
		if at := crash.FindIndex(data); at != nil {
			found = true
			fmt.Fprintf(os.Stderr, "%s: %s\n", filepath.Base(log), data[at[0]:min(len(data), at[0]+2000)])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reading the logs:", err)
	}
	return found || err != nil
}

// onPurpose are Secrets of Herald's namespace that tests withhold from speakers.
var onPurpose = regexp.MustCompile(`^test-[0-9]+-withheld$`)

// refused reports whether the API server refused anything to Herald's programs, by RBAC or by an admission policy, in the
// whole run.
func refused() bool {
	all, err := box.RefusedAlways()
	if err != nil {
		fmt.Fprintln(os.Stderr, "reading the audit log:", err)
		return true
	}
	all = slices.DeleteFunc(all, func(r sandbox.Request) bool { return r.Resource == "secrets" && onPurpose.MatchString(r.Name) })
	for i, r := range all {
		if i == 20 {
			fmt.Fprintf(os.Stderr, "and %d more\n", len(all)-i)
			break
		}
		fmt.Fprintln(os.Stderr, "refused to Herald:", r)
	}
	return len(all) > 0
}

func connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", box.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 2000
	if kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if herald, err = client.New(config); err != nil {
		return err
	}
	// Ranges for tests, on the link for every host that asks for them.
	for _, host := range []string{"client", "client2"} {
		for _, route := range [][]string{
			{"ip", "route", "add", "198.18.0.0/15", "dev", "eth0"},
			{"ip", "-6", "route", "add", "2001:db8:18::/48", "dev", "eth0"},
		} {
			if _, err := box.Exec(context.Background(), host, route...); err != nil {
				return err
			}
		}
	}
	return nil
}

// saveLogs keeps what Herald logged, for whoever looks into a failure.
func saveLogs() {
	dir := os.Getenv("E2E_LOGS")
	if dir == "" {
		return
	}
	dir = filepath.Join(dir, os.Getenv("TEST_PART")) // of the tests that run side by side, if they do
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "removing old logs:", err)
	}
	if err := os.CopyFS(dir, os.DirFS(box.Dir()+"/log")); err != nil {
		fmt.Fprintln(os.Stderr, "keeping the logs:", err)
	}
}

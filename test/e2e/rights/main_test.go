// Package rights proves what a speaker's token is good for, and what it is
// refused, on a cluster of its own.
package rights

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/test/sandbox"
)

const namespace = "herald-system"

var (
	box    *sandbox.Sandbox
	config *rest.Config // of the administrator
	admin  clients
)

// clients of one user.
type clients struct {
	kube   kubernetes.Interface
	herald *client.Clients
}

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
	// Herald is installed and does not run: nothing changes what a test looks at.
	var err error
	box, err = sandbox.Up(ctx, sandbox.Config{Name: fmt.Sprintf("rights-%d", os.Getpid()), Nodes: 2, WithoutHerald: true, Progress: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the cluster:", err)
		return 1
	}
	code := 1
	if err := connect(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "preparing the cluster:", err)
	} else {
		code = m.Run()
	}
	if err := box.Down(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ending the cluster:", err)
		return 1
	}
	return code
}

func connect(ctx context.Context) (err error) {
	if err := box.InstallHerald(ctx); err != nil {
		return err
	}
	if config, err = clientcmd.BuildConfigFromFlags("", box.Kubeconfig()); err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 2000
	admin, err = newClients(config)
	return err
}

func newClients(config *rest.Config) (c clients, err error) {
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		return c, err
	}
	c.herald, err = client.New(config)
	return c, err
}

// withToken are clients that have a token and nothing else.
func withToken(t *testing.T, token string) clients {
	t.Helper()
	user := rest.AnonymousClientConfig(config)
	user.BearerToken, user.QPS, user.Burst = token, 1000, 2000
	c, err := newClients(user)
	must(t, err)
	return c
}

// speakerOn are clients with the token that kubelet would give the speaker of a node.
func speakerOn(t *testing.T, node string) clients {
	t.Helper()
	path, err := box.KubeconfigFor(t.Context(), node, namespace, "herald-speaker")
	must(t, err)
	kubeconfig, err := clientcmd.LoadFromFile(path)
	must(t, err)
	for _, user := range kubeconfig.AuthInfos {
		return withToken(t, user.Token)
	}
	t.Fatal("the kubeconfig has no user")
	return clients{}
}

// nowhere are clients with a token of the speakers that is bound to nothing.
func nowhere(t *testing.T) clients {
	t.Helper()
	request, err := admin.kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "herald-speaker", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	return withToken(t, request.Status.Token)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

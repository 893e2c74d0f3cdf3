// Package moto is AWS for tests: moto_server, behind a proxy that counts what
// is called and can make it fail, with a VPC in it. It shows what goes over the
// wire; what AWS refuses is known better by the fake of the provider.
package moto

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/heraldlb/herald/test/sandbox"
)

// Region is where the tests' AWS is.
const Region = "eu-central-1"

const program = "moto_server"

// startPatience is for a program in Python on a busy machine.
const startPatience = 2 * time.Minute

// Cloud is AWS with one account.
type Cloud struct {
	// EC2, ELB and ELBV2 go to moto itself: what they call is not counted.
	EC2   *ec2.Client
	ELB   *elb.Client
	ELBV2 *elbv2.Client
	// Proxy is what Herald is to call.
	Proxy *Proxy
	// Endpoint is the proxy's URL in the host of the controller managers.
	Endpoint string
}

// Env are the credentials that Herald finds in its environment. The machine's
// own metadata are none of the tests'.
var Env = []string{
	"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_SESSION_TOKEN=", "AWS_EC2_METADATA_DISABLED=true",
	"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PROFILE=", "AWS_REGION=", "AWS_DEFAULT_REGION=",
}

// Start starts moto_server, which the sandbox ends with itself, and the proxy
// before it, which lives until ctx is done.
func Start(ctx context.Context, box *sandbox.Sandbox) (*Cloud, error) {
	path, err := find()
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	server := "http://127.0.0.1:" + port
	err = box.Start(sandbox.Process{Name: "moto", Args: []string{path, "-H", "127.0.0.1", "-p", port}, Env: []string{"PYTHONUNBUFFERED=1"}})
	if err != nil {
		return nil, err
	}
	if err := waitFor(ctx, box, server); err != nil {
		return nil, err
	}
	proxy, err := newProxy(server)
	if err != nil {
		return nil, err
	}
	var listener net.Listener
	err = box.Do(sandbox.ControllerHost, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening before moto: %w", err)
	}
	proxy.serve(ctx, listener)
	config := aws.Config{
		Region: Region, BaseEndpoint: aws.String(server), Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	}
	return &Cloud{
		EC2: ec2.NewFromConfig(config), ELB: elb.NewFromConfig(config), ELBV2: elbv2.NewFromConfig(config),
		Proxy: proxy, Endpoint: "http://" + listener.Addr().String(),
	}, nil
}

// find returns the path of moto_server: of PATH, where hack/deps puts it, or
// where pip and pyenv put the user's programs.
func find() (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	cache := os.Getenv("HERALD_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(dir, "herald")
	}
	folders := []string{filepath.Join(cache, "moto", "bin")}
	if me, err := user.Current(); err == nil {
		folders = append(folders, filepath.Join(me.HomeDir, ".local", "bin"), filepath.Join(me.HomeDir, ".pyenv", "shims"))
	}
	for _, folder := range folders {
		if path, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s in PATH, nor in %s: make deps-test installs it, or pip install 'moto[server]'", program, strings.Join(folders, ", "))
}

func freePort(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

func waitFor(ctx context.Context, box *sandbox.Sandbox, server string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("moto_server does not answer"))
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, server+"/moto-api/reset", http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if !box.Running("moto") {
			return fmt.Errorf("moto_server ended, see %s", box.LogPath("moto"))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, see %s", context.Cause(ctx), box.LogPath("moto"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

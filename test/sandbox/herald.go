package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Herald's processes in the sandbox; the speaker of node1 is speaker-node1, a
// second controller manager is controller-2.
const (
	controller = "controller"
	speaker    = "speaker"
)

// The ports that they serve metrics on, in their hosts. A second controller
// manager takes the port after the first one's.
const (
	controllerPort = 10258
	speakerPort    = 7472
)

// ControllerHost is the host that the controller managers run in.
const ControllerHost = controlPlane

const heraldNamespace = "herald-system"

// heraldUser is the unprivileged user that Herald runs as.
const heraldUser = 65532

// speakerCapabilities are what the DaemonSet grants the speaker.
var speakerCapabilities = []Capability{CapNetRaw, CapNetBindService}

// speakerKeepsState gives each speaker a folder by --state-dir, where it finds
// what it last knew when it starts without the API server.
const speakerKeepsState = true

// StartHerald installs Herald from deploy/ and runs its programs with the
// ServiceAccounts that it ships: the controller manager in the control plane's
// host, a speaker in each node. Deployment and DaemonSet stay objects without
// pods. It returns when each program listens on its port.
func (s *Sandbox) StartHerald(ctx context.Context) error {
	if err := s.checkHeraldPrograms(); err != nil {
		return err
	}
	if err := s.InstallHerald(ctx); err != nil {
		return fmt.Errorf("installing Herald: %w", err)
	}
	var tasks []func() error
	for i := range s.state.Config.ControllerReplicas {
		tasks = append(tasks, func() error { return s.startController(ctx, i) })
	}
	for _, node := range s.Nodes() {
		tasks = append(tasks, func() error { return s.StartSpeaker(ctx, node) })
	}
	return together(tasks...)
}

// InstallHerald applies deploy/crds and deploy/kustomize, and returns when the
// API server serves Herald's objects. It starts nothing.
func (s *Sandbox) InstallHerald(ctx context.Context) error {
	crds := filepath.Join(s.state.Config.Root, "deploy/crds")
	if _, err := s.Kubectl(ctx, "apply", "-f", crds); err != nil {
		return err
	}
	kustomize := filepath.Join(s.state.Config.Root, "deploy/kustomize")
	if _, err := s.Kubectl(ctx, "apply", "-k", kustomize); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return poll(ctx, 100*time.Millisecond, func() error { return s.crdsEstablished(ctx) })
}

func (s *Sandbox) crdsEstablished(ctx context.Context) error {
	answer, err := s.API(ctx, http.MethodGet, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "", nil)
	if err != nil {
		return err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	for _, crd := range list.Items {
		established := false
		for _, c := range crd.Status.Conditions {
			established = established || c.Type == "Established" && c.Status == "True"
		}
		if !established {
			return fmt.Errorf("%s is not established", crd.Metadata.Name)
		}
	}
	return nil
}

// RunController starts the controller managers, in place of those that run, with
// further arguments and environment. They take over when the Lease of those
// before them has run out.
func (s *Sandbox) RunController(ctx context.Context, args, env []string) error {
	s.state.Config.ControllerArgs, s.state.Config.ControllerEnv = args, env
	if err := s.writeState(); err != nil {
		return err
	}
	for i := range s.state.Config.ControllerReplicas {
		if err := s.Stop(ctx, controllerName(i)); err != nil && !errors.Is(err, ErrNoProcess) {
			return err
		}
		if err := s.startController(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func controllerName(replica int) string {
	if replica == 0 {
		return controller
	}
	return fmt.Sprintf("%s-%d", controller, replica+1)
}

func (s *Sandbox) startController(ctx context.Context, replica int) error {
	kubeconfig, err := s.heraldKubeconfig(ctx, identity{
		account: "herald-controller-manager", pod: "herald-" + controllerName(replica), host: controlPlane,
	})
	if err != nil {
		return err
	}
	port := controllerPort + replica
	return s.startListening(ctx, port, Process{
		Name: controllerName(replica), Host: controlPlane, UID: heraldUser, GID: heraldUser,
		Env: s.state.Config.ControllerEnv,
		Args: append([]string{
			s.heraldProgram("herald-controller-manager"),
			"--cloud-provider=herald",
			"--kubeconfig=" + kubeconfig,
			"--leader-elect=true",
			fmt.Sprintf("--secure-port=%d", port),
		}, s.state.Config.ControllerArgs...),
	})
}

// StartSpeaker starts the speaker of one node and returns when it listens.
func (s *Sandbox) StartSpeaker(ctx context.Context, node string) error {
	kubeconfig, err := s.heraldKubeconfig(ctx, identity{account: "herald-speaker", pod: "herald-speaker-" + node, host: node})
	if err != nil {
		return err
	}
	args := []string{s.heraldProgram("herald-speaker"), "--kubeconfig=" + kubeconfig}
	if speakerKeepsState {
		dir, err := s.speakerStateDir(node)
		if err != nil {
			return err
		}
		args = append(args, "--state-dir="+dir)
	}
	args = append(args, "--node-name="+node, fmt.Sprintf("--metrics-bind-address=127.0.0.1:%d", speakerPort))
	config := s.state.Config
	return s.startListening(ctx, speakerPort, Process{
		Name: speaker + "-" + node, Host: node, UID: heraldUser, GID: heraldUser,
		Args:         append(args, config.SpeakerArgs...),
		Capabilities: slices.Concat(speakerCapabilities, config.SpeakerCapabilities),
	})
}

// speakerStateDir makes the folder of a speaker, which nobody else can read.
func (s *Sandbox) speakerStateDir(node string) (string, error) {
	parent := filepath.Join(s.dir, "speaker")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(parent, node)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, heraldUser, heraldUser)
}

// startListening starts a process and waits until it listens on the loopback of
// its host, which proves that it has read its configuration.
func (s *Sandbox) startListening(ctx context.Context, port int, p Process) error {
	if err := s.Start(p); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return s.waitFor(ctx, p.Name, func() error {
		conn, err := s.Dialer(p.Host)(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// heraldKubeconfig makes a kubeconfig that only Herald's user can read.
func (s *Sandbox) heraldKubeconfig(ctx context.Context, id identity) (string, error) {
	id.namespace = heraldNamespace
	return s.kubeconfigFor(ctx, id, heraldUser)
}

func (s *Sandbox) heraldProgram(name string) string {
	return filepath.Join(s.state.Config.BinDir, name)
}

func (s *Sandbox) checkHeraldPrograms() error {
	for _, name := range []string{"herald-controller-manager", "herald-speaker"} {
		if path := s.heraldProgram(name); !exists(path) {
			return fmt.Errorf("%s does not exist: build it first, or start the sandbox without Herald", path)
		}
	}
	return nil
}

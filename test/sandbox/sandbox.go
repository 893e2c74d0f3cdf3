package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

// stateDir holds a folder for each sandbox. It does not survive a reboot, as no
// sandbox does.
const stateDir = "/run/herald-sandbox"

// startTimeout bounds the start of a sandbox whose programs are built.
const startTimeout = 3 * time.Minute

// startPatience bounds the start of one program, which takes a second or two on a machine that is not busy.
const startPatience = 2 * time.Minute

// Config says what to start. The zero value with a name is a cluster of three
// nodes with Herald.
type Config struct {
	// Name tells sandboxes on one machine apart: up to 20 lower-case letters,
	// digits and dashes.
	Name string
	// Nodes is their number; 3 when 0.
	Nodes int
	// KubeProxyMode is nftables, the default, or iptables.
	KubeProxyMode string
	// WithoutHerald leaves a bare cluster.
	WithoutHerald bool
	// Root is the source tree; "" finds the one around the program or the
	// working directory.
	Root string
	// BinDir holds the programs of Herald; bin in the source tree when "".
	BinDir string
	// ControllerReplicas is how many controller managers run; 1 when 0.
	ControllerReplicas int
	// ControllerArgs and SpeakerArgs are further arguments of those programs;
	// the ports stay those of the sandbox.
	ControllerArgs, SpeakerArgs []string
	// ControllerEnv is added to the controller managers' environment, as
	// KEY=value.
	ControllerEnv []string
	// SpeakerCapabilities are granted to the speakers besides those of the
	// DaemonSet.
	SpeakerCapabilities []Capability
	// Detach makes the sandbox outlive the process that starts it. Otherwise
	// the next Up, under whatever name, takes it down when that process is gone.
	Detach bool
	// Progress is told what happens, in lines; nil is for silence.
	Progress io.Writer `json:"-"`
}

// Sandbox is a running cluster.
type Sandbox struct {
	dir   string
	state state
	api   *http.Client

	supervising sync.Mutex
	ending      map[string]int // how many Stop or Kill a process just now
}

// state is what is kept of a sandbox for other processes.
type state struct {
	Config Config
	// Owner is the process that starts the sandbox.
	Owner record
	// Started is set when the start was successful.
	Started bool
	// API is the address on this machine that leads to the API server.
	API           string
	KubernetesDir string
	HostProgram   string
}

// ErrNotRunning says that there is no sandbox of that name.
var ErrNotRunning = errors.New("sandbox is not running")

// Up starts a sandbox and returns when it is ready for use: the API server and
// the proxies answer, Herald's programs have been started. It builds what has
// to be built, and first cleans up what crashed runs have left. When it fails
// nothing stays behind.
func Up(ctx context.Context, config Config) (*Sandbox, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := CheckMachine(false); err != nil {
		return nil, err
	}
	s := &Sandbox{dir: filepath.Join(stateDir, config.Name), state: state{Config: config, Owner: ownRecord()}}
	if err := s.build(ctx); err != nil {
		return nil, err
	}
	if err := s.claim(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := s.start(ctx); err != nil {
		err = fmt.Errorf("sandbox %s: %w", config.Name, err)
		return nil, errors.Join(err, s.Down(context.WithoutCancel(ctx)))
	}
	s.say("ready in %.1f s", time.Since(start).Seconds())
	return s, nil
}

// Open returns a running sandbox, started by whatever process, or ErrNotRunning.
func Open(name string) (*Sandbox, error) {
	s := &Sandbox{dir: filepath.Join(stateDir, name)}
	err := readJSON(s.statePath(), &s.state)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !s.state.Started {
		return nil, fmt.Errorf("%s: %w", name, ErrNotRunning)
	}
	if err != nil {
		return nil, err
	}
	s.state.Config.Progress = io.Discard
	s.api, err = s.newAPIClient()
	return s, err
}

// Down ends a sandbox, running or crashed, and removes all that there is of it.
// Without a sandbox of that name there is nothing to do.
func Down(ctx context.Context, name string) error {
	if !validName(name) {
		return fmt.Errorf("%q is not a name of a sandbox", name)
	}
	s := &Sandbox{dir: filepath.Join(stateDir, name), state: state{Config: Config{Name: name}}}
	return s.Down(ctx)
}

// Down ends the sandbox and removes all that there is of it.
func (s *Sandbox) Down(ctx context.Context) error {
	if s.api != nil {
		s.api.CloseIdleConnections()
	}
	name := s.state.Config.Name
	if err := s.killRecorded(ctx); err != nil {
		return fmt.Errorf("ending sandbox %s: %w", name, err)
	}
	if err := killInside(ctx, name); err != nil {
		return fmt.Errorf("ending sandbox %s: %w", name, err)
	}
	if err := removeNamespaces(ctx, name); err != nil {
		return fmt.Errorf("ending sandbox %s: %w", name, err)
	}
	return os.RemoveAll(s.dir)
}

func (s *Sandbox) killRecorded(ctx context.Context) error {
	all, err := s.records()
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.alive() {
			syscall.Kill(r.PID, syscall.SIGKILL)
		}
	}
	for _, r := range all {
		if err := poll(ctx, 10*time.Millisecond, r.dead); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	return nil
}

// Name returns the name of the sandbox.
func (s *Sandbox) Name() string { return s.state.Config.Name }

// Config returns what the sandbox was started with, defaults filled in.
func (s *Sandbox) Config() Config { return s.state.Config }

// Dir returns the folder with the state of the sandbox: logs, kubeconfigs.
func (s *Sandbox) Dir() string { return s.dir }

// Processes lists the recorded processes with their process ids, 0 for those
// that are not running.
func (s *Sandbox) Processes() (map[string]int, error) {
	all, err := s.records()
	if err != nil {
		return nil, err
	}
	pids := map[string]int{}
	for _, r := range all {
		pids[r.Name] = s.PID(r.Name)
	}
	return pids, nil
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,19}$`)

func validName(name string) bool { return namePattern.MatchString(name) }

func (c Config) withDefaults() (Config, error) {
	if !validName(c.Name) {
		return c, fmt.Errorf("sandbox name %q: want up to 20 lower-case letters, digits and dashes", c.Name)
	}
	if c.Nodes == 0 {
		c.Nodes = 3
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return c, fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, maxNodes)
	}
	if c.KubeProxyMode == "" {
		c.KubeProxyMode = "nftables"
	}
	if c.KubeProxyMode != "nftables" && c.KubeProxyMode != "iptables" {
		return c, fmt.Errorf("kube-proxy mode %q: want nftables or iptables", c.KubeProxyMode)
	}
	if c.ControllerReplicas == 0 {
		c.ControllerReplicas = 1
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	var err error
	if c.Root, err = findRoot(c.Root); err != nil {
		return c, err
	}
	if c.BinDir == "" {
		c.BinDir = filepath.Join(c.Root, "bin")
	}
	c.BinDir, err = filepath.Abs(c.BinDir)
	return c, err
}

// build makes sure of the programs, before anything is started.
func (s *Sandbox) build(ctx context.Context) (err error) {
	config := s.state.Config
	if !config.WithoutHerald {
		if err := s.checkHeraldPrograms(); err != nil {
			return err
		}
	}
	if s.state.KubernetesDir, err = EnsureKubernetes(ctx, config.Root, config.Progress); err != nil {
		return err
	}
	s.state.HostProgram, err = ensureHostProgram(ctx, config.Root)
	return err
}

// claim takes the name for this sandbox, and takes down what has no owner.
func (s *Sandbox) claim(ctx context.Context) error {
	unlock, err := lock(ctx, filepath.Join(stateDir, ".lock"), func() {})
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.removeLeftovers(ctx); err != nil {
		return err
	}
	if exists(s.dir) {
		return fmt.Errorf("sandbox %s is already running", s.Name())
	}
	// Namespaces without a folder are left when a folder was removed by hand.
	if err := s.Down(ctx); err != nil {
		return err
	}
	for _, folder := range []string{"etcd", "kubeconfig", "log", "pki", "pod", "process"} {
		if err := os.MkdirAll(filepath.Join(s.dir, folder), 0o755); err != nil {
			return err
		}
	}
	return s.writeState()
}

// removeLeftovers takes down the sandboxes that crashed, of any name.
func (s *Sandbox) removeLeftovers(ctx context.Context) error {
	entries, err := os.ReadDir(stateDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() || !validName(entry.Name()) {
			continue
		}
		other := &Sandbox{dir: filepath.Join(stateDir, entry.Name())}
		err := readJSON(other.statePath(), &other.state)
		if err == nil && other.inUse(entry.Name() == s.Name()) {
			continue
		}
		s.say("cleaning up what an earlier run of sandbox %s left", entry.Name())
		if err := Down(ctx, entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// inUse tells whether somebody may count on a sandbox: the process that started
// it lives, or it was left running on purpose. Who wants its name gets it unless
// its cluster is whole; for others it must have nothing left that runs.
func (s *Sandbox) inUse(wanted bool) bool {
	if s.state.Owner.alive() {
		return true
	}
	if !s.state.Started || !s.state.Config.Detach {
		return false
	}
	if wanted {
		return s.Running(etcd) && s.Running(apiServer) && s.Running(apiForwarder)
	}
	all, _ := s.records()
	return slices.ContainsFunc(all, record.alive)
}

func ownRecord() record {
	pid := os.Getpid()
	stat, _ := readStat(pid)
	return record{PID: pid, StartTime: stat.startTime, Boot: bootID()}
}

// start starts everything, in the order in which things need each other.
func (s *Sandbox) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	steps := []step{
		{"network", func() error { return together(func() error { return s.buildNetwork(ctx) }, s.makeAccess) }},
		{"API server", func() error { return s.startControlPlane(ctx) }},
		{"nodes", func() error { return s.startCluster(ctx) }},
	}
	if !s.state.Config.WithoutHerald {
		steps = append(steps, step{"Herald", func() error { return s.StartHerald(ctx) }})
	}
	for _, step := range steps {
		begin := time.Now()
		if err := step.do(); err != nil {
			return err
		}
		s.say("%s: %.1f s", step.name, time.Since(begin).Seconds())
	}
	s.state.Started = true
	return s.writeState()
}

type step struct {
	name string
	do   func() error
}

// makeAccess makes certificates and kubeconfigs, and chooses the port on this
// machine that leads to the API server.
func (s *Sandbox) makeAccess() (err error) {
	if err := s.makeCertificates(); err != nil {
		return err
	}
	if s.state.API, err = freePort(); err != nil {
		return err
	}
	if err := s.writeKubeconfigs(); err != nil {
		return err
	}
	s.api, err = s.newAPIClient()
	return err
}

// freePort returns an address on the loopback that nobody listens on. The port is below those that the kernel gives to
// connections: one of them could have it when the API server is started again.
func freePort() (address string, err error) {
	for range 100 {
		var listener net.Listener
		listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", err
}

func (s *Sandbox) statePath() string { return filepath.Join(s.dir, "sandbox.json") }

func (s *Sandbox) writeState() error { return writeJSON(s.statePath(), s.state) }

// say tells progress, if somebody wants to know.
func (s *Sandbox) say(format string, args ...any) {
	fmt.Fprintf(s.state.Config.Progress, format+"\n", args...)
}

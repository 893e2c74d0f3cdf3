package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/heraldlb/herald/test/sandbox"
)

const defaultName = "dev"

// commands makes the subcommands anew, with their flags at the defaults.
func commands() map[string]command {
	return map[string]command{
		"build":  buildCommand(),
		"up":     upCommand(),
		"down":   downCommand(),
		"status": openCommand("status", status),
		"env":    openCommand("env", env),
		"exec":   execCommand(),
		"pod":    podCommand(),
		"power":  openCommand("power", power),
	}
}

// newFlags makes the flags of a command. They print nothing by themselves.
func newFlags(command string) (flags *flag.FlagSet, name *string) {
	flags = flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	name = flags.String("name", defaultName, "name of the sandbox")
	return flags, name
}

// openCommand is a command on a running sandbox with no flags but the name.
func openCommand(title string, run func(ctx context.Context, s *sandbox.Sandbox, args []string) error) command {
	flags, name := newFlags(title)
	return command{flags: flags, run: func(ctx context.Context, args []string) error {
		s, err := sandbox.Open(*name)
		if err != nil {
			return err
		}
		return run(ctx, s, args)
	}}
}

func buildCommand() command {
	flags, _ := newFlags("build")
	root := flags.String("root", "", "source tree of Herald; default: the one around this program")
	return command{flags: flags, run: func(ctx context.Context, _ []string) error {
		dir, err := sandbox.EnsureKubernetes(ctx, *root, os.Stderr)
		if err == nil {
			fmt.Println(dir)
		}
		return err
	}}
}

func upCommand() command {
	flags, name := newFlags("up")
	config := sandbox.Config{Detach: true, Progress: os.Stderr}
	flags.IntVar(&config.Nodes, "nodes", 3, "number of nodes")
	flags.StringVar(&config.KubeProxyMode, "proxy-mode", "nftables", "mode of kube-proxy: nftables or iptables")
	flags.BoolVar(&config.WithoutHerald, "without-herald", false, "start a bare cluster")
	flags.StringVar(&config.Root, "root", "", "source tree of Herald; default: the one around this program")
	flags.StringVar(&config.BinDir, "bin", "", "folder with Herald's programs; default: bin in the source tree")
	flags.IntVar(&config.ControllerReplicas, "controllers", 1, "number of controller managers")
	return command{flags: flags, run: func(ctx context.Context, _ []string) error {
		config.Name = *name
		if err := sandbox.CheckMachine(true); err != nil {
			return err
		}
		s, err := sandbox.Up(ctx, config)
		if err != nil {
			return err
		}
		printHints(s)
		return nil
	}}
}

// printHints tells how to use a sandbox that has just been started.
func printHints(s *sandbox.Sandbox) {
	program, flag := os.Args[0], ""
	if s.Name() != defaultName {
		flag = " --name " + s.Name()
	}
	fmt.Printf(`
Sandbox %[1]s is running: %[2]d nodes, kube-proxy in %[3]s mode. Logs: %[4]s/log

  export KUBECONFIG=%[5]s
  eval "$(%[6]s env%[7]s)"                        # that, kubectl in PATH, and $HERALD_NS_CLIENT and the like
  kubectl get nodes
  %[6]s pod add web-1 --node node1 --labels app=web%[7]s
  ip netns exec %[8]s curl http://198.51.100.130/   # from the client's host, to a load balancer's address
  %[6]s down%[7]s
`, s.Name(), len(s.Nodes()), s.Config().KubeProxyMode, s.Dir(), s.Kubeconfig(), program, flag, s.NetnsName("client"))
}

func downCommand() command {
	flags, name := newFlags("down")
	return command{flags: flags, run: func(ctx context.Context, _ []string) error { return sandbox.Down(ctx, *name) }}
}

func status(_ context.Context, s *sandbox.Sandbox, _ []string) error {
	pids, err := s.Processes()
	if err != nil {
		return err
	}
	fmt.Printf("sandbox %s: %d nodes, kube-proxy in %s mode\nKUBECONFIG=%s\nlogs in %s/log\n\n",
		s.Name(), len(s.Nodes()), s.Config().KubeProxyMode, s.Kubeconfig(), s.Dir())
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROCESS\tPID")
	for _, name := range slices.Sorted(maps.Keys(pids)) {
		pid := "not running"
		if pids[name] != 0 {
			pid = fmt.Sprint(pids[name])
		}
		fmt.Fprintf(table, "%s\t%s\n", name, pid)
	}
	fmt.Fprintln(table, "\nHOST\tNAMESPACE\tIPV4\tIPV6")
	for _, host := range s.Hosts() {
		v4, v6 := s.Addrs(host)
		if v4.IsValid() {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", host, s.NetnsName(host), v4, v6)
		}
	}
	return table.Flush()
}

func env(_ context.Context, s *sandbox.Sandbox, _ []string) error {
	fmt.Printf("export KUBECONFIG=%s\n", s.Kubeconfig())
	fmt.Printf("export PATH=%s:\"$PATH\"\n", filepath.Dir(s.KubernetesProgram("kubectl")))
	fmt.Printf("export HERALD_SANDBOX=%s\n", s.Name())
	for _, host := range s.Hosts() {
		fmt.Printf("export HERALD_NS_%s=%s\n", strings.ToUpper(host), s.NetnsName(host))
	}
	return nil
}

func execCommand() command {
	c := openCommand("exec", execute)
	c.verbatim = true
	return c
}

func execute(ctx context.Context, s *sandbox.Sandbox, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: herald-sandbox exec HOST -- COMMAND…")
	}
	host, args := args[0], args[1:]
	if !slices.Contains(s.Hosts(), host) {
		return fmt.Errorf("no host %q; there are %s", host, strings.Join(s.Hosts(), ", "))
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := s.Do(host, cmd.Start); err != nil {
		return err
	}
	return cmd.Wait()
}

func podCommand() command {
	flags, name := newFlags("pod")
	var pod sandbox.Pod
	flags.StringVar(&pod.Namespace, "namespace", "default", "namespace of the pod")
	flags.StringVar(&pod.Node, "node", "node1", "node to run it on, for add")
	labels := flags.String("labels", "", "labels for add: app=web,tier=front")
	return command{flags: flags, run: func(ctx context.Context, args []string) (err error) {
		if len(args) != 2 {
			return errors.New("usage: herald-sandbox pod add|ready|unready|terminate|delete NAME")
		}
		s, err := sandbox.Open(*name)
		if err != nil {
			return err
		}
		pod.Name = args[1]
		if pod.Labels, err = parseLabels(*labels); err != nil {
			return err
		}
		return changePod(ctx, s, args[0], pod)
	}}
}

func changePod(ctx context.Context, s *sandbox.Sandbox, action string, pod sandbox.Pod) error {
	switch action {
	case "add":
		pod, err := s.AddPod(ctx, pod)
		if err == nil {
			fmt.Printf("pod %s on %s: %s %s\n", pod.Name, pod.Node, pod.IPv4, pod.IPv6)
		}
		return err
	case "ready", "unready":
		return s.SetPodReady(ctx, pod.Namespace, pod.Name, action == "ready")
	case "terminate":
		return s.TerminatePod(ctx, pod.Namespace, pod.Name)
	case "delete":
		return s.DeletePod(ctx, pod.Namespace, pod.Name)
	}
	return fmt.Errorf("unknown action %q: want add, ready, unready, terminate or delete", action)
}

func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	if text == "" {
		return labels, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("label %q: want key=value", pair)
		}
		labels[key] = value
	}
	return labels, nil
}

func power(ctx context.Context, s *sandbox.Sandbox, args []string) error {
	if len(args) != 2 || !slices.Contains(s.Nodes(), args[1]) {
		return fmt.Errorf("usage: herald-sandbox power off|on NODE, of %s", strings.Join(s.Nodes(), ", "))
	}
	switch args[0] {
	case "off":
		return s.PowerOff(ctx, args[1])
	case "on":
		return s.PowerOn(ctx, args[1])
	}
	return fmt.Errorf("power %q: want off or on", args[0])
}

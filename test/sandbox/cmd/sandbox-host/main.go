// Command sandbox-host runs inside the hosts of a sandbox: as a pod that
// serves, or as a forwarder that leads from the machine into a host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox-host:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: sandbox-host pod|forward [flags]")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	switch args[0] {
	case "pod":
		var p pod
		flags.StringVar(&p.name, "name", "", "name of the pod")
		flags.StringVar(&p.node, "node", "", "name of its node")
		addresses := flags.String("addresses", "", "addresses to serve on, with commas")
		tcp := flags.String("tcp", "8080", "ports to serve HTTP on, with commas")
		udp := flags.String("udp", "8080", "ports to echo datagrams on, with commas")
		flags.Parse(args[1:])
		return p.serve(ctx, endpoints(*addresses, *tcp), endpoints(*addresses, *udp))
	case "forward":
		target := flags.String("target", "", "address to connect to for each connection to file descriptor 3")
		flags.Parse(args[1:])
		return forward(ctx, *target)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

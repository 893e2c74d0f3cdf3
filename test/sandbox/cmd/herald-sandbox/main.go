// Command herald-sandbox starts and stops small Kubernetes clusters with Herald
// in network namespaces of this machine, and does things in their hosts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

const usage = `herald-sandbox runs a small real Kubernetes with Herald on this machine.

  herald-sandbox up [--nodes 3] [--without-herald]   start a sandbox and leave it running
  herald-sandbox down                                end it and remove all of it
  herald-sandbox status                              what runs
  herald-sandbox env                                 variables for a shell: eval "$(herald-sandbox env)"
  herald-sandbox exec HOST -- COMMAND…               run a command in a host: client, client2, router, node1, pod1…
  herald-sandbox pod add NAME --node node1 --labels app=web
  herald-sandbox pod ready|unready|terminate|delete NAME
  herald-sandbox power off|on NODE                   a power cut of a node, and its end
  herald-sandbox build                               build Kubernetes into the cache, nothing else

Every command takes --name, to tell sandboxes apart; -h after a command lists its flags.
`

// command is a subcommand: run gets the words that are not flags.
type command struct {
	flags *flag.FlagSet
	run   func(ctx context.Context, args []string) error
	// verbatim leaves what follows the first word alone, if there is no "--": it
	// has flags of its own.
	verbatim bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	default:
		fmt.Fprintln(os.Stderr, "herald-sandbox:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Print(usage)
		return nil
	}
	cmd, ok := commands()[args[0]]
	if !ok {
		return fmt.Errorf("unknown command %q; see herald-sandbox help", args[0])
	}
	words, err := cmd.parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Printf("flags of herald-sandbox %s:\n", args[0])
		cmd.flags.SetOutput(os.Stdout)
		cmd.flags.PrintDefaults()
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return cmd.run(ctx, words)
}

// parse parses flags before, between and after words; all that follows "--" is
// words.
func (c command) parse(args []string) ([]string, error) {
	var words []string
	verbatim := c.verbatim && !slices.Contains(args, "--")
	for len(args) > 0 {
		if args[0] == "--" {
			return append(words, args[1:]...), nil
		}
		if verbatim && len(words) > 0 {
			return append(words, args...), nil
		}
		if !strings.HasPrefix(args[0], "-") {
			words, args = append(words, args[0]), args[1:]
			continue
		}
		if err := c.flags.Parse(args); err != nil {
			return nil, err
		}
		args = afterFlags(args, c.flags.Args())
	}
	return words, nil
}

// afterFlags returns what the flag package left of args, with the "--" that it
// takes for itself.
func afterFlags(args, left []string) []string {
	if i := len(args) - len(left) - 1; i >= 0 && args[i] == "--" {
		return args[i:]
	}
	return left
}

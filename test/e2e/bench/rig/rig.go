// Package rig is what benchmarks have in common: flags, a cluster of their own
// with its clients, and cases that are played in rounds.
package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/test/sandbox"
)

// Main reads the flags and runs a benchmark, until a signal ends it.
func Main(name string, run func(context.Context) error) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		os.Exit(1)
	}
}

// Logs declares the flag that names a folder for the logs.
func Logs() *string {
	return flag.String("logs", "", "folder for the logs of a cluster in which something went wrong")
}

// Speakers are flags about the speakers of a cluster.
type Speakers struct {
	args     *string
	realtime *bool
}

// SpeakerFlags declares them.
func SpeakerFlags() Speakers {
	return Speakers{
		args:     flag.String("speaker-args", "", "further arguments of the speakers"),
		realtime: flag.Bool("realtime", false, "let speakers have real-time threads (CAP_SYS_NICE)"),
	}
}

// Configure has a cluster start its speakers so.
func (s Speakers) Configure(config *sandbox.Config) {
	config.SpeakerArgs = strings.Fields(*s.args)
	if *s.realtime {
		config.SpeakerCapabilities = []sandbox.Capability{sandbox.CapSysNice}
	}
}

// Rig is a cluster with its clients.
type Rig struct {
	Box    *sandbox.Sandbox
	Kube   kubernetes.Interface
	Herald *client.Clients
}

// Up has something measured in a new cluster. When something went wrong, which
// may also be no error, the logs are copied to a folder, if it has a name.
func Up(ctx context.Context, config sandbox.Config, logs string, measure func(Rig) (wrong bool, err error)) error {
	config.Progress = os.Stderr
	box, err := sandbox.Up(ctx, config)
	if err != nil {
		return err
	}
	wrong := false
	r, err := connect(box)
	if err == nil {
		wrong, err = measure(r)
	}
	if (wrong || err != nil) && logs != "" {
		err = errors.Join(err, os.RemoveAll(logs), os.CopyFS(logs, os.DirFS(box.Dir()+"/log")))
		fmt.Fprintln(os.Stderr, "the logs are in", logs)
	}
	return errors.Join(err, box.Down(context.WithoutCancel(ctx)))
}

// connect makes clients that no limit slows down.
func connect(box *sandbox.Sandbox) (Rig, error) {
	r := Rig{Box: box}
	config, err := clientcmd.BuildConfigFromFlags("", box.Kubeconfig())
	if err != nil {
		return r, err
	}
	config.QPS, config.Burst = -1, 0
	if r.Kube, err = kubernetes.NewForConfig(config); err != nil {
		return r, err
	}
	r.Herald, err = client.New(config)
	return r, err
}

// Choose returns the cases by their names, which have commas between them, in the
// order of those; all when there is no name.
func Choose[Case any](names string, all []Case, name func(Case) string) ([]Case, error) {
	if names == "" {
		return all, nil
	}
	var chosen []Case
	for wanted := range strings.SplitSeq(names, ",") {
		wanted = strings.TrimSpace(wanted)
		i := slices.IndexFunc(all, func(c Case) bool { return name(c) == wanted })
		if i < 0 {
			var known []string
			for _, c := range all {
				known = append(known, name(c))
			}
			return nil, fmt.Errorf("there is no case %q, but: %s", wanted, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// unsteady rounds in a row end a case: the next one starts afresh.
const unsteady = 3

// Rounds plays the rounds of a case, and says on stderr how each went. A round may
// have a trace beside an error; wrong counts those with an error.
func Rounds[Trace fmt.Stringer](ctx context.Context, name string, rounds int, play func(round int) (*Trace, error)) (traces []Trace, wrong int, err error) {
	missed := 0
	for round := 1; round <= rounds && missed < unsteady; round++ {
		start := time.Now()
		trace, err := play(round)
		if ctx.Err() != nil {
			return traces, wrong, context.Cause(ctx)
		}
		missed++
		if trace != nil {
			missed = 0
			traces = append(traces, *trace)
			fmt.Fprintf(os.Stderr, "%s %d/%d: %s (%.1f s)\n", name, round, rounds, *trace, time.Since(start).Seconds())
		}
		if err != nil {
			wrong++
			fmt.Fprintf(os.Stderr, "%s %d/%d: error: %s\n", name, round, rounds, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if missed == unsteady {
		fmt.Fprintf(os.Stderr, "%s: no round could be played %d times in a row, the rest is left out\n", name, unsteady)
	}
	return traces, wrong, nil
}

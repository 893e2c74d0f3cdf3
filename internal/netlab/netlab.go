// Package netlab is a laboratory of network namespaces, for tests: hosts with the
// kernel and its tools in them, and routers that others wrote.
package netlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Lab is a test with namespaces.
type Lab struct {
	testing.TB
	// Prefix is what the names of its namespaces begin with, see Prefix.
	Prefix string
	// Patience is how long Eventually waits, and Poll how long it does between two looks.
	Patience, Poll time.Duration
}

// Prefix is for the names of a package's namespaces. It has the process's ID in it, so that nothing else is touched.
func Prefix(kind string) string { return fmt.Sprintf("herald-%s-%d-", kind, os.Getpid()) }

// Sweep deletes the namespaces of test runs of a package that did not live to do it.
func Sweep(kind string) {
	names, _ := filepath.Glob("/run/netns/herald-" + kind + "-*")
	for _, name := range names {
		name = filepath.Base(name)
		var pid int
		if _, err := fmt.Sscanf(name, "herald-"+kind+"-%d-", &pid); err == nil && unix.Kill(pid, 0) != nil {
			_, _ = output("ip", "netns", "del", name)
		}
	}
}

// Full is the name that the system has for a namespace.
func (l Lab) Full(name string) string { return l.Prefix + name }

// Namespace makes an empty one, until the end of the test. Without root there is no such test.
func (l Lab) Namespace(name string) {
	l.Helper()
	if os.Getuid() != 0 {
		l.Skip("making network namespaces needs root")
	}
	l.Here("ip netns add " + l.Full(name))
	l.Cleanup(func() {
		if out, err := output("ip", "netns", "del", l.Full(name)); err != nil {
			l.Errorf("deleting the namespace %s: %v: %s", name, err, out)
		}
	})
}

// Host makes a namespace that is a host without links.
func (l Lab) Host(name string) {
	l.Helper()
	l.Namespace(name)
	l.In(name, "ip link set lo up")
	l.In(name, "sysctl -qw net.ipv6.conf.default.accept_dad=0") // it would take a second each time
}

// Here runs a command in the test's own namespace, and returns what it says.
func (l Lab) Here(command string) string {
	l.Helper()
	out, err := output(strings.Fields(command)...)
	if err != nil {
		l.Fatalf("%s: %v: %s", command, err, out)
	}
	return out
}

// In runs a command in a namespace, and returns what it says.
func (l Lab) In(name, command string) string {
	l.Helper()
	out, err := l.Try(name, command)
	if err != nil {
		l.Fatalf("%s: %s: %v: %s", name, command, err, out)
	}
	return out
}

// Try is In for a command that may fail.
func (l Lab) Try(name, command string) (string, error) {
	return output(l.inside(name, strings.Fields(command))...)
}

func (l Lab) inside(name string, args []string) []string {
	return append([]string{"ip", "netns", "exec", l.Full(name)}, args...)
}

func output(args ...string) (string, error) {
	out, err := command(args...).CombinedOutput()
	return string(out), err
}

// command is one that the end of the test does not end: what is cleaned up is run then.
func command(args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), args[0], args[1:]...)
}

// Eventually waits for a condition, and returns how long that took.
func (l Lab) Eventually(what string, condition func() bool) time.Duration {
	l.Helper()
	start := time.Now()
	for !condition() {
		if time.Since(start) > l.Patience {
			l.Fatalf("not in time: %s", what)
		}
		time.Sleep(l.Poll)
	}
	return time.Since(start)
}

// Running has something run until the end of the test, or until stop is called, which returns when it has ended.
func (l Lab) Running(ctx context.Context, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.Errorf("Run has returned %v", err)
		}
	})
	l.Cleanup(stop)
	return stop
}

// Inside is the kernel's network in a namespace.
type Inside struct{ netns.NsHandle }

// Inside opens a namespace.
func (l Lab) Inside(name string) Inside {
	l.Helper()
	ns, err := netns.GetFromName(l.Full(name))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = ns.Close() })
	return Inside{ns}
}

// Do calls f on a thread in the namespace.
func (n Inside) Do(f func()) {
	onThread(func() {
		if err := netns.Set(n.NsHandle); err != nil {
			panic(err)
		}
		f()
	})
}

// Without calls f on a thread that lacks a capability.
func Without(t testing.TB, capability uint, f func()) {
	t.Helper()
	onThread(func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		data[capability/32].Effective &^= 1 << (capability % 32)
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		f()
	})
}

// onThread calls f on a thread of its own. The thread ends with the goroutine, as that is never unlocked from it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

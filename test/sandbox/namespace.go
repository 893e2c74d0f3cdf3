package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

const netnsDir = "/run/netns"

// inNamespace calls f on a thread that is in the network namespace at path.
// Sockets and processes that f makes belong to that namespace for good; f must
// make them on its own goroutine.
func inNamespace(path string, f func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return err
	}
	defer target.Close()

	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := setns(target); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering %s: %w", path, err)
	}

	err = f()
	if back := setns(home); back != nil {
		// The thread stays locked: the runtime ends it with the goroutine
		// instead of giving other goroutines the wrong network.
		return errors.Join(err, fmt.Errorf("leaving %s: %w", path, back))
	}
	runtime.UnlockOSThread()
	return err
}

func setns(namespace *os.File) error {
	_, _, errno := syscall.RawSyscall(sysSetns, namespace.Fd(), syscall.CLONE_NEWNET, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Netns returns the path of a host's network namespace.
func (s *Sandbox) Netns(host string) string {
	return filepath.Join(netnsDir, s.NetnsName(host))
}

// NetnsName returns the name of a host's network namespace, as ip netns and
// ip -n take it.
func (s *Sandbox) NetnsName(host string) string {
	return namespaceName(s.state.Config.Name, host)
}

func namespaceName(sandbox, host string) string {
	return "herald-" + sandbox + "-" + host
}

// Do calls f on a thread that is in the network namespace of a host: sockets
// and processes made by f, on its own goroutine, are in that host for good.
// The host "" is the machine itself.
func (s *Sandbox) Do(host string, f func() error) error {
	if host == "" {
		return f()
	}
	return inNamespace(s.Netns(host), f)
}

// Dialer returns a function that connects from a host, as http.Transport and
// the like take it. Addresses must be numbers: no host has a resolver.
func (s *Sandbox) Dialer(host string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var conn net.Conn
		err := s.Do(host, func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

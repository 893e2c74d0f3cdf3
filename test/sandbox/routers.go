package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// frrDir is where Debian's package frr has its daemons.
const frrDir = "/usr/lib/frr"

// frrDaemons are those that run, in the order of their start: zebra talks to the
// kernel for the others.
var frrDaemons = []string{"zebra", "staticd", "bfdd", "bgpd"}

// FRR is FRRouting in a host: zebra, staticd, bfdd and bgpd. The processes are
// recorded as zebra-router, bgpd-router and so on.
type FRR struct {
	box  *Sandbox
	host string
}

// StartFRR starts FRR in a host with the text of an frr.conf. The routes it learns
// are those of the host's kernel.
func (s *Sandbox) StartFRR(ctx context.Context, host, config string) (*FRR, error) {
	f := &FRR{box: s, host: host}
	if err := f.start(ctx, config); err != nil {
		err = fmt.Errorf("FRR in %s: %w", host, err)
		return nil, errors.Join(err, f.Stop(context.WithoutCancel(ctx)))
	}
	return f, nil
}

func (f *FRR) start(ctx context.Context, config string) error {
	if !exists(filepath.Join(frrDir, "bgpd")) {
		return errors.New("it is not installed: apt-get install frr")
	}
	if err := f.makeDir(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for _, daemon := range frrDaemons {
		if err := f.startDaemon(ctx, daemon); err != nil {
			return err
		}
	}
	// As FRR itself does it: vtysh tells each daemon the lines that are its own.
	path := filepath.Join(f.dir(), "frr.conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	out, err := f.box.Exec(ctx, "", "vtysh", "--vty_socket", f.dir(), "-f", path)
	if err == nil && strings.Contains(out, "% ") {
		err = errors.New(strings.TrimSpace(out))
	}
	return err
}

// makeDir makes the folder of the daemons, which give up root.
func (f *FRR) makeDir() error {
	// What a run before has left would be taken for a daemon that listens.
	if err := os.RemoveAll(f.dir()); err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir(), 0o755); err != nil {
		return err
	}
	uid, gid, err := frrIDs()
	if err != nil {
		return err
	}
	return os.Chown(f.dir(), uid, gid)
}

func frrIDs() (uid, gid int, err error) {
	owner, err := user.Lookup("frr")
	if err != nil {
		return 0, 0, err
	}
	group, err := user.LookupGroup("frrvty")
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(owner.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(group.Gid)
	return uid, gid, err
}

func (f *FRR) startDaemon(ctx context.Context, daemon string) error {
	empty := filepath.Join(f.dir(), daemon+".conf")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		return err
	}
	args := []string{
		filepath.Join(frrDir, daemon), "-f", empty, "-i", filepath.Join(f.dir(), daemon+".pid"), "--vty_socket", f.dir(),
		"-z", filepath.Join(f.dir(), "zserv.api"), "-P", "0", "--log", "stdout",
	}
	if daemon == "bfdd" {
		args = append(args, "--bfdctl", filepath.Join(f.dir(), "bfdd.sock"))
	}
	if err := f.box.Start(Process{Name: f.process(daemon), Host: f.host, Args: args}); err != nil {
		return err
	}
	return f.box.waitFor(ctx, f.process(daemon), func() error {
		_, err := os.Stat(filepath.Join(f.dir(), daemon+".vty"))
		return err
	})
}

func (f *FRR) dir() string { return filepath.Join(f.box.dir, "router", f.host) }

func (f *FRR) process(daemon string) string { return daemon + "-" + f.host }

// Show asks a question and returns the answer as text.
func (f *FRR) Show(ctx context.Context, command string) (string, error) {
	return f.box.Exec(ctx, "", "vtysh", "--vty_socket", f.dir(), "-c", command)
}

// Read asks a question and reads the answer in JSON; "json" is added to it.
func (f *FRR) Read(ctx context.Context, command string, into any) error {
	out, err := f.Show(ctx, command+" json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// Configure changes the running configuration by lines such as those of frr.conf.
func (f *FRR) Configure(ctx context.Context, lines ...string) error {
	args := []string{"vtysh", "--vty_socket", f.dir(), "-c", "configure terminal"}
	for _, line := range lines {
		args = append(args, "-c", line)
	}
	out, err := f.box.Exec(ctx, "", args...)
	if err == nil && strings.Contains(out, "% ") {
		err = errors.New(strings.TrimSpace(out))
	}
	return err
}

// Stop ends FRR and takes what it has left in the kernel.
func (f *FRR) Stop(ctx context.Context) error {
	var errs []error
	for i := len(frrDaemons) - 1; i >= 0; i-- {
		errs = append(errs, f.box.endRouter(ctx, f.process(frrDaemons[i])))
	}
	// zebra removes its routes, and leaves the nexthop objects behind. 11 is zebra,
	// for an iproute2 without a list of names.
	_, err := f.box.Exec(ctx, f.host, "ip", "nexthop", "flush", "proto", "11")
	return errors.Join(append(errs, err)...)
}

// endRouter stops a routing daemon that may not have been started, and forgets it.
func (s *Sandbox) endRouter(ctx context.Context, process string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	err := s.Stop(ctx, process)
	if errors.Is(err, ErrNoProcess) {
		return nil
	}
	if err == nil {
		err = os.Remove(s.recordPath(process))
	}
	return err
}

// BIRD is the BIRD routing daemon in a host, recorded as bird-router and so on.
type BIRD struct {
	box  *Sandbox
	host string
}

// StartBIRD starts BIRD in a host with the text of a bird.conf.
func (s *Sandbox) StartBIRD(ctx context.Context, host, config string) (*BIRD, error) {
	b := &BIRD{box: s, host: host}
	if err := b.start(ctx, config); err != nil {
		err = fmt.Errorf("BIRD in %s: %w", host, err)
		return nil, errors.Join(err, b.Stop(context.WithoutCancel(ctx)))
	}
	return b, nil
}

func (b *BIRD) start(ctx context.Context, config string) error {
	if err := os.MkdirAll(b.dir(), 0o755); err != nil {
		return err
	}
	path := filepath.Join(b.dir(), "bird.conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	// -p reads the configuration and says what is wrong with it.
	if _, err := b.box.Exec(ctx, b.host, "bird", "-p", "-c", path); err != nil {
		return err
	}
	err := b.box.Start(Process{Name: b.process(), Host: b.host, Args: []string{"bird", "-f", "-c", path, "-s", b.socket()}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return b.box.waitFor(ctx, b.process(), func() error {
		_, err := b.Show(ctx, "status")
		return err
	})
}

func (b *BIRD) dir() string { return filepath.Join(b.box.dir, "router", b.host) }

func (b *BIRD) socket() string { return filepath.Join(b.dir(), "bird.ctl") }

func (b *BIRD) process() string { return "bird-" + b.host }

// Show is "show" of birdc, as "route all"; the answer is text.
func (b *BIRD) Show(ctx context.Context, what string) (string, error) {
	args := append([]string{"birdc", "-s", b.socket(), "show"}, strings.Fields(what)...)
	return b.box.Exec(ctx, "", args...)
}

// Stop ends BIRD, which takes its routes from the kernel.
func (b *BIRD) Stop(ctx context.Context) error { return b.box.endRouter(ctx, b.process()) }

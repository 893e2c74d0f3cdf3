package netlab

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Daemon is a process in a namespace.
type Daemon struct {
	lab     Lab
	command []string
	process *exec.Cmd
	said    strings.Builder
}

// Daemon starts one. It is killed at the end of the test, and what it said is logged when that has failed.
func (l Lab) Daemon(name string, args ...string) *Daemon {
	l.Helper()
	d := &Daemon{lab: l, command: l.inside(name, args)}
	d.Start()
	l.Cleanup(func() {
		d.Kill()
		if l.Failed() {
			l.Logf("%s in %s said: %s", args[0], name, d.said.String())
		}
	})
	return d
}

// Start starts it again.
func (d *Daemon) Start() {
	d.lab.Helper()
	d.process = command(d.command...)
	d.process.Stdout, d.process.Stderr = &d.said, &d.said
	if err := d.process.Start(); err != nil {
		d.lab.Fatal(err)
	}
}

// Kill is kill -9: nobody is told. "ip netns exec" has become the daemon.
func (d *Daemon) Kill() {
	if d.process.ProcessState == nil {
		_ = d.process.Process.Kill()
		_ = d.process.Wait()
	}
}

// FRR is zebra, which knows of interfaces and next hops, and a daemon of FRR that asks it.
type FRR struct {
	*Daemon
	dir string
}

// FRR starts zebra and a daemon with its configuration.
func (l Lab) FRR(name, daemon, config string) *FRR {
	l.Helper()
	const bin = "/usr/lib/frr/"
	if _, err := os.Stat(bin + daemon); err != nil {
		l.Skipf("FRR's %s is not installed", daemon)
	}
	dir := l.dirOf("frr")
	start := func(program, config, listens string, more ...string) *Daemon {
		d := l.Daemon(name, append([]string{
			bin + program, "-f", l.write(dir, program+".conf", config), "-i", filepath.Join(dir, program+".pid"),
			"-z", filepath.Join(dir, "zserv.api"), "--vty_socket", dir, "-P", "0", "--log", "stdout",
		}, more...)...)
		l.listens(program, filepath.Join(dir, listens))
		return d
	}
	start("zebra", "", "zserv.api")
	var more []string
	if daemon == "bfdd" {
		more = []string{"--bfdctl", filepath.Join(dir, "bfdd.sock")}
	}
	return &FRR{start(daemon, config, daemon+".vty", more...), dir}
}

// Vtysh gives FRR commands, and returns what it says to them.
func (f *FRR) Vtysh(commands ...string) string {
	args := []string{"vtysh", "--vty_socket", f.dir}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, _ := output(args...)
	return out
}

// BIRD starts BIRD; ask gives it a command, and returns what it says to it.
func (l Lab) BIRD(name, config string) (d *Daemon, ask func(command string) string) {
	l.Helper()
	if _, err := exec.LookPath("bird"); err != nil {
		l.Skip("BIRD is not installed")
	}
	dir := l.TempDir()
	control := filepath.Join(dir, "ctl")
	d = l.Daemon(name, "bird", "-f", "-c", l.write(dir, "bird.conf", "log stderr all;\nprotocol device {}\n"+config), "-s", control)
	l.listens("BIRD", control)
	return d, func(command string) string {
		out, _ := output(append([]string{"birdc", "-s", control}, strings.Fields(command)...)...)
		return out
	}
}

func (l Lab) listens(program, socket string) {
	l.Helper()
	l.Eventually(program+" listens", func() bool { _, err := os.Stat(socket); return err == nil })
}

func (l Lab) write(dir, name, text string) string {
	l.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
	return path
}

// dirOf is a folder that a daemon may use after giving up root.
func (l Lab) dirOf(owner string) string {
	l.Helper()
	dir, err := os.MkdirTemp("", l.Prefix)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	u, err := user.Lookup(owner)
	if err != nil {
		l.Skipf("no user %s: %v", owner, err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if g, err := user.LookupGroup(owner + "vty"); err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		l.Fatal(err)
	}
	return dir
}

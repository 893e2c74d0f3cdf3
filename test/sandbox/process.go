package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Capability is a Linux capability by its number, see capabilities(7).
type Capability uintptr

// The capabilities that network programs ask for.
const (
	CapNetBindService Capability = 10
	CapNetAdmin       Capability = 12
	CapNetRaw         Capability = 13
	CapSysNice        Capability = 23
)

// Process is a program to run in a host.
type Process struct {
	// Name is unique in the sandbox; the log file is called after it.
	Name string
	// Host is where it runs; "" is the machine itself.
	Host string
	// Args start with the program: a path, or a name to look up in PATH.
	Args []string
	// Env is added to the environment, as KEY=value.
	Env []string
	// UID and GID are what it runs as; 0 is root, with all capabilities.
	UID, GID int
	// Capabilities are those of a process that is not root.
	Capabilities []Capability

	// Listen is an address on the machine itself that the process accepts
	// connections on, as file descriptor 3.
	Listen string `json:",omitempty"`
}

// record is what is kept about a process in the state folder. PID 0 means that
// it was stopped on purpose.
type record struct {
	Process
	PID int
	// StartTime (clock ticks since boot) and Boot (which boot) tell the process
	// from a later one with the same PID. Its program does not: exec(3) changes it.
	StartTime uint64
	Boot      string
}

// ErrNoProcess says that the sandbox never started a process of that name.
var ErrNoProcess = errors.New("no such process in the sandbox")

// Start starts a process in a host and records it, so that it is found again
// by a later process, and stopped by Down. A process of the same name must not
// be running.
func (s *Sandbox) Start(p Process) error {
	if old, err := s.record(p.Name); err == nil && old.alive() {
		return fmt.Errorf("starting %s: already running as process %d", p.Name, old.PID)
	}
	log, err := os.OpenFile(s.LogPath(p.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, release, err := command(context.Background(), p)
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	defer release()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Setsid = true
	if err := s.Do(p.Host, cmd.Start); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	defer cmd.Process.Release()

	r := record{Process: p, PID: cmd.Process.Pid}
	stat, err := readStat(r.PID)
	if err != nil {
		return fmt.Errorf("starting %s: it ended at once: %s", p.Name, s.lastLog(p.Name))
	}
	r.StartTime, r.Boot = stat.startTime, bootID()
	return s.writeRecord(r)
}

// command prepares a process; release closes what only its start needs.
func command(ctx context.Context, p Process) (cmd *exec.Cmd, release func(), err error) {
	if len(p.Args) == 0 {
		return nil, nil, errors.New("no command")
	}
	cmd = exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
	if cmd.Err != nil {
		return nil, nil, cmd.Err
	}
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	cmd.WaitDelay = time.Second
	release = func() {
		for _, f := range cmd.ExtraFiles {
			f.Close()
		}
	}
	if p.Listen != "" {
		file, err := listenFile(p.Listen)
		if err != nil {
			return nil, nil, err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	if p.UID != 0 {
		if err := dropRoot(cmd, p); err != nil {
			release()
			return nil, nil, err
		}
	}
	return cmd, release, nil
}

// listenFile listens on the machine itself, whatever namespace the process is
// started in: a socket keeps the namespace that it was made in.
func listenFile(address string) (*os.File, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	return listener.(*net.TCPListener).File()
}

// dropRoot makes the command run as an ordinary user. The program is passed as
// an open file, since that user may not be able to walk to it, below /root say.
func dropRoot(cmd *exec.Cmd, p Process) error {
	program, err := os.Open(cmd.Path)
	if err != nil {
		return err
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, program)
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
	cmd.Dir = "/"
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID)}
	for _, c := range p.Capabilities {
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(c))
	}
	return nil
}

// Run runs a process in a host to its end and returns what it wrote to stdout
// and stderr together. Its name is not used, nothing is recorded.
func (s *Sandbox) Run(ctx context.Context, p Process) (string, error) {
	cmd, release, err := command(ctx, p)
	if err != nil {
		return "", err
	}
	defer release()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.Do(p.Host, cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(p.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Exec runs a command in a host and returns what it wrote to stdout and stderr
// together.
func (s *Sandbox) Exec(ctx context.Context, host string, args ...string) (string, error) {
	return s.Run(ctx, Process{Host: host, Args: args})
}

// Running tells whether a process is running.
func (s *Sandbox) Running(name string) bool {
	r, err := s.record(name)
	return err == nil && r.alive()
}

// PID returns the process id of a running process, or 0.
func (s *Sandbox) PID(name string) int {
	r, err := s.record(name)
	if err != nil || !r.alive() {
		return 0
	}
	return r.PID
}

// Signal sends a signal to a running process, and does not wait for what comes
// of it.
func (s *Sandbox) Signal(name string, signal syscall.Signal) error {
	r, err := s.record(name)
	if err != nil {
		return err
	}
	if !r.alive() {
		return fmt.Errorf("%s is not running", name)
	}
	return syscall.Kill(r.PID, signal)
}

// Stop sends SIGTERM to a process and waits until it has ended: a kube-apiserver
// takes seconds. It keeps what StartAgain needs. Stopping a process that
// is not running does nothing.
func (s *Sandbox) Stop(ctx context.Context, name string) error {
	return s.end(ctx, name, syscall.SIGTERM)
}

// Kill ends a process at once, by SIGKILL, as a crash does.
func (s *Sandbox) Kill(ctx context.Context, name string) error {
	return s.end(ctx, name, syscall.SIGKILL)
}

func (s *Sandbox) end(ctx context.Context, name string, signal syscall.Signal) error {
	defer s.onPurpose(name)() // before its record is read, which Supervise writes
	r, err := s.record(name)
	if err != nil {
		return err
	}
	if r.alive() {
		if err := syscall.Kill(r.PID, signal); err != nil {
			return fmt.Errorf("stopping %s: %w", name, err)
		}
	}
	if err := poll(ctx, 10*time.Millisecond, r.dead); err != nil {
		return fmt.Errorf("stopping %s: %w", name, err)
	}
	r.PID = 0
	return s.writeRecord(r)
}

// StartAgain starts a process that has ended or was stopped, as it was started
// before. One that is running already stays.
func (s *Sandbox) StartAgain(name string) error {
	r, err := s.record(name)
	if err != nil || r.alive() {
		return err
	}
	return s.Start(r.Process)
}

// Restart stops a process and starts it again.
func (s *Sandbox) Restart(ctx context.Context, name string) error {
	if err := s.Stop(ctx, name); err != nil {
		return err
	}
	return s.StartAgain(name)
}

// LogPath returns the file that a process writes its log to.
func (s *Sandbox) LogPath(name string) string {
	return filepath.Join(s.dir, "log", name+".log")
}

// lastLog returns the end of a process's log on one line, for an error message.
func (s *Sandbox) lastLog(name string) string {
	data, err := os.ReadFile(s.LogPath(name))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

func (s *Sandbox) recordPath(name string) string {
	return filepath.Join(s.dir, "process", name+".json")
}

func (s *Sandbox) writeRecord(r record) error {
	return writeJSON(s.recordPath(r.Name), r)
}

func (s *Sandbox) record(name string) (record, error) {
	var r record
	err := readJSON(s.recordPath(name), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%s: %w", name, ErrNoProcess)
	}
	return r, err
}

// forget drops the record of a process that has ended for good.
func (s *Sandbox) forget(name string) {
	os.Remove(s.recordPath(name))
	os.Remove(s.LogPath(name))
}

// records lists all recorded processes by name.
func (s *Sandbox) records() ([]record, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "process", "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var all []record
	for _, path := range paths {
		var r record
		if err := readJSON(path, &r); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// alive tells whether the recorded process itself is still there. A zombie is
// not: if it is our own child it is buried here.
func (r record) alive() bool {
	if r.PID == 0 {
		return false
	}
	stat, err := readStat(r.PID)
	if err != nil || stat.startTime != r.StartTime || r.Boot != bootID() {
		return false
	}
	if stat.zombie {
		syscall.Wait4(r.PID, nil, syscall.WNOHANG, nil)
		return false
	}
	return true
}

func (r record) dead() error {
	if r.alive() {
		return fmt.Errorf("process %d is still running", r.PID)
	}
	return nil
}

// bootID is another one after each boot, on which clock ticks start anew.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

type procStat struct {
	zombie    bool
	startTime uint64
}

// readStat reads what matters of /proc/PID/stat, see proc_pid_stat(5).
func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name in parentheses may hold anything, so fields count from its end.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	// The state is that of the first thread, and files are open until the last
	// one has ended.
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	ended := fields[0] == "Z" || fields[0] == "X"
	return procStat{zombie: ended && len(threads) <= 1, startTime: start}, err
}

// killInside kills every process in the namespaces of a sandbox, recorded or
// not: the namespaces are ours alone.
func killInside(ctx context.Context, name string) error {
	namespaces, err := namespacesOf(name)
	if err != nil {
		return err
	}
	ours := map[uint64]bool{}
	for _, namespace := range namespaces {
		var stat syscall.Stat_t
		if err := syscall.Stat(filepath.Join(netnsDir, namespace), &stat); err == nil {
			ours[stat.Ino] = true
		}
	}
	return poll(ctx, 20*time.Millisecond, func() error {
		left := processesIn(ours)
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) > 0 {
			return fmt.Errorf("processes %v are still running", left)
		}
		return nil
	})
}

// processesIn lists the living processes whose network namespace is one of
// those, except this one.
func processesIn(inodes map[uint64]bool) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var stat syscall.Stat_t
		if syscall.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &stat) != nil || !inodes[stat.Ino] {
			continue
		}
		if s, err := readStat(pid); err == nil && !s.zombie {
			found = append(found, pid)
		}
	}
	return found
}

// poll calls f until it succeeds; when ctx ends first, it returns f's last error.
func poll(ctx context.Context, every time.Duration, f func() error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'), 0o644, 0)
}

// writeFile replaces a file in one step, so that no reader sees half of it, or
// one that is not theirs yet.
func writeFile(path string, data []byte, mode os.FileMode, owner int) error {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Chown(owner, owner), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

func readJSON(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func TestZombieIsNotAlive(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Release()
	stat, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := record{PID: cmd.Process.Pid, StartTime: stat.startTime, Boot: bootID()}
	if !r.alive() {
		t.Error("a running process is not alive")
	}
	cmd.Process.Kill()
	if err := poll(t.Context(), time.Millisecond, r.dead); err != nil {
		t.Error(err)
	}
}

func TestAnotherProcessWithTheSamePIDIsNotAlive(t *testing.T) {
	own := ownRecord()
	if !own.alive() {
		t.Fatal("this process is not alive")
	}
	later, other := own, own
	later.StartTime++
	other.Boot = "another"
	for _, r := range []record{later, other, {PID: 0}} {
		if r.alive() {
			t.Errorf("%+v is alive", r)
		}
	}
}

func TestSuperviseStartsWhatEndedByItself(t *testing.T) {
	s := &Sandbox{dir: t.TempDir()}
	for _, dir := range []string{"process", "log"} {
		must(t, os.Mkdir(s.dir+"/"+dir, 0o755))
	}
	must(t, s.Start(Process{Name: "p", Args: []string{"sh", "-c", "echo started; exec sleep 60"}}))
	defer s.Kill(context.Background(), "p")
	must(t, poll(t.Context(), time.Millisecond, func() error {
		if log := s.lastLog("p"); log != "started" {
			return fmt.Errorf("log %q", log)
		}
		return nil
	}))
	first := s.PID("p")
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan string, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Supervise(ctx, "p", func(lastLog string) { ends <- lastLog })
	}()
	must(t, syscall.Kill(first, syscall.SIGKILL))
	if got := <-ends; got != "started" {
		t.Errorf("last log %q", got)
	}
	must(t, poll(t.Context(), time.Millisecond, func() error {
		if now := s.PID("p"); now == 0 || now == first {
			return fmt.Errorf("process %d, was %d", now, first)
		}
		return nil
	}))
	must(t, s.Kill(t.Context(), "p"))
	s.startIfEnded("p", func(string) { t.Error("what was killed on purpose is started again") })
	if s.Running("p") {
		t.Error("what was killed on purpose runs")
	}
	cancel()
	<-done
}

func TestProcessesInFindsOtherProcesses(t *testing.T) {
	// The first thread of the process, which /proc/self is about, may be one that
	// the runtime retired in another namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]bool{}
	for _, pid := range processesIn(map[uint64]bool{info.Sys().(*syscall.Stat_t).Ino: true}) {
		found[pid] = true
	}
	if found[os.Getpid()] || !found[cmd.Process.Pid] {
		t.Errorf("own process %t, child %t; want false, true", found[os.Getpid()], found[cmd.Process.Pid])
	}
}

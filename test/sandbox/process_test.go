package sandbox

import (
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

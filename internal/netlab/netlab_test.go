package netlab

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestSweepTakesWhatTheDeadLeft(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	alive := Lab{TB: t, Prefix: Prefix("labtest")}
	alive.Namespace("a")
	left := Lab{TB: t, Prefix: fmt.Sprintf("herald-labtest-%d-", dead.Process.Pid)}
	alive.Here("ip netns add " + left.Full("a"))
	Sweep("labtest")
	list := alive.Here("ip netns list")
	if !strings.Contains(list, alive.Full("a")) || strings.Contains(list, left.Full("a")) {
		t.Errorf("left are %q, of which %s is of this test", list, alive.Full("a"))
	}
}

func TestDaemonIsKilledAndStartsAgain(t *testing.T) {
	l := Lab{TB: t, Prefix: Prefix("labtest"), Patience: 30 * time.Second, Poll: time.Millisecond}
	l.Host("host")
	runs := func() bool { return strings.Contains(l.Here("ip netns pids "+l.Full("host")), "\n") }
	d := l.Daemon("host", "sleep", "3600")
	l.Eventually("it runs", runs)
	d.Kill()
	l.Eventually("it is gone", func() bool { return !runs() })
	d.Start()
	l.Eventually("it runs again", runs)
}

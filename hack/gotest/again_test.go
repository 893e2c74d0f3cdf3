package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A module whose tests fail for several reasons, run by go test.
func TestSecondRun(t *testing.T) {
	const once = `
		if _, err := os.Stat("seen"); err == nil { return }
		os.WriteFile("seen", nil, 0o644)
		`
	tests := map[string]struct {
		body  string
		count string
	}{
		"all is well":                        {``, "1 0 0 0"},
		"it fails once":                      {once + `t.Error("late")`, "1 0 0 1"},
		"it fails again":                     {`t.Error("wrong")`, "0 1 0 0"},
		"two of its subtests fail once":      {once + `for _, n := range []string{"a b", "c"} { t.Run(n, func(t *testing.T) { t.Error("late") }) }`, "2 0 0 2"},
		"it panics once":                     {once + `panic("oh")`, "0 1 0 0"},
		"what it watches panics once":        {once + `t.Error("controller.log: panic: oh")`, "0 1 0 0"},
		"another passes beside it":           {once + `t.Error("late")` + "\n}\nfunc TestB(t *testing.T) {\n", "2 0 0 1"},
		"it is skipped when it is run again": {strings.Replace(once, "return", `t.Skip("no")`, 1) + `t.Error("late")`, "0 1 0 0"},
		"too many fail once": {once + `for _, n := range []string{"a", "b"} { t.Run(n, func(t *testing.T) { t.Error("late") }) }` +
			"\n}\nfunc TestB(t *testing.T) { t.Error()\n}\nfunc TestC(t *testing.T) { t.Error()\n}\nfunc TestD(t *testing.T) { t.Error() \n", "0 5 0 0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("go.mod", "module example.org/m\n\ngo 1.25\n")
			write("m_test.go", "package m\nimport (\n\"os\"\n\"testing\"\n)\nvar _ = os.Stat\nfunc TestA(t *testing.T) {"+tt.body+"}\n")
			logs := t.TempDir()
			ok, err := suite{name: "s", dir: dir, logs: logs, args: []string{"-count=1", "./..."}}.run()
			if err != nil {
				t.Fatal(err)
			}
			count, err := os.ReadFile(filepath.Join(logs, "s.count"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.count, strings.TrimSpace(string(count))); diff != "" {
				t.Error(diff)
			}
			if want := strings.Fields(tt.count)[1] == "0"; ok != want {
				t.Errorf("it went well: %t", ok)
			}
		})
	}
}

// Command gotest runs go test and shows a line per package, what failed and
// what was skipped. The full output of each package goes to a log file, and the
// numbers of tests to a file for the sum over all modules: passed, failed,
// skipped, and how many of the passed ones did so only when run again.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	name := flag.String("suite", "test", "name of this run: of its folder of logs and its file of numbers")
	dir := flag.String("dir", ".", "folder of the module")
	logs := flag.String("logs", ".test-logs", "folder for logs")
	each := flag.Bool("each", false, "show every test when it ends, not only packages")
	parts := flag.Int("parts", 1, "how many parts to run side by side")
	flag.Parse()
	s := suite{name: *name, dir: *dir, logs: *logs, each: *each, parts: *parts, args: flag.Args()}
	ok, err := s.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// suite is a run of go test with args in the folder dir.
type suite struct {
	name, dir, logs string
	each            bool
	parts           int
	args            []string
}

// run says whether all went well. Tests that failed for what may be the
// machine's doing are run a second time, alone.
func (s suite) run() (bool, error) {
	folder := filepath.Join(s.logs, s.name)
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		return false, err
	}
	run := func() (*report, error) { return s.test(folder, "", s.args) }
	if s.parts > 1 {
		run = func() (*report, error) { return s.testParts(folder) }
	}
	first, err := run()
	if err != nil {
		return false, err
	}
	again := 0
	for _, f := range first.unsteady() {
		fmt.Printf("     again    %s, alone\n", f)
		second, err := s.test(folder, "", f.only(s.args))
		if err != nil {
			return false, err
		}
		if second.failed == 0 && second.passed > 0 {
			fmt.Printf("     PASSED ONLY THE SECOND TIME  %s\n", f)
			first.forgive(f)
			again += f.count
		}
	}
	line := fmt.Sprintf("%d %d %d %d\n", first.passed, first.failed, first.skipped, again)
	return first.failed == 0, os.WriteFile(filepath.Join(s.logs, s.name+".count"), []byte(line), 0o644)
}

// test runs go test once, for a part of the suite if that is named.
func (s suite) test(folder, part string, args []string) (*report, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = s.dir
	if part != "" {
		cmd.Env = append(os.Environ(), partVariable+"="+part)
	}
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &report{out: os.Stdout, each: s.each, part: part, log: func(pkg, text string) error { return appendLog(folder, pkg, part, text) }}
	readErr := r.read(output)
	if err := cmd.Wait(); err != nil && r.failed == 0 {
		r.failed = 1
	}
	return r, readErr
}

// read reports what go test -json says until its end.
func (r *report) read(output io.Reader) error {
	lines := bufio.NewReader(output)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// Not of go test: of a program that it ran.
				e = event{Action: "output", Output: string(line)}
			}
			if err := r.add(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// appendLog adds text to the log of a package, or of a part of it.
func appendLog(folder, pkg, part, text string) error {
	name := strings.ReplaceAll(shortName(pkg), "/", "_")
	if part != "" {
		name += "." + part
	}
	file, err := os.OpenFile(filepath.Join(folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

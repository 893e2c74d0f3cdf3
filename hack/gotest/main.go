// Command gotest runs go test and shows a line per package, what failed and
// what was skipped. The full output of each package goes to a log file, and the
// numbers of tests to a file for the sum over all modules.
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
	suite := flag.String("suite", "test", "name of this run: of its folder of logs and its file of numbers")
	dir := flag.String("dir", ".", "folder of the module")
	logs := flag.String("logs", ".test-logs", "folder for logs")
	each := flag.Bool("each", false, "show every test when it ends, not only packages")
	flag.Parse()
	ok, err := run(*suite, *dir, *logs, *each, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run runs go test with args in dir, and says whether all went well.
func run(suite, dir, logs string, each bool, args []string) (bool, error) {
	folder := filepath.Join(logs, suite)
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		return false, err
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	report := report{out: os.Stdout, each: each, log: func(pkg, text string) error { return appendLog(folder, pkg, text) }}
	readErr := report.read(output)
	failed := cmd.Wait()
	if failed != nil && report.failed == 0 {
		report.failed = 1
	}
	line := fmt.Sprintf("%d %d %d\n", report.passed, report.failed, report.skipped)
	err = errors.Join(readErr, os.WriteFile(filepath.Join(logs, suite+".count"), []byte(line), 0o644))
	return failed == nil && report.failed == 0, err
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

// appendLog adds text to the log of a package.
func appendLog(folder, pkg, text string) error {
	name := strings.ReplaceAll(shortName(pkg), "/", "_")
	file, err := os.OpenFile(filepath.Join(folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

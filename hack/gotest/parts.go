package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A suite of tests that wait more than they work is run in parts, side by side.
// Each part is a go test of its own, with a cluster of its own: the tests of the
// suite's own package are dealt out like cards, and the packages below it are
// one more part.

// partVariable tells a part its number, so that what it keeps is kept apart.
const partVariable = "TEST_PART"

// testFunction finds the tests in a source file.
var testFunction = regexp.MustCompile(`(?m)^func (Test[A-Z0-9_]\w*)\(\w+ \*testing\.T\)`)

// part is one go test of a suite.
type part struct {
	name string
	args []string
}

// split deals the tests out into n parts. Arguments that name packages are
// replaced; a suite without tests of its own has the last part alone.
func split(args, tests, below []string, n int) []part {
	flags := slices.DeleteFunc(slices.Clone(args), isPackage)
	hands := make([][]string, n)
	for i, test := range tests {
		hands[i%n] = append(hands[i%n], test)
	}
	var parts []part
	for i, hand := range hands {
		if len(hand) == 0 {
			continue
		}
		only := "^(" + strings.Join(hand, "|") + ")$"
		parts = append(parts, part{fmt.Sprint(i + 1), append(slices.Clone(flags), "-run", only, ".")})
	}
	if len(below) > 0 {
		parts = append(parts, part{"rest", append(slices.Clone(flags), below...)})
	}
	return parts
}

func isPackage(arg string) bool { return arg == "." || strings.HasPrefix(arg, "./") }

// ownTests are the tests of the package in a folder, in the order of its files.
func ownTests(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	var tests []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, match := range testFunction.FindAllSubmatch(source, -1) {
			if name := string(match[1]); name != "TestMain" {
				tests = append(tests, name)
			}
		}
	}
	return tests, nil
}

// packagesBelow are the folders under dir that have tests, as go test names them.
func packagesBelow(dir string) ([]string, error) {
	var below []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		folder, err := filepath.Rel(dir, filepath.Dir(path))
		if name := "./" + folder; err == nil && folder != "." && !slices.Contains(below, name) {
			below = append(below, name)
		}
		return err
	})
	return below, err
}

// testParts runs the parts side by side and adds up what they report.
func (s suite) testParts(folder string) (*report, error) {
	tests, err := ownTests(s.dir)
	if err != nil {
		return nil, err
	}
	below, err := packagesBelow(s.dir)
	if err != nil {
		return nil, err
	}
	parts := split(s.args, tests, below, s.parts)
	reports, errs := make([]*report, len(parts)), make([]error, len(parts))
	var running sync.WaitGroup
	for i, p := range parts {
		running.Go(func() { reports[i], errs[i] = s.test(folder, p.name, p.args) })
	}
	running.Wait()
	sum := &report{}
	for _, r := range reports {
		if r != nil {
			sum.passed, sum.failed, sum.skipped = sum.passed+r.passed, sum.failed+r.failed, sum.skipped+r.skipped
			sum.failures = append(sum.failures, r.failures...)
		}
	}
	return sum, errors.Join(errs...)
}

package main

import (
	"regexp"
	"slices"
	"strings"
)

// failure is a test function that failed, by itself or in some of its subtests.
type failure struct {
	pkg, test string
	// count is how many were counted as failed.
	count int
	// certain is a failure that no machine can be blamed for.
	certain bool
}

func (f failure) String() string { return shortName(f.pkg) + " " + f.test }

// atMost failures of a suite are run again; more of them have another cause
// than the machine.
const atMost = 3

// always is in the output of what has failed whatever a second run says; a test
// that runs too long panics.
var always = regexp.MustCompile(`WARNING: DATA RACE|\b(panic|fatal error): `)

// failures are the test functions among failed tests of the package. What failed
// outside of its tests has no name.
func (p *packageReport) failures(pkg string, failed []string) []failure {
	certain := false
	for _, output := range p.output {
		certain = certain || always.MatchString(output)
	}
	if len(failed) == 0 {
		return []failure{{pkg: pkg, count: 1, certain: true}}
	}
	var failures []failure
	for _, test := range failed {
		function, _, _ := strings.Cut(test, "/")
		i := slices.IndexFunc(failures, func(f failure) bool { return f.test == function })
		if i < 0 {
			i = len(failures)
			failures = append(failures, failure{pkg: pkg, test: function, certain: certain})
		}
		failures[i].count++
	}
	return failures
}

// unsteady are the failures worth a second run: all or none of them, as one
// that is certain fails the suite anyhow.
func (r *report) unsteady() []failure {
	if len(r.failures) > atMost || slices.ContainsFunc(r.failures, func(f failure) bool { return f.certain }) {
		return nil
	}
	return r.failures
}

// forgive counts a failure as passed.
func (r *report) forgive(f failure) {
	r.failed -= f.count
	r.passed += f.count
}

// only returns the arguments of go test for that test alone.
func (f failure) only(args []string) []string {
	only := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "./") })
	return append(only, "-run", "^"+f.test+"$", f.pkg)
}

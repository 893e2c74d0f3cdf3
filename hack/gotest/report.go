package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of go test -json, see "go doc test2json". The events of a
// build have ImportPath in place of Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// report follows the events of a run. A test with subtests counts only if it
// failed or was skipped by itself.
type report struct {
	out  io.Writer
	each bool
	part string
	log  func(pkg, text string) error

	packages                map[string]*packageReport
	builds                  map[string]string
	passed, failed, skipped int
	failures                []failure
}

// packageReport is what is known of a package that is not yet done.
type packageReport struct {
	// results by test: pass, fail or skip; "" runs.
	results map[string]string
	output  map[string]string
	// order in which tests began.
	order []string
}

func (r *report) add(e event) error {
	if e.ImportPath != "" {
		if r.builds == nil {
			r.builds = map[string]string{}
		}
		r.builds[e.ImportPath] += e.Output
		return nil
	}
	p := r.of(e.Package)
	switch e.Action {
	case "run":
		p.begin(e.Test)
	case "output":
		p.output[e.Test] += e.Output
		return r.log(e.Package, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
			return nil
		}
		p.begin(e.Test)
		p.results[e.Test] = e.Action
		if r.each && !strings.Contains(e.Test, "/") {
			fmt.Fprintf(r.out, "    %-4s %7.1fs  %s%s\n", e.Action, e.Elapsed, e.Test, r.partSuffix())
		}
	}
	return nil
}

func (r *report) of(pkg string) *packageReport {
	if r.packages == nil {
		r.packages = map[string]*packageReport{}
	}
	if r.packages[pkg] == nil {
		r.packages[pkg] = &packageReport{results: map[string]string{}, output: map[string]string{}}
	}
	return r.packages[pkg]
}

func (p *packageReport) begin(test string) {
	if _, ok := p.results[test]; !ok {
		p.results[test] = ""
		p.order = append(p.order, test)
	}
}

// count returns the tests by result. What a panic or a time-out left running
// has failed.
func (p *packageReport) count(packageFailed bool) (passed, failed, skipped []string) {
	under := map[string][]string{} // results of the subtests of each test
	for _, test := range p.order {
		for parent := test; strings.Contains(parent, "/"); {
			parent = parent[:strings.LastIndex(parent, "/")]
			under[parent] = append(under[parent], p.results[test])
		}
	}
	for _, test := range p.order {
		subtests := under[test]
		switch result := p.results[test]; {
		case result == "skip":
			skipped = append(skipped, test)
		case result == "pass" && len(subtests) == 0:
			passed = append(passed, test)
		case result == "pass":
		case result == "" && !packageFailed:
		case !slices.Contains(subtests, "fail") && !slices.Contains(subtests, ""):
			failed = append(failed, test)
		}
	}
	return passed, failed, skipped
}

func (r *report) endPackage(e event, p *packageReport) {
	passed, failed, skipped := p.count(e.Action == "fail")
	bad := len(failed)
	if e.Action == "fail" && bad == 0 {
		bad = 1 // it did not compile, or failed outside of its tests
	}
	r.passed, r.failed, r.skipped = r.passed+len(passed), r.failed+bad, r.skipped+len(skipped)
	if bad > 0 {
		r.failures = append(r.failures, p.failures(e.Package, failed)...)
	}
	defer delete(r.packages, e.Package)
	name := shortName(e.Package) + r.partSuffix()
	if bad == 0 && len(passed)+len(skipped) == 0 {
		return // no tests
	}
	result := "ok  "
	if bad > 0 {
		result = "FAIL"
	}
	var text strings.Builder // in one write: parts report side by side
	defer func() { fmt.Fprint(r.out, text.String()) }()
	fmt.Fprintf(&text, "%s %7.1fs  %-28s %d passed", result, e.Elapsed, name, len(passed))
	if bad > 0 {
		fmt.Fprintf(&text, ", %d failed", bad)
	}
	fmt.Fprintln(&text)
	for _, test := range skipped {
		fmt.Fprintf(&text, "     skipped  %s: %s\n", test, why(p.output[test]))
	}
	for _, test := range failed {
		fmt.Fprintf(&text, "     FAILED   %s\n%s", test, indent(p.output[test]))
	}
	if bad > 0 {
		fmt.Fprint(&text, indent(r.builds[e.FailedBuild]), indent(p.output[""]))
	}
}

// partSuffix names the part that is reported, if the suite is run in parts.
func (r *report) partSuffix() string {
	if r.part == "" {
		return ""
	}
	return " (part " + r.part + ")"
}

// why is the reason in the output of a skipped test: the text of its last line
// that is not go test's own, without the place in the source.
func why(output string) string {
	reason := "it does not say why"
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		reason = line
		if _, text, ok := strings.Cut(line, ": "); ok {
			reason = text
		}
	}
	return reason
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("       " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// shortName is a package without the name of the project before it.
func shortName(pkg string) string {
	if short := strings.TrimPrefix(pkg, "github.com/heraldlb/herald/"); short != "" {
		return short
	}
	return "other"
}

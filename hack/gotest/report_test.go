package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	tests := map[string]struct {
		given string
		want  string
	}{
		"a test with subtests counts as those": {
			`{"Action":"run","Package":"p","Test":"TestA"}
			 {"Action":"run","Package":"p","Test":"TestA/one"}
			 {"Action":"run","Package":"p","Test":"TestA/two"}
			 {"Action":"pass","Package":"p","Test":"TestA/one"}
			 {"Action":"pass","Package":"p","Test":"TestA/two"}
			 {"Action":"pass","Package":"p","Test":"TestA"}
			 {"Action":"pass","Package":"p","Elapsed":1.5}`,
			`2 passed, 0 failed, 0 skipped
			 ok 1.5s p 2 passed`,
		},
		"a failure is told once, where it happened": {
			`{"Action":"run","Package":"p","Test":"TestA"}
			 {"Action":"run","Package":"p","Test":"TestA/one"}
			 {"Action":"output","Package":"p","Test":"TestA/one","Output":"a_test.go:7: no\n"}
			 {"Action":"fail","Package":"p","Test":"TestA/one"}
			 {"Action":"fail","Package":"p","Test":"TestA"}
			 {"Action":"output","Package":"p","Output":"FAIL\n"}
			 {"Action":"fail","Package":"p"}`,
			`0 passed, 1 failed, 0 skipped
			 FAIL 0.0s p 0 passed, 1 failed
			 FAILED TestA/one
			 a_test.go:7: no
			 FAIL`,
		},
		"a skipped test is named with its reason": {
			`{"Action":"run","Package":"p","Test":"TestA"}
			 {"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
			 {"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: needs root\n"}
			 {"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
			 {"Action":"skip","Package":"p","Test":"TestA"}
			 {"Action":"pass","Package":"p"}`,
			`0 passed, 0 failed, 1 skipped
			 ok 0.0s p 0 passed
			 skipped TestA: needs root`,
		},
		"what does not compile has failed": {
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: undefined: x\n"}
			 {"ImportPath":"p [p.test]","Action":"build-fail"}
			 {"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			`0 passed, 1 failed, 0 skipped
			 FAIL 0.0s p 0 passed, 1 failed
			 p.go:1: undefined: x`,
		},
		"a test that a panic cut short has failed": {
			`{"Action":"run","Package":"p","Test":"TestA"}
			 {"Action":"pass","Package":"p","Test":"TestA"}
			 {"Action":"run","Package":"p","Test":"TestB"}
			 {"Action":"output","Package":"p","Test":"TestB","Output":"panic: oh\n"}
			 {"Action":"fail","Package":"p"}`,
			`1 passed, 1 failed, 0 skipped
			 FAIL 0.0s p 1 passed, 1 failed
			 FAILED TestB
			 panic: oh`,
		},
		"a package without tests is not worth a line": {
			`{"Action":"skip","Package":"p"}`,
			`0 passed, 0 failed, 0 skipped`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := report{out: &out, log: func(string, string) error { return nil }}
			if err := r.read(strings.NewReader(tt.given)); err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%d passed, %d failed, %d skipped\n%s", r.passed, r.failed, r.skipped, out.String())
			if diff := cmp.Diff(words(tt.want), words(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// words are the lines with single spaces.
func words(text string) []string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

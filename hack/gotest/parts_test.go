package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplitDealsOutEachTestOnce(t *testing.T) {
	args := []string{"-count=1", "./...", "-timeout", "60m"}
	got := split(args, []string{"TestA", "TestB", "TestC", "TestD"}, []string{"./below", "./other"}, 3)
	want := []part{
		{"1", []string{"-count=1", "-timeout", "60m", "-run", "^(TestA|TestD)$", "."}},
		{"2", []string{"-count=1", "-timeout", "60m", "-run", "^(TestB)$", "."}},
		{"3", []string{"-count=1", "-timeout", "60m", "-run", "^(TestC)$", "."}},
		{"rest", []string{"-count=1", "-timeout", "60m", "./below", "./other"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); diff != "" {
		t.Error(diff)
	}
	if few := split(args, []string{"TestA"}, nil, 3); len(few) != 1 {
		t.Errorf("a single test makes %d parts: %v", len(few), few)
	}
}

func TestTestsAreFoundInTheSources(t *testing.T) {
	dir := t.TempDir()
	for name, source := range map[string]string{
		"a_test.go":       "func TestMain(m *testing.M) {}\nfunc TestOne(t *testing.T) {}\nfunc Testing(t *testing.T) {}\nfunc helper(t *testing.T) {}\n",
		"b_test.go":       "func TestTwo(t *testing.T) {}\n// func TestThree(t *testing.T) {}\nfunc BenchmarkX(b *testing.B) {}\n",
		"c.go":            "func TestFour(t *testing.T) {}\n",
		"below/d_test.go": "func TestFive(t *testing.T) {}\n",
		"empty/e.go":      "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests, err := ownTests(dir)
	if diff := cmp.Diff([]string{"TestOne", "TestTwo"}, tests); diff != "" || err != nil {
		t.Error(diff, err)
	}
	below, err := packagesBelow(dir)
	if diff := cmp.Diff([]string{"./below"}, below); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

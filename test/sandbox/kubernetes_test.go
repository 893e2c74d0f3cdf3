package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestVersionFlags(t *testing.T) {
	flags := versionFlags("v1.37.1")
	for _, want := range []string{
		"-X k8s.io/component-base/version.gitVersion=v1.37.1 ",
		"-X k8s.io/component-base/version.gitMajor=1 ",
		"-X k8s.io/component-base/version.gitMinor=37 ",
	} {
		if !strings.Contains(flags, want) {
			t.Errorf("%s lacks %s", flags, want)
		}
	}
}

func TestKubernetesVersionIsThatOfTheModule(t *testing.T) {
	version, err := kubernetesVersion("kube")
	if err != nil || !strings.HasPrefix(version, "v1.") {
		t.Errorf("%q, %v", version, err)
	}
}

func TestSourceSumFollowsTheSources(t *testing.T) {
	dir := t.TempDir()
	sum := func(file, content string) string {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		sum, err := sourceSum(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	first := sum("go.mod", "module x\n")
	if sum("x_test.go", "package x\n") != first || sum("notes", "none") != first {
		t.Error("the sum changed with a file that is not built")
	}
	if sum("main.go", "package main\n") == first {
		t.Error("the sum stayed with another source")
	}
}

func TestOnceBuildsOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "built")
	var builds atomic.Int32
	build := func(_ context.Context, temp string) error {
		builds.Add(1)
		return os.WriteFile(filepath.Join(temp, "program"), nil, 0o755)
	}
	want := func() error {
		_, err := once(t.Context(), dir, func() {}, build)
		return err
	}
	if err := together(want, want, want, want); err != nil {
		t.Fatal(err)
	}
	if builds.Load() != 1 || !exists(filepath.Join(dir, "program")) {
		t.Errorf("%d builds, want one", builds.Load())
	}
}

func TestOnceLeavesNothingOfAFailedBuild(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "built")
	broken := errors.New("broken")
	_, err := once(t.Context(), dir, func() {}, func(context.Context, string) error { return broken })
	if !errors.Is(err, broken) || exists(dir) || exists(dir+".new") {
		t.Errorf("error %v, built %t, half built %t", err, exists(dir), exists(dir+".new"))
	}
}

func TestFollowKeepsErrorsApartFromPackages(t *testing.T) {
	output := "k8s.io/api/core/v1\n# k8s.io/broken\nbroken.go:3:5: undefined: x\n"
	var progress bytes.Buffer
	if rest, want := follow(strings.NewReader(output), &progress), "# k8s.io/broken\nbroken.go:3:5: undefined: x"; rest != want {
		t.Errorf("%q, want %q", rest, want)
	}
}

func TestRootIsFoundFromHere(t *testing.T) {
	root, err := findRoot("")
	if err != nil || !exists(filepath.Join(root, "test/sandbox/sandbox.go")) {
		t.Errorf("%q, %v", root, err)
	}
	if _, err := findRoot(t.TempDir()); err == nil {
		t.Error("an empty folder passes for a source tree")
	}
}

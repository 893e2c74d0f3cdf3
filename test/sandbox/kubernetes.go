package sandbox

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// kubePrograms are the names that the kube program answers to.
var kubePrograms = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"}

// EnsureKubernetes builds Kubernetes out of the tree at root, unless the cache
// has this very build, and returns the folder with its programs: kubectl,
// kube-apiserver and the others. "" finds the tree by itself. The cache is
// $HERALD_CACHE, or herald in $XDG_CACHE_HOME, or in ~/.cache. A build from
// nothing takes ten minutes on two cores; lines on progress tell how far it is.
func EnsureKubernetes(ctx context.Context, root string, progress io.Writer) (string, error) {
	root, err := findRoot(root)
	if err != nil {
		return "", err
	}
	source := kubernetesSource(root)
	version, err := kubernetesVersion(source)
	if err != nil {
		return "", err
	}
	dir, err := buildDir(ctx, source, "kubernetes")
	if err != nil {
		return "", err
	}
	build := func(ctx context.Context, temp string) error {
		return buildKubernetes(ctx, source, version, temp, progress)
	}
	busy := func() { fmt.Fprintf(progress, "Kubernetes %s: waiting for another process that builds it\n", version) }
	built, err := once(ctx, dir, busy, build)
	if err != nil {
		return "", fmt.Errorf("building Kubernetes: %w", err)
	}
	if !built {
		fmt.Fprintf(progress, "Kubernetes %s: cached in %s\n", version, dir)
	}
	return dir, nil
}

func kubernetesSource(root string) string { return filepath.Join(root, "test/sandbox/kube") }

// buildDir is the folder in the cache for a build of these very sources.
func buildDir(ctx context.Context, source, name string) (string, error) {
	sum, err := sourceSum(ctx, source)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, name+"-"+sum), nil
}

func buildKubernetes(ctx context.Context, source, version, dir string, progress io.Writer) error {
	start := time.Now()
	fmt.Fprintf(progress, "Kubernetes %s: building, once; about 10 minutes on two cores\n", version)
	args := []string{"build", "-v", "-trimpath", "-ldflags", versionFlags(version), "-o", filepath.Join(dir, "kube"), "."}
	if err := goCommand(ctx, source, progress, args...); err != nil {
		return err
	}
	for _, name := range kubePrograms {
		if err := os.Symlink("kube", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	fmt.Fprintf(progress, "Kubernetes %s: built in %s\n", version, time.Since(start).Round(time.Second))
	return nil
}

// versionFlags sets the version that the programs report; without it kubectl
// refuses to compare versions.
func versionFlags(version string) string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	flags := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
			pkg, version, major, minor)
	}
	return flags
}

// goCommand runs the go command without cgo, and shows how it goes on.
func goCommand(ctx context.Context, dir string, progress io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	// go is the parent of compilers that an interrupt must end as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	output, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	rest := follow(output, progress)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("go %s: %w: %s", args[0], err, rest)
	}
	return nil
}

// follow reads what "go build -v" says, counts the packages on progress every
// ten seconds, and returns the last lines that are not about a package.
func follow(output io.Reader, progress io.Writer) string {
	lines := make(chan string)
	go func() { // ends with output, which its caller reads to the end
		defer close(lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	start := time.Now()
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	packages, rest := 0, []string{}
	for {
		select {
		case line, ok := <-lines:
			switch {
			case !ok:
				return strings.Join(rest[max(0, len(rest)-20):], "\n")
			case strings.ContainsAny(line, " :\t"):
				rest = append(rest, line)
			default:
				packages++
			}
		case <-ticker.C:
			fmt.Fprintf(progress, "  %4s  %d packages compiled\n", time.Since(start).Round(time.Second), packages)
		}
	}
}

var kubernetesRequirement = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v\S+)`)

// kubernetesVersion reads the version from the go.mod in dir.
func kubernetesVersion(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	found := kubernetesRequirement.FindSubmatch(data)
	if found == nil {
		return "", fmt.Errorf("%s/go.mod does not require k8s.io/kubernetes", dir)
	}
	return string(found[1]), nil
}

// sourceSum is a short hash of the Go sources below dir, the modules they need
// and the Go that compiles them.
func sourceSum(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	cmd.Dir = dir
	version, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w (the sandbox builds its programs with Go)", err)
	}
	sum := sha256.New()
	fmt.Fprintln(sum, string(version), runtime.GOARCH)
	err = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isGoInput(path) {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintln(sum, strings.TrimPrefix(path, dir), len(data))
		sum.Write(data)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}

func isGoInput(path string) bool {
	name := filepath.Base(path)
	return name == "go.mod" || name == "go.sum" || strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
}

// ensureHostProgram builds the small program that runs inside hosts, and
// returns its path.
func ensureHostProgram(ctx context.Context, root string) (string, error) {
	source := filepath.Join(root, "test/sandbox/cmd/sandbox-host")
	dir, err := buildDir(ctx, source, "sandbox-host")
	if err != nil {
		return "", err
	}
	_, err = once(ctx, dir, func() {}, func(ctx context.Context, temp string) error {
		return goCommand(ctx, source, io.Discard, "build", "-trimpath", "-o", filepath.Join(temp, "sandbox-host"), ".")
	})
	if err != nil {
		return "", fmt.Errorf("building sandbox-host: %w", err)
	}
	return filepath.Join(dir, "sandbox-host"), nil
}

// once makes the folder dir by build, which fills a temporary folder, unless it
// exists. Of several processes that want it at the same time one builds, the
// others call busy and wait. built tells whether it was this one.
func once(ctx context.Context, dir string, busy func(), build func(ctx context.Context, temp string) error) (built bool, err error) {
	if exists(dir) {
		return false, nil
	}
	unlock, err := lock(ctx, dir+".lock", busy)
	if err != nil {
		return false, err
	}
	defer unlock()
	if exists(dir) {
		return false, nil
	}
	temp := dir + ".new"
	if err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o755)); err != nil {
		return false, err
	}
	if err := build(ctx, temp); err != nil {
		return false, errors.Join(err, os.RemoveAll(temp))
	}
	return true, os.Rename(temp, dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock takes the lock of a file, made if need be. If another process has it,
// lock calls busy and waits as long as ctx lasts. The kernel gives it back when
// the process ends.
func lock(ctx context.Context, path string, busy func()) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	try := func() error { return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	if try() != nil {
		busy()
		err = poll(ctx, 100*time.Millisecond, try)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("waiting for %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv("HERALD_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the cache: %w; set HERALD_CACHE", err)
	}
	return filepath.Join(dir, "herald"), nil
}

// findRoot returns the top of the source tree: the one given, else the one that
// holds this program, else the one around the working directory.
func findRoot(given string) (string, error) {
	if given != "" {
		if !isRoot(given) {
			return "", fmt.Errorf("%s is not a source tree of Herald: it has no test/sandbox/kube/go.mod", given)
		}
		return filepath.Abs(given)
	}
	program, _ := os.Executable()
	working, _ := os.Getwd()
	for _, start := range []string{filepath.Dir(program), working} {
		for dir := start; dir != "" && dir != "." && dir != "/"; dir = filepath.Dir(dir) {
			if isRoot(dir) {
				return dir, nil
			}
		}
	}
	return "", errors.New("the source tree of Herald was not found around the program or the working directory")
}

func isRoot(dir string) bool {
	return exists(filepath.Join(kubernetesSource(dir), "go.mod"))
}

package sandbox

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const standInCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.test.heraldlb.io}
spec:
  group: test.heraldlb.io
  scope: Cluster
  names: {kind: Thing, plural: things}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`

const standInManifests = `
apiVersion: v1
kind: Namespace
metadata: {name: herald-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: herald-controller-manager, namespace: herald-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: herald-speaker, namespace: herald-system}
`

// standInProgram tells what it was given, and listens as Herald's program would.
const standInProgram = `#!/bin/sh
echo "arguments: $*"
grep -E '^(Uid|CapEff)' /proc/self/status
for a in "$@"; do case $a in --kubeconfig=*) grep -c token "${a#*=}"; esac; done
exec %s pod --addresses 127.0.0.1 --tcp %d --udp %d
`

// standInTree makes a source tree with stand-ins for Herald's programs and
// manifests, readable by everybody.
func standInTree(t *testing.T) string {
	t.Helper()
	source, err := findRoot("")
	must(t, err)
	program, err := ensureHostProgram(t.Context(), source)
	must(t, err)
	root := t.TempDir()
	must(t, os.Chmod(filepath.Dir(root), 0o755))
	must(t, os.Symlink(filepath.Join(source, "test"), filepath.Join(root, "test")))
	// Herald's user may not be able to walk to the cache.
	host := filepath.Join(root, "bin/sandbox-host")
	data, err := os.ReadFile(program)
	must(t, err)
	for path, content := range map[string]string{
		host:                                          string(data),
		root + "/bin/herald-controller-manager":       fmt.Sprintf(standInProgram, host, controllerPort, controllerPort),
		root + "/bin/herald-speaker":                  fmt.Sprintf(standInProgram, host, speakerPort, speakerPort),
		root + "/deploy/crds/thing.yaml":              standInCRD,
		root + "/deploy/kustomize/all.yaml":           standInManifests,
		root + "/deploy/kustomize/kustomization.yaml": "resources: [all.yaml]\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o755))
	}
	return root
}

func TestHeraldRunsWithItsOwnRights(t *testing.T) {
	needCluster(t)
	s, err := Up(t.Context(), Config{
		Name: "t-herald", Nodes: 2, Root: standInTree(t), SpeakerArgs: []string{"-v=4"},
		SpeakerCapabilities: []Capability{CapSysNice}, Progress: writer(t.Log),
	})
	must(t, err)
	defer s.Down(t.Context())

	tests := []struct{ process, args, capabilities string }{
		{"controller", "--cloud-provider=herald --kubeconfig=", "0000000000000000"},
		{"speaker-node1", "--node-name=node1 --metrics-bind-address=127.0.0.1:7472 -v=4", "0000000000802400"},
		{"speaker-node2", "--node-name=node2", "0000000000802400"},
	}
	for _, tt := range tests {
		log, err := os.ReadFile(s.LogPath(tt.process))
		must(t, err)
		for _, want := range []string{tt.args, "65532", tt.capabilities, "\n1\n"} {
			if !strings.Contains(string(log), want) {
				t.Errorf("the log of %s lacks %q: %s", tt.process, want, log)
			}
		}
		must(t, s.Restart(t.Context(), tt.process))
	}
	if _, err := s.Kubectl(t.Context(), "get", "things"); err != nil {
		t.Error(err)
	}
}

func TestHeraldThatEndsAtOnceFailsUp(t *testing.T) {
	needCluster(t)
	root := standInTree(t)
	must(t, os.WriteFile(root+"/bin/herald-speaker", []byte("#!/bin/sh\necho no CAP_NET_RAW\nexit 1\n"), 0o755))
	_, err := Up(t.Context(), Config{Name: "t-herald", Nodes: 1, Root: root})
	if err == nil || !strings.Contains(err.Error(), "speaker-node1 ended: no CAP_NET_RAW") {
		t.Errorf("error %v, want that the speaker ended, and why", err)
	}
	nothingLeft(t, "t-herald", nil)
}

// writer makes lines of a log out of writes.
func writer(log func(...any)) io.Writer { return logWriter{log} }

type logWriter struct{ log func(...any) }

func (w logWriter) Write(data []byte) (int, error) {
	w.log(strings.TrimSpace(string(data)))
	return len(data), nil
}

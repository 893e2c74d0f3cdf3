package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// operatorFlags are those of herald-controller-manager, most of them of the
// libraries, that an operator may need; --help lists all.
var operatorFlags = []string{
	"cloud-config", "cloud-provider", "namespace", "kubeconfig", "master",
	"controllers", "concurrent-service-syncs", "cluster-name", "uninstall", "uninstall-timeout",
	"concurrent-node-syncs", "node-status-update-frequency", "concurrent-node-lifecycle-syncs", "node-monitor-period",
	"leader-elect", "leader-elect-lease-duration", "leader-elect-renew-deadline", "leader-elect-retry-period",
	"leader-elect-resource-name", "leader-elect-resource-namespace",
	"kube-api-qps", "kube-api-burst",
	"bind-address", "secure-port", "tls-cert-file", "tls-private-key-file", "client-ca-file",
	"authentication-kubeconfig", "authorization-kubeconfig", "authorization-always-allow-paths",
	"logging-format", "v", "vmodule", "profiling", "feature-gates",
}

// programFlag is a flag as --help shows it.
type programFlag struct{ name, kind, text, preset string }

func flagsPage(bin string) (string, error) {
	manager, err := flagsOf(filepath.Join(bin, "herald-controller-manager"))
	if err != nil {
		return "", err
	}
	speaker, err := flagsOf(filepath.Join(bin, "herald-speaker"))
	if err != nil {
		return "", err
	}
	byName := map[string]programFlag{}
	for _, f := range manager {
		byName[f.name] = f
	}
	var chosen []programFlag
	for _, name := range operatorFlags {
		f, ok := byName[name]
		if !ok {
			return "", fmt.Errorf("herald-controller-manager has no flag --%s", name)
		}
		chosen = append(chosen, f)
	}
	return "# Flags\n\n## herald-controller-manager\n\n" +
		"Most are those of every cloud controller manager; `--help` lists the others.\n\n" + flagTable(chosen) +
		"\n## herald-speaker\n\n" + flagTable(speaker), nil
}

func flagTable(flags []programFlag) string {
	var rows [][]string
	for _, f := range flags {
		rows = append(rows, []string{code("--" + f.name), code(f.kind), code(f.preset), escape(f.text)})
	}
	return table([]string{"Flag", "Type", "Default", "Meaning"}, rows)
}

// escape keeps * and _ from being read as emphasis.
func escape(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", "&lt;").Replace(text)
}

var (
	flagLine    = regexp.MustCompile(`^\s+(?:-\w, )?--([a-z0-9-]+)(?: (\S+))?\s{2,}(\S.*)$`)
	defaultText = regexp.MustCompile(`\s*\(default (.*)\)$`)
)

// flagsOf reads what a program says to --help. Lines that a flag's text goes
// on with, lists of values, are left out.
func flagsOf(program string) ([]programFlag, error) {
	output, err := exec.Command(program, "--help").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s --help: %w", program, err)
	}
	var flags []programFlag
	for line := range strings.Lines(string(output)) {
		found := flagLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if found == nil {
			continue
		}
		f := programFlag{name: found[1], kind: found[2], text: found[3]}
		if f.kind == "" {
			f.kind = "bool"
		}
		if preset := defaultText.FindStringSubmatch(f.text); preset != nil {
			f.preset = strings.Trim(preset[1], `"`)
			f.text = strings.TrimSuffix(f.text, preset[0])
		}
		flags = append(flags, f)
	}
	if len(flags) == 0 {
		return nil, fmt.Errorf("%s --help lists no flags", program)
	}
	return flags, nil
}

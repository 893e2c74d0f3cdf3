package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// programs are what the sandbox and kube-proxy call, by Debian package.
var programs = map[string][]string{
	"iproute2":  {"ip"},
	"nftables":  {"nft"},
	"iptables":  {"iptables", "ip6tables"},
	"conntrack": {"conntrack"},
}

// testPrograms are what end-to-end tests and the demo call besides.
var testPrograms = map[string][]string{
	"curl":           {"curl"},
	"iputils-arping": {"arping"},
	"iputils-ping":   {"ping"},
	"ndisc6":         {"ndisc6"},
	"tcpdump":        {"tcpdump"},
}

// CheckMachine says, in one line, what this machine lacks to run a sandbox; and
// with tests also what it lacks to test in one.
func CheckMachine(tests bool) error {
	if os.Geteuid() != 0 {
		return errors.New("the sandbox makes network namespaces: run it as root")
	}
	missing := missingPackages(programs)
	if tests {
		missing = append(missing, missingPackages(testPrograms)...)
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs are missing: apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}

func missingPackages(programs map[string][]string) []string {
	var missing []string
	for pkg, names := range programs {
		if slices.ContainsFunc(names, notInstalled) {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	return missing
}

func notInstalled(program string) bool {
	_, err := exec.LookPath(program)
	return err != nil
}

// Package version is the version of this build.
package version

import "runtime/debug"

// version is set by the linker (see the Makefile).
var version string

// Version of the build, such as "v0.1.0"; of a build by hand the commit, and
// "dev" when nothing is known.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return "dev-" + setting.Value[:12]
		}
	}
	return "dev"
}

# Sourced by the scripts beside it, in the top folder: modules lists the
# folders of this repository's Go modules.
mapfile -t modules < <(find . -name go.mod -not -path './bin/*' -not -path './.test-logs/*' -printf '%P\n' | xargs -n1 dirname | sort)

# has_packages MODULE says whether a module has more than its go.mod.
has_packages() {
	[[ -n $(find "$1" -name '*.go' -print -quit) ]]
}

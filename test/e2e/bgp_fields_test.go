package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// proofs are the tests that prove a field of a BGPPeer, or of an Advertisement,
// against a router.
var proofs = map[string]string{
	"BGPPeer.nodeSelector":           "TestEachFieldOfABGPPeer",
	"BGPPeer.localASN":               "TestEachFieldOfABGPPeer",
	"BGPPeer.peerASN":                "TestEachFieldOfABGPPeer",
	"BGPPeer.peerType":               "TestEachFieldOfABGPPeer",
	"BGPPeer.address":                "TestEachFieldOfABGPPeer",
	"BGPPeer.interface":              "TestEachFieldOfABGPPeer",
	"BGPPeer.defaultGateway":         "TestEachFieldOfABGPPeer",
	"BGPPeer.port":                   "TestRoutersOnAnotherPortThatComeLate",
	"BGPPeer.sourceAddress":          "TestEachFieldOfABGPPeer",
	"BGPPeer.routerID":               "TestEachFieldOfABGPPeer",
	"BGPPeer.families":               "TestEachFieldOfABGPPeer",
	"BGPPeer.holdTime":               "TestEachFieldOfABGPPeer",
	"BGPPeer.keepaliveTime":          "TestEachFieldOfABGPPeer",
	"BGPPeer.connectRetryTime":       "TestRoutersOnAnotherPortThatComeLate",
	"BGPPeer.passive":                "TestEachFieldOfABGPPeer",
	"BGPPeer.ebgpMultiHop":           "TestEachFieldOfABGPPeer",
	"BGPPeer.ttlSecurityHops":        "TestEachFieldOfABGPPeer",
	"BGPPeer.passwordSecretRef.name": "TestEachFieldOfABGPPeer",
	"BGPPeer.passwordSecretRef.key":  "TestEachFieldOfABGPPeer",

	"BGPPeer.gracefulRestart.enabled":     "TestEachFieldOfABGPPeer",
	"BGPPeer.gracefulRestart.restartTime": "TestEachFieldOfABGPPeer",

	"BGPPeer.bfd.enabled":          "TestEachFieldOfABGPPeer",
	"BGPPeer.bfd.receiveInterval":  "TestEachFieldOfABGPPeer",
	"BGPPeer.bfd.transmitInterval": "TestEachFieldOfABGPPeer",
	"BGPPeer.bfd.detectMultiplier": "TestEachFieldOfABGPPeer",
	"BGPPeer.bfd.minimumTTL":       "TestEachFieldOfABGPPeer",
	"BGPPeer.bfd.passive":          "TestEachFieldOfABGPPeer",

	"Advertisement.pools":                   "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.poolSelector":            "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.serviceSelector":         "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.namespaceSelector":       "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.nodeSelector":            "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.peers":               "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.aggregationLength":   "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.aggregationLengthV6": "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.localPreference":     "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.med":                 "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.communities":         "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.prepend":             "TestAdvertisementsInTheTablesOfRouters",
	"Advertisement.bgp.weighted":            "TestWeightedRoutesFollowTheNumberOfPods",
	"Advertisement.bgp.maxNodes":            "TestMaxNodesCapsThePathsToAnAddress",
}

// ofTheLAN are fields that no router sees.
var ofTheLAN = []string{"Advertisement.l2.interfaces", "Advertisement.l2.preferredNodes"}

func TestEveryFieldIsProvenAgainstARouter(t *testing.T) {
	t.Parallel()
	fields := map[string]string{}
	leaves(fields, "BGPPeer", reflect.TypeFor[v1alpha1.BGPPeerSpec]())
	leaves(fields, "Advertisement", reflect.TypeFor[v1alpha1.AdvertisementSpec]())
	for path := range proofs {
		if fields[path] == "" {
			t.Errorf("there is no field %s any more", path)
		}
	}
	words := wordsOfTests(t)
	for _, path := range slices.Sorted(maps.Keys(fields)) {
		test := proofs[path]
		switch {
		case slices.Contains(ofTheLAN, path):
		case test == "":
			t.Errorf("no test proves %s against a router: write one, and name it here", path)
		case words[test] == nil:
			t.Errorf("%s is to be proven by %s, which there is not", path, test)
		case !words[test][fields[path]]:
			t.Errorf("%s is to be proven by %s, which does not speak of %s", path, test, fields[path])
		}
	}
}

// leaves gathers the fields of one of our types, and of ours within it, by their
// path in JSON, each with its name in Go.
func leaves(fields map[string]string, path string, object reflect.Type) {
	for field := range object.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind := field.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		if kind.Kind() == reflect.Struct && kind.PkgPath() == object.PkgPath() {
			leaves(fields, path+"."+name, kind)
			continue
		}
		fields[path+"."+name] = field.Name
	}
}

// wordsOfTests are the names that each test in this folder uses.
func wordsOfTests(t *testing.T) map[string]map[string]bool {
	t.Helper()
	paths, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]map[string]bool{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range file.Decls {
			test, ok := declared.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(test.Name.Name, "Test") {
				continue
			}
			used := map[string]bool{}
			ast.Inspect(test.Body, func(n ast.Node) bool {
				if word, ok := n.(*ast.Ident); ok {
					used[word.Name] = true
				}
				return true
			})
			words[test.Name.Name] = used
		}
	}
	return words
}

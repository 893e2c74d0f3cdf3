package v1alpha1

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// exportedReasons are the values of the exported constants of type Reason that
// are declared in a directory.
func exportedReasons(t *testing.T, dir string) []Reason {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var reasons []Reason
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) == 0 {
				return true
			}
			kind, isIdent := spec.Type.(*ast.Ident)
			value, isLiteral := spec.Values[0].(*ast.BasicLit)
			if !isIdent || kind.Name != "Reason" || !isLiteral || !spec.Names[0].IsExported() {
				return true
			}
			text, err := strconv.Unquote(value.Value)
			if err != nil {
				t.Fatal(err)
			}
			reasons = append(reasons, Reason(text))
			return true
		})
	}
	return reasons
}

// A condition may carry any reason that exists, and docs/reference is made
// from the declarations: none may lack its own.
func TestEveryReasonIsDeclared(t *testing.T) {
	declared := map[Reason]bool{}
	for _, doc := range Reasons {
		declared[doc.Reason] = true
	}
	for _, dir := range []string{".", "../../ipam"} {
		reasons := exportedReasons(t, dir)
		if len(reasons) < 15 {
			t.Errorf("%s: only %d reasons were found: %v", dir, len(reasons), reasons)
		}
		for _, reason := range reasons {
			if !declared[reason] {
				t.Errorf("%s: %s is not in Reasons", dir, reason)
			}
		}
	}
}

func TestReasonsAreDeclaredOnceAndWell(t *testing.T) {
	constants := map[Reason]bool{}
	for _, reason := range exportedReasons(t, ".") {
		if constants[reason] {
			t.Errorf("%s has two constants", reason)
		}
		constants[reason] = true
	}
	// The pattern of a condition's reason is that of metav1.Condition.
	pattern := regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	kinds := map[string]bool{"Service": true, "AddressPool": true, "Advertisement": true, "BGPPeer": true, "VirtualIP": true, "Speaker": true, "Node": true}
	seen := map[string]bool{}
	for _, doc := range Reasons {
		if !constants[doc.Reason] {
			t.Errorf("%s is declared and no constant", doc.Reason)
		}
		if !pattern.MatchString(string(doc.Reason)) {
			t.Errorf("%q is not CamelCase", doc.Reason)
		}
		if !strings.HasSuffix(doc.Doc, ".") {
			t.Errorf("%s: %q is no sentence", doc.Reason, doc.Doc)
		}
		for kind := range strings.SplitSeq(doc.On, ", ") {
			if !kinds[kind] {
				t.Errorf("%s is on %q, which is no kind", doc.Reason, kind)
			}
			if seen[kind+" "+string(doc.Reason)] {
				t.Errorf("%s is declared twice on %s", doc.Reason, kind)
			}
			seen[kind+" "+string(doc.Reason)] = true
		}
	}
}

func TestRefusalIsItsMessage(t *testing.T) {
	var err error = Refuse(PoolExhausted, "pool %q has no address", "public")
	if got, want := err.Error(), `pool "public" has no address`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

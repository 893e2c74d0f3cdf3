package v1alpha1

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestOneLine(t *testing.T) {
	many := make([]string, 23)
	for i := range many {
		many[i] = "n"
	}
	for _, c := range []struct {
		list []string
		want string
	}{
		{nil, ""},
		{[]string{"a"}, "a"},
		{[]string{"b", "a"}, "b,a"},
		{many, strings.Repeat("n,", 19) + "n and 3 more"},
	} {
		if got := OneLineOf(c.list); got != c.want {
			t.Errorf("%v: %q, want %q", c.list, got, c.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	spec := VirtualIPSpec{
		Claims: []Claim{{Namespace: "shop", Name: "api"}, {Namespace: "shop", Name: "web"}},
		L2:     &L2Placement{Candidates: []string{"b", "a"}},
		BGP:    &BGPPlacement{Advertisements: []string{"x", "y"}},
	}
	spec.Summarize()
	if want := (VirtualIPSummary{Services: "shop/api,shop/web", Candidates: "b,a", Advertisements: "x,y"}); spec.Summary == nil || *spec.Summary != want {
		t.Errorf("got %v, want %v", spec.Summary, want)
	}
	spec = VirtualIPSpec{Summary: &VirtualIPSummary{Services: "gone/gone"}}
	if spec.Summarize(); spec.Summary != nil {
		t.Errorf("got %v of an empty spec", spec.Summary)
	}
}

// kubectl shows the first entry of a list alone, or JSON: no column may be of a list.
func TestNoColumnIsOfAList(t *testing.T) {
	files, err := os.ReadDir("../../deploy/crds")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`jsonPath: \S*(\[\*\]|\.spec\.(addresses|pools|l2\.interfaces|bgp\.peers|l2\.candidates|bgp\.advertisements|claims))\s`)
	for _, file := range files {
		text, err := os.ReadFile("../../deploy/crds/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if found := list.Find(text); found != nil {
			t.Errorf("%s: %s", file.Name(), found)
		}
	}
}

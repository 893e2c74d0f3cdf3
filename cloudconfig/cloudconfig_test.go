package cloudconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const head = "apiVersion: config.heraldlb.io/v1alpha1\nkind: CloudConfig\n"

func TestParse(t *testing.T) {
	none, internal := "", "example.com/internal"
	bareMetal := map[string]Class{ClassBareMetal: {Provider: ProviderBareMetal}}
	for _, c := range []struct {
		name, text string
		want       CloudConfig
	}{
		{"nothing said is the default", head, *Default()},
		{"a cluster name", head + "clusterName: prod\n",
			CloudConfig{ClusterName: "prod", Default: Default().Default, Classes: bareMetal}},
		{"Services without a class left alone", head + `default: ""` + "\n",
			CloudConfig{Default: &none, Classes: bareMetal}},
		{"another class", head + "default: example.com/internal\nclasses: {example.com/internal: {provider: baremetal}}\n",
			CloudConfig{Default: &internal, Classes: map[string]Class{internal: {Provider: ProviderBareMetal}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.APIVersion, c.want.Kind = APIVersion, Kind
			got, err := Parse([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// The error is read on stderr: one line that names every field that is wrong.
func TestParseNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{`apiVersion ""`, `kind ""`, APIVersion}},
		{"another version", "apiVersion: config.heraldlb.io/v2\nkind: CloudConfig\n", []string{`apiVersion "config.heraldlb.io/v2"`, APIVersion}},
		{"another kind", "apiVersion: " + APIVersion + "\nkind: Config\n", []string{`kind "Config"`, Kind}},
		{"unknown field", head + "clustrName: prod\n", []string{"clustrName"}},
		{"unknown field of a class", head + "classes: {heraldlb.io/bare-metal: {provider: baremetal, kind: x}}\n", []string{`"kind"`}},
		{"wrong type", head + "clusterName: [prod]\n", []string{"clusterName"}},
		{"repeated field", head + "clusterName: a\nclusterName: b\n", []string{"clusterName", "line 4"}},
		{"not YAML", "\tapiVersion: x\n", []string{"YAML"}},
		{"unknown default", head + "default: heraldlb.io/nope\n", []string{`default "heraldlb.io/nope"`, "classes"}},
		{"default not among the classes", head + "classes: {}\n", []string{`default "heraldlb.io/bare-metal"`}},
		{"unknown provider", head + "classes: {heraldlb.io/bare-metal: {provider: metal}}\n",
			[]string{"classes[heraldlb.io/bare-metal].provider", `"metal"`, "baremetal"}},
		{"no provider", head + "classes: {heraldlb.io/bare-metal: {}}\n", []string{"classes[heraldlb.io/bare-metal].provider", `""`}},
		{"class that no Service can have", head + "default: \"\"\nclasses: {\"a b\": {provider: baremetal}}\n", []string{"classes", `"a b"`}},
		{"several", "apiVersion: x\nkind: CloudConfig\ndefault: a/b\nclasses: {c/d: {provider: e}, f/g: {provider: h}}\n",
			[]string{`apiVersion "x"`, `default "a/b"`, "classes[c/d].provider", "classes[f/g].provider"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.text))
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %s", err, want)
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	if got, err := Load(""); err != nil || cmp.Diff(Default(), got) != "" {
		t.Errorf("without a file: %v, %v, want the default", got, err)
	}
	dir := t.TempDir()
	good, bad, missing := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml"), filepath.Join(dir, "missing.yaml")
	for name, text := range map[string]string{good: head + "clusterName: prod\n", bad: head + "default: x/y\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Load(good); err != nil || got.ClusterName != "prod" {
		t.Errorf("good file: %v, %v", got, err)
	}
	for _, name := range []string{bad, missing} {
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "--cloud-config") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error that names the flag and the file", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head))
	f.Add([]byte(head + "classes: {a/b: {provider: baremetal}, \"\": {provider: x}}\ndefault: a/b\n"))
	f.Add([]byte("- a\n- b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := Parse(text)
		if err != nil {
			if strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("more than one line: %q", err)
			}
			return
		}
		if _, ok := config.Classes[*config.Default]; !ok && *config.Default != "" {
			t.Errorf("the default %q is no class of %v", *config.Default, config.Classes)
		}
	})
}

package v1alpha1

import (
	"os"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// A single object that cannot be decoded ends the watches of all of its kind. So what Go reads in a way of its own has a rule
// in the CRD: the API server then refuses what Go could not read.
func TestWhatGoCannotReadIsRefused(t *testing.T) {
	found := 0
	for file, spec := range map[string]any{
		"addresspools": AddressPoolSpec{}, "virtualips": VirtualIPSpec{}, "advertisements": AdvertisementSpec{}, "bgppeers": BGPPeerSpec{},
	} {
		text, err := os.ReadFile("../../deploy/crds/heraldlb.io_" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Versions []struct {
					Schema struct{ OpenAPIV3Schema property }
				}
			}
		}
		if err := yaml.Unmarshal(text, &crd); err != nil {
			t.Fatal(err)
		}
		parsed(reflect.TypeOf(spec), file+".spec", crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"], func(path string, s property) {
			found++
			if len(s.Rules) == 0 {
				t.Errorf("%s has no rule that refuses what cannot be read", path)
			}
		})
	}
	if found == 0 {
		t.Error("no such field was found")
	}
}

type property struct {
	Properties map[string]property
	Items      *property
	Rules      []struct{ Rule string } `json:"x-kubernetes-validations"`
}

// parsed calls f with each field that has a parser.
func parsed(kind reflect.Type, path string, s property, f func(path string, s property)) {
	for kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	switch kind {
	case reflect.TypeFor[metav1.Duration](), reflect.TypeFor[intstr.IntOrString]():
		f(path, s)
		return
	}
	switch kind.Kind() {
	case reflect.Slice:
		if s.Items != nil {
			parsed(kind.Elem(), path+"[]", *s.Items, f)
		}
	case reflect.Struct:
		for field := range kind.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			parsed(field.Type, path+"."+name, s.Properties[name], f)
		}
	}
}

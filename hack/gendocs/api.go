package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// crd is what is read of a CustomResourceDefinition.
type crd struct {
	Spec struct {
		Group string
		Names struct {
			Kind, Plural string
			ShortNames   []string
		}
		Scope    string
		Versions []struct {
			Name                     string
			Schema                   struct{ OpenAPIV3Schema schema }
			AdditionalPrinterColumns []struct {
				Name     string
				Priority int
			}
		}
	}
}

// schema is what is read of an OpenAPI v3 schema.
type schema struct {
	Type, Format, Description string
	Default                   json.RawMessage
	Properties                map[string]schema
	Required                  []string
	Items                     *schema
	AdditionalProperties      *schema
	IntOrString               bool `json:"x-kubernetes-int-or-string"`
	Enum                      []json.RawMessage
	Minimum, Maximum          *json.Number
	MinLength, MaxLength      *int
	MinItems, MaxItems        *int
	Pattern                   string
	Rules                     []struct{ Rule, Message string } `json:"x-kubernetes-validations"`
}

// authors says who writes the objects of a kind.
var authors = map[string]string{
	"AddressPool":   "Written by people.",
	"Advertisement": "Written by people.",
	"BGPPeer":       "Written by people, its status by herald-controller-manager from what the Speakers say.",
	"Speaker":       "Written by herald-speaker, for people to read.",
	"VirtualIP":     "Written by herald-controller-manager, its status by herald-speaker, or for BGP alone by the former; people may create one to reserve an address.",
}

func apiPage(dir string) (string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return "", err
	}
	if len(paths) == 0 {
		return "", fmt.Errorf("no CRDs in %s", dir)
	}
	var b strings.Builder
	b.WriteString("# Objects\n\nFields of objects of the API group `heraldlb.io`. `kubectl explain` shows the same.\n")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		var c crd
		if err := yaml.Unmarshal(text, &c); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		b.WriteString(c.page())
	}
	return b.String(), nil
}

func (c crd) page() string {
	var b strings.Builder
	names := c.Spec.Names
	for _, version := range c.Spec.Versions {
		root := version.Schema.OpenAPIV3Schema
		fmt.Fprintf(&b, "\n## %s\n\n%s %s\n\n", names.Kind, oneLine(root.Description), authors[names.Kind])
		fmt.Fprintf(&b, "`apiVersion: %s/%s`; scope: %s; `kubectl get %s`.\n", c.Spec.Group, version.Name, c.Spec.Scope,
			strings.Join(append([]string{names.Plural}, names.ShortNames...), "` or `"))
		for _, part := range []string{"spec", "status"} {
			s, ok := root.Properties[part]
			if !ok {
				continue
			}
			rows := fieldRows("", s)
			for _, rule := range s.Rules {
				rows = append(rows, []string{"all of " + code(part), "", "", rule.Message, ""})
			}
			fmt.Fprintf(&b, "\n### %s.%s\n\n%s", names.Kind, part, table([]string{"Field", "Type", "Default", "Must be", "Meaning"}, rows))
		}
	}
	return b.String()
}

// fieldRows lists the fields of an object and of those below, by name.
func fieldRows(prefix string, s schema) [][]string {
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		field := s.Properties[name]
		path := prefix + name
		must := field.constraints()
		if slices.Contains(s.Required, name) {
			must = append([]string{"given"}, must...)
		}
		rows = append(rows, []string{code(path), field.typeName(), code(string(field.Default)), strings.Join(must, "; "), field.Description})
		inner, suffix := field, "."
		if field.Items != nil {
			inner, suffix = *field.Items, "[]."
		}
		if isWellKnown(inner) {
			continue
		}
		rows = append(rows, fieldRows(path+suffix, inner)...)
	}
	return rows
}

// isWellKnown recognises label selectors and conditions, which readers know.
func isWellKnown(s schema) bool {
	_, selector := s.Properties["matchLabels"]
	_, condition := s.Properties["lastTransitionTime"]
	return selector || condition
}

func (s schema) typeName() string {
	switch {
	case s.IntOrString:
		return "integer or string"
	case s.Items != nil:
		return "list of " + s.Items.typeName()
	case s.Properties["matchLabels"].Type != "":
		return "label selector"
	case s.Properties["lastTransitionTime"].Type != "":
		return "condition"
	case s.AdditionalProperties != nil:
		return "map to " + s.AdditionalProperties.typeName()
	case s.Format == "date-time":
		return "time"
	}
	return s.Type
}

// constraints are what the API server checks of a value.
func (s schema) constraints() []string {
	var all []string
	if len(s.Enum) > 0 {
		var values []string
		for _, value := range s.Enum {
			values = append(values, code(strings.Trim(string(value), `"`)))
		}
		all = append(all, strings.Join(values, " or "))
	}
	for _, limit := range []struct {
		text  string
		value *json.Number
	}{{"at least ", s.Minimum}, {"at most ", s.Maximum}} {
		if limit.value != nil {
			all = append(all, limit.text+limit.value.String())
		}
	}
	all = append(all, counted(s.MinItems, s.MaxItems, "entries")...)
	all = append(all, counted(s.MinLength, s.MaxLength, "characters")...)
	if s.Pattern != "" {
		all = append(all, "like "+code(s.Pattern))
	}
	for _, rule := range s.Rules {
		all = append(all, rule.Message)
	}
	if s.Items != nil {
		for _, c := range s.Items.constraints() {
			all = append(all, "each: "+c)
		}
	}
	return all
}

func counted(least, most *int, of string) []string {
	var all []string
	if least != nil {
		all = append(all, fmt.Sprintf("at least %d %s", *least, of))
	}
	if most != nil {
		all = append(all, fmt.Sprintf("at most %d %s", *most, of))
	}
	return all
}

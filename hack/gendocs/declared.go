package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cloudconfig"
	"github.com/heraldlb/herald/providers/aws/settings"
)

func annotationsPage() (string, error) {
	var own, aliases [][]string
	for _, a := range annotations.Own {
		own = append(own, []string{code(a.Name), a.Type, a.Default, a.Doc})
	}
	for _, a := range annotations.Aliases {
		means := "the same value"
		switch {
		case a.Any:
			means = code(a.Means) + ", whatever the value"
		case a.When != nil:
			means = code(a.Means) + " when the value is " + code(strings.Join(a.When, "` or `")) +
				", nothing when it is " + code(strings.Join(a.Unless, "` or `"))
			if a.Else {
				means += "; any other value means " + code(a.Means) + " too"
			}
		}
		aliases = append(aliases, []string{code(a.Name), a.Owner, code(a.Of), means})
	}
	return "# Annotations of a Service\n\n" +
		table([]string{"Annotation", "Value", "Without it", "What it does"}, own) +
		"\n## Annotations of other providers\n\nThese say the same as one of Herald's, so that manifests written for others keep working. " +
		"Two that disagree are an error that names both. An annotation with an empty value says nothing. What clouds call internal is documented; any other value is refused. " +
		"Annotations of clouds and other providers that are not listed here do nothing on bare metal, and are named in an event.\n\n" +
		table([]string{"Annotation", "Of", "Read as", "Meaning"}, aliases) +
		"\n## Load balancers in AWS\n\nEach name follows `" + settings.Prefix + "`. A value that is not allowed is refused before anything is changed in AWS; " +
		"an annotation that says nothing for the type of load balancer is named in an event.\n\n" +
		table([]string{"Annotation", "Of", "Value", "Without it", "What it does"}, awsRows()), nil
}

func awsRows() [][]string {
	var rows [][]string
	for _, d := range settings.Declared {
		var kinds []string
		for _, kind := range d.On {
			kinds = append(kinds, strings.ToUpper(string(kind)))
		}
		name := d.Name
		if strings.HasSuffix(name, ".") {
			name += "PROTOCOL-PORT"
		}
		rows = append(rows, []string{code(name), strings.Join(kinds, ", "), escape(d.Values.Text), escape(d.Default), escape(d.Doc)})
	}
	return rows
}

func reasonsPage() (string, error) {
	conditions, err := constants("api/v1alpha1", "")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Conditions, reasons and events\n\n" +
		"One word serves the condition, the event, the metric label and the log. `kubectl describe` shows it with a message.\n\n## Conditions\n\n")
	var rows [][]string
	for _, c := range conditions {
		if c.name == "ServiceReady" || c.name == "ServiceAnnounced" || strings.HasPrefix(c.name, "Condition") {
			rows = append(rows, []string{code(c.value), c.docWithoutName()})
		}
	}
	b.WriteString(table([]string{"Type", "Meaning"}, rows))

	byKind := map[string][][]string{}
	for _, r := range v1alpha1.Reasons {
		for kind := range strings.SplitSeq(r.On, ", ") {
			byKind[kind] = append(byKind[kind], []string{code(string(r.Reason)), r.Doc})
		}
	}
	titles := map[string]string{"Node": "a node that is no candidate (in messages)"}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		title := titles[kind]
		if title == "" {
			title = kind
		}
		fmt.Fprintf(&b, "\n## Reasons on %s\n\n%s", title, table([]string{"Reason", "Meaning"}, byKind[kind]))
	}

	for _, sensor := range []struct{ dir, title, where string }{
		{"speaker/l2", "Reasons why a frame is not answered", "The label `reason` of the metric `herald_l2_dropped_total`."},
		{"speaker/bfd", "Reasons why a BFD packet is not taken", "The label `reason` of the metric `herald_bfd_dropped_total`."},
		{"speaker/health", "Reasons why a service proxy or a Local Service is not well", "In messages, in the log, and the label `reason` of the metric `herald_health_probes_total`."},
	} {
		reasons, err := constants(sensor.dir, "Reason")
		if err != nil {
			return "", err
		}
		rows = nil
		for _, c := range reasons {
			rows = append(rows, []string{code(c.value), c.docWithoutName()})
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s", sensor.title, sensor.where, table([]string{"Reason", "Meaning"}, rows))
	}
	return b.String(), nil
}

func cloudConfigPage() (string, error) {
	defaults, err := yaml.Marshal(cloudconfig.Default())
	if err != nil {
		return "", err
	}
	types, err := structs("cloudconfig")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The file behind --cloud-config\n\n"+
		"YAML, and optional: fields that are left out are as here, and so is all of it without a file.\n\n```yaml\n%s```\n", defaults)
	for _, name := range []string{"CloudConfig", "Class", "AWS"} {
		declared, ok := types[name]
		if !ok {
			return "", fmt.Errorf("package cloudconfig has no type %s", name)
		}
		var rows [][]string
		for _, f := range declared.fields {
			rows = append(rows, []string{code(f.json), code(f.kind), f.doc})
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s", name, oneLine(declared.doc), table([]string{"Field", "Type", "Meaning"}, rows))
	}
	return b.String(), nil
}

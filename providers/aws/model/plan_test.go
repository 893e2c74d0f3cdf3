package model

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/internal/golden"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// TestPlan plays the life of a Service, and compares the plans with the golden
// files. A file has the Service as it is one time after another, in sections
// that end in .yaml, each followed by the plan to get there from before; an
// empty one is that it is deleted. A section observed.yaml is what there is at
// first; aws.subnets is that list of the cloud config from there on.
func TestPlan(t *testing.T) {
	golden.Test(t, func(t *testing.T, sections []txtar.File) (got []txtar.File) {
		var now State
		var subnets []string
		for _, section := range sections {
			name, isObject := strings.CutSuffix(section.Name, ".yaml")
			switch {
			case section.Name == "aws.subnets":
				subnets = strings.Fields(string(section.Data))
				got = append(got, section)
			case section.Name == "observed.yaml":
				if err := yaml.UnmarshalStrict(section.Data, &now); err != nil {
					t.Fatal(err)
				}
				got = append(got, section)
			case isObject:
				var plan string
				now, plan = step(t, section.Data, subnets, now)
				got = append(got, section, txtar.File{Name: name + ".plan", Data: []byte(plan)})
			}
		}
		return got
	})
}

// step is the plan that leads from what there is to what a Service asks for.
// Once taken, nothing is left to be done.
func step(t *testing.T, object []byte, subnets []string, now State) (next State, plan string) {
	t.Helper()
	var out strings.Builder
	if len(bytes.TrimSpace(object)) > 0 {
		in, refusal := input(t, object, now)
		if refusal != "" {
			return now, "refused: " + refusal + "\n"
		}
		in.Subnets = subnets
		desired, notes, refused := Build(in)
		if refused != nil {
			return now, fmt.Sprintf("refused: %s: %s\n", refused.Reason, refused.Message)
		}
		for _, note := range append(in.Settings.Ignored, notes...) {
			fmt.Fprintf(&out, "# %s\n", note)
		}
		for _, port := range in.Settings.Rejected {
			fmt.Fprintf(&out, "# not served: %s\n", port.Why)
		}
		next = desired
		if now.NLB != nil && now.NLB.Tags == nil {
			Heed(&next, &now) // it comes from AWS
		}
		in.Observed = next
		again, _, _ := Build(in)
		if steps := Plan(&again, &next); len(steps) > 0 {
			t.Errorf("once it is so, this is still to be done: %v", steps)
		}
	}
	for _, step := range Plan(&next, &now) {
		fmt.Fprintln(&out, step)
	}
	return next, out.String()
}

func input(t *testing.T, object []byte, now State) (in *Input, refusal string) {
	t.Helper()
	service := &corev1.Service{}
	if err := yaml.UnmarshalStrict(object, service); err != nil {
		t.Fatal(err)
	}
	service.Namespace, service.Name, service.UID = "shop", "web", "0f9e8d7c-6b5a-4938-2716-05f4e3d2c1b0"
	kind := settings.Choose(service, settings.Network).Kind
	short := service.Annotations
	service.Annotations = map[string]string{}
	for name, value := range short {
		service.Annotations[settings.Prefix+name] = value
		if name == "type" {
			kind = settings.Kind(value)
		}
	}
	s, refused := settings.Parse(service, kind)
	if refused != nil {
		return nil, fmt.Sprintf("%s: %s", refused.Reason, refused.Message)
	}
	return &Input{
		Identity:   Identity{Cluster: "prod", Namespace: "shop", Name: "web", UID: string(service.UID)},
		Settings:   s,
		Network:    vpc(),
		Instances:  []string{"i-1", "i-2"},
		NodeGroups: []string{"sg-nodes"},
		Endpoints: map[int32][]netip.AddrPort{
			80:  {netip.MustParseAddrPort("10.0.1.9:8080"), netip.MustParseAddrPort("192.168.7.7:8080")},
			443: {netip.MustParseAddrPort("10.0.1.9:8443")},
		},
		GroupIDs: map[string]string{"mine": "sg-mine", "extra": "sg-extra"},
		Observed: now,
	}, ""
}

// vpc has two zones with a public and a private subnet each, and a third one
// that is local.
func vpc() Network {
	network := Network{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	for i, zone := range []string{"a", "b", "local"} {
		for j, kind := range []string{"public", "private"} {
			network.Subnets = append(network.Subnets, Subnet{
				ID: "subnet-" + kind + "-" + zone, Name: kind + " " + zone, Zone: zone, Local: zone == "local", Public: kind == "public", RoleInternal: kind == "private",
				Prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", 10*j+i+1)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:%d::/64", 10*j+i+1))},
			})
		}
	}
	return network
}

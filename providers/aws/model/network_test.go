package model

import (
	"fmt"
	"strings"
	"testing"

	"github.com/heraldlb/herald/providers/aws/settings"
)

// Of the subnets that the cloud config lists, each zone has one: the one that
// its kind and its role make fit. Between two that are, nobody guesses.
func TestSubnetsOfTheCloudConfig(t *testing.T) {
	network := &Network{Subnets: []Subnet{
		{ID: "subnet-1", Zone: "a", Public: true, Others: true},
		{ID: "subnet-2", Zone: "a", Public: true, RolePublic: true},
		{ID: "subnet-3", Zone: "a"},
		{ID: "subnet-4", Zone: "a", RoleInternal: true},
		{ID: "subnet-5", Zone: "a", Ours: true},
		{ID: "subnet-6", Zone: "b", Public: true},
		{ID: "subnet-7", Zone: "b"},
		{ID: "subnet-8", Zone: "local", Public: true, Local: true},
		{ID: "subnet-9", Zone: "a", RoleInternal: true, Public: true},
	}}
	for _, c := range []struct {
		name, list       string
		public, internal string
	}{
		{"one of each zone, of both kinds", "6 1 3 7", "1 6", "3 7"},
		{"the role decides", "1 2 3 4 5", "2", "4"},
		{"the role comes before the kind", "9 3", "9", "9"},
		{"what is named is taken, whose it is and wherever", "8 1", "1 8", "1 8"},
		{"internal ones take a public subnet where there is no other", "1 6 3", "1 6", "3 6"},
		{"none faces the internet", "3 7", "no public subnet, among its 2", "3 7"},
		{"two that fit", "3 5 6", "6", "subnet-3 and subnet-5, zone a, kubernetes.io/role/internal-elb"},
		{"two that fit, without the cluster's tag", "6 1 9 3", "subnet-1 and subnet-9, zone a, kubernetes.io/role/elb", "9 6"},
		{"two of the role", "4 9", "9", "subnet-4 and subnet-9, zone a, kubernetes.io/role/internal-elb"},
		{"not of the VPC", "1 0", "subnet-0", "subnet-0"},
	} {
		for internal, want := range map[bool]string{false: c.public, true: c.internal} {
			var ids []string
			for _, number := range strings.Fields(c.list) {
				ids = append(ids, "subnet-"+number)
			}
			chosen, refusal := among(network, ids, internal)
			if refusal != nil {
				for part := range strings.SplitSeq(listed+", "+want, ", ") {
					if !strings.Contains(refusal.Message, part) {
						t.Errorf("%s, internal %t: %q does not say %s", c.name, internal, refusal.Message, part)
					}
				}
				continue
			}
			var got []string
			for _, subnet := range chosen {
				got = append(got, strings.TrimPrefix(subnet.ID, "subnet-"))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s, internal %t: %v, want %s", c.name, internal, got, want)
			}
		}
	}
}

// What is found by itself is of each zone the subnet of the role, before that
// of the cluster, before the lowest ID, of those where AWS can put a load
// balancer.
func TestSubnetsAreFound(t *testing.T) {
	for _, c := range []struct {
		name             string
		subnets          []Subnet
		public, internal string
	}{
		{"the lowest", []Subnet{{ID: "2", Public: true}, {ID: "1", Public: true}, {ID: "3"}}, "1", "1"},
		{"the cluster's", []Subnet{{ID: "1", Public: true}, {ID: "2", Public: true, Ours: true}, {ID: "3", Ours: true}}, "2", "2"},
		{"of the role", []Subnet{{ID: "1", Public: true, Ours: true}, {ID: "2", Public: true, RolePublic: true}, {ID: "3", RoleInternal: true}}, "2", "3"},
		{"of another cluster as well", []Subnet{{ID: "1", Public: true, Others: true}, {ID: "2", Public: true, Ours: true, Others: true}}, "2", "2"},
		{"nobody else's", []Subnet{{ID: "1", Public: true, Others: true}}, "", ""},
		{"not in a local zone", []Subnet{{ID: "1", Public: true, Local: true, RolePublic: true, RoleInternal: true}, {ID: "2", Public: true}}, "2", "2"},
		{"with room", []Subnet{{ID: "1", Public: true, Full: true, RolePublic: true, RoleInternal: true}, {ID: "2", Public: true}}, "2", "2"},
		{"one of each zone", []Subnet{{ID: "1", Zone: "a"}, {ID: "2", Zone: "b", Public: true}, {ID: "3", Zone: "b"}}, "2", "1 2"},
	} {
		for internal, want := range map[bool]string{false: c.public, true: c.internal} {
			var got []string
			for _, subnet := range discover(&Network{Subnets: c.subnets}, internal) {
				got = append(got, subnet.ID)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s, internal %t: %v, want %s", c.name, internal, got, want)
			}
		}
	}
}

// The tags of the cloud config, of the Service and of Herald together are no
// more than AWS takes.
func TestTagsAreCounted(t *testing.T) {
	for n, refused := range map[int]bool{28: false, 29: true} {
		in := &Input{Settings: settings.Settings{Kind: settings.Classic, Tags: map[string]string{}}, Tags: map[string]string{}}
		for i := range 20 {
			in.Tags[fmt.Sprint("config", i)] = ""
		}
		for i := range n {
			in.Settings.Tags[fmt.Sprint("service", i)] = ""
		}
		_, _, refusal := Build(in)
		if got := refusal != nil && strings.Contains(refusal.Message, "additional-resource-tags"); got != refused {
			t.Errorf("%d tags of a Service beside 20: %v", n, refusal)
		}
	}
}

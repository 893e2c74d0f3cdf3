package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/names"

	"github.com/heraldlb/herald/cloudconfig"
	"github.com/heraldlb/herald/providers/aws"
)

func TestNodeControllersRunWhenAsked(t *testing.T) {
	const service, node, lifecycle = names.ServiceLBController, names.CloudNodeController, names.CloudNodeLifecycleController
	for _, c := range []struct {
		asked     string
		instances bool
		want      []string
		err       string
	}{
		{asked: "*", want: []string{service}},
		{asked: "*", instances: true, want: []string{service}},
		{asked: "service", instances: true, want: []string{service}},
		{asked: "*,cloud-node,cloud-node-lifecycle", instances: true, want: []string{node, lifecycle, service}},
		{asked: "*," + lifecycle, instances: true, want: []string{lifecycle, service}},
		{asked: "*,-cloud-node", want: []string{node, service}}, // its name must be known to the app, which then leaves it out
		{asked: "*,cloud-node", err: "cloud-node-controller"},
		{asked: "cloud-node-lifecycle", err: "--cloud-config"},
	} {
		constructors := map[string]app.ControllerInitFuncConstructor{service: {}, node: {}, lifecycle: {}}
		err := chooseControllers(constructors, strings.Split(c.asked, ","), c.instances)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one that names %s", c.asked, err, c.err)
			}
			continue
		}
		if got := slices.Sorted(maps.Keys(constructors)); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.asked, got, err, c.want)
		}
	}
}

func TestConnect(t *testing.T) {
	for key, value := range map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_CONFIG_FILE": "/dev/null"} {
		t.Setenv(key, value)
	}
	const head = "apiVersion: config.heraldlb.io/v1alpha1\nkind: CloudConfig\n"
	const classes = "default: heraldlb.io/clb\nclasses: {heraldlb.io/clb: {provider: aws, type: clb}, a/b: {provider: baremetal}}\n"
	for _, c := range []struct {
		name, config string
		clusterNamed bool
		serves       bool
		instances    bool
		err          string
	}{
		{name: "bare metal", config: ""},
		{name: "both worlds", config: classes + "clusterName: x\naws: {region: eu-west-1, vpcID: vpc-01234567}\n", serves: true, instances: true},
		{name: "the flag names the cluster", config: classes + "aws: {region: eu-west-1, vpcID: vpc-01234567}\n", clusterNamed: true, serves: true, instances: true},
		{name: "the nodes alone need neither VPC nor name", config: "aws: {region: eu-west-1}\n", instances: true},
		{name: "a cluster without a name", config: classes + "aws: {region: eu-west-1, vpcID: vpc-01234567}\n", err: "clusterName"},
		{name: "no region", config: "clusterName: x\n" + classes, err: "aws.region"},
		{name: "no VPC", config: "clusterName: x\n" + classes + "aws: {region: eu-west-1}\n", err: "aws.vpcID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := cloudconfig.Parse([]byte(head + c.config))
			if err != nil {
				t.Fatal(err)
			}
			got, err := connect(t.Context(), config, c.clusterNamed)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v, want a line that names %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.serves() != c.serves || (got.instances() != nil) != c.instances {
				t.Errorf("serves %v, knows instances %v; want %v and %v", got.serves(), got.instances() != nil, c.serves, c.instances)
			}
			if c.serves && (got.fallback != aws.CLB || !maps.Equal(got.types, map[string]aws.Type{"heraldlb.io/clb": aws.CLB})) {
				t.Errorf("types %v, without a class %q", got.types, got.fallback)
			}
		})
	}
}

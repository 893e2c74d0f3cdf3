package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/names"
	componentbaseconfig "k8s.io/component-base/config"

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

func TestCheckElection(t *testing.T) {
	usual := componentbaseconfig.LeaderElectionConfiguration{
		LeaderElect: true, ResourceLock: "leases",
		LeaseDuration: metav1.Duration{Duration: 15 * time.Second}, RenewDeadline: metav1.Duration{Duration: 10 * time.Second}, RetryPeriod: metav1.Duration{Duration: 2 * time.Second},
	}
	for _, c := range []struct {
		name    string
		edit    func(*componentbaseconfig.LeaderElectionConfiguration)
		migrate bool
		err     string
	}{
		{name: "as it ships"},
		{name: "no election, whatever else is said", edit: func(l *componentbaseconfig.LeaderElectionConfiguration) {
			l.LeaderElect, l.RetryPeriod.Duration = false, 0
		}},
		{name: "another lock", edit: func(l *componentbaseconfig.LeaderElectionConfiguration) { l.ResourceLock = "configmaps" }, err: "--leader-elect-resource-lock"},
		{name: "a deadline as long as the Lease", edit: func(l *componentbaseconfig.LeaderElectionConfiguration) { l.RenewDeadline = l.LeaseDuration }, err: "--leader-elect-renew-deadline"},
		{name: "attempts too rare", edit: func(l *componentbaseconfig.LeaderElectionConfiguration) { l.RetryPeriod.Duration = 9 * time.Second }, err: "--leader-elect-retry-period"},
		{name: "no time", edit: func(l *componentbaseconfig.LeaderElectionConfiguration) { l.RetryPeriod.Duration = 0 }, err: "--leader-elect-retry-period"},
		{name: "a Lease of less than a second", edit: func(l *componentbaseconfig.LeaderElectionConfiguration) {
			l.LeaseDuration.Duration, l.RenewDeadline.Duration, l.RetryPeriod.Duration = 900*time.Millisecond, 500*time.Millisecond, 100*time.Millisecond
		}, err: "--leader-elect-lease-duration"},
		{name: "migration", migrate: true, err: "--enable-leader-migration"},
	} {
		election := usual
		if c.edit != nil {
			c.edit(&election)
		}
		err := checkElection(election, c.migrate)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want one that names %q", c.name, err, c.err)
		}
	}
}

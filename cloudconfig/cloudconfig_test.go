package cloudconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const head = "apiVersion: config.heraldlb.io/v1alpha1\nkind: CloudConfig\n"

func TestParse(t *testing.T) {
	none, internal, nlb := "", "example.com/internal", ClassNLB
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
		{"AWS alone", head + "clusterName: prod\ndefault: heraldlb.io/nlb\nclasses: {heraldlb.io/nlb: {provider: aws, type: nlb}}\n",
			CloudConfig{ClusterName: "prod", Default: &nlb, Classes: map[string]Class{nlb: {Provider: ProviderAWS, Type: TypeNLB}}}},
		{"AWS for the node controllers alone", head + "aws: {}\n", CloudConfig{Default: Default().Default, Classes: bareMetal, AWS: &AWS{}}},
		{"all of AWS", head + `clusterName: prod
classes:
  heraldlb.io/bare-metal: {provider: baremetal}
  heraldlb.io/nlb: {provider: aws, type: nlb}
  heraldlb.io/clb: {provider: aws, type: clb}
aws:
  region: us-gov-west-1
  vpcID: vpc-0123456789abcdef0
  endpoint: http://127.0.0.1:5000
  roleARN: arn:aws-us-gov:iam::123456789012:role/path/herald
  subnets: [subnet-0123456789abcdef0, subnet-01234567]
  nodeSecurityGroups: [sg-01234567, sg-0123456789abcdef0]
  tags: {team: "a b", cost/centre: ""}
`, CloudConfig{
			ClusterName: "prod", Default: Default().Default,
			Classes: map[string]Class{
				ClassBareMetal: {Provider: ProviderBareMetal}, nlb: {Provider: ProviderAWS, Type: TypeNLB}, ClassCLB: {Provider: ProviderAWS, Type: TypeCLB},
			},
			AWS: &AWS{
				Region: "us-gov-west-1", VPCID: "vpc-0123456789abcdef0", Endpoint: "http://127.0.0.1:5000",
				RoleARN: "arn:aws-us-gov:iam::123456789012:role/path/herald", Subnets: []string{"subnet-0123456789abcdef0", "subnet-01234567"}, NodeSecurityGroups: []string{"sg-01234567", "sg-0123456789abcdef0"},
				Tags: map[string]string{"team": "a b", "cost/centre": ""},
			},
		}},
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
		{"type of bare metal", head + "classes: {heraldlb.io/bare-metal: {provider: baremetal, type: nlb}}\n",
			[]string{"classes[heraldlb.io/bare-metal].type", `"nlb"`}},
		{"AWS without type", head + "default: \"\"\nclasses: {a/b: {provider: aws}}\n", []string{"classes[a/b].type", `""`, "nlb", "clb"}},
		{"AWS of another type", head + "default: \"\"\nclasses: {a/b: {provider: aws, type: alb}}\n", []string{"classes[a/b].type", `"alb"`, "nlb", "clb"}},
		{"cluster name that no tag can have", head + "clusterName: a b\naws: {}\n", []string{"clusterName", `"a b"`}},
		{"unknown field of AWS", head + "aws: {regoin: x}\n", []string{"regoin"}},
		{"region", head + "aws: {region: Frankfurt}\n", []string{"aws.region", `"Frankfurt"`, "eu-central-1"}},
		{"zone for region", head + "aws: {region: eu-central-1a}\n", []string{"aws.region"}},
		{"VPC", head + "aws: {vpcID: my-vpc}\n", []string{"aws.vpcID", `"my-vpc"`}},
		{"endpoint without scheme", head + "aws: {endpoint: 127.0.0.1:5000}\n", []string{"aws.endpoint", `"127.0.0.1:5000"`}},
		{"endpoint of another scheme", head + "aws: {endpoint: ftp://a}\n", []string{"aws.endpoint"}},
		{"endpoint with a password", head + "aws: {endpoint: https://a:b@c}\n", []string{"aws.endpoint"}},
		{"role", head + "aws: {roleARN: herald}\n", []string{"aws.roleARN", `"herald"`, "arn:aws:iam::"}},
		{"user for role", head + "aws: {roleARN: arn:aws:iam::123456789012:user/herald}\n", []string{"aws.roleARN"}},
		{"group", head + "aws: {nodeSecurityGroups: [sg-01234567, nodes]}\n", []string{"aws.nodeSecurityGroups[1]", `"nodes"`}},
		{"group twice", head + "aws: {nodeSecurityGroups: [sg-01234567, sg-01234567]}\n", []string{"aws.nodeSecurityGroups[1]"}},
		{"name of a subnet", head + "aws: {subnets: [subnet-01234567, public-a]}\n", []string{"aws.subnets[1]", `"public-a"`, "subnet-0123456789abcdef0"}},
		{"subnet of a number that none has", head + "aws: {subnets: [subnet-0123456789]}\n", []string{"aws.subnets[0]", `"subnet-0123456789"`}},
		{"subnet twice", head + "aws: {subnets: [subnet-01234567, subnet-01234567]}\n", []string{"aws.subnets[1]", "once"}},
		{"one subnet for a list", head + "aws: {subnets: subnet-01234567}\n", []string{"subnets"}},
		{"tag of AWS", head + "aws: {tags: {AWS:x: y}}\n", []string{"aws.tags", `"AWS:x"`}},
		{"tag of the cluster", head + "aws: {tags: {kubernetes.io/cluster/prod: owned}}\n", []string{"aws.tags", "kubernetes.io/cluster/prod"}},
		{"tag without key", head + "aws: {tags: {\"\": y}}\n", []string{"aws.tags", `""`}},
		{"value of a tag", head + "aws: {tags: {x: \"a*b\"}}\n", []string{"aws.tags[x]", `"a*b"`}},
		{"too many tags", head + "aws: {tags: {" + manyTags(31) + "}}\n", []string{"aws.tags", "31", "30"}},
		{"several of AWS", head + "aws: {region: x, vpcID: y, endpoint: z}\n", []string{"aws.region", "aws.vpcID", "aws.endpoint"}},
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

func manyTags(count int) string {
	tags := make([]string, count)
	for i := range tags {
		tags[i] = fmt.Sprintf("k%d: v", i)
	}
	return strings.Join(tags, ", ")
}

func TestUses(t *testing.T) {
	for _, c := range []struct {
		text           string
		metal, amazons bool
	}{
		{head, true, false},
		{head + "aws: {}\n", true, true},
		{head + "default: a/b\nclasses: {a/b: {provider: aws, type: nlb}}\n", false, true},
		{head + "default: a/b\nclasses: {a/b: {provider: aws, type: nlb}, c/d: {provider: baremetal}}\n", true, true},
	} {
		config, err := Parse([]byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		if config.UsesBareMetal() != c.metal || config.UsesAWS() != c.amazons {
			t.Errorf("%s uses bare metal: %v, AWS: %v", c.text, config.UsesBareMetal(), config.UsesAWS())
		}
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
	f.Add([]byte(head + "classes: {a/b: {provider: aws, type: nlb}}\naws: {region: eu-central-1, tags: {a: b}}\n"))
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

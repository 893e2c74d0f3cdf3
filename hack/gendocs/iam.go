package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/types"
	"maps"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// cluster stands for the name of the cluster in the policy.
const cluster = "CLUSTER_NAME"

// policyLimit is how many characters, without white space, AWS takes of a
// managed policy.
const policyLimit = 6144

// scope is to what the right to an action can be narrowed down.
type scope int

const (
	// read is an action that shows things: AWS narrows it down to nothing.
	read scope = iota
	// create is one that makes something, with the cluster's tag or not at all.
	create
	// change is one on a load balancer, target group or security group that has
	// the cluster's tag.
	change
	// listener is one on a listener: those that other controllers made, which we
	// adopt, have no tags.
	listener
	// admit is one on the rules of a security group, also on one of the nodes',
	// which may be shared with others.
	admit
	// tag is one on the tags of something.
	tag
)

// scopes has every action that is not one of reading. AWS documents for each
// which conditions it knows.
var scopes = map[string]scope{
	"ELB.CreateLoadBalancer":                      create,
	"ELB.DeleteLoadBalancer":                      change,
	"ELB.ModifyLoadBalancerAttributes":            change,
	"ELB.CreateLoadBalancerListeners":             change,
	"ELB.DeleteLoadBalancerListeners":             change,
	"ELB.SetLoadBalancerListenerSSLCertificate":   change,
	"ELB.CreateLoadBalancerPolicy":                change,
	"ELB.DeleteLoadBalancerPolicy":                change,
	"ELB.SetLoadBalancerPoliciesOfListener":       change,
	"ELB.SetLoadBalancerPoliciesForBackendServer": change,
	"ELB.ConfigureHealthCheck":                    change,
	"ELB.RegisterInstancesWithLoadBalancer":       change,
	"ELB.DeregisterInstancesFromLoadBalancer":     change,
	"ELB.AttachLoadBalancerToSubnets":             change,
	"ELB.DetachLoadBalancerFromSubnets":           change,
	"ELB.ApplySecurityGroupsToLoadBalancer":       change,
	"ELB.AddTags":                                 tag,
	"ELB.RemoveTags":                              tag,

	"ELBV2.CreateLoadBalancer":           create,
	"ELBV2.DeleteLoadBalancer":           change,
	"ELBV2.ModifyLoadBalancerAttributes": change,
	"ELBV2.SetSubnets":                   change,
	"ELBV2.SetSecurityGroups":            change,
	"ELBV2.SetIpAddressType":             change,
	"ELBV2.CreateTargetGroup":            create,
	"ELBV2.DeleteTargetGroup":            change,
	"ELBV2.ModifyTargetGroup":            change,
	"ELBV2.ModifyTargetGroupAttributes":  change,
	"ELBV2.RegisterTargets":              change,
	"ELBV2.DeregisterTargets":            change,
	"ELBV2.CreateListener":               change, // of a load balancer
	"ELBV2.DeleteListener":               listener,
	"ELBV2.ModifyListener":               listener,
	"ELBV2.AddListenerCertificates":      listener,
	"ELBV2.RemoveListenerCertificates":   listener,
	"ELBV2.ModifyListenerAttributes":     listener,
	"ELBV2.AddTags":                      tag,
	"ELBV2.RemoveTags":                   tag,

	"EC2.CreateSecurityGroup":           create,
	"EC2.DeleteSecurityGroup":           change,
	"EC2.AuthorizeSecurityGroupIngress": admit,
	"EC2.RevokeSecurityGroupIngress":    admit,
	"EC2.CreateTags":                    tag,
	"EC2.DeleteTags":                    tag,
}

// prefixes are those of the APIs' actions in a policy.
var prefixes = map[string]string{"ELB": "elasticloadbalancing:", "ELBV2": "elasticloadbalancing:", "EC2": "ec2:"}

// statement is one of an IAM policy.
type statement struct {
	Sid       string
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

const (
	listenerARN      = "arn:aws:elasticloadbalancing:*:*:listener/net/*"
	loadBalancerARN  = "arn:aws:elasticloadbalancing:*:*:loadbalancer/*"
	targetGroupARN   = "arn:aws:elasticloadbalancing:*:*:targetgroup/*"
	securityGroupARN = "arn:aws:ec2:*:*:security-group/*"
	vpcARN           = "arn:aws:ec2:*:*:vpc/*"
	linkedRoleARN    = "arn:aws:iam::*:role/aws-service-role/elasticloadbalancing.amazonaws.com/AWSServiceRoleForElasticLoadBalancing"
)

// iamPolicy is the policy that allows what provider aws calls, and no more.
func iamPolicy() (string, error) {
	calls, err := awsCalls()
	if err != nil {
		return "", err
	}
	statements, err := statementsFor(calls)
	if err != nil {
		return "", err
	}
	policy := struct {
		Version   string
		Statement []statement
	}{"2012-10-17", statements}
	short, err := json.Marshal(policy)
	if err != nil {
		return "", err
	}
	if len(short) > policyLimit {
		return "", fmt.Errorf("%d characters: AWS takes %d", len(short), policyLimit)
	}
	var text bytes.Buffer
	if err := json.Indent(&text, short, "", "  "); err != nil {
		return "", err
	}
	return text.String() + "\n", nil
}

// awsCalls returns the calls that the code makes, as "ELBV2.CreateListener",
// for which it looks at what is selected from values of the interfaces.
func awsCalls() ([]string, error) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedSyntax | packages.NeedImports,
	}, "./providers/aws/...")
	if err != nil {
		return nil, err
	}
	calls := map[string]bool{}
	for _, p := range loaded {
		for _, problem := range p.Errors {
			return nil, problem
		}
		if strings.HasSuffix(p.PkgPath, "/awsfake") {
			continue
		}
		for _, selection := range p.TypesInfo.Selections {
			if call := callOf(selection.Obj()); call != "" {
				calls[call] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(calls)), nil
}

// callOf is the call that a method of our interfaces makes.
func callOf(object types.Object) string {
	method, ok := object.(*types.Func)
	if !ok || method.Pkg() == nil || !strings.Contains(method.Pkg().Path(), "/providers/aws") {
		return ""
	}
	receiver, ok := method.Signature().Recv().Type().(*types.Named)
	if !ok || !types.IsInterface(receiver) {
		return ""
	}
	switch name := receiver.Obj().Name(); {
	case prefixes[name] != "":
		return name + "." + method.Name()
	case name == "API": // of package instances
		return "EC2." + method.Name()
	}
	return ""
}

// statementsFor narrows each call down as far as AWS lets us.
func statementsFor(calls []string) ([]statement, error) {
	actions := map[scope][]string{}
	var errs []error
	known := maps.Clone(scopes)
	for _, call := range calls {
		scope, ok := scopes[call]
		delete(known, call)
		api, method, _ := strings.Cut(call, ".")
		if !ok && !strings.HasPrefix(method, "Describe") {
			errs = append(errs, fmt.Errorf("%s is called: say in hack/gendocs/iam.go to what the right to it is narrowed down", call))
		}
		if action := prefixes[api] + method; !slices.Contains(actions[scope], action) {
			actions[scope] = append(actions[scope], action)
		}
	}
	for _, call := range slices.Sorted(maps.Keys(known)) {
		errs = append(errs, fmt.Errorf("%s is never called: take it out of hack/gendocs/iam.go", call))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	const key = "kubernetes.io/cluster/" + cluster
	equals := func(pairs ...[]string) map[string]map[string][]string {
		values := map[string][]string{}
		for _, pair := range pairs {
			values[pair[0]] = pair[1:]
		}
		return map[string]map[string][]string{"StringEquals": values}
	}
	owned, ours := []string{"aws:ResourceTag/" + key, "owned"}, []string{"aws:RequestTag/" + key, "owned"}
	all := []statement{
		{"Read", "", actions[read], []string{"*"}, nil},
		{"Create", "", actions[create], []string{loadBalancerARN, targetGroupARN, securityGroupARN}, equals(ours)},
		{"CreateInVPC", "", []string{"ec2:CreateSecurityGroup"}, []string{vpcARN}, nil},
		{"TagAtCreation", "", []string{"elasticloadbalancing:AddTags"}, []string{loadBalancerARN, targetGroupARN},
			equals(ours, []string{"elasticloadbalancing:CreateAction", "CreateLoadBalancer", "CreateTargetGroup"})},
		{"TagGroupAtCreation", "", []string{"ec2:CreateTags"}, []string{securityGroupARN}, equals(ours, []string{"ec2:CreateAction", "CreateSecurityGroup"})},
		{"Change", "", slices.Concat(actions[change], actions[tag]), []string{loadBalancerARN, targetGroupARN, securityGroupARN}, equals(owned)},
		{"Listeners", "", slices.Concat(actions[listener], []string{"elasticloadbalancing:AddTags", "elasticloadbalancing:RemoveTags"}), []string{listenerARN}, nil},
		{"Admit", "", actions[admit], []string{securityGroupARN}, equals([]string{owned[0], "owned", "shared"})},
		{"ServiceLinkedRole", "", []string{"iam:CreateServiceLinkedRole"}, []string{linkedRoleARN},
			equals([]string{"iam:AWSServiceName", "elasticloadbalancing.amazonaws.com"})},
	}
	for i := range all {
		all[i].Effect = "Allow"
		slices.Sort(all[i].Action)
	}
	return all, nil
}

package cloudconfig

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// AWS is where provider aws works, and with which rights. Credentials are
// found as all programs find them that use AWS's SDK: environment, shared
// files, web identity, container, instance.
type AWS struct {
	// Region of the load balancers. Without it: AWS_REGION, the shared
	// configuration file, or the region of the instance that we run on.
	Region string `json:"region,omitempty"`
	// VPCID is the VPC of the nodes. Without it: that of the instance that we
	// run on.
	VPCID string `json:"vpcID,omitempty"`
	// Endpoint is a URL that takes all requests in place of AWS's own
	// endpoints.
	Endpoint string `json:"endpoint,omitempty"`
	// RoleARN is a role that is assumed for all requests.
	RoleARN string `json:"roleARN,omitempty"`
	// Subnets are the IDs of the subnets that load balancers may be in whose
	// Services name none by annotation. Internet-facing ones take the public
	// subnets of the list, those with a route to an internet gateway; internal
	// ones take the others, and a public one where a zone has no other. Where a
	// zone then has several, the tag of the role has to choose one. Without the
	// list they are found in the VPC by their roles. A load balancer that is
	// there keeps its own.
	Subnets []string `json:"subnets,omitempty"`
	// NodeSecurityGroups are the IDs of the security groups that let load
	// balancers in to the nodes. Without them: of each instance its only group,
	// the one with the cluster's tag, or the first.
	NodeSecurityGroups []string `json:"nodeSecurityGroups,omitempty"`
	// Tags of all that is made in AWS, besides those that mark it as the
	// cluster's and the Service's.
	Tags map[string]string `json:"tags,omitempty"`
}

// AWS allows 50 tags on a load balancer; some are Herald's, some the Services'.
const maxTags = 30

var (
	regionPattern  = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	vpcPattern     = regexp.MustCompile(`^vpc-([0-9a-f]{8}|[0-9a-f]{17})$`)
	idPattern      = regexp.MustCompile(`^[0-9a-f]{8}([0-9a-f]{9})?$`)
	rolePattern    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	tagPattern     = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
	clusterPattern = regexp.MustCompile(`^[A-Za-z0-9_.:/=+@-]{0,100}$`)
)

func (c *CloudConfig) checkAWS() []error {
	if !c.UsesAWS() {
		return nil
	}
	var errs []error
	if !clusterPattern.MatchString(c.ClusterName) {
		errs = append(errs, fmt.Errorf("clusterName %q: want up to 100 letters, digits and _.:/=+@-: it is part of a tag in AWS", c.ClusterName))
	}
	if c.AWS == nil {
		return errs
	}
	for _, f := range []struct {
		name, value string
		pattern     *regexp.Regexp
		example     string
	}{
		{"region", c.AWS.Region, regionPattern, "eu-central-1"},
		{"vpcID", c.AWS.VPCID, vpcPattern, "vpc-0123456789abcdef0"},
		{"roleARN", c.AWS.RoleARN, rolePattern, "arn:aws:iam::123456789012:role/herald"},
	} {
		if f.value != "" && !f.pattern.MatchString(f.value) {
			errs = append(errs, fmt.Errorf("aws.%s %q: want the form of %s", f.name, f.value, f.example))
		}
	}
	return append(errs, c.AWS.checkEndpoint(), checkIDs("subnets", "subnet-", c.AWS.Subnets), checkIDs("nodeSecurityGroups", "sg-", c.AWS.NodeSecurityGroups), c.AWS.checkTags())
}

func (a *AWS) checkEndpoint() error {
	if a.Endpoint == "" {
		return nil
	}
	endpoint, err := url.Parse(a.Endpoint)
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" || endpoint.RawQuery != "" || endpoint.User != nil {
		return fmt.Errorf("aws.endpoint %q: want the form of https://ec2.example.com", a.Endpoint)
	}
	return nil
}

// checkIDs checks a list of IDs of AWS that all start the same.
func checkIDs(field, prefix string, ids []string) error {
	for i, id := range ids {
		number, ok := strings.CutPrefix(id, prefix)
		if !ok || !idPattern.MatchString(number) || slices.Contains(ids[:i], id) {
			return fmt.Errorf("aws.%s[%d] %q: want the form of %s0123456789abcdef0, each once", field, i, id, prefix)
		}
	}
	return nil
}

func (a *AWS) checkTags() error {
	if len(a.Tags) > maxTags {
		return fmt.Errorf("aws.tags: %d of them, want at most %d", len(a.Tags), maxTags)
	}
	for _, key := range slices.Sorted(maps.Keys(a.Tags)) {
		value := a.Tags[key]
		switch {
		case key == "" || utf8.RuneCountInString(key) > 128 || !tagPattern.MatchString(key):
			return fmt.Errorf("aws.tags: key %q: want 1 to 128 letters, digits, spaces and _.:/=+-@", key)
		case utf8.RuneCountInString(value) > 256 || !tagPattern.MatchString(value):
			return fmt.Errorf("aws.tags[%s] %q: want up to 256 letters, digits, spaces and _.:/=+-@", key, value)
		case strings.HasPrefix(strings.ToLower(key), "aws:") || strings.HasPrefix(key, "kubernetes.io/"):
			return fmt.Errorf("aws.tags: key %q: aws: and kubernetes.io/ are not yours to set", key)
		}
	}
	return nil
}

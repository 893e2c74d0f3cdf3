package awsfake

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

var networkTagErrors = tagErrors{
	invalid:   invalid,
	duplicate: func(f string, a ...any) error { return &types.DuplicateTagKeysException{Message: text(f, a...)} },
	tooMany:   func(f string, a ...any) error { return &types.TooManyTagsException{Message: text(f, a...)} },
}

func networkPairs(list []types.Tag) []pair {
	var pairs []pair
	for _, t := range list {
		pairs = append(pairs, pair{aws.ToString(t.Key), aws.ToString(t.Value)})
	}
	return pairs
}

// tagsOf are the tags of a thing that an ARN names.
func (c *Cloud) tagsOf(arn string) (*tags, error) {
	switch {
	case strings.Contains(arn, ":targetgroup/"):
		g, err := c.targetGroupBy(&arn)
		if err != nil {
			return nil, err
		}
		return &g.tags, nil
	case strings.Contains(arn, ":listener/"):
		l, err := c.listenerBy(&arn)
		if err != nil {
			return nil, err
		}
		return &l.tags, nil
	}
	lb, err := c.networkBy(&arn)
	if err != nil {
		return nil, err
	}
	return &lb.tags, nil
}

// allTagsOf are the tags of some things: one that is not there fails all.
func (c *Cloud) allTagsOf(arns []string) ([]*tags, error) {
	if len(arns) == 0 || len(arns) > 20 {
		return nil, invalid("Between 1 and 20 resource ARNs can be specified in a single request")
	}
	found := make([]*tags, len(arns))
	for i, arn := range arns {
		t, err := c.tagsOf(arn)
		if err != nil {
			return nil, err
		}
		found[i] = t
	}
	return found, nil
}

func (c *Cloud) addNetworkTags(in *elbv2.AddTagsInput) (*elbv2.AddTagsOutput, error) {
	found, err := c.allTagsOf(in.ResourceArns)
	if err != nil {
		return nil, err
	}
	changed := make([]tags, len(found))
	for i, t := range found {
		if changed[i], err = c.tag(*t, networkPairs(in.Tags), networkTagErrors); err != nil {
			return nil, err
		}
	}
	for i, t := range found {
		*t = changed[i]
	}
	return &elbv2.AddTagsOutput{}, nil
}

func (c *Cloud) removeNetworkTags(in *elbv2.RemoveTagsInput) (*elbv2.RemoveTagsOutput, error) {
	found, err := c.allTagsOf(in.ResourceArns)
	if err != nil {
		return nil, err
	}
	for _, t := range found {
		for _, key := range in.TagKeys {
			delete(*t, key)
		}
	}
	return &elbv2.RemoveTagsOutput{}, nil
}

func (c *Cloud) describeNetworkTags(in *elbv2.DescribeTagsInput) (*elbv2.DescribeTagsOutput, error) {
	found, err := c.allTagsOf(in.ResourceArns)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeTagsOutput{}
	for i, t := range found {
		d := types.TagDescription{ResourceArn: aws.String(in.ResourceArns[i])}
		for _, p := range t.sorted() {
			d.Tags = append(d.Tags, types.Tag{Key: aws.String(p.key), Value: aws.String(p.value)})
		}
		out.TagDescriptions = append(out.TagDescriptions, d)
	}
	return out, nil
}

package awsfake

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

var classicTagErrors = tagErrors{
	invalid:   invalid,
	duplicate: func(f string, a ...any) error { return &types.DuplicateTagKeysException{Message: text(f, a...)} },
	tooMany:   func(f string, a ...any) error { return &types.TooManyTagsException{Message: text(f, a...)} },
}

func classicPairs(list []types.Tag) []pair {
	var pairs []pair
	for _, t := range list {
		pairs = append(pairs, pair{aws.ToString(t.Key), aws.ToString(t.Value)})
	}
	return pairs
}

// oneClassic is the load balancer whose tags change: one in a call.
func (c *Cloud) oneClassic(names []string) (*classic, error) {
	if len(names) != 1 {
		return nil, invalid("Exactly one load balancer name must be specified")
	}
	return c.classicBy(&names[0])
}

func (c *Cloud) addClassicTags(in *elb.AddTagsInput) (*elb.AddTagsOutput, error) {
	lb, err := c.oneClassic(in.LoadBalancerNames)
	if err != nil {
		return nil, err
	}
	changed, err := c.tag(lb.tags, classicPairs(in.Tags), classicTagErrors)
	if err != nil {
		return nil, err
	}
	lb.tags = changed
	return &elb.AddTagsOutput{}, nil
}

func (c *Cloud) removeClassicTags(in *elb.RemoveTagsInput) (*elb.RemoveTagsOutput, error) {
	lb, err := c.oneClassic(in.LoadBalancerNames)
	if err != nil {
		return nil, err
	}
	for _, t := range in.Tags {
		delete(lb.tags, aws.ToString(t.Key))
	}
	return &elb.RemoveTagsOutput{}, nil
}

func (c *Cloud) describeClassicTags(in *elb.DescribeTagsInput) (*elb.DescribeTagsOutput, error) {
	if len(in.LoadBalancerNames) == 0 || len(in.LoadBalancerNames) > 20 {
		return nil, invalid("Between 1 and 20 load balancer names can be specified in a single request")
	}
	out := &elb.DescribeTagsOutput{}
	for _, name := range in.LoadBalancerNames {
		lb, err := c.classicBy(&name)
		if err != nil {
			return nil, err
		}
		d := types.TagDescription{LoadBalancerName: aws.String(name)}
		for _, p := range lb.tags.sorted() {
			d.Tags = append(d.Tags, types.Tag{Key: aws.String(p.key), Value: aws.String(p.value)})
		}
		out.TagDescriptions = append(out.TagDescriptions, d)
	}
	return out, nil
}

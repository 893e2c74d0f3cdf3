// Package clients makes the clients of AWS's APIs, and finds out where they
// are to work.
package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"k8s.io/klog/v2"
)

// name is what AWS's logs say of who called.
const name = "herald"

// A request is tried a few times at once; what goes on failing is the affair of
// the controller's queue, which does not keep a worker waiting.
const (
	attempts       = 3
	backoff        = 3 * time.Second
	requestTimeout = 30 * time.Second
	// metadataTimeout is for a machine that is no instance, where nobody
	// answers at all.
	metadataTimeout = 10 * time.Second
)

// Options are all optional.
type Options struct {
	// Region is the one of the SDK's environment and files when empty, and
	// else that of the instance that we run on.
	Region string
	// Endpoint takes all requests in place of AWS's own endpoints.
	Endpoint string
	// RoleARN is a role to assume.
	RoleARN string
}

// Clients are those of one region.
type Clients struct {
	EC2    *ec2.Client
	ELB    *elb.Client
	ELBV2  *elbv2.Client
	Region string
}

// New makes clients. It asks the instance's metadata for the region if nobody
// says it, and nothing else: whether the credentials are any good is seen at
// the first request.
func New(ctx context.Context, options Options) (*Clients, error) {
	loaded, err := load(ctx, options)
	if err != nil {
		return nil, err
	}
	return &Clients{
		EC2:    ec2.NewFromConfig(loaded),
		ELB:    elb.NewFromConfig(loaded),
		ELBV2:  elbv2.NewFromConfig(loaded),
		Region: loaded.Region,
	}, nil
}

// VPC asks the instance that we run on for the VPC of its first interface.
func VPC(ctx context.Context) (string, error) {
	return metadata(ctx, "VPC", "aws.vpcID", vpcOfInstance)
}

// load is the SDK's own configuration with ours on top.
func load(ctx context.Context, options Options) (aws.Config, error) {
	loaded, err := config.LoadDefaultConfig(ctx,
		config.WithRegion(options.Region),
		config.WithAppID(name),
		config.WithLogger(logger(ctx)),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(requestTimeout)),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, backoff })
		}),
	)
	if err != nil {
		return aws.Config{}, fmt.Errorf("loading the configuration of AWS's SDK: %w", err)
	}
	if loaded.Region == "" {
		if loaded.Region, err = metadata(ctx, "region", "aws.region", regionOfInstance); err != nil {
			return aws.Config{}, err
		}
	}
	if options.Endpoint != "" {
		loaded.BaseEndpoint = aws.String(options.Endpoint)
	}
	if options.RoleARN != "" {
		role := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(loaded), options.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = name
		})
		loaded.Credentials = aws.NewCredentialsCache(role)
	}
	return loaded, nil
}

// logger has the SDK log as we do: it would write to stderr.
func logger(ctx context.Context) logging.Logger {
	return logging.LoggerFunc(func(_ logging.Classification, format string, values ...any) {
		klog.FromContext(ctx).V(2).Info("Said by AWS's SDK", "message", fmt.Sprintf(format, values...))
	})
}

// metadata asks the instance that we run on. The error fits on a line, and
// names the field that makes the question unnecessary.
func metadata(ctx context.Context, what, field string, ask func(context.Context, *imds.Client) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	loaded, err := config.LoadDefaultConfig(ctx, config.WithLogger(logger(ctx)))
	if err != nil {
		return "", fmt.Errorf("loading the configuration of AWS's SDK: %w", err)
	}
	value, err := ask(ctx, imds.NewFromConfig(loaded, func(o *imds.Options) { o.EnableFallback = aws.FalseTernary }))
	if err == nil && value == "" {
		err = errors.New("it does not say")
	}
	if err != nil {
		reason := strings.Join(strings.Fields(err.Error()), " ")
		return "", fmt.Errorf("the %s is not known: set %s in --cloud-config, or let us ask the instance's metadata: %s", what, field, reason)
	}
	return value, nil
}

func regionOfInstance(ctx context.Context, client *imds.Client) (string, error) {
	answer, err := client.GetRegion(ctx, &imds.GetRegionInput{})
	if err != nil {
		return "", err
	}
	return answer.Region, nil
}

func vpcOfInstance(ctx context.Context, client *imds.Client) (string, error) {
	mac, err := read(ctx, client, "mac")
	if err != nil {
		return "", err
	}
	return read(ctx, client, "network/interfaces/macs/"+mac+"/vpc-id")
}

func read(ctx context.Context, client *imds.Client, path string) (string, error) {
	answer, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	defer answer.Content.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Content, 1<<10))
	return strings.TrimSpace(string(text)), err
}

package awsfake

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/smithy-go/middleware"
)

// handler answers one operation. The cloud is locked.
type handler func(input any) (output any, err error)

// on is the handler of an operation with its types.
func on[I, O any](answer func(*I) (*O, error)) handler {
	return func(input any) (any, error) {
		output, err := answer(input.(*I))
		if err != nil {
			return nil, err
		}
		return output, nil
	}
}

// connect makes the clients.
func (c *Cloud) connect() {
	config := aws.Config{Region: c.options.Region}
	c.elb = elasticloadbalancing.NewFromConfig(config, func(o *elasticloadbalancing.Options) {
		o.APIOptions = append(o.APIOptions, c.intercept(ELB, c.classicOperations()))
	})
	c.elbv2 = elasticloadbalancingv2.NewFromConfig(config, func(o *elasticloadbalancingv2.Options) {
		o.APIOptions = append(o.APIOptions, c.intercept(ELBV2, c.networkOperations()))
	})
	c.ec2 = ec2.NewFromConfig(config, func(o *ec2.Options) {
		o.APIOptions = append(o.APIOptions, c.intercept(EC2, c.computeOperations()))
	})
}

// intercept answers calls at the point where the SDK has checked the input and
// would write it to the wire. What retries them comes later in the SDK, so that
// each call of the caller is one here.
func (c *Cloud) intercept(api string, operations map[string]handler) func(*middleware.Stack) error {
	answer := middleware.SerializeMiddlewareFunc("awsfake", func(ctx context.Context, in middleware.SerializeInput, _ middleware.SerializeHandler) (
		out middleware.SerializeOutput, metadata middleware.Metadata, err error,
	) {
		operation := middleware.GetOperationName(ctx)
		out.Result, err = c.answer(ctx, api, operation, operations[operation], in.Parameters)
		return out, metadata, err
	})
	return func(stack *middleware.Stack) error { return stack.Serialize.Add(answer, middleware.Before) } //nolint:misspell // a name of the SDK
}

// answer is one call. A caller whose context has ended makes none.
func (c *Cloud) answer(ctx context.Context, api, operation string, handle handler, input any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, &aws.RequestCanceledError{Err: err}
	}
	call := c.calls.record(api, operation, input)
	if err := call.early.strike(call.Call); err != nil && call.early != nil {
		return nil, answered(err, call.N)
	}
	if call.before != nil {
		if err := call.before(call.Call); err != nil {
			return nil, answered(err, call.N)
		}
	}
	output, err := c.handle(call.Call, handle)
	if err != nil {
		return nil, answered(err, call.N)
	}
	if call.late != nil {
		return nil, answered(call.late.strike(call.Call), call.N)
	}
	if call.after != nil {
		if err := call.after(call.Call); err != nil {
			return nil, answered(err, call.N)
		}
	}
	return output, nil
}

// handle does the work of a call.
func (c *Cloud) handle(call Call, handle handler) (any, error) {
	if handle == nil {
		return nil, refuse("InvalidAction", "awsfake has no %s", call)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.throttled(call) {
		return nil, Throttling(call)
	}
	c.settle()
	return handle(call.Input)
}

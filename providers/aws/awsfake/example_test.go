package awsfake_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

func Example() {
	cloud := awsfake.New(awsfake.Options{})
	cloud.AddVPC(awsfake.VPC{ID: "vpc-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}})
	cloud.AddSubnet(awsfake.Subnet{ID: "subnet-a", VPC: "vpc-1", Zone: "eu-west-1a", CIDR: netip.MustParsePrefix("10.0.0.0/24"), Public: true})
	cloud.AddInstance(awsfake.Instance{ID: "i-1", Subnet: "subnet-a"})
	// The answer to the creation gets lost, and the caller tries again.
	cloud.Inject(awsfake.Fault{Operation: "elb.CreateLoadBalancer", Late: true, Err: context.DeadlineExceeded})

	ctx, client := context.Background(), cloud.ELB()
	for range 2 {
		_, err := client.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{
			LoadBalancerName: aws.String("web"), Subnets: []string{"subnet-a"},
			Listeners: []types.Listener{{Protocol: aws.String("TCP"), LoadBalancerPort: 80, InstancePort: aws.Int32(31080)}},
		})
		fmt.Println("created:", err == nil)
	}
	_, err := client.RegisterInstancesWithLoadBalancer(ctx, &elb.RegisterInstancesWithLoadBalancerInput{
		LoadBalancerName: aws.String("web"), Instances: []types.Instance{{InstanceId: aws.String("i-1")}},
	})
	fmt.Println("registered:", err == nil)
	cloud.Advance(time.Minute)
	fmt.Print(cloud)
	fmt.Println(cloud.Counts()["elb.CreateLoadBalancer"], "creations")

	// Output:
	// created: false
	// created: true
	// registered: true
	// clb web internet-facing subnet-a sg-default-vpc-1
	// health web TCP:31080 interval=30 timeout=5 healthy=10 unhealthy=2
	// listener web TCP:80 -> TCP:31080
	// instance web i-1 InService
	// 2 creations
}

package moto

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// VPC is the network of a cluster: a public and a private subnet in each of
// three zones, an internet gateway, and a security group of the nodes.
type VPC struct {
	ID      string
	Cluster string
	// Public and Private are the subnets, by zone.
	Public, Private map[string]string
	// NodeGroup is the security group that the nodes have.
	NodeGroup string
}

// Instance is a machine in a VPC.
type Instance struct {
	ID, Zone, Name string
}

// ProviderID is what a Node on the instance has.
func (i Instance) ProviderID() string { return "aws:///" + i.Zone + "/" + i.ID }

// Zones are those of a VPC.
func Zones() []string { return []string{Region + "a", Region + "b", Region + "c"} }

// image is one of those that moto knows at start.
const image = "ami-12c6146b"

// MakeVPC makes the VPC of a cluster, 10.n.0.0/16. moto now and then does
// something and loses the answer, and doing it again is an error: what is half
// made is then left.
func (c *Cloud) MakeVPC(ctx context.Context, cluster string, n int) (made *VPC, err error) {
	for range 3 {
		if made, err = c.makeVPC(ctx, cluster, n); err == nil {
			return made, nil
		}
	}
	return nil, err
}

func (c *Cloud) makeVPC(ctx context.Context, cluster string, n int) (*VPC, error) {
	v := &VPC{Cluster: cluster, Public: map[string]string{}, Private: map[string]string{}}
	made, err := c.EC2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String(fmt.Sprintf("10.%d.0.0/16", n)), TagSpecifications: v.tags("vpc", cluster)})
	if err != nil {
		return nil, err
	}
	v.ID = aws.ToString(made.Vpc.VpcId)
	for i, zone := range Zones() {
		if v.Public[zone], err = c.makeSubnet(ctx, v, zone, fmt.Sprintf("10.%d.%d.0/24", n, i), "kubernetes.io/role/elb"); err != nil {
			return nil, err
		}
		if v.Private[zone], err = c.makeSubnet(ctx, v, zone, fmt.Sprintf("10.%d.%d.0/24", n, 100+i), "kubernetes.io/role/internal-elb"); err != nil {
			return nil, err
		}
	}
	if err := c.routeOut(ctx, v); err != nil {
		return nil, err
	}
	group, err := c.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("nodes-" + cluster), Description: aws.String("nodes"), VpcId: aws.String(v.ID),
		TagSpecifications: v.tags("security-group", "nodes-"+cluster),
	})
	if err != nil {
		return nil, err
	}
	v.NodeGroup = aws.ToString(group.GroupId)
	return v, nil
}

// tags mark something as the cluster's.
func (v *VPC) tags(kind types.ResourceType, name string, more ...types.Tag) []types.TagSpecification {
	tags := []types.Tag{
		{Key: aws.String("Name"), Value: aws.String(name)},
		{Key: aws.String("kubernetes.io/cluster/" + v.Cluster), Value: aws.String("owned")},
	}
	return []types.TagSpecification{{ResourceType: kind, Tags: append(tags, more...)}}
}

func (c *Cloud) makeSubnet(ctx context.Context, v *VPC, zone, cidr, role string) (string, error) {
	made, err := c.EC2.CreateSubnet(ctx, &ec2.CreateSubnetInput{
		VpcId: aws.String(v.ID), AvailabilityZone: aws.String(zone), CidrBlock: aws.String(cidr),
		TagSpecifications: v.tags("subnet", v.Cluster+"-"+zone, types.Tag{Key: aws.String(role), Value: aws.String("1")}),
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(made.Subnet.SubnetId), nil
}

// routeOut makes the public subnets public: by a route to an internet gateway.
func (c *Cloud) routeOut(ctx context.Context, v *VPC) error {
	gateway, err := c.EC2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{})
	if err != nil {
		return err
	}
	id := gateway.InternetGateway.InternetGatewayId
	if _, err := c.EC2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: id, VpcId: aws.String(v.ID)}); err != nil {
		return err
	}
	table, err := c.EC2.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: aws.String(v.ID)})
	if err != nil {
		return err
	}
	tableID := table.RouteTable.RouteTableId
	if _, err := c.EC2.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: tableID, GatewayId: id, DestinationCidrBlock: aws.String("0.0.0.0/0")}); err != nil {
		return err
	}
	for _, subnet := range v.Public {
		if _, err := c.EC2.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: tableID, SubnetId: aws.String(subnet)}); err != nil {
			return err
		}
	}
	return nil
}

// RunInstances starts machines in the private subnets, zone after zone.
func (c *Cloud) RunInstances(ctx context.Context, v *VPC, count int) ([]Instance, error) {
	zones := Zones()
	var started []Instance
	for i := range count {
		zone := zones[i%len(zones)]
		answer, err := c.EC2.RunInstances(ctx, &ec2.RunInstancesInput{
			ImageId: aws.String(image), InstanceType: types.InstanceTypeM5Large, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			SubnetId: aws.String(v.Private[zone]), SecurityGroupIds: []string{v.NodeGroup},
			TagSpecifications: v.tags("instance", fmt.Sprintf("%s-%d", v.Cluster, i)),
		})
		if err != nil {
			return nil, err
		}
		made := answer.Instances[0]
		started = append(started, Instance{ID: aws.ToString(made.InstanceId), Zone: zone, Name: aws.ToString(made.PrivateDnsName)})
	}
	return slices.Clip(started), nil
}

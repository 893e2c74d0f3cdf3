package main

import (
	"context"
	"errors"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/heraldlb/herald/cloudconfig"
	"github.com/heraldlb/herald/providers/aws"
	"github.com/heraldlb/herald/providers/aws/clients"
	"github.com/heraldlb/herald/providers/aws/instances"
)

// amazon is what the configuration wants of AWS.
type amazon struct {
	settings cloudconfig.AWS
	clients  *clients.Clients
	// types has the type of each class that AWS serves.
	types map[string]aws.Type
	// fallback is the type of Services that name no class.
	fallback aws.Type
}

// connect makes the clients that the configuration needs, nil when it needs
// none. It fails early, with an error on one line, if it is not known where
// they are to work.
func connect(ctx context.Context, config *cloudconfig.CloudConfig, clusterNamed bool) (*amazon, error) {
	if !config.UsesAWS() {
		return nil, nil
	}
	a := &amazon{types: map[string]aws.Type{}}
	if config.AWS != nil {
		a.settings = *config.AWS
	}
	for name, class := range config.Classes {
		if class.Provider == cloudconfig.ProviderAWS {
			a.types[name] = aws.Type(class.Type)
		}
	}
	a.fallback = a.types[*config.Default]
	// Clusters of one name in one VPC would take each other's load balancers
	// for their own: a name that nobody chose will not do.
	if len(a.types) > 0 && config.ClusterName == "" && !clusterNamed {
		return nil, errors.New("provider aws marks what it makes with the cluster's name: set clusterName in --cloud-config, or --cluster-name")
	}
	var err error
	a.clients, err = clients.New(ctx, clients.Options{Region: a.settings.Region, Endpoint: a.settings.Endpoint, RoleARN: a.settings.RoleARN})
	if err != nil {
		return nil, err
	}
	if len(a.types) > 0 && a.settings.VPCID == "" {
		a.settings.VPCID, err = clients.VPC(ctx)
	}
	return a, err
}

// instances is nil without AWS.
func (a *amazon) instances() cloudprovider.InstancesV2 {
	if a == nil {
		return nil
	}
	return instances.New(a.clients.EC2, a.clients.Region)
}

// serves says whether AWS serves a class.
func (a *amazon) serves() bool { return a != nil && len(a.types) > 0 }

// provider makes the provider of all classes that AWS serves.
func (a *amazon) provider(informers informers.SharedInformerFactory, recorder record.EventRecorder, clusterName string) (cloudprovider.LoadBalancer, error) {
	aws.RegisterMetrics()
	return aws.New(aws.Options{
		ELB:                a.clients.ELB,
		ELBV2:              a.clients.ELBV2,
		EC2:                a.clients.EC2,
		Informers:          informers,
		Recorder:           recorder,
		ClusterName:        clusterName,
		VPCID:              a.settings.VPCID,
		Types:              a.types,
		DefaultType:        a.fallback,
		Subnets:            a.settings.Subnets,
		NodeSecurityGroups: a.settings.NodeSecurityGroups,
		Tags:               a.settings.Tags,
	})
}

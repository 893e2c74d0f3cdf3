package main

import (
	cloudprovider "k8s.io/cloud-provider"
)

// providerName is the value of --cloud-provider.
const providerName = "herald"

// cloud is Herald as the cloud provider app sees it. Load balancers are not
// handed out here: our service controller knows the provider of each class.
type cloud struct {
	// instances are nil where no provider knows any.
	instances cloudprovider.InstancesV2
}

var _ cloudprovider.Interface = cloud{}

func (cloud) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}

func (cloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return nil, false }

func (cloud) Instances() (cloudprovider.Instances, bool) { return nil, false }

func (c cloud) InstancesV2() (cloudprovider.InstancesV2, bool) {
	return c.instances, c.instances != nil
}

func (cloud) Zones() (cloudprovider.Zones, bool) { return nil, false }

func (cloud) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

func (cloud) Routes() (cloudprovider.Routes, bool) { return nil, false }

func (cloud) ProviderName() string { return providerName }

func (cloud) HasClusterID() bool { return true }

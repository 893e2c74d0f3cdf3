// Package v1alpha1 holds the objects of the API group heraldlb.io, version
// v1alpha1: what people write (AddressPool, Advertisement, BGPPeer) and what
// Herald keeps (VirtualIP, Speaker). All are cluster-scoped.
//
// +kubebuilder:object:generate=true
// +groupName=heraldlb.io
package v1alpha1

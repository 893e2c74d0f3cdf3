// Package client talks to the API server about the objects of heraldlb.io:
// typed clients and informers, on plain client-go.
package client

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Clients of the objects of heraldlb.io, one a kind.
type Clients struct {
	AddressPools   *gentype.ClientWithList[*v1alpha1.AddressPool, *v1alpha1.AddressPoolList]
	VirtualIPs     *gentype.ClientWithList[*v1alpha1.VirtualIP, *v1alpha1.VirtualIPList]
	Advertisements *gentype.ClientWithList[*v1alpha1.Advertisement, *v1alpha1.AdvertisementList]
	BGPPeers       *gentype.ClientWithList[*v1alpha1.BGPPeer, *v1alpha1.BGPPeerList]
	Speakers       *gentype.ClientWithList[*v1alpha1.Speaker, *v1alpha1.SpeakerList]
}

// NewScheme returns a scheme that knows the objects of heraldlb.io.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, nil
}

// New returns clients for the API server of config.
func New(config *rest.Config) (*Clients, error) {
	scheme, err := NewScheme()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &v1alpha1.GroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// Custom resources have no protobuf form.
	config.ContentType = runtime.ContentTypeJSON
	config.AcceptContentTypes = runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", v1alpha1.GroupVersion, err)
	}
	codec := runtime.NewParameterCodec(scheme)
	return &Clients{
		AddressPools: gentype.NewClientWithList("addresspools", client, codec, "",
			func() *v1alpha1.AddressPool { return &v1alpha1.AddressPool{} },
			func() *v1alpha1.AddressPoolList { return &v1alpha1.AddressPoolList{} }),
		VirtualIPs: gentype.NewClientWithList("virtualips", client, codec, "",
			func() *v1alpha1.VirtualIP { return &v1alpha1.VirtualIP{} },
			func() *v1alpha1.VirtualIPList { return &v1alpha1.VirtualIPList{} }),
		Advertisements: gentype.NewClientWithList("advertisements", client, codec, "",
			func() *v1alpha1.Advertisement { return &v1alpha1.Advertisement{} },
			func() *v1alpha1.AdvertisementList { return &v1alpha1.AdvertisementList{} }),
		BGPPeers: gentype.NewClientWithList("bgppeers", client, codec, "",
			func() *v1alpha1.BGPPeer { return &v1alpha1.BGPPeer{} },
			func() *v1alpha1.BGPPeerList { return &v1alpha1.BGPPeerList{} }),
		Speakers: gentype.NewClientWithList("speakers", client, codec, "",
			func() *v1alpha1.Speaker { return &v1alpha1.Speaker{} },
			func() *v1alpha1.SpeakerList { return &v1alpha1.SpeakerList{} }),
	}, nil
}

// lister is what an informer needs of a typed client.
type lister[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// Informer returns an informer over all objects of a kind; it never resyncs,
// as nothing here relies on being called again for what did not change.
func Informer[L runtime.Object](client lister[L], example runtime.Object) cache.SharedIndexInformer {
	return informer(client, example, func(*metav1.ListOptions) {})
}

// InformerOf returns an informer over the one object of a kind that has the
// name.
func InformerOf[L runtime.Object](client lister[L], example runtime.Object, name string) cache.SharedIndexInformer {
	return informer(client, example, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
}

func informer[L runtime.Object](client lister[L], example runtime.Object, choose func(*metav1.ListOptions)) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			choose(&options)
			return client.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			choose(&options)
			return client.Watch(ctx, options)
		},
	}, example, time.Duration(0), cache.Indexers{})
}

// Objects returns the informer's objects of type T.
func Objects[T any](store cache.Store) []T {
	items := store.List()
	objects := make([]T, 0, len(items))
	for _, item := range items {
		if object, ok := item.(T); ok {
			objects = append(objects, object)
		}
	}
	return objects
}

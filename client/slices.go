package client

import (
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// IndexSlices has an informer of EndpointSlices keep them by Service. index is a name that nobody else gives to an index of it.
func IndexSlices(slices cache.SharedIndexInformer, index string) error {
	err := slices.AddIndexers(cache.Indexers{index: func(object any) ([]string, error) {
		slice, ok := object.(*discoveryv1.EndpointSlice)
		if !ok {
			return nil, nil
		}
		return []string{slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]}, nil
	}})
	if err != nil {
		return fmt.Errorf("indexing EndpointSlices: %w", err)
	}
	return nil
}

// SlicesOf are the EndpointSlices of a Service, by the index that IndexSlices has made.
func SlicesOf(slices cache.SharedIndexInformer, index, namespace, name string) []*discoveryv1.EndpointSlice {
	objects, err := slices.GetIndexer().ByIndex(index, namespace+"/"+name)
	if err != nil {
		return nil // there is no such index
	}
	found := make([]*discoveryv1.EndpointSlice, 0, len(objects))
	for _, object := range objects {
		found = append(found, object.(*discoveryv1.EndpointSlice))
	}
	return found
}

// Package cloudconfig reads the file behind --cloud-config of the controller
// manager: which classes of Services there are and who serves them.
package cloudconfig

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// The apiVersion and kind of the file.
const (
	APIVersion = "config.heraldlb.io/v1alpha1"
	Kind       = "CloudConfig"
)

// The classes of the configuration without a file.
const (
	ClassBareMetal = "heraldlb.io/bare-metal"
	ClassNLB       = "heraldlb.io/nlb"
	ClassCLB       = "heraldlb.io/clb"
)

// The providers.
const (
	ProviderBareMetal = "baremetal"
	ProviderAWS       = "aws"
)

// The types of provider aws.
const (
	TypeNLB = "nlb"
	TypeCLB = "clb"
)

// types are those of each provider; no type is "".
var types = map[string][]string{
	ProviderAWS:       {TypeNLB, TypeCLB},
	ProviderBareMetal: {""},
}

// CloudConfig is the file.
type CloudConfig struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// ClusterName marks what is made outside the cluster as this cluster's.
	ClusterName string `json:"clusterName,omitempty"`
	// Default is the class of Services that name none; "" leaves those alone.
	Default *string `json:"default,omitempty"`
	// Classes by the loadBalancerClass that Services name.
	Classes map[string]Class `json:"classes,omitempty"`
	// AWS is read when a class has provider aws, or when it is there at all:
	// then the node controllers can run.
	AWS *AWS `json:"aws,omitempty"`
}

// Class is what serves the Services of a class.
type Class struct {
	// Provider: aws or baremetal.
	Provider string `json:"provider"`
	// Type is the load balancer of provider aws: nlb, or clb for a Classic ELB.
	// Services without class can ask for the other one by annotation.
	Type string `json:"type,omitempty"`
}

// UsesAWS says whether anything is wanted of AWS.
func (c *CloudConfig) UsesAWS() bool { return c.AWS != nil || c.has(ProviderAWS) }

// UsesBareMetal says whether a class is served on bare metal.
func (c *CloudConfig) UsesBareMetal() bool { return c.has(ProviderBareMetal) }

func (c *CloudConfig) has(provider string) bool {
	for _, class := range c.Classes {
		if class.Provider == provider {
			return true
		}
	}
	return false
}

// Default is the configuration without a file: bare metal alone, also for
// Services that name no class.
func Default() *CloudConfig {
	class := ClassBareMetal
	return &CloudConfig{
		APIVersion: APIVersion,
		Kind:       Kind,
		Default:    &class,
		Classes:    map[string]Class{ClassBareMetal: {Provider: ProviderBareMetal}},
	}
}

// Load reads the file; an empty path is the default configuration.
func Load(path string) (*CloudConfig, error) {
	if path == "" {
		return Default(), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--cloud-config: %w", err)
	}
	config, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("--cloud-config %s: %w", path, err)
	}
	return config, nil
}

// Parse reads the text of the file. Fields that it does not name are those of
// the default configuration. The error names every field that is wrong, on one
// line: it is read on stderr.
func Parse(text []byte) (*CloudConfig, error) {
	config := &CloudConfig{}
	if err := yaml.UnmarshalStrict(text, config); err != nil {
		return nil, errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	var errs []error
	if config.APIVersion != APIVersion || config.Kind != Kind {
		errs = append(errs, fmt.Errorf("apiVersion %q, kind %q: want %s, %s", config.APIVersion, config.Kind, APIVersion, Kind))
	}
	defaults := Default()
	if config.Classes == nil {
		config.Classes = defaults.Classes
	}
	if config.Default == nil {
		config.Default = defaults.Default
	}
	if _, ok := config.Classes[*config.Default]; !ok && *config.Default != "" {
		errs = append(errs, fmt.Errorf("default %q is not among classes", *config.Default))
	}
	for name, class := range config.Classes {
		if problems := validation.IsQualifiedName(name); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("classes: %q: %s", name, strings.Join(problems, ", ")))
		}
		errs = append(errs, class.check(name))
	}
	errs = append(errs, config.checkAWS()...)
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	messages := make([]string, len(errs))
	for i, err := range errs {
		messages[i] = err.Error()
	}
	slices.Sort(messages)
	if len(messages) > 0 {
		return nil, errors.New(strings.Join(messages, "; "))
	}
	return config, nil
}

func (c Class) check(name string) error {
	allowed, ok := types[c.Provider]
	if !ok {
		return fmt.Errorf("classes[%s].provider %q: want %s", name, c.Provider, strings.Join(slices.Sorted(maps.Keys(types)), " or "))
	}
	if slices.Contains(allowed, c.Type) {
		return nil
	}
	if allowed[0] == "" {
		return fmt.Errorf("classes[%s].type %q: provider %s has no types", name, c.Type, c.Provider)
	}
	return fmt.Errorf("classes[%s].type %q: want %s", name, c.Type, strings.Join(allowed, " or "))
}

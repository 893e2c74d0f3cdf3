package settings

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

// reader holds the annotations of a Service that apply to its kind of load
// balancer, each with a value that it may have, by their names after Prefix.
type reader struct {
	service *corev1.Service
	values  map[string]string
	ignored []string
}

// NodeLabels are those of the nodes to send to, also of a Service that is
// refused for another reason; ok is false when nobody can tell.
func NodeLabels(service *corev1.Service) (labels map[string]string, ok bool) {
	value := strings.TrimSpace(service.Annotations[Prefix+"target-node-labels"])
	if value == "" {
		return nil, true
	}
	return pairs(value), validPairs(value)
}

// read checks each annotation by its declaration.
func read(service *corev1.Service, kind Kind) (*reader, *v1alpha1.Refusal) {
	r := &reader{service: service, values: map[string]string{}}
	for _, full := range slices.Sorted(maps.Keys(service.Annotations)) {
		name, ours := strings.CutPrefix(full, Prefix)
		if !ours {
			continue
		}
		value := strings.TrimSpace(service.Annotations[full])
		declared, known := find(name, kind)
		switch {
		case !known:
			r.ignore("%s is not known.", full)
		case declared == nil:
			r.ignore("%s says nothing for a %s.", full, kind.Title())
		case !declared.Values.good(value):
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s is %q: want %s", full, v1alpha1.Quoted(value), declared.Values.Text)
		default:
			r.values[name] = value
		}
	}
	r.checkType(kind)
	if unknown := annotations.Unknown(service); len(unknown) > 0 {
		r.ignored = append(r.ignored, annotations.UnknownSentence(unknown))
	}
	return r, nil
}

// find returns the declaration of an annotation for a kind; known says that
// there is one for another kind at least.
func find(name string, kind Kind) (declared *Declaration, known bool) {
	for i := range Declared {
		d := &Declared[i]
		if d.Name != name && (!strings.HasSuffix(d.Name, ".") || !strings.HasPrefix(name, d.Name)) {
			continue
		}
		known = true
		if slices.Contains(d.On, kind) {
			return d, true
		}
	}
	return nil, known
}

// checkType tells of an annotation type that says something else than what is made.
func (r *reader) checkType(kind Kind) {
	value, ok := r.values["type"]
	if ok && value != "" && value != string(kind) {
		r.ignore("%stype is %q and says nothing: the Service gets a %s.", Prefix, value, kind.Title())
	}
}

func (r *reader) ignore(format string, args ...any) {
	r.ignored = append(r.ignored, fmt.Sprintf(format, args...))
}

func (r *reader) has(name string) bool {
	_, ok := r.values[name]
	return ok
}

func (r *reader) is(name string) bool { return r.values[name] == "true" }

func (r *reader) text(name, byDefault string) string {
	if value, ok := r.values[name]; ok {
		return value
	}
	return byDefault
}

func (r *reader) number(name string, byDefault int) int {
	n, err := strconv.Atoi(r.values[name])
	if err != nil {
		return byDefault
	}
	return n
}

func (r *reader) seconds(name string, byDefault int) time.Duration {
	return time.Duration(r.number(name, byDefault)) * time.Second
}

func (r *reader) list(name string) []string { return split(r.values[name]) }

func (r *reader) pairs(name string) map[string]string {
	if r.values[name] == "" {
		return nil
	}
	return pairs(r.values[name])
}

func (r *reader) addresses(name string) []netip.Addr {
	var all []netip.Addr
	for _, item := range r.list(name) {
		if addr, err := netip.ParseAddr(item); err == nil {
			all = append(all, addr)
		}
	}
	return all
}

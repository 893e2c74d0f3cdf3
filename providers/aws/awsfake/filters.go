package awsfake

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// fields are what a thing of EC2 can be filtered by. ok is false for a name
// that is no filter.
type fields func(name string) (values []string, ok bool)

// matches says whether a thing passes all filters. A filter passes if one of
// its values is one of the thing's.
func matches(filters []types.Filter, of fields) (bool, error) {
	pass := true
	for _, f := range filters {
		name := aws.ToString(f.Name)
		has, ok := of(name)
		if !ok {
			return false, refuse("InvalidParameterValue", "The filter '%s' is invalid", name)
		}
		if len(f.Values) == 0 {
			return false, refuse("InvalidParameterValue", "The filter '%s' has no values", name)
		}
		if len(f.Values) > 200 {
			return false, refuse("FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200")
		}
		pass = pass && slices.ContainsFunc(f.Values, func(pattern string) bool {
			return slices.ContainsFunc(has, func(value string) bool { return glob(pattern, value) })
		})
	}
	return pass, nil
}

// glob matches with the wildcards * and ?, and \ before a literal one.
func glob(pattern, value string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*':
			for i := 0; i <= len(value); i++ {
				if glob(pattern[1:], value[i:]) {
					return true
				}
			}
			return false
		case '?':
			if value == "" {
				return false
			}
			pattern, value = pattern[1:], value[1:]
			continue
		case '\\':
			if len(pattern) > 1 {
				pattern = pattern[1:]
			}
		}
		if value == "" || pattern[0] != value[0] {
			return false
		}
		pattern, value = pattern[1:], value[1:]
	}
	return value == ""
}

// orTags adds the filters on tags to others.
func orTags(t tags, of fields) fields {
	return func(name string) ([]string, bool) {
		if key, ok := strings.CutPrefix(name, "tag:"); ok {
			if value, has := t[key]; has {
				return []string{value}, true
			}
			return nil, true
		}
		if name == "tag-key" {
			var keys []string
			for _, p := range t.sorted() {
				keys = append(keys, p.key)
			}
			return keys, true
		}
		return of(name)
	}
}

// table is a set of filters by name.
func table(of map[string][]string) fields {
	return func(name string) ([]string, bool) {
		values, ok := of[name]
		return values, ok
	}
}

// resource is how EC2 speaks of a kind of thing in errors: of subnets, for
// example, the IDs begin with "subnet-" and the codes with "InvalidSubnetID".
type resource struct{ prefix, code, noun string }

// lookup is what every Describe of EC2 begins with: the things of a list with
// one of the IDs, that pass the filters.
func lookup[T any](list []numbered[T], ids []string, filters []types.Filter, kind resource, of func(T) fields) ([]numbered[T], error) {
	if err := kind.check(ids, func(id string) bool {
		return slices.ContainsFunc(list, func(n numbered[T]) bool { return n.key == id })
	}); err != nil {
		return nil, err
	}
	// Filters are checked also if there is nothing to filter.
	var none T
	if _, err := matches(filters, of(none)); err != nil {
		return nil, err
	}
	var found []numbered[T]
	for _, n := range list {
		if len(ids) > 0 && !slices.Contains(ids, n.key) {
			continue
		}
		if pass, _ := matches(filters, of(n.value)); pass {
			found = append(found, n)
		}
	}
	return found, nil
}

// question is what every Describe of EC2 can be asked.
type question struct {
	ids     []string
	filters []types.Filter
	token   *string
	size    *int32
}

// answer is a page of what lookup finds in a list. most is the largest page that can be asked for.
func answer[T any](c *Cloud, list []numbered[T], q question, kind resource, most int, of func(T) fields) ([]numbered[T], *string, error) {
	found, err := lookup(list, q.ids, q.filters, kind, of)
	if err != nil {
		return nil, nil, err
	}
	return computePage(c, found, q.token, q.size, q.ids, most)
}

// check says which IDs cannot be or are not there.
func (r resource) check(ids []string, known func(id string) bool) error {
	var missing []string
	for _, id := range ids {
		if !strings.HasPrefix(id, r.prefix) {
			return refuse(r.code+".Malformed", "Invalid id: \"%s\" (expecting \"%s...\")", id, r.prefix)
		}
		if !known(id) {
			missing = append(missing, id)
		}
	}
	switch len(missing) {
	case 0:
		return nil
	case 1:
		return refuse(r.code+".NotFound", "The %s '%s' does not exist", r.noun, missing[0])
	}
	return refuse(r.code+".NotFound", "The %ss '%s' do not exist", r.noun, strings.Join(missing, ", "))
}

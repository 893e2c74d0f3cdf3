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

// lookup is what every Describe of EC2 begins with: the things of a list with
// one of the IDs, that pass the filters. prefix is that of the IDs, code the
// error's beginning, such as InvalidSubnetID.
func lookup[T any](list []numbered[T], ids []string, filters []types.Filter, prefix, code string, of func(T) fields) ([]numbered[T], error) {
	for _, id := range ids {
		if !strings.HasPrefix(id, prefix) {
			return nil, refuse(code+".Malformed", "Invalid id: \"%s\" (expecting \"%s...\")", id, prefix)
		}
		if !slices.ContainsFunc(list, func(n numbered[T]) bool { return n.key == id }) {
			return nil, refuse(code+".NotFound", "The ID '%s' does not exist", id)
		}
	}
	var found []numbered[T]
	for _, n := range list {
		if len(ids) > 0 && !slices.Contains(ids, n.key) {
			continue
		}
		pass, err := matches(filters, of(n.value))
		if err != nil {
			return nil, err
		}
		if pass {
			found = append(found, n)
		}
	}
	if len(list) == 0 {
		// Filters are checked also if there is nothing to filter.
		var zero T
		_, err := matches(filters, of(zero))
		return nil, err
	}
	return found, nil
}

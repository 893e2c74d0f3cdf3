package awsfake

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tags are the tags of a thing.
type tags map[string]string

// pair is a tag as any of the three APIs gives it.
type pair struct{ key, value string }

// checkTag says what is wrong with a tag.
func checkTag(p pair) string {
	switch n := utf8.RuneCountInString(p.key); {
	case n == 0:
		return "Tag keys must not be empty"
	case n > 128:
		return "Tag key exceeds the maximum length of 128 characters"
	case utf8.RuneCountInString(p.value) > 256:
		return "Tag value exceeds the maximum length of 256 characters"
	case strings.HasPrefix(strings.ToLower(p.key), "aws:"):
		return "Tag keys starting with 'aws:' are reserved for internal use"
	case strings.ContainsFunc(p.key+p.value, notInTags):
		return "Tag '" + p.key + "' contains characters that are not allowed"
	}
	return ""
}

func notInTags(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsSpace(r) && !unicode.IsNumber(r) && !strings.ContainsRune("_.:/=+-@", r)
}

// twice is a key that a list of tags has more than once.
func twice(list []pair) string {
	seen := map[string]bool{}
	for _, p := range list {
		if seen[p.key] {
			return p.key
		}
		seen[p.key] = true
	}
	return ""
}

// with are the tags and further ones.
func (t tags) with(list []pair) tags {
	out := maps.Clone(t)
	if out == nil {
		out = tags{}
	}
	for _, p := range list {
		out[p.key] = p.value
	}
	return out
}

// sorted are the tags in the order of their keys.
func (t tags) sorted() []pair {
	var list []pair
	for _, key := range slices.Sorted(maps.Keys(t)) {
		list = append(list, pair{key, t[key]})
	}
	return list
}

// tagErrors are how an API words what is wrong with tags.
type tagErrors struct {
	invalid, duplicate, tooMany func(format string, args ...any) error
}

// tag is a thing's tags with further ones, or why that cannot be.
func (c *Cloud) tag(has tags, list []pair, wrong tagErrors) (tags, error) {
	if key := twice(list); key != "" {
		return nil, wrong.duplicate("A tag key was specified more than once: '%s'", key)
	}
	for _, p := range list {
		if problem := checkTag(p); problem != "" {
			return nil, wrong.invalid("%s", problem)
		}
	}
	out := has.with(list)
	if len(out) > c.limits.Tags {
		return nil, wrong.tooMany("The maximum number of tags is %d", c.limits.Tags)
	}
	return out, nil
}

package awsfake

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// page is the part of a list after a marker, and the marker of what follows.
// size 0 is all of it. The marker names the last one shown and not a position,
// so that what is deleted between two pages shifts nothing.
func page[T any](list []numbered[T], marker *string, size int) (part []numbered[T], next *string, ok bool) {
	after := -1
	if marker != nil && *marker != "" {
		if after, ok = readMarker(*marker); !ok {
			return nil, nil, false
		}
	}
	for _, n := range list {
		if n.serial <= after {
			continue
		}
		if size > 0 && len(part) == size {
			return part, writeMarker(part[size-1].serial), true
		}
		part = append(part, n)
	}
	return part, nil, true
}

func writeMarker(serial int) *string {
	marker := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "after %d", serial))
	return &marker
}

func readMarker(marker string) (serial int, ok bool) {
	text, err := base64.StdEncoding.DecodeString(marker)
	if err != nil {
		return 0, false
	}
	number, ok := strings.CutPrefix(string(text), "after ")
	serial, err = strconv.Atoi(number)
	return serial, ok && err == nil
}

// balancingPage is a page of one of the load balancing APIs, which give 400 if
// not told otherwise.
func balancingPage[T any](c *Cloud, list []numbered[T], marker *string, size *int32) ([]numbered[T], *string, error) {
	wanted := 400
	if size != nil {
		wanted = int(*size)
		if wanted < 1 || wanted > 400 {
			return nil, nil, invalid("1 validation error detected: Value '%d' at 'pageSize' failed to satisfy constraint: between 1 and 400",
				wanted)
		}
	}
	if c.options.PageSize > 0 {
		wanted = min(wanted, c.options.PageSize)
	}
	part, next, ok := page(list, marker, wanted)
	if !ok {
		return nil, nil, invalid("Invalid marker '%s'", *marker)
	}
	return part, next, nil
}

// computePage is a page of EC2, which gives all if not told otherwise.
func computePage[T any](c *Cloud, list []numbered[T], token *string, size *int32, ids []string, most int) ([]numbered[T], *string, error) {
	wanted := 0
	if size != nil {
		wanted = int(*size)
		if wanted < 5 || wanted > most {
			return nil, nil, refuse("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value between 5 and %d.",
				wanted, most)
		}
	}
	if len(ids) > 0 && size != nil {
		return nil, nil, refuse("InvalidParameterCombination", "The parameter for IDs cannot be used with the parameter maxResults")
	}
	if limit := c.options.PageSize; limit > 0 && len(ids) == 0 && (wanted == 0 || limit < wanted) {
		wanted = limit
	}
	part, next, ok := page(list, token, wanted)
	if !ok {
		return nil, nil, refuse("InvalidNextToken", "The token '%s' is invalid", *token)
	}
	return part, next, nil
}

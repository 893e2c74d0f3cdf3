package bgp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// gracefulShutdown is GRACEFUL_SHUTDOWN (RFC 8326).
const gracefulShutdown = 65535 << 16

// wellKnown communities are of IANA's registry, by the names that routers give them.
var wellKnown = map[string]uint32{
	"graceful-shutdown": gracefulShutdown,   // RFC 8326
	"accept-own":        65535<<16 | 1,      // RFC 7611
	"blackhole":         65535<<16 | 666,    // RFC 7999
	"no-export":         65535<<16 | 0xff01, // RFC 1997
	"no-advertise":      65535<<16 | 0xff02, // RFC 1997
	"local-as":          65535<<16 | 0xff03, // RFC 1997, NO_EXPORT_SUBCONFED
	"no-peer":           65535<<16 | 0xff04, // RFC 3765
}

// large is a large community (RFC 8092).
type large [3]uint32

func (l large) String() string { return fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]) }

// parseCommunities sorts them, and drops what is there twice.
func parseCommunities(texts []string) (standards []uint32, larges []large, err error) {
	for _, text := range texts {
		if c, ok := wellKnown[text]; ok {
			standards = append(standards, c)
			continue
		}
		parts := strings.Split(text, ":")
		switch len(parts) {
		case 2:
			n, err := numbers(parts, 16)
			if err != nil {
				return nil, nil, fmt.Errorf("community %q: %w", text, err)
			}
			standards = append(standards, n[0]<<16|n[1])
		case 3:
			n, err := numbers(parts, 32)
			if err != nil {
				return nil, nil, fmt.Errorf("community %q: %w", text, err)
			}
			if n[0] == tagASN {
				return nil, nil, fmt.Errorf("community %q: AS %d is reserved (RFC 7300)", text, tagASN)
			}
			larges = append(larges, large(n))
		default:
			return nil, nil, fmt.Errorf("community %q is neither like 64512:100 nor like 64512:1:2 nor a well-known name", text)
		}
	}
	slices.Sort(standards)
	slices.SortFunc(larges, func(a, b large) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(standards), slices.Compact(larges), nil
}

func numbers(texts []string, bits int) (ns []uint32, err error) {
	for _, text := range texts {
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number of %d bits", text, bits)
		}
		ns = append(ns, uint32(n))
	}
	return ns, nil
}

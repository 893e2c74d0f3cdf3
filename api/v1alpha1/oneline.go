package v1alpha1

import (
	"fmt"
	"strings"
)

// mostInOneLine is how many entries of a list kubectl get shows.
const mostInOneLine = 20

// OneLine is a list as kubectl get shows it: a printer column of a list shows
// its first entry alone, or JSON.
func OneLine[T any](list []T, name func(T) string) string {
	names := make([]string, 0, min(len(list), mostInOneLine))
	for _, entry := range list[:min(len(list), mostInOneLine)] {
		names = append(names, name(entry))
	}
	line := strings.Join(names, ",")
	if more := len(list) - len(names); more > 0 {
		line += fmt.Sprintf(" and %d more", more)
	}
	return line
}

// OneLineOf is a list of strings as kubectl get shows it.
func OneLineOf(list []string) string {
	return OneLine(list, func(s string) string { return s })
}

// Summarize writes into the spec what kubectl get shows of its lists.
func (s *VirtualIPSpec) Summarize() {
	summary := VirtualIPSummary{
		Services: OneLine(s.Claims, func(c Claim) string { return c.Namespace + "/" + c.Name }),
	}
	if s.L2 != nil {
		summary.Candidates = OneLineOf(s.L2.Candidates)
	}
	if s.BGP != nil {
		summary.Advertisements = OneLineOf(s.BGP.Advertisements)
	}
	s.Summary = nil
	if summary != (VirtualIPSummary{}) {
		s.Summary = &summary
	}
}

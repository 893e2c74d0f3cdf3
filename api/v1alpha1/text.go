package v1alpha1

import (
	"strings"
	"unicode/utf8"
)

const (
	// MaxMessage is how many bytes a message in a condition or an event has at
	// most, as an event of the API group events.k8s.io allows.
	MaxMessage = 1024
	// maxQuoted is how many bytes of a value that somebody wrote are quoted.
	maxQuoted = 80
	cut       = "…"
)

// Quoted returns a value for a message: no more of it than tells which it is.
// It is to be formatted with %q, which escapes what does not print.
func Quoted(value string) string { return Cut(value, maxQuoted) }

// Cut returns text in at most limit bytes, whole characters only; what was cut
// off is marked with an ellipsis.
func Cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := max(limit-len(cut), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.TrimRight(text[:end], " ") + cut
}

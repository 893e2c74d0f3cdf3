package v1alpha1

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCutKeepsWholeCharactersWithinTheLimit(t *testing.T) {
	for _, c := range []struct {
		name, text string
		limit      int
		want       string
	}{
		{"short", "abc", 3, "abc"},
		{"long", "abcdef", 5, "ab…"},
		{"in the middle of a character", "aéééé", 6, "aé…"},
		{"a space before the cut", "ab cdef", 6, "ab…"},
		{"empty", "", 0, ""},
	} {
		if got := Cut(c.text, c.limit); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add("äöü", 4)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < len(cut) || limit > 1<<16 {
			return
		}
		got := Cut(text, limit)
		if len(got) > limit || utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("%q cut to %d: %q", text, limit, got)
		}
	})
}

func TestARefusalIsBounded(t *testing.T) {
	refusal := Refuse(InvalidAnnotation, "%s is %q", "heraldlb.io/pool", strings.Repeat("x", 200_000))
	if n := len(refusal.Message); n > MaxMessage {
		t.Errorf("the message has %d bytes", n)
	}
}

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		command, given string
		words, name    string
	}{
		{"down", "", "", "dev"},
		{"down", "--name a", "", "a"},
		{"pod", "add --name a web-1 --node node2", "add web-1", "a"},
		{"exec", "--name a client -- curl -sS url", "client curl -sS url", "a"},
		{"exec", "client --name a -- curl -sS --name url", "client curl -sS --name url", "a"},
		{"exec", "--name a client curl -sS url", "client curl -sS url", "a"},
		{"exec", "--name a -- client curl -s", "client curl -s", "a"},
	}
	for _, tt := range tests {
		t.Run(tt.command+" "+tt.given, func(t *testing.T) {
			cmd := commands()[tt.command]
			words, err := cmd.parse(strings.Fields(tt.given))
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.Fields(tt.words); !slices.Equal(words, want) {
				t.Errorf("words %q, want %q", words, want)
			}
			if name := cmd.flags.Lookup("name").Value.String(); name != tt.name {
				t.Errorf("name %q, want %q", name, tt.name)
			}
		})
	}
}

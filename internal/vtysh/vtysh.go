// Package vtysh reads what the shell of FRR says of its table of BGP, for tests.
package vtysh

import (
	"fmt"
	"strings"
)

// Table is what there is to a prefix.
type Table struct{ Paths []Path }

// ShowTable is the command that FRR answers with a Table, in JSON when " json" follows.
func ShowTable(prefix string) string {
	family := "ipv4"
	if strings.Contains(prefix, ":") {
		family = "ipv6"
	}
	return "show bgp " + family + " unicast " + prefix
}

// Path is one in the table.
type Path struct {
	Valid     bool
	ASPath    text
	MED       *int `json:"metric"`
	LocalPref *int `json:"locPrf"`
	Community text
	Large     text `json:"largeCommunity"`
	Extended  text `json:"extendedCommunity"`
	Stale     bool
	Nexthops  []struct {
		IP   string
		Used bool
	}
}

// text is how FRR shows an attribute.
type text struct {
	String string `json:"string"`
}

// String has all but the next hop.
func (p Path) String() string {
	line := "path " + p.ASPath.String
	if p.MED != nil {
		line += fmt.Sprintf(" med %d", *p.MED)
	}
	if p.LocalPref != nil {
		line += fmt.Sprintf(" pref %d", *p.LocalPref)
	}
	for _, t := range []text{p.Community, p.Large, p.Extended} {
		if t.String != "" {
			line += " [" + t.String + "]"
		}
	}
	if p.Stale {
		line += " stale"
	}
	if !p.Valid {
		line += " invalid"
	}
	return line
}

// Via is the next hop that is used, or the only one.
func (p Path) Via() string {
	hop := ""
	for _, n := range p.Nexthops {
		if n.Used || hop == "" {
			hop = n.IP
		}
	}
	return hop
}

package v1alpha1

import (
	"net"
	"testing"
)

func TestParseMAC(t *testing.T) {
	for _, text := range []string{
		"02:00:00:00:00:0a", "FE:ED:00:12:34:56", "02-00-00-00-00-0a", "0200.0000.000a",
		"", "02:00:00:00:00", "02:00:00:00:00:0g", "02:00:00:00:00-0a", "+2:00:00:00:00:0a", "02:00:00:00:00:0a:00:01", "02:00:00:00:00:0aa", " 2:00:00:00:00:0a",
	} {
		want, err := net.ParseMAC(text)
		got, ok := ParseMAC(text)
		if valid := err == nil && len(want) == len(got); ok != valid || ok && net.HardwareAddr(got[:]).String() != want.String() {
			t.Errorf("%q is %v, %v, want %v, %v", text, got, ok, want, valid)
		}
	}
}

package aws

import (
	"testing"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

func TestServed(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		t.Run(class, func(t *testing.T) {
			bubble(t, 3, awsfake.Options{}, func(t *testing.T, w *world) {
				before := w.cloud.String()
				s := service(class, nil)
				status := w.ensure(s)
				t.Log(status)
				t.Log(w.calls())
				t.Log(w.cloud.String())
				w.delete(s)
				if after := w.cloud.String(); after != before {
					t.Errorf("left behind:\n%s", after)
				}
			})
		})
	}
}

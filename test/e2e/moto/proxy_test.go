package moto

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/smithy-go"
)

// The proxy tells the APIs apart, whose actions have the same names, answers in
// the form of each, and can lose the answer of what was done.
func TestProxy(t *testing.T) {
	served := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		_, _ = w.Write([]byte("<Response/>"))
	}))
	defer server.Close()
	proxy, err := newProxy(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	config := aws.Config{
		Region: Region, BaseEndpoint: aws.String(front.URL), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}
	classic, network, machines := elb.NewFromConfig(config), elbv2.NewFromConfig(config), ec2.NewFromConfig(config)
	callAll := func() (codes []string) {
		_, first := classic.DescribeLoadBalancers(t.Context(), &elb.DescribeLoadBalancersInput{})
		_, second := network.DescribeLoadBalancers(t.Context(), &elbv2.DescribeLoadBalancersInput{})
		_, third := machines.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
		for _, err := range []error{first, second, third} {
			code := ""
			if answer, ok := errors.AsType[smithy.APIError](err); ok {
				code = answer.ErrorCode()
			}
			codes = append(codes, code)
		}
		return codes
	}
	for _, c := range []struct {
		name   string
		fault  func(Call) *Fault
		codes  string
		served int
		status int
	}{
		{name: "all is well", codes: "[  ]", served: 3, status: 200},
		{name: "refused", fault: func(Call) *Fault { return &Fault{Code: "Throttling", Status: 400} }, codes: "[Throttling Throttling Throttling]", status: 400},
		{name: "done and lost", fault: func(Call) *Fault { return &Fault{Code: "Unavailable", Status: 503, After: true} },
			codes: "[Unavailable Unavailable Unavailable]", served: 3, status: 503},
		{name: "once", fault: Once("DescribeLoadBalancers", Fault{Code: "Throttling", Status: 400}), codes: "[Throttling  ]", served: 2, status: 400},
	} {
		served = 0
		proxy.Fail(c.fault)
		codes := callAll()
		calls := proxy.Calls()
		want := "3 calls: EC2 DescribeVpcs 1, ELB DescribeLoadBalancers 1, ELBV2 DescribeLoadBalancers 1"
		if got := fmt.Sprint(codes); got != c.codes || served != c.served || Tally(calls) != want || calls[0].Status != c.status {
			t.Errorf("%s: codes %s, %d served, %s, status %d", c.name, got, served, Tally(calls), calls[0].Status)
		}
	}
}

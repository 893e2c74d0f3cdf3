package clients

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// elsewhere is a machine with no trace of AWS but credentials.
func elsewhere(t *testing.T) {
	t.Helper()
	missing := filepath.Join(t.TempDir(), "missing")
	for key, value := range map[string]string{
		"AWS_CONFIG_FILE": missing, "AWS_SHARED_CREDENTIALS_FILE": missing, "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "",
		"AWS_ACCESS_KEY_ID": "AKIDKEEPER", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ENDPOINT_URL": "",
	} {
		t.Setenv(key, value)
	}
}

// onInstance is an instance whose metadata are as given, by path; nil is none.
func onInstance(t *testing.T, values map[string]string) {
	t.Helper()
	elsewhere(t)
	if values == nil {
		return
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/latest/api/token" {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			fmt.Fprint(w, "token")
			return
		}
		value, ok := values[strings.TrimPrefix(r.URL.Path, "/latest/")]
		if !ok || r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, value)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
}

var ofInstance = map[string]string{
	"dynamic/instance-identity/document": `{"region": "ap-south-1"}`,
	"meta-data/mac":                      "02:29:96:8f:6a:2d",
	"meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/vpc-id": "vpc-0123456789abcdef0\n",
}

func TestRegion(t *testing.T) {
	for _, c := range []struct {
		name     string
		metadata map[string]string
		env      string
		told     string
		region   string
		err      []string
	}{
		{name: "told", told: "eu-west-1", region: "eu-west-1"},
		{name: "of the instance", metadata: ofInstance, region: "ap-south-1"},
		{name: "told wins over the instance", metadata: ofInstance, told: "eu-west-1", region: "eu-west-1"},
		{name: "the environment's", metadata: ofInstance, env: "us-east-2", region: "us-east-2"},
		{name: "told wins over the environment", env: "us-east-2", told: "eu-west-1", region: "eu-west-1"},
		{name: "none to be found", err: []string{"region", "aws.region", "--cloud-config", "metadata"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onInstance(t, c.metadata)
			t.Setenv("AWS_REGION", c.env)
			clients, err := New(t.Context(), Options{Region: c.told})
			if len(c.err) > 0 {
				says(t, err, c.err...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for api, region := range map[string]string{
				"": clients.Region, "EC2": clients.EC2.Options().Region, "ELB": clients.ELB.Options().Region, "ELBV2": clients.ELBV2.Options().Region,
			} {
				if region != c.region {
					t.Errorf("%s: region %q, want %q", api, region, c.region)
				}
			}
		})
	}
}

func TestVPC(t *testing.T) {
	onInstance(t, ofInstance)
	if vpc, err := VPC(t.Context()); err != nil || vpc != "vpc-0123456789abcdef0" {
		t.Errorf("VPC %q, %v", vpc, err)
	}
	onInstance(t, nil)
	_, err := VPC(t.Context())
	says(t, err, "VPC", "aws.vpcID", "--cloud-config", "metadata")
	onInstance(t, map[string]string{"meta-data/mac": "02:29:96:8f:6a:2d"})
	_, err = VPC(t.Context())
	says(t, err, "aws.vpcID", "404")
}

func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// endpoint answers as AWS does, and keeps who called what.
type endpoint struct {
	*httptest.Server
	mu    sync.Mutex
	calls []string
	// throttle is how many requests it refuses first.
	throttle int
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewServer(http.HandlerFunc(e.answer))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) answer(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	action := r.FormValue("Action")
	key, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="), "/")
	e.calls = append(e.calls, action+" by "+key)
	if !strings.Contains(r.UserAgent(), "app/"+name) {
		e.calls = append(e.calls, "by "+r.UserAgent())
	}
	if e.throttle > 0 {
		e.throttle--
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow down</Message></Error></Errors></Response>`)
		return
	}
	if action == "AssumeRole" {
		fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>`+
			`<SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		return
	}
	fmt.Fprintf(w, `<%sResponse><%sResult></%sResult></%sResponse>`, action, action, action, action)
}

func (e *endpoint) called() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.calls, "\n")
}

func callAll(ctx context.Context, t *testing.T, clients *Clients) {
	t.Helper()
	if _, err := clients.EC2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}); err != nil {
		t.Error(err)
	}
	if _, err := clients.ELB.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{}); err != nil {
		t.Error(err)
	}
	if _, err := clients.ELBV2.DescribeTargetGroups(ctx, &elbv2.DescribeTargetGroupsInput{}); err != nil {
		t.Error(err)
	}
}

func TestAllRequestsGoToTheEndpoint(t *testing.T) {
	elsewhere(t)
	e := newEndpoint(t)
	clients, err := New(t.Context(), Options{Region: "eu-west-1", Endpoint: e.URL})
	if err != nil {
		t.Fatal(err)
	}
	callAll(t.Context(), t, clients)
	want := "DescribeVpcs by AKIDKEEPER\nDescribeLoadBalancers by AKIDKEEPER\nDescribeTargetGroups by AKIDKEEPER"
	if got := e.called(); got != want {
		t.Errorf("called:\n%s\nwant:\n%s", got, want)
	}
}

func TestRoleIsAssumedOnce(t *testing.T) {
	elsewhere(t)
	e := newEndpoint(t)
	clients, err := New(t.Context(), Options{
		Region: "eu-west-1", Endpoint: e.URL, RoleARN: "arn:aws:iam::123456789012:role/herald",
	})
	if err != nil {
		t.Fatal(err)
	}
	callAll(t.Context(), t, clients)
	want := "AssumeRole by AKIDKEEPER\nDescribeVpcs by AKIDROLE\nDescribeLoadBalancers by AKIDROLE\nDescribeTargetGroups by AKIDROLE"
	if got := e.called(); got != want {
		t.Errorf("called:\n%s\nwant:\n%s", got, want)
	}
}

func TestThrottlingIsTriedAgainAFewTimes(t *testing.T) {
	elsewhere(t)
	for _, c := range []struct {
		throttle, calls int
		ok              bool
	}{{0, 1, true}, {attempts - 1, attempts, true}, {attempts + 5, attempts, false}} {
		e := newEndpoint(t)
		e.throttle = c.throttle
		clients, err := New(t.Context(), Options{Region: "eu-west-1", Endpoint: e.URL})
		if err != nil {
			t.Fatal(err)
		}
		_, err = clients.EC2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
		if calls := len(strings.Split(e.called(), "\n")); calls != c.calls || (err == nil) != c.ok {
			t.Errorf("refused %d times: %d calls, want %d; error %v", c.throttle, calls, c.calls, err)
		}
	}
}

// Package awsfake is the part of AWS that a provider of load balancers calls:
// Classic ELB, Elastic Load Balancing v2 for Network Load Balancers, and the
// subnets, instances and security groups of EC2. It keeps state, refuses what
// AWS refuses with the same error, and prints itself.
//
// The clients that it hands out are those of aws-sdk-go-v2; only the wire is
// cut off. So what the SDK itself checks is checked here too, and errors come
// wrapped as they do in life. The SDK's own retries lie behind the cut: what is
// throttled comes back to the caller at once.
//
// Where the documentation of AWS leaves a rule open, the stricter reading is
// taken: what works here works there.
package awsfake

import (
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// Options of a cloud. The zero value is a cloud with the quotas and delays of
// AWS and a clock of its own.
type Options struct {
	// Region and Account are parts of ARNs and DNS names; "eu-west-1" and
	// "111122223333" by default.
	Region, Account string
	// Now is the clock. By default the cloud has its own, which stands still
	// but for Advance.
	Now func() time.Time
	// Delays are how long AWS takes for what it does later.
	Delays Delays
	// Limits are the quotas of the account.
	Limits Limits
	// PageSize is the most that one page has, also where the caller asks for
	// more or for no pages at all; 0 leaves it to the API.
	PageSize int
	// Rates throttle calls, by "elbv2.CreateListener", by "elbv2" for all
	// operations of an API together, or by "" for all of all. The first of
	// them that is there counts.
	Rates map[string]Rate
}

// Delays are how long AWS takes for what it does later. 0 stands for what is
// usual, a negative one for none.
type Delays struct {
	// Provisioning is the time until a new Network Load Balancer is active;
	// 2 minutes.
	Provisioning time.Duration
	// Healthy is the time from the registration of a target to its first state
	// other than initial; 30 seconds.
	Healthy time.Duration
	// Interfaces is how long the network interfaces of a deleted load balancer
	// keep its security groups and addresses in use, and that of a subnet that a
	// load balancer left its zone; 30 seconds.
	Interfaces time.Duration
	// Groups is how long a target group counts as in use after the load
	// balancer is gone that forwarded to it; 5 seconds.
	Groups time.Duration
	// Visible is how long after its creation a thing may be missing in what is
	// described; none.
	Visible time.Duration
	// Known is how long after its creation a security group may be unknown to
	// calls that name it; none.
	Known time.Duration
	// Gone is how long after its deletion a thing may still be described; none.
	Gone time.Duration
}

// Cloud is an account in one region. It is safe for concurrent use.
type Cloud struct {
	options Options
	limits  Limits
	elb     *elasticloadbalancing.Client
	elbv2   *elasticloadbalancingv2.Client
	ec2     *ec2.Client
	calls   recorder
	buckets map[string]*bucket

	// mu guards what is below.
	mu      sync.Mutex
	virtual time.Time
	serial  int

	zones        map[string]*zone
	vpcs         store[*vpc]
	subnets      store[*subnet]
	instances    store[*instance]
	groups       store[*securityGroup]
	addresses    store[*address]
	prefixLists  map[string]int
	certificates map[string]bool
	buckets3     map[string]bool

	classics     store[*classic]
	networks     store[*network]
	targetGroups store[*targetGroup]
	listeners    store[*listener]
	leftovers    []leftover
	// unhealthy are instances and addresses that fail their health checks.
	unhealthy map[string]bool
}

// start is when a cloud with a clock of its own begins.
var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// New returns a cloud without anything in it.
func New(options Options) *Cloud {
	options.Region = or(options.Region, "eu-west-1")
	options.Account = or(options.Account, "111122223333")
	options.Delays = options.Delays.complete()
	c := &Cloud{
		options:      options,
		limits:       options.Limits.complete(),
		buckets:      map[string]*bucket{},
		virtual:      start,
		zones:        map[string]*zone{},
		prefixLists:  map[string]int{},
		certificates: map[string]bool{},
		buckets3:     map[string]bool{},
		unhealthy:    map[string]bool{},
	}
	c.connect()
	return c
}

// ELB is a client of Classic ELB.
func (c *Cloud) ELB() *elasticloadbalancing.Client { return c.elb }

// ELBV2 is a client of Elastic Load Balancing v2.
func (c *Cloud) ELBV2() *elasticloadbalancingv2.Client { return c.elbv2 }

// EC2 is a client of EC2.
func (c *Cloud) EC2() *ec2.Client { return c.ec2 }

// Advance moves the clock of a cloud that was made without one.
func (c *Cloud) Advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.virtual = c.virtual.Add(by)
}

// Now is the time in this cloud.
func (c *Cloud) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Cloud) now() time.Time {
	if c.options.Now != nil {
		return c.options.Now()
	}
	return c.virtual
}

// next numbers what is made in this cloud.
func (c *Cloud) next() int {
	c.serial++
	return c.serial
}

// id is a new identifier as EC2 gives them.
func (c *Cloud) id(prefix string) string {
	return fmt.Sprintf("%s-%017x", prefix, c.next())
}

// arn names a thing of Elastic Load Balancing.
func (c *Cloud) arn(path string) string {
	return fmt.Sprintf("arn:aws:elasticloadbalancing:%s:%s:%s/%016x", c.options.Region, c.options.Account, path, c.next())
}

func (d Delays) complete() Delays {
	return Delays{
		Provisioning: usual(d.Provisioning, 2*time.Minute),
		Healthy:      usual(d.Healthy, 30*time.Second),
		Interfaces:   usual(d.Interfaces, 30*time.Second),
		Groups:       usual(d.Groups, 5*time.Second),
		Visible:      usual(d.Visible, 0),
		Known:        usual(d.Known, 0),
		Gone:         usual(d.Gone, 0),
	}
}

func usual(d, usually time.Duration) time.Duration {
	if d == 0 {
		return usually
	}
	return max(d, 0)
}

// or is the first of two values that is not zero.
func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

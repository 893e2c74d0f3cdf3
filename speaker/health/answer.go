package health

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

// Reason says why a target is not healthy. The zero value means that it is.
type Reason string

const (
	// Unknown means that the target has not been asked long enough to tell.
	Unknown Reason = "Unknown"
	// ProxyUnreachable means that nobody listens, or that connections are closed without an answer.
	ProxyUnreachable Reason = "ProxyUnreachable"
	// ProxyHung means that no answer came in time.
	ProxyHung Reason = "ProxyHung"
	// ProxyUnhealthy means that the service proxy says of itself that it is not healthy: its rules lag behind.
	ProxyUnhealthy Reason = "ProxyUnhealthy"
	// NodeNotEligible means that the service proxy is well, and the node about to be deleted.
	NodeNotEligible Reason = "NodeNotEligible"
	// NoLocalEndpoints means that the node has no ready endpoint of the Service.
	NoLocalEndpoints Reason = "NoLocalEndpoints"
	// OtherService means that the port belongs to another Service than the target names.
	OtherService Reason = "OtherService"
	// UnexpectedStatus means an HTTP status other than 200 and 503; a redirect is one, and is not followed.
	UnexpectedStatus Reason = "UnexpectedStatus"
	// GarbledAnswer means an answer that is not HTTP, too long, not what a service proxy says, or at odds with itself.
	GarbledAnswer Reason = "GarbledAnswer"
)

var reasons = [...]Reason{
	Unknown, ProxyUnreachable, ProxyHung, ProxyUnhealthy, NodeNotEligible, NoLocalEndpoints, OtherService,
	UnexpectedStatus, GarbledAnswer,
}

// failed says that there was no answer of a service proxy, whatever it would have been.
func (r Reason) failed() bool {
	switch r {
	case ProxyUnreachable, ProxyHung, UnexpectedStatus, GarbledAnswer:
		return true
	}
	return false
}

// wrong says that the answer is not that of a service proxy about this target: another address of the node may have that.
func (r Reason) wrong() bool { return r.failed() || r == OtherService }

// answer is what was found out by asking once.
type answer struct {
	reason         Reason
	localEndpoints int
	written        Written
}

// Written is when the service proxy last wrote its rules, by family; zero where it does not say. kube-proxy says so since
// its answer has a status per family. Nothing is written again when nothing has changed.
type Written struct {
	IPv4, IPv6 time.Time
}

// read is the meaning of an HTTP answer of the target.
func (t Target) read(status int, body []byte) answer {
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return answer{reason: UnexpectedStatus}
	}
	if t.Kind == Local {
		return t.readLocal(status == http.StatusOK, body)
	}
	return readProxy(status == http.StatusOK, bytes.TrimSpace(body))
}

// readProxy is generous, since not every service proxy is kube-proxy: beside its status an answer need not say anything,
// and what else it may say is an object.
//
// kube-proxy answers 200 from its start, before it has written any rules: only Written tells, and the health check node
// ports, which are opened when the rules have been written.
func readProxy(ok bool, body []byte) answer {
	type family struct {
		LastUpdated time.Time `json:"lastUpdated"`
	}
	var said struct {
		NodeEligible *bool `json:"nodeEligible"`
		Healthy      *bool `json:"healthy"` // of the proxy, whatever the node
		Status       struct {
			IPv4 family `json:"IPv4"`
			IPv6 family `json:"IPv6"`
		} `json:"status"`
	}
	isObject := bytes.HasPrefix(body, []byte("{")) && json.Unmarshal(body, &said) == nil
	unhealthy := said.Healthy != nil && !*said.Healthy
	ineligible := said.NodeEligible != nil && !*said.NodeEligible
	a := answer{written: Written{said.Status.IPv4.LastUpdated, said.Status.IPv6.LastUpdated}}
	switch {
	case ok && !isObject && len(body) > 0 && !bytes.EqualFold(body, []byte("ok")):
		return answer{reason: GarbledAnswer} // the page of something else
	case unhealthy:
		a.reason = ProxyUnhealthy
	case ineligible:
		a.reason = NodeNotEligible
	case !ok:
		a.reason = ProxyUnhealthy
	}
	return a
}

// readLocal insists on the number of endpoints: kube-proxy answers 200 with nothing on the port of a Service that it has
// just dropped.
func (t Target) readLocal(ok bool, body []byte) answer {
	var said struct {
		Service struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		LocalEndpoints      *int  `json:"localEndpoints"`
		ServiceProxyHealthy *bool `json:"serviceProxyHealthy"`
	}
	if json.Unmarshal(body, &said) != nil || said.LocalEndpoints == nil || *said.LocalEndpoints < 0 {
		return answer{reason: GarbledAnswer}
	}
	if t.Service != "" && t.Service != said.Service.Namespace+"/"+said.Service.Name {
		return answer{reason: OtherService}
	}
	a := answer{localEndpoints: *said.LocalEndpoints}
	switch {
	case said.ServiceProxyHealthy != nil && !*said.ServiceProxyHealthy:
		a.reason = ProxyUnhealthy
	case a.localEndpoints == 0:
		a.reason = NoLocalEndpoints
	case !ok:
		return answer{reason: GarbledAnswer}
	}
	return a
}

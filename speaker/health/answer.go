package health

import (
	"bytes"
	"encoding/json"
	"net/http"
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

// answer is what was found out by asking once.
type answer struct {
	reason         Reason
	localEndpoints int
}

// read is the meaning of an HTTP answer of the target.
func (t Target) read(status int, body []byte) answer {
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return answer{reason: UnexpectedStatus}
	}
	if t.Kind == Local {
		return t.readLocal(status == http.StatusOK, body)
	}
	return answer{reason: readProxy(status == http.StatusOK, bytes.TrimSpace(body))}
}

// readProxy is generous, since not every service proxy is kube-proxy: beside its status an answer need not say anything,
// and what else it may say is an object.
//
// It cannot tell that kube-proxy has just started and not yet written its rules: kube-proxy answers 200 from the start,
// and sets lastUpdated then. Health check node ports can: they are opened when the rules have been written.
func readProxy(ok bool, body []byte) Reason {
	var said struct {
		NodeEligible *bool `json:"nodeEligible"`
		Healthy      *bool `json:"healthy"` // of the proxy, whatever the node
	}
	isObject := bytes.HasPrefix(body, []byte("{")) && json.Unmarshal(body, &said) == nil
	unhealthy := said.Healthy != nil && !*said.Healthy
	ineligible := said.NodeEligible != nil && !*said.NodeEligible
	switch {
	case ok && !isObject && len(body) > 0 && !bytes.EqualFold(body, []byte("ok")):
		return GarbledAnswer // the page of something else
	case unhealthy:
		return ProxyUnhealthy
	case ineligible:
		return NodeNotEligible
	case !ok:
		return ProxyUnhealthy
	}
	return ""
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

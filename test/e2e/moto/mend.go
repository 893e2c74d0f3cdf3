package moto

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// mend answers the calls that moto gets wrong as AWS answers them.
func (p *Proxy) mend(w http.ResponseWriter, r *http.Request, call Call) bool {
	var answer *reply
	switch call.String() {
	case "ELBV2 CreateLoadBalancer":
		answer = p.createNetwork(r, call)
	case "ELBV2 DescribeListeners":
		answer = p.ask(r, call.Form)
	case "ELBV2 ModifyListener":
		answer = p.modifyListener(r, call)
	case "ELB DeleteLoadBalancerListeners":
		answer = p.deleteClassicListeners(r, call)
	}
	if answer == nil {
		return false
	}
	w.Header().Set("Content-Type", answer.kind)
	w.WriteHeader(answer.status)
	// A listener of TLS that was modified is of HTTPS to moto: see modifyListener.
	_, _ = io.WriteString(w, strings.ReplaceAll(answer.body, "<Protocol>HTTPS</Protocol>", "<Protocol>TLS</Protocol>"))
	return true
}

// ProtocolOf is the protocol of a listener of a Network Load Balancer, which
// has no HTTPS, as moto itself tells it.
func ProtocolOf(listener *elbv2types.Listener) elbv2types.ProtocolEnum {
	if listener.Protocol == elbv2types.ProtocolEnumHttps {
		return elbv2types.ProtocolEnumTls
	}
	return listener.Protocol
}

// createNetwork makes a Network Load Balancer a second time as AWS does: it is
// the first. moto would make another of the same name.
func (p *Proxy) createNetwork(r *http.Request, call Call) *reply {
	answer := p.ask(r, call.with(url.Values{"Action": {"DescribeLoadBalancers"}, "Names.member.1": call.Form["Name"]}))
	if answer == nil || answer.status != http.StatusOK {
		return nil
	}
	answer.body = strings.ReplaceAll(answer.body, "DescribeLoadBalancers", call.Action)
	return answer
}

var certificateTag = regexp.MustCompile(`<CertificateArn>([^<]+)</CertificateArn>`)

// modifyListener changes the certificate of a listener, or gives it one. moto
// refuses the protocol TLS here, heeds a certificate only of HTTPS, and forgets
// all that are found by SNI.
func (p *Proxy) modifyListener(r *http.Request, call Call) *reply {
	const first = "Certificates.member.1.CertificateArn"
	if !call.Form.Has(first) {
		return nil
	}
	listener := url.Values{"ListenerArn": call.Form["ListenerArn"]}
	listener.Set("Action", "DescribeListenerCertificates")
	before := p.ask(r, call.with(listener))
	if before == nil || before.status != http.StatusOK {
		return before
	}
	form := url.Values{}
	for key, values := range call.Form {
		form[key] = values
	}
	form.Set("Protocol", "HTTPS")
	answer := p.ask(r, form)
	had := certificateTag.FindAllStringSubmatch(before.body, -1)
	if answer == nil || answer.status != http.StatusOK || len(had) < 2 {
		return answer
	}
	listener.Set("Action", "AddListenerCertificates")
	for i, certificate := range had[1:] {
		listener.Set(fmt.Sprintf("Certificates.member.%d.CertificateArn", i+1), certificate[1])
	}
	if added := p.ask(r, call.with(listener)); added == nil || added.status != http.StatusOK {
		return added
	}
	return answer
}

// deleteClassicListeners removes listeners one by one: of several at a time
// moto removes none.
func (p *Proxy) deleteClassicListeners(r *http.Request, call Call) (answer *reply) {
	const member = "LoadBalancerPorts.member."
	var ports []string
	for key, values := range call.Form {
		if strings.HasPrefix(key, member) {
			ports = append(ports, values...)
		}
	}
	slices.Sort(ports)
	for _, port := range ports {
		answer = p.ask(r, call.with(url.Values{"Action": {call.Action}, "LoadBalancerName": call.Form["LoadBalancerName"], member + "1": {port}}))
		if answer == nil || answer.status != http.StatusOK {
			break
		}
	}
	return answer
}

// with is the form of another call of the same API.
func (c Call) with(form url.Values) url.Values {
	form["Version"] = c.Form["Version"]
	return form
}

// reply is what moto answers.
type reply struct {
	status     int
	kind, body string
}

// ask makes a call of moto as who made the request; nil is that there is no
// answer.
func (p *Proxy) ask(r *http.Request, form url.Values) *reply {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, p.server, strings.NewReader(form.Encode()))
	if err != nil {
		return nil
	}
	request.Header = r.Header.Clone()
	request.Header.Del("Content-Length")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil
	}
	return &reply{response.StatusCode, response.Header.Get("Content-Type"), string(body)}
}

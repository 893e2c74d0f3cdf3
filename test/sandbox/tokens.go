package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// tokenLifetime is that of the sandbox's certificates: nothing in it expires before the others do, so nothing is renewed.
const tokenLifetime = 365 * 24 * time.Hour

// identity is who uses a token: a ServiceAccount, through a pod of it on a host.
type identity struct {
	namespace, account string
	// pod that the token is bound to, as kubelet would bind it; "" for a token that is bound to nothing.
	pod string
	// host that the token is for; "" is the machine itself.
	host string
}

// KubeconfigFor makes a kubeconfig with a token of a ServiceAccount and returns
// its path. It is for use in a host; "" is the machine itself. As with kubelet,
// the token is bound to a pod of the ServiceAccount on that host, so that the
// API server knows the node of whoever uses it. A token for the machine itself
// is bound to nothing.
func (s *Sandbox) KubeconfigFor(ctx context.Context, host, namespace, account string) (string, error) {
	id := identity{namespace: namespace, account: account, host: host}
	if host != "" {
		id.pod = account + "-" + host
	}
	return s.kubeconfigFor(ctx, id, 0)
}

func (s *Sandbox) kubeconfigFor(ctx context.Context, id identity, owner int) (string, error) {
	token, err := s.token(ctx, id)
	if err != nil {
		return "", fmt.Errorf("token for %s/%s: %w", id.namespace, id.account, err)
	}
	// A file for each owner: another could not read it.
	name, server := fmt.Sprintf("%s.%s.%s.%d", id.namespace, id.account, id.pod, owner), lanURL()
	if id.host == "" {
		name, server = name+"outside", s.apiURL()
	}
	return s.kubeconfigPath(name), s.writeKubeconfig(name, server, owner, object{"token": token})
}

// token asks for a token as kubelet does (TokenRequest).
func (s *Sandbox) token(ctx context.Context, id identity) (string, error) {
	spec := object{"expirationSeconds": int(tokenLifetime.Seconds())}
	if id.pod != "" {
		uid, err := s.applyHeraldPod(ctx, id)
		if err != nil {
			return "", fmt.Errorf("pod %s: %w", id.pod, err)
		}
		spec["boundObjectRef"] = object{"apiVersion": "v1", "kind": "Pod", "name": id.pod, "uid": uid}
	}
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", id.namespace, id.account)
	answer, err := s.send(ctx, http.MethodPost, path, "", object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
	})
	if err != nil {
		return "", err
	}
	var request struct{ Status struct{ Token string } }
	err = json.Unmarshal(answer, &request)
	return request.Status.Token, err
}

// applyHeraldPod makes the Pod object that a token is bound to, which stands for
// a process in a host, and returns its UID. The token is good as long as the
// object exists.
func (s *Sandbox) applyHeraldPod(ctx context.Context, id identity) (uid string, err error) {
	spec := object{
		"serviceAccountName": id.account, "automountServiceAccountToken": false, "hostNetwork": true,
		"containers": []object{{"name": id.account, "image": "sandbox"}},
	}
	// The control plane's host is no Node.
	if nodeNumber(id.host) > 0 && strings.HasPrefix(id.host, "node") {
		spec["nodeName"] = id.host
	}
	path := podsURL(id.namespace) + "/" + id.pod
	answer, err := s.send(ctx, http.MethodPatch, path+"?fieldManager=herald-sandbox&force=true", ApplyPatch, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": id.pod}, "spec": spec,
	})
	if err != nil {
		return "", err
	}
	var pod struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal(answer, &pod); err != nil {
		return "", err
	}
	_, err = s.send(ctx, http.MethodPatch, path+"/status", MergePatch, object{"status": object{
		"phase": "Running", "conditions": []object{condition("Ready", true), condition("PodScheduled", true)},
	}})
	return pod.Metadata.UID, err
}

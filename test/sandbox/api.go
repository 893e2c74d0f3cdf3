package sandbox

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Content types of a PATCH to the API server.
const (
	MergePatch = "application/merge-patch+json"
	ApplyPatch = "application/apply-patch+yaml"
	plainJSON  = "application/json"
)

// APIError is an answer of the API server other than success.
type APIError struct {
	Code    int
	Message string
}

func (e *APIError) Error() string { return fmt.Sprintf("API server: %d: %s", e.Code, e.Message) }

// notFound tells whether the API server says that an object does not exist.
func notFound(err error) bool {
	var answer *APIError
	return errors.As(err, &answer) && answer.Code == http.StatusNotFound
}

// newAPIClient makes an HTTP client of the API server for the administrator.
func (s *Sandbox) newAPIClient() (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(s.pki("admin.crt"), s.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(s.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		ForceAttemptHTTP2: true,
	}}, nil
}

// API sends a request to the API server as its administrator: path is that of
// the URL, with its query; body is JSON, or nothing. For a PATCH the content
// type is one of MergePatch and ApplyPatch, otherwise "" will do. The answer is
// JSON. An answer other than 2xx is an *APIError.
func (s *Sandbox) API(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.apiURL()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType == "" {
		contentType = plainJSON
	}
	request.Header.Set("Content-Type", contentType)
	response, err := s.api.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return answer, &APIError{response.StatusCode, messageOf(answer)}
	}
	return answer, nil
}

// messageOf is the message of a Status object, or the text as it is.
func messageOf(answer []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(answer, &status) == nil && status.Message != "" {
		return status.Message
	}
	return strings.TrimSpace(string(answer))
}

// object is a Kubernetes object, or a part of one.
type object = map[string]any

// send sends an object.
func (s *Sandbox) send(ctx context.Context, method, path, contentType string, body object) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return s.API(ctx, method, path, contentType, data)
}

// apply creates or updates an object, by server-side apply.
func (s *Sandbox) apply(ctx context.Context, path string, body object) error {
	_, err := s.send(ctx, http.MethodPatch, path+"?fieldManager=herald-sandbox&force=true", ApplyPatch, body)
	return err
}

// Kubectl runs kubectl as the administrator and returns what it wrote to
// stdout; on failure the error holds what it wrote to stderr.
func (s *Sandbox) Kubectl(ctx context.Context, args ...string) (string, error) {
	return s.kubectl(ctx, "", args...)
}

// KubectlApply applies manifests in YAML or JSON.
func (s *Sandbox) KubectlApply(ctx context.Context, manifests string) error {
	_, err := s.kubectl(ctx, manifests, "apply", "-f", "-")
	return err
}

func (s *Sandbox) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.KubernetesProgram("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.Kubeconfig())
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// KubernetesProgram returns the path of kubectl, kube-proxy and so on.
func (s *Sandbox) KubernetesProgram(name string) string {
	return filepath.Join(s.state.KubernetesDir, name)
}

// apiURL is where the machine itself reaches the API server.
func (s *Sandbox) apiURL() string { return "https://" + s.state.API }

// lanURL is where hosts on the LAN reach the API server.
func lanURL() string {
	v4, _ := lanAddrs(controlPlane)
	return fmt.Sprintf("https://%s:%d", v4, apiServerPort)
}

// Kubeconfig returns the administrator's kubeconfig, for use outside the hosts.
func (s *Sandbox) Kubeconfig() string { return s.kubeconfigPath("admin") }

func (s *Sandbox) kubeconfigPath(name string) string {
	return filepath.Join(s.dir, "kubeconfig", name)
}

// writeKubeconfigs writes those of the users with a certificate.
func (s *Sandbox) writeKubeconfigs() error {
	for user, server := range map[string]string{
		"admin": s.apiURL(), "kube-controller-manager": lanURL(), "kube-proxy": lanURL(),
	} {
		credentials := object{"client-certificate": s.pki(user + ".crt"), "client-key": s.pki(user + ".key")}
		if err := s.writeKubeconfig(user, server, 0, credentials); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig writes a kubeconfig that only its owner can read, in JSON,
// which is YAML too.
func (s *Sandbox) writeKubeconfig(name, server string, owner int, credentials object) error {
	authority, err := os.ReadFile(s.pki("ca.crt"))
	if err != nil {
		return err
	}
	config := object{
		"apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
		"clusters": []object{{"name": "sandbox", "cluster": object{
			"server": server, "certificate-authority-data": base64.StdEncoding.EncodeToString(authority),
		}}},
		"users":    []object{{"name": name, "user": credentials}},
		"contexts": []object{{"name": "sandbox", "context": object{"cluster": "sandbox", "user": name}}},
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.kubeconfigPath(name), data, 0o600, owner)
}

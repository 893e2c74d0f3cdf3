package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The API server keeps an audit log of what Herald's ServiceAccounts ask of it,
// without the objects, so that tests can tell that nothing was refused.

// Request is a request of one of Herald's ServiceAccounts.
type Request struct {
	Time time.Time
	// Account is the ServiceAccount, Node the node that its token is bound to, Agent what the client calls itself.
	Account, Node, Agent string
	// Verb is that of RBAC: get, list, watch, create, update, patch, delete, deletecollection.
	Verb string
	// Subresource is "" for the object itself; Name may be "" where the API server makes it.
	Group, Resource, Subresource, Namespace, Name string
	// Message is what the API server answered.
	Message string
}

func (r Request) String() string {
	what := r.Resource
	if r.Subresource != "" {
		what += "/" + r.Subresource
	}
	if r.Group != "" {
		what += "." + r.Group
	}
	return fmt.Sprintf("%s %s (node %q, %s): %s %s %s/%s: %s", r.Time.Format(time.TimeOnly), r.Account, r.Node, r.Agent, r.Verb, what, r.Namespace, r.Name, r.Message)
}

// Refused lists the requests of Herald's ServiceAccounts after a point in time
// that the API server answered with 403: by RBAC, or by an admission policy.
func (s *Sandbox) Refused(after time.Time) ([]Request, error) {
	var refused []Request
	err := s.audit(func(line []byte) error {
		// Most lines are of what was allowed.
		if !bytes.Contains(line, []byte(`"code":403`)) {
			return nil
		}
		e, err := readEvent(line)
		if err == nil && e.ResponseStatus.Code == http.StatusForbidden && e.StageTimestamp.After(after) {
			refused = append(refused, e.request())
		}
		return err
	})
	return refused, err
}

// RefusedAlways lists what Refused does, from the beginning, but for what RBAC
// allowed the same account at another time: an API server that has just started
// has not read its roles yet, and refuses everybody.
func (s *Sandbox) RefusedAlways() ([]Request, error) {
	refused, err := s.Refused(time.Time{})
	if err != nil || !slices.ContainsFunc(refused, Request.byRBAC) {
		return refused, err
	}
	allowed := map[right]bool{}
	for _, r := range refused {
		allowed[r.right()] = false
	}
	err = s.audit(func(line []byte) error {
		e, err := readEvent(line)
		if err == nil && e.ResponseStatus.Code < http.StatusBadRequest {
			right := e.request().right()
			if _, asked := allowed[right]; asked {
				allowed[right] = true
			}
		}
		return err
	})
	return slices.DeleteFunc(refused, func(r Request) bool { return r.byRBAC() && allowed[r.right()] }), err
}

// audit gives each line of the audit log to use.
func (s *Sandbox) audit(use func(line []byte) error) error {
	logs, err := filepath.Glob(filepath.Join(s.dir, "log/audit*.json")) // older parts have a time in their name
	if err != nil {
		return err
	}
	for _, path := range logs {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed just now
		}
		if err != nil {
			return err
		}
		if err := errors.Join(eachLine(file, use), file.Close()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func eachLine(log io.Reader, use func(line []byte) error) error {
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what the API server is writing just now is read the next time
		}
		if err == nil {
			err = use(line)
		}
		if err != nil {
			return err
		}
	}
}

// right is what RBAC decides by.
type right struct{ account, verb, group, resource, subresource, namespace, name string }

// An informer lists by either verb. Herald's Roles tell its own namespace from
// the others, and of Secrets one from another.
func (r Request) right() right {
	verb, namespace, name := r.Verb, "", ""
	if verb == "watch" {
		verb = "list"
	}
	if r.Namespace == heraldNamespace {
		namespace = r.Namespace
	}
	if r.Resource == "secrets" {
		name = r.Name
	}
	return right{r.Account, verb, r.Group, r.Resource, r.Subresource, namespace, name}
}

// byRBAC reports whether RBAC refused the request, and not an admission policy.
func (r Request) byRBAC() bool { return strings.Contains(r.Message, "forbidden: User ") }

func readEvent(line []byte) (e auditEvent, err error) {
	err = json.Unmarshal(line, &e)
	return e, err
}

// auditEvent is what we read of audit.k8s.io/v1 Event.
type auditEvent struct {
	StageTimestamp time.Time
	Verb           string
	UserAgent      string
	User           struct {
		Username string
		Extra    map[string][]string
	}
	ObjectRef struct {
		APIGroup, Resource, Subresource, Namespace, Name string
	}
	ResponseStatus struct {
		Code    int
		Message string
	}
}

func (e *auditEvent) request() Request {
	r := Request{
		Time: e.StageTimestamp, Agent: e.UserAgent, Verb: e.Verb,
		Group: e.ObjectRef.APIGroup, Resource: e.ObjectRef.Resource, Subresource: e.ObjectRef.Subresource,
		Namespace: e.ObjectRef.Namespace, Name: e.ObjectRef.Name, Message: e.ResponseStatus.Message,
	}
	r.Account = strings.TrimPrefix(e.User.Username, "system:serviceaccount:"+heraldNamespace+":")
	if node := e.User.Extra["authentication.kubernetes.io/node-name"]; len(node) > 0 {
		r.Node = node[0]
	}
	return r
}

func (s *Sandbox) auditPolicyPath() string { return filepath.Join(s.dir, "audit-policy.json") }

func (s *Sandbox) auditLogPath() string { return filepath.Join(s.dir, "log/audit.json") }

// writeAuditPolicy has the API server log what Herald asks for when it is answered, and nothing else.
func (s *Sandbox) writeAuditPolicy() error {
	return writeJSON(s.auditPolicyPath(), object{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
		"omitStages": []string{"RequestReceived", "ResponseStarted"},
		"rules": []object{
			{"level": "Metadata", "userGroups": []string{"system:serviceaccounts:" + heraldNamespace}},
			{"level": "None"},
		},
	})
}

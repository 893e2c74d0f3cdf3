package client

import (
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// When etcd is restored from a backup, versions begin again at that of the backup. An API server takes a watch from a version
// that it has not come to yet, and tells nothing until it has come there: for hours, or for ever, an informer knows of nothing
// that changes. It would answer a list of at least that version with an error, upon which informers list anew. So after any
// sign that the API server was away a watch is preceded by such a list, of one object.
const (
	// fullWatch is how long a watch of an informer lasts at least when nothing ends it (client-go asks for 5 to 10 min).
	fullWatch = 4 * time.Minute
	// maxRefusal bounds what is read of an answer to find out what it says.
	maxRefusal = 64 << 10
)

// SurviveRestores has the informers of config's clients list anew when etcd has been restored from a backup. It costs a
// request for each informer after each outage of the API server, and none otherwise.
func SurviveRestores(config *rest.Config) {
	config.Wrap(func(base http.RoundTripper) http.RoundTripper {
		return &doubter{base: base, sure: map[string]time.Time{}}
	})
}

// doubter is a transport that asks before it watches, if the API server was away.
type doubter struct {
	base http.RoundTripper

	mu sync.Mutex
	// away is when the API server was last seen to be away, sure is since when each watch is known to begin at a version that
	// there is.
	away time.Time
	sure map[string]time.Time
}

// RoundTrip implements http.RoundTripper.
func (d *doubter) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	watches := request.Method == http.MethodGet && query.Get("watch") == "true"
	if watches && query.Get("sendInitialEvents") == "" && d.doubts(query, request.URL.Path) {
		if refusal, err := d.ask(request, query); err != nil || refusal != nil {
			return refusal, err
		}
	}
	start := time.Now()
	response, err := d.base.RoundTrip(request)
	if err != nil || response.StatusCode >= http.StatusInternalServerError {
		d.doubt(start)
		return response, err
	}
	if watches {
		response.Body = &stream{ReadCloser: response.Body, ended: func() {
			if time.Since(start) < fullWatch {
				d.doubt(time.Now())
			}
		}}
	}
	return response, nil
}

func (d *doubter) doubt(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.After(d.away) {
		d.away = at
	}
}

// name tells one watch from the others.
func name(query url.Values, path string) string {
	return path + "?" + query.Get("fieldSelector") + "&" + query.Get("labelSelector")
}

func (d *doubter) doubts(query url.Values, path string) bool {
	if version := query.Get("resourceVersion"); version == "" || version == "0" {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.away.IsZero() && !d.sure[name(query, path)].After(d.away)
}

// ask asks for a list of at least the version that the watch is to begin at. It returns the answer if that is no list, as there
// is no such version yet, and nil if the watch may begin.
func (d *doubter) ask(request *http.Request, query url.Values) (refusal *http.Response, err error) {
	start, list := time.Now(), url.Values{}
	for _, key := range []string{"resourceVersion", "fieldSelector", "labelSelector"} {
		if query.Has(key) {
			list.Set(key, query.Get(key))
		}
	}
	list.Set("resourceVersionMatch", string(metav1.ResourceVersionMatchNotOlderThan))
	list.Set("limit", "1")
	asking := request.Clone(request.Context())
	asking.URL.RawQuery = list.Encode()
	response, err := d.base.RoundTrip(asking)
	if err != nil {
		d.doubt(start)
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		// A version that is too large is a timeout (504). Anything else, as the 403 of an API server that has not read its
		// roles yet, leaves it open: the informer hears of it and lists anew.
		d.doubt(start)
		return response, nil
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxRefusal)) // so that the connection can be used again
	_ = response.Body.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sure[name(query, request.URL.Path)] = time.Now()
	return nil, nil
}

// stream tells when what is read has ended, but not when nobody wants to read on.
type stream struct {
	io.ReadCloser
	once  sync.Once
	ended func()
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.once.Do(s.ended)
	}
	return n, err
}

func (s *stream) Close() error {
	s.once.Do(func() {})
	return s.ReadCloser.Close()
}

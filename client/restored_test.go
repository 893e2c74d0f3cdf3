package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// script is an API server that has come to a version, or is away.
type script struct {
	version string
	away    bool
	deaf    bool // it has not read its roles yet
	asked   []string
	streams []*io.PipeWriter
}

func (s *script) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	s.asked = append(s.asked, request.URL.Path+"?"+request.URL.RawQuery)
	if s.away {
		return nil, errors.New("connection refused")
	}
	answer := func(code int, body any) *http.Response {
		text, _ := json.Marshal(body) //nolint:errchkjson // a value of the test
		return &http.Response{StatusCode: code, Body: io.NopCloser(bytes.NewReader(text))}
	}
	switch {
	case s.deaf && query.Get("watch") == "":
		return answer(http.StatusForbidden, metav1.Status{}), nil
	case query.Get("watch") == "true":
		reader, writer := io.Pipe()
		s.streams = append(s.streams, writer)
		return &http.Response{StatusCode: http.StatusOK, Body: reader}, nil
	case query.Get("resourceVersionMatch") == "NotOlderThan" && query.Get("resourceVersion") > s.version:
		err := apierrors.NewTimeoutError("Too large resource version", 1)
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
		return answer(http.StatusGatewayTimeout, err.Status()), nil
	}
	return answer(http.StatusOK, metav1.List{}), nil
}

// get makes a request, reads on as an informer does if it is a watch, and returns the status, 0 for an error.
func get(t *testing.T, transport http.RoundTripper, query string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://api/api/v1/services?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request) //nolint:bodyclose // it is closed by who reads it
	if err != nil {
		return 0
	}
	go func() {
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}()
	return response.StatusCode
}

const watching = "watch=true&labelSelector=a%3Db&resourceVersion="

func TestAWatchAfterAnOutageIsPrecededByAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &script{version: "100"}
		d := &doubter{base: api, sure: map[string]time.Time{}}
		want := func(what string, status int, query string, requests ...string) {
			t.Helper()
			api.asked = nil
			if got := get(t, d, query); got != status {
				t.Errorf("%s: status %d, want %d", what, got, status)
			}
			for i, r := range requests {
				requests[i] = "/api/v1/services?" + r
			}
			if !slices.Equal(api.asked, requests) {
				t.Errorf("%s: requests\n  %s\nwant\n  %s", what, strings.Join(api.asked, "\n  "), strings.Join(requests, "\n  "))
			}
			time.Sleep(time.Second)
		}
		question := func(version string) string {
			return "labelSelector=a%3Db&limit=1&resourceVersion=" + version + "&resourceVersionMatch=NotOlderThan"
		}
		want("the first watch", 200, watching+"100", watching+"100")
		want("another one", 200, watching+"100", watching+"100")
		api.away = true
		want("it is away", 0, "x=y", "x=y")
		want("still", 0, watching+"100", question("100"))
		api.away = false
		api.deaf = true
		want("it is back, and refuses everybody", http.StatusForbidden, watching+"100", question("100"))
		api.deaf = false
		want("it is back", 200, watching+"100", question("100"), watching+"100")
		want("and stays", 200, watching+"100", watching+"100")
		want("another object", 200, "watch=true&resourceVersion=099", "limit=1&resourceVersion=099&resourceVersionMatch=NotOlderThan", "watch=true&resourceVersion=099")

		api.version = "050"
		_ = api.streams[len(api.streams)-1].Close() // before its time
		time.Sleep(time.Second)
		want("restored", http.StatusGatewayTimeout, watching+"100", question("100"))
		want("and asked again", http.StatusGatewayTimeout, watching+"100", question("100"))
		want("a list is no watch", 200, "resourceVersion=", "resourceVersion=")
		want("from the version that there is", 200, watching+"050", question("050"), watching+"050")
		want("initial events", 200, watching+"100&sendInitialEvents=true", watching+"100&sendInitialEvents=true")

		time.Sleep(fullWatch)
		for _, s := range api.streams {
			_ = s.Close() // in time
		}
		time.Sleep(time.Second)
		want("after a watch that ended in time", 200, watching+"050", watching+"050")
		for _, s := range api.streams {
			_ = s.Close()
		}
	})
}

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
)

// storeTraffic asks MinIO how many requests it has had and how many bytes came
// with them. It keeps its answer for a second or so, which we wait for where
// figures count.
func (r *rig) storeTraffic(ctx context.Context) (requests, received int64, err error) {
	time.Sleep(time.Duration(r.size(2000, 0)) * time.Millisecond)
	text, err := get(ctx, r.s3.Endpoint+"/minio/metrics/v3/api/requests")
	if err != nil {
		return 0, 0, fmt.Errorf("ask MinIO for its traffic: %w", err)
	}
	return int64(sumMetric(text, "minio_api_requests_total")), int64(sumMetric(text, "minio_api_requests_traffic_received_bytes")), nil
}

// objects is how many there are below the lake's bucket.
func (r *rig) objects(ctx context.Context) (int, error) {
	n := 0
	for o := range r.s3.Client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			return 0, fmt.Errorf("list objects: %w", o.Err)
		}
		n++
	}
	return n, nil
}

// sumMetric adds up the samples of a metric, over all labels, in Prometheus'
// text form.
func sumMetric(text, name string) float64 {
	sum := 0.0
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		f := strings.Fields(rest[strings.LastIndexByte(rest, '}')+1:])
		if len(f) > 0 {
			v, _ := strconv.ParseFloat(f[0], 64)
			sum += v
		}
	}
	return sum
}

func get(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return string(b), err
}

// slowStore is a store's address at which every request takes longer.
type slowStore struct {
	endpoint string
	delay    atomic.Int64 // nanoseconds, before a request goes on
	requests atomic.Int64
	server   *http.Server
}

// newSlowStore serves endpoint's requests until close.
func newSlowStore(endpoint string) (*slowStore, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("read the store's address: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen before the store: %w", err)
	}
	s := &slowStore{endpoint: "http://" + l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		// The name in Host is part of what was signed: it goes on as it came.
		Rewrite:   func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = target.Scheme, target.Host },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.requests.Add(1)
		time.Sleep(time.Duration(s.delay.Load()))
		proxy.ServeHTTP(w, req)
	})}
	go func() { _ = s.server.Serve(l) }() // ends by close
	return s, nil
}

func (s *slowStore) close() { _ = s.server.Close() }

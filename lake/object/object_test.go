package object_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
	"firn/lake/object"
)

func TestFolder(t *testing.T) {
	laketest.TestStore(t, func(t *testing.T) object.Store {
		s, err := object.Open(t.Context(), filepath.Join(t.TempDir(), "lake"), object.Options{})
		require.NoError(t, err)
		return s
	})
}

func TestMemory(t *testing.T) {
	laketest.TestStore(t, func(*testing.T) object.Store { return laketest.NewMemoryStore() })
}

func TestFaultStoreWithoutFaults(t *testing.T) {
	laketest.TestStore(t, func(*testing.T) object.Store { return laketest.NewFaultStore(laketest.NewMemoryStore()) })
}

func TestFaultStore(t *testing.T) {
	ctx := t.Context()
	f := laketest.NewFaultStore(laketest.NewMemoryStore())
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Key: "log/", Skip: 1, Times: 1, Before: laketest.ErrSlowDown})
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Key: "lost", Times: 1, After: laketest.ErrLost})
	f.Inject(laketest.Fault{Op: laketest.OpGet, Key: "slow", Hang: true})
	require.NoError(t, f.PutIfAbsent(ctx, "log/1", nil))
	require.NoError(t, f.PutIfAbsent(ctx, "other", nil))
	require.ErrorIs(t, f.PutIfAbsent(ctx, "log/2", nil), laketest.ErrSlowDown)
	require.NoError(t, f.PutIfAbsent(ctx, "log/2", nil), "nothing was written before")
	require.ErrorIs(t, f.PutIfAbsent(ctx, "lost", []byte("x")), laketest.ErrLost)
	require.ErrorIs(t, f.PutIfAbsent(ctx, "lost", nil), fs.ErrExist, "it had its effect")
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err := f.Get(short, "slow")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, laketest.Call{Op: laketest.OpPutIfAbsent, Key: "log/1"}, f.Calls()[0])
	require.Len(t, f.Calls(), 7)

	f.Clear()
	f.Crash(2, true)
	require.NoError(t, f.PutIfAbsent(ctx, "c1", nil))
	require.ErrorIs(t, f.PutIfAbsent(ctx, "c2", nil), laketest.ErrCrashed)
	require.ErrorIs(t, f.PutIfAbsent(ctx, "c3", nil), laketest.ErrCrashed)
	f.Clear()
	keys, err := f.Keys(ctx, "c", "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"c1", "c2"}, keys)
}

// minioStore opens a fresh prefix of a real bucket, through endpoint.
func minioStore(t *testing.T, m *laketest.MinIOServer, endpoint string) object.Store {
	t.Helper()
	s, err := object.Open(t.Context(), "s3://"+m.Bucket(t)+"/some/shop", object.Options{
		Endpoint: endpoint, AccessKeyID: m.AccessKey, SecretAccessKey: m.SecretKey, Region: m.Region,
	})
	require.NoError(t, err)
	return s
}

func TestS3(t *testing.T) {
	m := laketest.MinIO(t)
	laketest.TestStore(t, func(t *testing.T) object.Store { return minioStore(t, m, m.Endpoint) })
}

// faultyServer passes requests on to MinIO unless script answers them.
func faultyServer(t *testing.T, m *laketest.MinIOServer, script func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	target, err := url.Parse(m.Endpoint)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !script(w, r) {
			proxy.ServeHTTP(w, r) // the Host header stays, so the signature holds
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func s3Error(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<Error><Code>" + code + "</Code><Message>injected</Message></Error>"))
	return true
}

func cut(w http.ResponseWriter) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		panic(err)
	}
	return true
}

func TestS3RetriesTransientErrors(t *testing.T) {
	m := laketest.MinIO(t)
	var mu sync.Mutex
	seen := map[string]int{}
	s := minioStore(t, m, faultyServer(t, m, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/x") {
			return false
		}
		mu.Lock()
		seen[r.Method]++
		n := seen[r.Method]
		mu.Unlock()
		switch n {
		case 1:
			return s3Error(w, http.StatusServiceUnavailable, "SlowDown")
		case 2:
			return cut(w)
		case 3:
			return s3Error(w, http.StatusInternalServerError, "InternalError")
		case 4:
			if r.Method == http.MethodGet { // a body that breaks off
				w.Header().Set("Content-Length", "7")
				w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				w.Header().Set("ETag", `"e"`)
				_, _ = w.Write([]byte("con"))
				return true
			}
		}
		return false
	}))
	require.NoError(t, s.Put(t.Context(), "x", strings.NewReader("content"), 7))
	data, err := s.Get(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, "content", string(data))
	require.NoError(t, s.Delete(t.Context(), "x"))
	require.Equal(t, map[string]int{"PUT": 4, "GET": 5, "DELETE": 4}, seen)
}

// A 409 means that two conditional writes met: try again (PROTOCOL.md rule 8).
// A 503 or a lost answer goes to the caller, who reads the number.
func TestRule08ConditionalPutOverS3(t *testing.T) {
	m := laketest.MinIO(t)
	puts := 0
	var answer func(w http.ResponseWriter, r *http.Request) bool
	s := minioStore(t, m, faultyServer(t, m, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		puts++
		return answer(w, r)
	}))
	answer = func(w http.ResponseWriter, r *http.Request) bool {
		return puts <= 2 && s3Error(w, http.StatusConflict, "ConditionalRequestConflict")
	}
	require.NoError(t, s.PutIfAbsent(t.Context(), "a", []byte("1")))
	require.Equal(t, 3, puts)

	puts, answer = 0, func(w http.ResponseWriter, r *http.Request) bool {
		return s3Error(w, http.StatusServiceUnavailable, "SlowDown")
	}
	err := s.PutIfAbsent(t.Context(), "b", []byte("1"))
	require.Error(t, err)
	require.NotErrorIs(t, err, fs.ErrExist)
	require.Equal(t, 1, puts, "no hidden second try")

	target, err := url.Parse(m.Endpoint)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	answer = func(w http.ResponseWriter, r *http.Request) bool {
		proxy.ServeHTTP(httptest.NewRecorder(), r)
		return cut(w)
	}
	err = s.PutIfAbsent(t.Context(), "c", []byte("lost"))
	require.Error(t, err)
	require.NotErrorIs(t, err, fs.ErrExist)
	data, err := s.Get(t.Context(), "c")
	require.NoError(t, err)
	require.Equal(t, "lost", string(data), "it had its effect")
}

// unconditional is a store that doesn't know If-None-Match.
type unconditional struct {
	object.Store
	refuse bool // but answers as if it did
}

func (u unconditional) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	_, err := u.Head(ctx, key)
	if putErr := u.Put(ctx, key, bytes.NewReader(body), int64(len(body))); putErr != nil || err != nil || !u.refuse {
		return putErr
	}
	return fs.ErrExist
}

func TestRule10StoreWithoutConditions(t *testing.T) {
	memory := laketest.NewMemoryStore()
	require.ErrorIs(t, object.Probe(t.Context(), unconditional{Store: memory}), object.ErrUnconditional)
	require.ErrorIs(t, object.Probe(t.Context(), unconditional{Store: memory, refuse: true}), object.ErrUnconditional)
}

func TestRule10StoreThatSaysSo(t *testing.T) {
	m := laketest.MinIO(t)
	s := minioStore(t, m, faultyServer(t, m, func(w http.ResponseWriter, r *http.Request) bool {
		return r.Header.Get("If-None-Match") != "" && s3Error(w, http.StatusNotImplemented, "NotImplemented")
	}))
	require.ErrorIs(t, object.Probe(t.Context(), s), object.ErrUnconditional)
}

// scrambled is a store whose listings can't be relied on.
type scrambled struct {
	object.Store
	keys func([]string) []string
}

func (s scrambled) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	keys, err := s.Store.Keys(ctx, prefix, after, limit)
	return s.keys(keys), err
}

func TestRule10Listings(t *testing.T) {
	memory := laketest.NewMemoryStore()
	late := scrambled{memory, func(k []string) []string { return k[:len(k)-1] }}
	require.ErrorIs(t, object.Probe(t.Context(), late), object.ErrUnordered)
	unordered := scrambled{memory, func(k []string) []string { k[0], k[1] = k[1], k[0]; return k }}
	require.ErrorIs(t, object.Probe(t.Context(), unordered), object.ErrUnordered)
	keys, err := memory.Keys(t.Context(), "", "", 0)
	require.NoError(t, err)
	require.Empty(t, keys, "a failed probe cleans up too")
}

func TestOpenRefusals(t *testing.T) {
	ctx := t.Context()
	for _, bad := range []string{"gs://x/y", "s3://", "https://x/y"} {
		_, err := object.Open(ctx, bad, object.Options{})
		require.ErrorContains(t, err, "want s3://bucket/prefix", bad)
	}
	_, err := object.Open(ctx, filepath.Join(t.TempDir(), "no", "such"), object.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = object.Open(ctx, filepath.Join(t.TempDir(), "50%"), object.Options{})
	require.ErrorContains(t, err, "must not hold")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = object.Open(ctx, file, object.Options{})
	require.ErrorContains(t, err, "it is a file")

	_, err = object.Open(ctx, "s3://lake/p", object.Options{Endpoint: "ftp://x", AccessKeyID: "a", SecretAccessKey: "b"})
	require.ErrorContains(t, err, "want http://host:port")
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_SECRET_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	_, err = object.Open(ctx, "s3://lake/p", object.Options{Endpoint: "http://127.0.0.1:9"})
	require.ErrorIs(t, err, object.ErrNoCredentials)
	_, err = object.Open(ctx, "s3://lake/p", object.Options{Endpoint: "http://127.0.0.1:9", AccessKeyID: "a", SecretAccessKey: "b"})
	require.ErrorIs(t, err, object.ErrUnreachable)
}

func TestOpenS3Refusals(t *testing.T) {
	m := laketest.MinIO(t)
	o := object.Options{Endpoint: m.Endpoint, AccessKeyID: m.AccessKey, SecretAccessKey: m.SecretKey, Region: m.Region}
	_, err := object.Open(t.Context(), "s3://no-such-bucket/p", o)
	require.ErrorIs(t, err, object.ErrNoBucket)
	require.NotErrorIs(t, err, fs.ErrNotExist, "a missing bucket is no empty warehouse")
	bucket := m.Bucket(t)
	wrong := o
	wrong.SecretAccessKey = "wrong-secret"
	_, err = object.Open(t.Context(), "s3://"+bucket, wrong)
	require.ErrorIs(t, err, fs.ErrPermission)
	wrong.AccessKeyID = "nobody"
	_, err = object.Open(t.Context(), "s3://"+bucket, wrong)
	require.ErrorIs(t, err, fs.ErrPermission)

	t.Setenv("AWS_ACCESS_KEY_ID", m.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", m.SecretKey)
	t.Setenv("AWS_ENDPOINT_URL_S3", m.Endpoint)
	s, err := object.Open(t.Context(), "s3://"+bucket, object.Options{})
	require.NoError(t, err, "the environment is enough, and so is a bucket without prefix")
	require.NoError(t, s.PutIfAbsent(t.Context(), "x", nil))
	require.True(t, errors.Is(s.PutIfAbsent(t.Context(), "x", nil), fs.ErrExist))
	require.Equal(t, "s3://"+bucket+"/x", s.URI("x"))
}

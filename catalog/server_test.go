package catalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/stretchr/testify/require"

	"firn/lake/object"
)

// restStore is what a test server runs on: the log's store and the objects'.
type restStore interface {
	Store
	ObjectStore
}

// restMemory is a store in memory.
type restMemory struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func newRestMemory() *restMemory { return &restMemory{objects: map[string][]byte{}} }

func (m *restMemory) Put(_ context.Context, key string, body io.ReadSeeker, _ int64) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = data
	return nil
}

func (m *restMemory) PutIfAbsent(_ context.Context, key string, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.objects[key]; taken {
		return fs.ErrExist
	}
	m.objects[key] = slices.Clone(body)
	return nil
}

func (m *restMemory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.objects[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m *restMemory) Keys(_ context.Context, prefix, startAfter string, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.objects {
		if strings.HasPrefix(k, prefix) && k > startAfter {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if limit > 0 && len(keys) > limit {
		keys = keys[:limit]
	}
	return keys, nil
}

func (m *restMemory) URI(key string) string { return "mem://lake/" + key }

func (m *restMemory) Key(uri string) (string, bool) {
	key, ok := strings.CutPrefix(uri, "mem://lake/")
	return key, ok && fs.ValidPath(key)
}

// restServer is a catalog server under test.
type restServer struct {
	t     *testing.T
	store restStore
	log   *Log
	http  *httptest.Server
	token string
}

func newRestServer(t *testing.T, store restStore, o ServerOptions) *restServer {
	t.Helper()
	if store == nil {
		store = newRestMemory()
	}
	log, err := OpenLog(t.Context(), store, LogOptions{})
	require.NoError(t, err)
	if o.Warehouse == "" {
		o.Warehouse = "shop"
	}
	if o.Config == nil {
		o.Config = map[string]string{"client.region": "us-east-1"}
	}
	srv := httptest.NewServer(NewServer(log, store, o))
	t.Cleanup(srv.Close)
	return &restServer{t: t, store: store, log: log, http: srv, token: o.Token}
}

func newRestFolder(t *testing.T) restStore {
	t.Helper()
	st, err := object.Open(t.Context(), t.TempDir(), object.Options{})
	require.NoError(t, err)
	return st
}

// client is iceberg-go's own REST client.
func (s *restServer) client() *rest.Catalog {
	s.t.Helper()
	return s.clientOf("shop")
}

func (s *restServer) clientOf(warehouse string) *rest.Catalog {
	s.t.Helper()
	opts := []rest.Option{rest.WithWarehouseLocation(warehouse)}
	if s.token != "" {
		opts = append(opts, rest.WithOAuthToken(s.token))
	}
	c, err := rest.NewCatalog(s.t.Context(), "firn", s.http.URL, opts...)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, c.Close()) })
	return c
}

// answer is a response taken apart.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, json.Unmarshal(a.Body, &out), "%s", a.Body)
	return out
}

// errorType is the ErrorModel's type, after the model is checked.
func (a answer) errorType(t *testing.T) string {
	t.Helper()
	var out struct {
		Error struct {
			Message, Type string
			Code          int
		}
	}
	require.NoError(t, json.Unmarshal(a.Body, &out), "%s", a.Body)
	require.Equal(t, a.Status, out.Error.Code)
	require.NotEmpty(t, out.Error.Message)
	return out.Error.Type
}

func (a answer) message(t *testing.T) string {
	t.Helper()
	a.errorType(t)
	return a.json(t)["error"].(map[string]any)["message"].(string)
}

// do sends a request; body is JSON text, a value to marshal, or nil. headers
// are name, value pairs.
func (s *restServer) do(method, path string, body any, headers ...string) answer {
	s.t.Helper()
	var data []byte
	switch b := body.(type) {
	case nil:
	case string:
		data = []byte(b)
	case []byte:
		data = b
	default:
		var err error
		data, err = json.Marshal(b)
		require.NoError(s.t, err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.http.URL+path, bytes.NewReader(data))
	require.NoError(s.t, err)
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return answer{resp.StatusCode, resp.Header, out}
}

// ok sends a request that must succeed.
func (s *restServer) ok(method, path string, body any, headers ...string) answer {
	s.t.Helper()
	a := s.do(method, path, body, headers...)
	require.Less(s.t, a.Status, 300, "%s %s: %s", method, path, a.Body)
	return a
}

const restSchema = `{"type":"struct","schema-id":0,"fields":[
	{"id":7,"name":"id","type":"long","required":true},{"id":8,"name":"name","type":"string","required":false}]}`

// makeTable creates namespace a where it is missing, and table a.<name>.
func (s *restServer) makeTable(name string) answer {
	s.t.Helper()
	s.do("POST", "/v1/namespaces", `{"namespace":["a"]}`)
	return s.ok("POST", "/v1/namespaces/a/tables", fmt.Sprintf(`{"name":%q,"schema":%s}`, name, restSchema))
}

func (s *restServer) metadata(path string) map[string]any {
	s.t.Helper()
	return s.ok("GET", path, nil).json(s.t)["metadata"].(map[string]any)
}

// restSnapshot is a commit's part that adds a snapshot to a branch.
func restSnapshot(id, parent int64, seq int, ms int64, op string, summary map[string]string, branch string) []map[string]any {
	sum := map[string]string{"operation": op}
	for k, v := range summary {
		sum[k] = v
	}
	sn := map[string]any{"snapshot-id": id, "sequence-number": seq, "timestamp-ms": ms,
		"manifest-list": fmt.Sprintf("mem://lake/a/t/metadata/snap-%d.avro", id), "summary": sum, "schema-id": 0}
	if parent != 0 {
		sn["parent-snapshot-id"] = parent
	}
	out := []map[string]any{{"action": "add-snapshot", "snapshot": sn}}
	if branch != "" {
		out = append(out, map[string]any{"action": "set-snapshot-ref", "ref-name": branch, "type": "branch", "snapshot-id": id})
	}
	return out
}

func restCommit(updates ...map[string]any) map[string]any {
	return map[string]any{"requirements": []any{}, "updates": updates}
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	require.NoError(t, err)
	out, err := io.ReadAll(z)
	require.NoError(t, err)
	return out
}

var restIcebergSchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
	iceberg.NestedField{ID: 2, Name: "name", Type: iceberg.PrimitiveTypes.String},
)

package catalog

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

func newRestRequest(t *testing.T, method, path string) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), method, path, nil)
}

// restFuzzBase is a small catalog that each fuzz input starts from.
var restFuzzBase = sync.OnceValue(func() map[string][]byte {
	store := newRestMemory()
	h := restFuzzServer(store)
	for _, r := range [][2]string{
		{"/v1/namespaces", `{"namespace":["a"]}`},
		{"/v1/namespaces", `{"namespace":["a","b"]}`},
		{"/v1/namespaces/a/tables", `{"name":"t","schema":` + restSchema + `}`},
		{"/v1/namespaces/a/tables", `{"name":"m","schema":` + restSchema + `}`},
		{"/v1/namespaces/a/tables", `{"name":"v3","properties":{"format-version":"3"},"schema":` + restSchema + `}`},
		{"/v1/namespaces/a/views", restFuzzView},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", r[0], strings.NewReader(r[1])))
		if w.Code != 200 {
			panic(w.Body.String())
		}
	}
	log, err := OpenLog(context.Background(), store, LogOptions{})
	if err != nil {
		panic(err)
	}
	if _, err := log.Commit(context.Background(), func(next *State) error {
		id := Ident{[]string{"a"}, "m"}
		t, _ := next.Table(id)
		t.Mirror = &Mirror{OID: 1, State: Streaming}
		next.PutTable(id, t)
		return nil
	}); err != nil {
		panic(err)
	}
	return store.objects
})

const restFuzzView = `{"name":"w","schema":{"type":"struct","schema-id":0,"fields":[{"id":1,"name":"id","type":"long","required":false}]},
	"view-version":{"version-id":1,"timestamp-ms":1,"schema-id":0,"summary":{},"default-namespace":["a"],
	"representations":[{"type":"sql","sql":"select 1","dialect":"duckdb"}]},"properties":{}}`

func restFuzzServer(store *restMemory) http.Handler {
	log, err := OpenLog(context.Background(), store, LogOptions{})
	if err != nil {
		panic(err)
	}
	return NewServer(log, store, ServerOptions{Warehouse: "shop", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// restFuzz sends one request to a fresh catalog. Whatever it holds, the answer
// is a success or a refusal in the specification's model, and the catalog can
// still be read.
func restFuzz(t *testing.T, method, path, query string, body []byte) {
	store := newRestMemory()
	store.objects = maps.Clone(restFuzzBase())
	h := restFuzzServer(store)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", strings.NewReader(string(body)))
	r.Method = method
	u, err := url.ParseRequestURI(path)
	if err != nil {
		t.Skip("net/http refuses it before we see it")
	}
	r.URL = u
	r.URL.RawQuery = query
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code >= 500 {
		t.Fatalf("%s %s?%s: %d %s", method, path, query, w.Code, w.Body)
	}
	if w.Code >= 400 && method != http.MethodHead {
		var model struct {
			Error *struct {
				Message, Type string
				Code          int
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &model); err != nil || model.Error == nil || model.Error.Code != w.Code || model.Error.Type == "" {
			t.Fatalf("%d without the error model: %s", w.Code, w.Body)
		}
	}
	for _, name := range []string{"m", "t"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/namespaces/a/tables/"+name, nil))
		gone := w.Code == 404 && name == "t" // it may have been dropped or renamed
		if w.Code != 200 && !gone {
			t.Fatalf("after %s %s %s: table %s: %d %s", method, path, body, name, w.Code, w.Body)
		}
	}
}

func FuzzRestPath(f *testing.F) {
	for _, rt := range routes {
		path := "/v1/" + rt.shape
		path = strings.Replace(path, "*", "a", 1)
		f.Add(rt.method, strings.Replace(path, "*", "t", 1), "")
	}
	f.Add("GET", "/v1/namespaces/a%1Fb/tables/%2e%2e%2f", "pageToken=&pageSize=1")
	f.Add("GET", "/v1/namespaces/%", "parent=a%1Fb")
	f.Add("GET", "/v1/namespaces//tables//", "snapshots=refs&%")
	f.Add("GET", "/v1/config", "warehouse=shop%40latest")
	f.Add("GET", "/v1/entry-0-x/namespaces", "")
	f.Add("DELETE", "/v1/entry-18446744073709551615-/namespaces/a/tables/t", "")
	f.Fuzz(func(t *testing.T, method, path, query string) {
		restFuzz(t, method, path, query, []byte(`{"namespace":["x"],"name":"x"}`))
	})
}

// restFuzzPaths are the operations that take a body, each with one that works.
var restFuzzPaths = []struct{ path, body string }{
	{"/v1/namespaces", `{"namespace":["c"],"properties":{"k":"v"}}`},
	{"/v1/namespaces/a/properties", `{"removals":["x"],"updates":{"k":"v"}}`},
	{"/v1/namespaces/a/tables", `{"name":"n","location":"mem://lake/x","schema":` + restSchema + `,"partition-spec":{"fields":[{"source-id":7,"name":"b","transform":"bucket[4]"}]},"write-order":{"order-id":1,"fields":[{"source-id":8,"transform":"identity","direction":"asc","null-order":"nulls-first"}]},"stage-create":false,"properties":{"format-version":"3"}}`},
	{"/v1/namespaces/a/tables/t", `{"requirements":[{"type":"assert-ref-snapshot-id","ref":"main","snapshot-id":null}],"updates":[{"action":"add-snapshot","snapshot":{"snapshot-id":1,"sequence-number":1,"timestamp-ms":4102444800000,"manifest-list":"mem://lake/l.avro","summary":{"operation":"append"},"schema-id":0}},{"action":"set-snapshot-ref","ref-name":"main","type":"branch","snapshot-id":1}]}`},
	{"/v1/namespaces/a/tables/m", `{"requirements":[],"updates":[{"action":"add-schema","schema":` + restSchema + `},{"action":"set-current-schema","schema-id":-1}]}`},
	{"/v1/namespaces/a/tables/v3", `{"requirements":[],"updates":[{"action":"add-snapshot","snapshot":{"snapshot-id":1,"sequence-number":1,"timestamp-ms":4102444800000,"manifest-list":"mem://lake/l.avro","summary":{"operation":"append"},"schema-id":0,"first-row-id":0,"added-rows":3}},{"action":"set-snapshot-ref","ref-name":"main","type":"branch","snapshot-id":1}]}`},
	{"/v1/namespaces/a/tables/new", `{"requirements":[{"type":"assert-create"}],"updates":[{"action":"assign-uuid","uuid":"11111111-1111-1111-1111-111111111111"},{"action":"upgrade-format-version","format-version":2},{"action":"add-schema","schema":` + restSchema + `},{"action":"set-current-schema","schema-id":-1},{"action":"add-spec","spec":{"spec-id":0,"fields":[]}},{"action":"set-default-spec","spec-id":-1},{"action":"add-sort-order","sort-order":{"order-id":0,"fields":[]}},{"action":"set-default-sort-order","sort-order-id":-1},{"action":"set-location","location":"mem://lake/new"},{"action":"set-properties","updates":{"a":"b"}}]}`},
	{"/v1/namespaces/a/tables/t", `{"requirements":[],"updates":[{"action":"remove-properties","removals":["x"]},{"action":"set-statistics","snapshot-id":1,"statistics":{"snapshot-id":1,"statistics-path":"x","file-size-in-bytes":1,"file-footer-size-in-bytes":1,"blob-metadata":[]}},{"action":"remove-snapshots","snapshot-ids":[1]},{"action":"remove-schemas","schema-ids":[1]},{"action":"remove-partition-specs","spec-ids":[1]},{"action":"add-sort-order","sort-order":{"order-id":1,"fields":[{"source-id":1,"transform":"identity","direction":"asc","null-order":"nulls-first"}]}}]}`},
	{"/v1/namespaces/a/tables/t/metrics", `{"report-type":"scan-report"}`},
	{"/v1/namespaces/a/register", `{"name":"r","metadata-location":"mem://lake/a/x.metadata.json","overwrite":true}`},
	{"/v1/tables/rename", `{"source":{"namespace":["a"],"name":"t"},"destination":{"namespace":["a","b"],"name":"u"}}`},
	{"/v1/transactions/commit", `{"table-changes":[{"identifier":{"namespace":["a"],"name":"t"},"requirements":[],"updates":[{"action":"set-properties","updates":{"a":"b"}}]},{"identifier":{"namespace":["a"],"name":"v3"},"requirements":[],"updates":[]}]}`},
	{"/v1/namespaces/a/views", strings.Replace(restFuzzView, `"w"`, `"x"`, 1)},
	{"/v1/namespaces/a/views/w", `{"requirements":[{"type":"assert-view-uuid","uuid":"11111111-1111-1111-1111-111111111111"}],"updates":[{"action":"set-properties","updates":{"a":"b"}}]}`},
	{"/v1/namespaces/a/views/w", `{"requirements":[],"updates":[{"action":"add-view-version","view-version":{"version-id":2,"timestamp-ms":2,"schema-id":0,"summary":{},"default-namespace":["a"],"representations":[{"type":"sql","sql":"select 2","dialect":"duckdb"}]}},{"action":"set-current-view-version","view-version-id":-1}]}`},
	{"/v1/views/rename", `{"source":{"namespace":["a"],"name":"w"},"destination":{"namespace":["a"],"name":"x"}}`},
	{"/v1/oauth/tokens", `grant_type=client_credentials`},
}

func FuzzRestBody(f *testing.F) {
	for i, p := range restFuzzPaths {
		f.Add(uint8(i), []byte(p.body))
	}
	f.Add(uint8(2), []byte(`{"name":"n","schema":{"type":"struct","fields":[{"id":1,"name":"l","type":{"type":"list","element-id":2,"element":{"type":"map","key-id":3,"key":"string","value-id":4,"value":{"type":"struct","fields":[]},"value-required":true},"element-required":false},"required":false,"initial-default":1}],"identifier-field-ids":[9]}}`))
	f.Add(uint8(3), []byte(`{"updates":[{"action":"add-snapshot","snapshot":null}]}`))
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		p := restFuzzPaths[int(which)%len(restFuzzPaths)]
		restFuzz(t, http.MethodPost, p.path, "", body)
	})
}

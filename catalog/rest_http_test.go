package catalog

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRestConfig(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{Config: map[string]string{"client.region": "eu-1", "s3.endpoint": "http://x"}})
	for _, warehouse := range []string{"", "?warehouse=", "?warehouse=shop", "?warehouse=mem%3A%2F%2Flake%2F"} {
		got := s.ok("GET", "/v1/config"+warehouse, nil).json(t)
		require.Equal(t, map[string]any{"client.region": "eu-1", "s3.endpoint": "http://x"}, got["defaults"])
		require.Equal(t, map[string]any{}, got["overrides"])
		require.Equal(t, "PT60M", got["idempotency-key-lifetime"])
		list := got["endpoints"].([]any)
		for _, want := range []string{
			"POST /v1/{prefix}/namespaces/{namespace}/tables",
			"HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
			"POST /v1/{prefix}/transactions/commit",
			"POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
		} {
			require.Contains(t, list, want)
		}
		require.Len(t, list, 23)
	}
	// A name that asks for another lake, or for a moment that this one has not
	// reached, must not be answered by this one's present.
	for _, warehouse := range []string{"other", "shop%4016%2FB374D848", "Shop"} {
		a := s.do("GET", "/v1/config?warehouse="+warehouse, nil)
		require.Equal(t, 404, a.Status)
		require.Equal(t, "NoSuchWarehouseException", a.errorType(t))
	}
}

func TestRestErrors(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("t")
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	cases := []struct {
		method, path, body string
		status             int
		kind               string
	}{
		{"GET", "/", "", 404, "NoSuchEndpointException"},
		{"GET", "/v2/config", "", 404, "NoSuchEndpointException"},
		{"GET", "/v1/nothing", "", 404, "NoSuchEndpointException"},
		{"GET", "/v1/namespaces/", "", 400, "BadRequestException"},
		{"GET", "/v1/namespaces/a/tables/t/plan", "", 404, "NoSuchEndpointException"},
		{"PUT", "/v1/namespaces", "", 405, "UnsupportedOperationException"},
		{"GET", "/v1/namespaces/no", "", 404, "NoSuchNamespaceException"},
		{"GET", "/v1/namespaces/no/tables", "", 404, "NoSuchNamespaceException"},
		{"GET", "/v1/namespaces?parent=no", "", 404, "NoSuchNamespaceException"},
		{"GET", "/v1/namespaces/a/tables/no", "", 404, "NoSuchTableException"},
		{"GET", "/v1/namespaces/no/tables/no", "", 404, "NoSuchTableException"},
		{"GET", "/v1/namespaces/a/tables/t?snapshots=some", "", 400, "BadRequestException"},
		{"GET", "/v1/namespaces/a/views/t", "", 404, "NoSuchViewException"},
		{"DELETE", "/v1/namespaces/a", "", 409, "NamespaceNotEmptyException"},
		{"DELETE", "/v1/namespaces/a/tables/no", "", 404, "NoSuchTableException"},
		{"DELETE", "/v1/namespaces/a/tables/t?purgeRequested=maybe", "", 400, "BadRequestException"},
		{"POST", "/v1/namespaces", "", 400, "BadRequestException"},
		{"POST", "/v1/namespaces", "{", 400, "BadRequestException"},
		{"POST", "/v1/namespaces", "[]", 400, "BadRequestException"},
		{"POST", "/v1/namespaces", "{} {}", 400, "BadRequestException"},
		{"POST", "/v1/namespaces", deep, 400, "BadRequestException"},
		{"POST", "/v1/namespaces", `{"namespace":[]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces", `{"namespace":[""]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces", `{"namespace":["x\u001fy"]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces", `{"namespace":["a"]}`, 409, "AlreadyExistsException"},
		{"POST", "/v1/namespaces", `{"namespace":["no","x"]}`, 404, "NoSuchNamespaceException"},
		{"POST", "/v1/namespaces/a/properties", `{"removals":["k"],"updates":{"k":"v"}}`, 422, "UnprocessableEntityException"},
		{"POST", "/v1/namespaces/no/properties", `{"removals":["k"]}`, 404, "NoSuchNamespaceException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"x"}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"x","schema":{"type":"struct","fields":[{"id":1}]}}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"","schema":` + restSchema + `}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"t","schema":` + restSchema + `}`, 409, "AlreadyExistsException"},
		{"POST", "/v1/namespaces/no/tables", `{"name":"t","schema":` + restSchema + `}`, 404, "NoSuchNamespaceException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"x","location":"s3://else/where","schema":` + restSchema + `}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"x","location":"mem://lake/a/../../etc","schema":` + restSchema + `}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"x","location":"mem://lake/_firn/log","schema":` + restSchema + `}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables", `{"name":"x","properties":{"format-version":"9"},"schema":` + restSchema + `}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/register", `{"name":"x","metadata-location":"file:///etc/passwd"}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/register", `{"name":"x","metadata-location":"mem://lake/a/no.metadata.json"}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables/no", `{"requirements":[],"updates":[]}`, 404, "NoSuchTableException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[{"type":"assert-create"}],"updates":[]}`, 409, "CommitFailedException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[{"type":"assert-current-schema-id","current-schema-id":9}],"updates":[]}`, 409, "CommitFailedException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[{"type":"assert-moon"}],"updates":[]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[],"updates":[{"action":"dance"}]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[],"updates":[{"action":"set-current-schema","schema-id":9}]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[],"updates":[{"action":"assign-uuid","uuid":"11111111-1111-1111-1111-111111111111"}]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"requirements":[],"updates":[{"action":"set-location","location":"s3://else"}]}`, 400, "BadRequestException"},
		{"POST", "/v1/namespaces/a/tables/t", `{"identifier":{"namespace":["a"],"name":"u"},"updates":[]}`, 400, "BadRequestException"},
		{"POST", "/v1/transactions/commit", `{"table-changes":[]}`, 400, "BadRequestException"},
		{"POST", "/v1/transactions/commit", `{"table-changes":[null]}`, 400, "BadRequestException"},
		{"POST", "/v1/transactions/commit", `{"table-changes":[{"identifier":{"namespace":["a"],"name":"t"}},{"identifier":{"namespace":["a"],"name":"t"}}]}`, 400, "BadRequestException"},
		{"POST", "/v1/tables/rename", `{"source":{"namespace":["a"],"name":"t"}}`, 400, "BadRequestException"},
		{"POST", "/v1/tables/rename", `{"source":{"namespace":["a"],"name":"no"},"destination":{"namespace":["a"],"name":"x"}}`, 404, "NoSuchTableException"},
		{"POST", "/v1/tables/rename", `{"source":{"namespace":["a"],"name":"t"},"destination":{"namespace":["no"],"name":"x"}}`, 404, "NoSuchNamespaceException"},
		{"POST", "/v1/tables/rename", `{"source":{"namespace":["a"],"name":"t"},"destination":{"namespace":["a"],"name":"t"}}`, 409, "AlreadyExistsException"},
		{"POST", "/v1/namespaces/a/tables/t/metrics", `{}`, 400, "BadRequestException"},
		{"POST", "/v1/oauth/tokens", `grant_type=client_credentials`, 404, "NoSuchEndpointException"},
	}
	for _, c := range cases {
		a := s.do(c.method, c.path, c.body)
		name := c.method + " " + c.path + " " + c.body[:min(len(c.body), 80)]
		require.Equal(t, c.status, a.Status, "%s: %s", name, a.Body)
		require.Equal(t, c.kind, a.errorType(t), name)
	}
	require.Equal(t, 204, s.do("POST", "/v1/namespaces/a/tables/t/metrics", `{"report-type":"scan-report"}`).Status)
}

func TestRestHead(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("t")
	for path, want := range map[string]int{
		"/v1/namespaces/a": 204, "/v1/namespaces/b": 404, "/v1/namespaces/a/tables/t": 204, "/v1/namespaces/a/tables/u": 404,
		"/v1/namespaces/a/views/t": 404, "/v1/namespaces/a/tables": 405,
	} {
		a := s.do("HEAD", path, nil)
		require.Equal(t, want, a.Status, path)
		require.Empty(t, a.Body)
	}
}

func TestRestNames(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.ok("POST", "/v1/namespaces", `{"namespace":["Order Desk"]}`)
	s.ok("POST", "/v1/namespaces", `{"namespace":["Order Desk","a/b"],"properties":{"k":"v"}}`)
	s.ok("POST", "/v1/namespaces", `{"namespace":["c+d"]}`)
	const deep = "/v1/namespaces/Order%20Desk%1Fa%2Fb"
	got := s.ok("GET", deep, nil).json(t)
	require.Equal(t, []any{"Order Desk", "a/b"}, got["namespace"])
	require.Equal(t, map[string]any{"k": "v"}, got["properties"])

	// Java writes a space as a plus.
	require.Equal(t, []any{"Order Desk"}, s.ok("GET", "/v1/namespaces/Order+Desk", nil).json(t)["namespace"])
	require.Equal(t, []any{"c+d"}, s.ok("GET", "/v1/namespaces/c+d", nil).json(t)["namespace"])
	require.Equal(t, []any{"c+d"}, s.ok("GET", "/v1/namespaces/c%2Bd", nil).json(t)["namespace"])

	s.ok("POST", deep+"/tables", fmt.Sprintf(`{"name":"über %%/..","schema":%s}`, restSchema))
	s.ok("GET", deep+"/tables/%C3%BCber%20%25%2F..", nil)
	s.ok("GET", deep+"/tables/%C3%BCber+%25%2F..", nil)
	where := s.ok("GET", deep+"/tables/%C3%BCber%20%25%2F..", nil).json(t)["metadata-location"]
	require.Regexp(t, `^mem://lake/Order_Desk/a_b/t_ber___\.\.-[0-9a-f]{12}/metadata/00000-`, where)

	require.Equal(t, []any{[]any{"Order Desk"}, []any{"c+d"}}, s.ok("GET", "/v1/namespaces", nil).json(t)["namespaces"])
	require.Equal(t, []any{[]any{"Order Desk", "a/b"}}, s.ok("GET", "/v1/namespaces?parent=Order%20Desk", nil).json(t)["namespaces"])
	require.Equal(t, "NamespaceNotEmptyException", s.do("DELETE", "/v1/namespaces/Order%20Desk", nil).errorType(t))
}

func TestRestNamespaceProperties(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.ok("POST", "/v1/namespaces", `{"namespace":["a"],"properties":{"x":"1"}}`)
	got := s.ok("POST", "/v1/namespaces/a/properties", `{"removals":["x","y"],"updates":{"z":"2"}}`).json(t)
	require.Equal(t, map[string]any{"updated": []any{"z"}, "removed": []any{"x"}, "missing": []any{"y"}}, got)
	require.Equal(t, map[string]any{"z": "2"}, s.ok("GET", "/v1/namespaces/a", nil).json(t)["properties"])
	s.ok("POST", "/v1/namespaces/a/properties", `{"updates":{"location":"mem://lake/elsewhere"}}`)
	where := s.makeTable("t").json(t)["metadata-location"]
	require.Regexp(t, `^mem://lake/elsewhere/t-`, where)
}

func TestRestETag(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	created := s.makeTable("t")
	const path = "/v1/namespaces/a/tables/t"
	a := s.ok("GET", path, nil)
	tag := a.Header.Get("ETag")
	require.NotEmpty(t, tag)
	require.Equal(t, tag, created.Header.Get("ETag"))
	same := s.do("GET", path, nil, "If-None-Match", tag)
	require.Equal(t, 304, same.Status)
	require.Empty(t, same.Body)
	require.Equal(t, 304, s.do("GET", path, nil, "If-None-Match", `"x", `+tag).Status)
	require.Equal(t, 200, s.do("GET", path, nil, "If-None-Match", `"x"`).Status)
	require.Equal(t, 200, s.do("GET", path+"?snapshots=refs", nil, "If-None-Match", tag).Status)
	s.ok("POST", path, restCommit(map[string]any{"action": "set-properties", "updates": map[string]string{"a": "b"}}))
	require.Equal(t, 200, s.do("GET", path, nil, "If-None-Match", tag).Status)
}

func TestRestSnapshotsOfRefsOnly(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("t")
	const path = "/v1/namespaces/a/tables/t"
	ms := int64(s.metadata(path)["last-updated-ms"].(float64))
	for i := range 3 {
		n := int64(i + 1)
		s.ok("POST", path, restCommit(restSnapshot(n, n-1, i+1, ms+n, "append", nil, "main")...))
	}
	require.Len(t, s.metadata(path)["snapshots"], 3)
	refs := s.metadata(path + "?snapshots=refs")
	require.Len(t, refs["snapshots"], 1)
	require.Len(t, refs["snapshot-log"], 3)
	require.EqualValues(t, 3, refs["current-snapshot-id"])
}

func TestRestGzip(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write([]byte(`{"namespace":["a"]}`))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	s.ok("POST", "/v1/namespaces", z.Bytes(), "Content-Encoding", "gzip")
	require.Equal(t, 400, s.do("POST", "/v1/namespaces", "{}", "Content-Encoding", "gzip").Status)
	require.Equal(t, 415, s.do("POST", "/v1/namespaces", "{}", "Content-Encoding", "br").Status)

	s.ok("POST", "/v1/namespaces/a/properties", map[string]any{"updates": map[string]string{"k": strings.Repeat("long ", gzipBytesMin)}})
	plain := s.ok("GET", "/v1/namespaces/a", nil)
	require.Empty(t, plain.Header.Get("Content-Encoding"))
	for accept, zipped := range map[string]bool{"gzip": true, "br, gzip;q=0.5": true, "gzip;q=0": false, "br": false, "*": true} {
		a := s.ok("GET", "/v1/namespaces/a", nil, "Accept-Encoding", accept)
		if zipped {
			require.Equal(t, "gzip", a.Header.Get("Content-Encoding"), accept)
			a.Body = gunzip(t, a.Body)
		}
		require.Equal(t, plain.Body, a.Body, accept)
	}
}

func TestRestBodyLimit(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	big := `{"namespace":["a"],"properties":{"k":"` + strings.Repeat("x", requestBytesMax) + `"}}`
	require.Equal(t, 413, s.do("POST", "/v1/namespaces", big).Status)
	var z bytes.Buffer // a bomb: small until it is opened
	w := gzip.NewWriter(&z)
	_, err := w.Write([]byte(big))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, 413, s.do("POST", "/v1/namespaces", z.Bytes(), "Content-Encoding", "gzip").Status)
}

func TestRestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(" s3cret\n"), 0o600))
	token, err := ReadToken(file)
	require.NoError(t, err)
	require.Equal(t, "s3cret", token)
	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	_, err = ReadToken(file)
	require.ErrorContains(t, err, "is empty")

	s := newRestServer(t, nil, ServerOptions{Token: token})
	s.ok("GET", "/v1/config", nil)
	s.client()
	for _, given := range []string{"", "Bearer", "Bearer no", "Basic s3cret", "Bearer s3cret2", "s3cret"} {
		a := s.do("GET", "/v1/config", nil, "Authorization", given)
		require.Equal(t, 401, a.Status, given)
		require.Equal(t, "NotAuthorizedException", a.errorType(t))
		require.NotEmpty(t, a.Header.Get("WWW-Authenticate"))
	}
	require.Equal(t, 200, s.do("GET", "/v1/config", nil, "Authorization", "bearer  s3cret").Status)

	form := func(body string, headers ...string) answer {
		return s.do("POST", "/v1/oauth/tokens", body, append(headers, "Content-Type", "application/x-www-form-urlencoded", "Authorization", "")...)
	}
	a := form("grant_type=client_credentials&client_id=x&client_secret=s3cret&scope=PRINCIPAL_ROLE:ALL")
	require.Equal(t, 200, a.Status)
	require.Equal(t, "s3cret", a.json(t)["access_token"])
	require.Equal(t, "bearer", a.json(t)["token_type"])
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.http.URL+"/v1/oauth/tokens", strings.NewReader("grant_type=client_credentials"))
	require.NoError(t, err)
	req.SetBasicAuth("id", "s3cret")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	for body, want := range map[string]string{
		"grant_type=client_credentials&client_secret=no": "invalid_client",
		"grant_type=password":                            "unsupported_grant_type",
		"%":                                              "invalid_request",
	} {
		var out map[string]string
		a := form(body)
		require.GreaterOrEqual(t, a.Status, 400)
		require.NoError(t, json.Unmarshal(a.Body, &out))
		require.Equal(t, want, out["error"])
	}
}

func TestRestIdempotency(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("t")
	const key = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
	create := fmt.Sprintf(`{"name":"once","schema":%s}`, restSchema)
	first := s.ok("POST", "/v1/namespaces/a/tables", create, "Idempotency-Key", key)
	entry := s.log.Head().Number
	again := s.ok("POST", "/v1/namespaces/a/tables", create, "Idempotency-Key", key)
	require.Equal(t, string(first.Body), string(again.Body))
	require.Equal(t, entry, s.log.Head().Number)
	// A server that was started since knows it too.
	other := newRestServer(t, s.store, ServerOptions{})
	require.Equal(t, string(first.Body), string(other.ok("POST", "/v1/namespaces/a/tables", create, "Idempotency-Key", key).Body))
	require.Equal(t, "UnprocessableEntityException", s.do("POST", "/v1/namespaces", `{"namespace":["b"]}`, "Idempotency-Key", key).errorType(t))
	require.Equal(t, "AlreadyExistsException", s.do("POST", "/v1/namespaces/a/tables", create, "Idempotency-Key", key+"0").errorType(t))
	require.Equal(t, 400, s.do("POST", "/v1/namespaces", `{"namespace":["b"]}`, "Idempotency-Key", "a b").Status)

	for range 2 {
		require.Equal(t, 204, s.do("DELETE", "/v1/namespaces/a/tables/once", nil, "Idempotency-Key", "drop").Status)
		require.JSONEq(t, `{"updated":["k"],"removed":[],"missing":["m"]}`,
			string(s.ok("POST", "/v1/namespaces/a/properties", `{"updates":{"k":"v"},"removals":["m"]}`, "Idempotency-Key", "props").Body))
	}
}

func TestRestLocations(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.ok("POST", "/v1/namespaces", `{"namespace":["a"]}`)
	create := func(name, location string) answer {
		return s.do("POST", "/v1/namespaces/a/tables", fmt.Sprintf(`{"name":%q,"location":%q,"schema":%s}`, name, location, restSchema))
	}
	a := create("t", "mem://lake/my/place/")
	require.Equal(t, 200, a.Status)
	require.Equal(t, "mem://lake/my/place", a.json(t)["metadata"].(map[string]any)["location"])
	for _, taken := range []string{"mem://lake/my/place", "mem://lake/my", "mem://lake/my/place/in"} {
		require.Equal(t, "AlreadyExistsException", create("u", taken).errorType(t), taken)
	}
	require.Equal(t, 200, create("u", "mem://lake/my/place2").Status)

	meta := s.ok("GET", "/v1/namespaces/a/tables/t", nil).json(t)["metadata-location"]
	register := fmt.Sprintf(`{"name":"copy","metadata-location":%q}`, meta)
	require.Equal(t, "AlreadyExistsException", s.do("POST", "/v1/namespaces/a/register", register).errorType(t), "the table lives")
	s.ok("DELETE", "/v1/namespaces/a/tables/t", nil)
	s.ok("POST", "/v1/namespaces/a/register", register)
	s.ok("POST", "/v1/namespaces/a/register", fmt.Sprintf(`{"name":"copy","metadata-location":%q,"overwrite":true}`, meta))
	require.Equal(t, "AlreadyExistsException", s.do("POST", "/v1/namespaces/a/register", register).errorType(t))
}

func TestRestCreateWithSpecAndOrder(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.ok("POST", "/v1/namespaces", `{"namespace":["a"]}`)
	meta := s.ok("POST", "/v1/namespaces/a/tables", `{"name":"t","schema":`+restSchema+`,
		"partition-spec":{"fields":[{"source-id":7,"name":"b","transform":"bucket[4]"}]},
		"write-order":{"order-id":1,"fields":[{"source-id":8,"transform":"identity","direction":"asc","null-order":"nulls-first"}]},
		"properties":{"format-version":"3","k":"v"}}`).json(t)["metadata"].(map[string]any)
	require.EqualValues(t, 3, meta["format-version"])
	require.Equal(t, map[string]any{"k": "v"}, meta["properties"])
	spec := meta["partition-specs"].([]any)[0].(map[string]any)["fields"].([]any)[0].(map[string]any)
	require.EqualValues(t, 1, spec["source-id"], "field ids are assigned anew")
	order := meta["sort-orders"].([]any)[0].(map[string]any)["fields"].([]any)[0].(map[string]any)
	require.EqualValues(t, 2, order["source-id"])
}

// A staged create that sends only what it must gets the defaults for the rest.
func TestRestStagedCreateDefaults(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.ok("POST", "/v1/namespaces", `{"namespace":["a"]}`)
	staged := s.ok("POST", "/v1/namespaces/a/tables", `{"name":"t","stage-create":true,"schema":`+restSchema+`}`).json(t)
	require.NotContains(t, staged, "metadata-location")
	require.Equal(t, 404, s.do("GET", "/v1/namespaces/a/tables/t", nil).Status)
	body := `{"identifier":{"namespace":["a"],"name":"t"},"requirements":[{"type":"assert-create"}],"updates":[
		{"action":"add-schema","schema":` + restSchema + `},{"action":"set-current-schema","schema-id":-1}]}`
	s.ok("POST", "/v1/transactions/commit", `{"table-changes":[`+body+`]}`)
	meta := s.metadata("/v1/namespaces/a/tables/t")
	require.NotEmpty(t, meta["table-uuid"])
	require.Regexp(t, `^mem://lake/a/t-`, meta["location"])
	require.Equal(t, "CommitFailedException", s.do("POST", "/v1/namespaces/a/tables/t", body).errorType(t))
}

package catalog

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

// restPin is a server with three epochs of two tables and a view: epoch n has
// n snapshots in each table, ids n and 10+n; a.t has a column more from epoch
// 2 on, and a.late and namespace b are there from epoch 3 on.
type restPin struct {
	*restMirror
	kept []Kept
}

func newRestPin(t *testing.T) *restPin {
	t.Helper()
	m := &restMirror{restServer: newRestServer(t, nil, ServerOptions{})}
	p := &restPin{restMirror: m}
	m.makeTable("t")
	m.makeTable("u")
	m.ok("POST", "/v1/namespaces/a/views", restFuzzView)
	m.ms = int64(m.metadata("/v1/namespaces/a/tables/u")["last-updated-ms"].(float64))
	for n := int64(1); n <= 3; n++ {
		for name, id := range map[string]int64{"t": n, "u": 10 + n} {
			parent := int64(0)
			if n > 1 {
				parent = id - 1
			}
			m.ms++
			m.ok("POST", "/v1/namespaces/a/tables/"+name, restCommit(restSnapshot(id, parent, int(n), m.ms, "append", nil, "main")...))
		}
		p.kept = append(p.kept, m.keep())
		switch n {
		case 1:
			fields := strings.TrimSuffix(restSchema, "]}") + `,{"id":9,"name":"more","type":"string","required":false}]}`
			m.ok("POST", restMirrorPath, `{"requirements":[],"updates":[{"action":"add-schema","schema":`+fields+`},{"action":"set-current-schema","schema-id":-1}]}`)
		case 2:
			m.makeTable("late")
			m.ok("POST", "/v1/namespaces", `{"namespace":["b"]}`)
			m.ok("POST", "/v1/namespaces/a/properties", `{"updates":{"k":"v"}}`)
			m.ok("DELETE", "/v1/namespaces/a/views/w", nil)
		}
	}
	return p
}

// attach asks for the configuration as a client does, and returns the path
// that its requests begin with.
func (p *restPin) attach(warehouse string) string {
	p.t.Helper()
	return "/v1/" + p.overrides(warehouse)["prefix"].(string)
}

func (p *restPin) overrides(warehouse string) map[string]any {
	p.t.Helper()
	return p.ok("GET", "/v1/config?warehouse="+url.QueryEscape(warehouse), nil).json(p.t)["overrides"].(map[string]any)
}

// shows checks that everything under a path is of one epoch.
func (p *restPin) shows(base string, epoch int64) {
	p.t.Helper()
	current := func(name string) map[string]any { return p.metadata(base + "/namespaces/a/tables/" + name) }
	t, u := current("t"), current("u")
	require.EqualValues(p.t, epoch, t["current-snapshot-id"])
	require.EqualValues(p.t, 10+epoch, u["current-snapshot-id"])
	require.Len(p.t, t["snapshots"], int(epoch))
	schemaID := 0
	if epoch > 1 {
		schemaID = 1
	}
	require.EqualValues(p.t, schemaID, t["current-schema-id"])
	require.Len(p.t, t["schemas"], schemaID+1)
	tables, namespaces, views, late := 2, 1, 1, 404
	if epoch == 3 {
		tables, namespaces, views, late = 3, 2, 0, 204
	}
	require.Len(p.t, p.ok("GET", base+"/namespaces/a/tables", nil).json(p.t)["identifiers"], tables)
	require.Len(p.t, p.ok("GET", base+"/namespaces", nil).json(p.t)["namespaces"], namespaces)
	require.Len(p.t, p.ok("GET", base+"/namespaces/a/views", nil).json(p.t)["identifiers"], views)
	require.Equal(p.t, late, p.do("HEAD", base+"/namespaces/a/tables/late", nil).Status)
	require.Equal(p.t, late, p.do("HEAD", base+"/namespaces/b", nil).Status)
	properties := p.ok("GET", base+"/namespaces/a", nil).json(p.t)["properties"]
	require.Equal(p.t, epoch == 3, properties.(map[string]any)["k"] == "v")
	view := http.StatusOK
	if epoch == 3 {
		view = http.StatusNotFound
	}
	require.Equal(p.t, view, p.do("GET", base+"/namespaces/a/views/w", nil).Status)
}

func TestPinnedWarehouse(t *testing.T) {
	p := newRestPin(t)
	_, err := p.log.Tag(t.Context(), "second", Moment{LSN: p.kept[1].LSN})
	require.NoError(t, err)
	cases := []struct {
		warehouse string
		epoch     int64
	}{
		{"shop@0/64", 1},
		{"shop@0/C7", 1},
		{"shop@0/C8", 2},
		{"shop@" + p.kept[0].Time.Format(time.RFC3339), 1},
		{"shop@" + p.kept[1].Time.Add(300*time.Millisecond).Format(time.RFC3339Nano), 2},
		{"shop@" + p.kept[0].Time.In(time.FixedZone("", 3600)).Format(time.RFC3339), 1},
		{"shop@second", 2},
		{"shop@latest", 3},
		{"@0/64", 1},
		{"mem://lake@second", 2},
		{"mem://lake/@second", 2},
	}
	paths := map[string]int64{}
	for _, c := range cases {
		base := p.attach(c.warehouse)
		require.Regexp(t, `^/v1/entry-[0-9]+-[0-9a-f-]{36}$`, base, "no engine escapes these")
		p.shows(base, c.epoch)
		paths[base] = c.epoch
	}
	// A plus that nobody escaped.
	offset := p.kept[0].Time.In(time.FixedZone("", 3600)).Format(time.RFC3339)
	require.Contains(t, offset, "+01:00")
	raw := p.ok("GET", "/v1/config?warehouse=shop@"+offset, nil).json(t)["overrides"].(map[string]any)
	require.Equal(t, p.overrides("shop@0/64"), raw)
	require.Equal(t, map[string]any{"prefix": raw["prefix"], "firn.epoch": "1", "firn.lsn": "0/64", "firn.commit-time": "1970-01-01T00:00:01Z"}, raw)

	// What was pinned stays so when the present goes on, other servers too.
	p.ms++
	p.ok("POST", restMirrorPath, restCommit(restSnapshot(4, 3, 4, p.ms, "append", nil, "main")...))
	p.ok("DELETE", "/v1/namespaces/a/tables/u", nil)
	p.keep()
	other := &restPin{restMirror: &restMirror{restServer: newRestServer(t, p.store, ServerOptions{})}}
	for base, epoch := range paths {
		p.shows(base, epoch)
		other.shows(base, epoch)
	}
	require.NotEqual(t, p.attach("shop@latest"), p.attach("shop@0/12C"))
	require.Equal(t, p.attach("shop@latest"), other.attach("shop@latest"))
	require.EqualValues(t, 4, p.metadata(restMirrorPath)["current-snapshot-id"], "who pins nothing sees the present")
	require.Equal(t, 404, p.do("GET", "/v1/namespaces/a/tables/u", nil).Status)
}

// TestPinnedSinceATagMoved: a name that was deleted and given again, by
// another process, is not answered from what this one remembers.
func TestPinnedSinceATagMoved(t *testing.T) {
	p := newRestPin(t)
	other, err := OpenLog(t.Context(), p.store, LogOptions{})
	require.NoError(t, err)
	for _, k := range p.kept {
		_, err := other.Tag(t.Context(), "moving", Moment{LSN: k.LSN})
		require.NoError(t, err)
		require.Equal(t, k.LSN.String(), p.overrides("shop@moving")["firn.lsn"])
		_, err = other.Untag(t.Context(), "moving")
		require.NoError(t, err)
	}
	require.Equal(t, 404, p.do("GET", "/v1/config?warehouse=shop@moving", nil).Status)
}

func TestPinnedRefusals(t *testing.T) {
	p := newRestPin(t)
	for _, c := range []struct {
		warehouse, kind, says string
		status                int
	}{
		{"other@0/64", "NoSuchWarehouseException", "this is \"shop\"", 404},
		{"shop@0/63", "NoSuchWarehouseException", "the oldest kept epoch is 0/64", 404},
		{"shop@FF/0", "NoSuchWarehouseException", "the lake is at 0/12C and FF/0 was asked for", 404},
		{"shop@1969-01-01T00:00:00Z", "NoSuchWarehouseException", "the oldest kept epoch", 404},
		{"shop@nothing", "NoSuchWarehouseException", `there is no tag "nothing"`, 404},
		{"shop@2026-11-23", "NoSuchWarehouseException", "a time such as 2026-11-23T02:00:00Z", 404},
		{"shop@", "BadRequestException", "it is empty", 400},
		{"shop@@0/64", "NoSuchWarehouseException", "no warehouse", 404},
	} {
		a := p.do("GET", "/v1/config?warehouse="+url.QueryEscape(c.warehouse), nil)
		require.Equal(t, c.status, a.Status, c.warehouse)
		require.Equal(t, c.kind, a.errorType(t), c.warehouse)
		require.Contains(t, a.message(t), c.says)
	}
	empty := newRestServer(t, nil, ServerOptions{})
	require.Equal(t, 404, empty.do("GET", "/v1/config?warehouse=shop@latest", nil).Status)

	base := p.attach("shop@0/64")
	before := p.log.Head().Number
	commit := restCommit(map[string]any{"action": "set-properties", "updates": map[string]string{"a": "b"}})
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"POST", "/namespaces", `{"namespace":["x"]}`},
		{"DELETE", "/namespaces/a", nil},
		{"POST", "/namespaces/a/properties", `{"updates":{"k":"v"}}`},
		{"POST", "/namespaces/a/tables", `{"name":"x","schema":` + restSchema + `}`},
		{"POST", "/namespaces/a/tables", `{"name":"x","stage-create":true,"schema":` + restSchema + `}`},
		{"POST", "/namespaces/a/tables/t", commit},
		{"POST", "/namespaces/a/tables/nothing", commit},
		{"DELETE", "/namespaces/a/tables/t?purgeRequested=true", nil},
		{"POST", "/namespaces/a/register", `{"name":"x","metadata-location":"mem://lake/x.json"}`},
		{"POST", "/tables/rename", `{"source":{"namespace":["a"],"name":"t"},"destination":{"namespace":["a"],"name":"x"}}`},
		{"POST", "/transactions/commit", `{"table-changes":[]}`},
		{"POST", "/namespaces/a/views", restFuzzView},
		{"POST", "/namespaces/a/views/w", `{}`},
		{"DELETE", "/namespaces/a/views/w", nil},
		{"POST", "/views/rename", `{}`},
	} {
		a := p.do(c.method, base+c.path, c.body)
		require.Equal(t, 403, a.Status, "%s %s: %s", c.method, c.path, a.Body)
		require.Equal(t, "ForbiddenException", a.errorType(t))
		require.Contains(t, a.message(t), `pinned to epoch 1 at 0/64 and can only be read; to change something, attach it as "shop"`)
	}
	require.Equal(t, before, p.log.Head().Number, "nothing was written")
	require.Equal(t, 204, p.do("POST", base+"/namespaces/a/tables/t/metrics", `{"report-type":"scan-report"}`).Status)

	// Every operation that changes something is among those refused.
	for _, rt := range routes {
		if rt.spec != "" && rt.method != "GET" && rt.method != "HEAD" {
			require.Equal(t, strings.HasSuffix(rt.shape, "/metrics"), rt.reads(), "%s %s", rt.method, rt.shape)
		}
	}
	head := p.log.Head()
	for path, want := range map[string]int{
		base + "/config":                 404,
		base + "/oauth/tokens":           405,
		base:                             404,
		base + "/namespaces/no/tables":   404,
		base + "/namespaces/a/tables/no": 404,
		"/v1/entry-/namespaces":          404,
		"/v1/entry-x-y/namespaces":       404,
		"/v1/entry-1/namespaces":         404,
		"/v1/shop/namespaces":            404,
		fmt.Sprintf("/v1/entry-%d-%s/namespaces", head.Number, head.Previous):   410,
		fmt.Sprintf("/v1/entry-%d-%s/namespaces", head.Number+1, head.CommitID): 410,
	} {
		a := p.do("GET", path, nil)
		require.Equal(t, want, a.Status, "%s: %s", path, a.Body)
		a.errorType(t)
	}
}

// TestPinnedToken: a prefix opens nothing.
func TestPinnedToken(t *testing.T) {
	store := newRestMemory()
	s := newRestServer(t, store, ServerOptions{Token: "secret"})
	s.makeTable("t")
	st := s.log.Head()
	base := "/v1/" + pinPrefix(st)
	s.ok("GET", base+"/namespaces/a/tables/t", nil)
	s.token = ""
	require.Equal(t, 401, s.do("GET", base+"/namespaces/a/tables/t", nil).Status)
	require.Equal(t, 401, s.do("GET", "/v1/config?warehouse=shop@latest", nil).Status)
}

// TestPinnedETag: one metadata file has one tag, wherever it is read; the next
// one has another, under the same path.
func TestPinnedETag(t *testing.T) {
	p := newRestPin(t)
	first, latest := p.attach("shop@0/64"), p.attach("shop@latest")
	get := func(base, etag string) answer {
		return p.do("GET", base+"/namespaces/a/tables/t", nil, "If-None-Match", etag)
	}
	old, now := get(first, "").Header.Get("ETag"), get("/v1", "").Header.Get("ETag")
	require.NotEqual(t, old, now)
	require.Equal(t, now, get(latest, "").Header.Get("ETag"))
	require.Equal(t, 304, get(first, old).Status)
	require.Equal(t, 200, get(first, now).Status)
	require.Equal(t, 200, get("/v1", old).Status)
	require.Equal(t, 304, get(latest, now).Status)
	require.NotEqual(t, old, p.do("GET", first+"/namespaces/a/tables/t?snapshots=refs", nil).Header.Get("ETag"))
}

// TestPinnedThenThinned: what has gone from the store is said to be gone, and
// never answered by the present.
func TestPinnedThenThinned(t *testing.T) {
	p := newRestPin(t)
	base, store := p.attach("shop@0/64"), p.store.(*restMemory)
	st, err := p.log.AsOf(t.Context(), Moment{LSN: 100})
	require.NoError(t, err)
	tbl, _ := st.Table(restMirrorIdent)
	drop := func(key string) {
		store.mu.Lock()
		defer store.mu.Unlock()
		delete(store.objects, key)
	}
	drop(strings.TrimPrefix(tbl.Metadata, "mem://lake/"))
	anew := newRestServer(t, p.store, ServerOptions{})
	a := anew.do("GET", base+"/namespaces/a/tables/t", nil)
	require.Equal(t, 410, a.Status, "%s", a.Body)
	require.Contains(t, a.message(t), "no longer keeps the epoch")
	anew.ok("GET", base+"/namespaces/a/tables/u", nil)

	drop(entryKey(st.Number))
	anew = newRestServer(t, p.store, ServerOptions{})
	require.Equal(t, 410, anew.do("GET", base+"/namespaces/a/tables/u", nil).Status)
	require.Equal(t, 410, anew.do("HEAD", base+"/namespaces/a/tables/u", nil).Status)
	a = anew.do("GET", "/v1/config?warehouse=shop@0/64", nil)
	require.Equal(t, 404, a.Status)
	require.Contains(t, a.message(t), "no longer the one of epoch 1")
}

func TestPinnedStoreFault(t *testing.T) {
	p := newRestPin(t)
	base := p.attach("shop@0/64")
	broken := newRestServer(t, &restPinFault{restMemory: p.store.(*restMemory)}, ServerOptions{})
	broken.store.(*restPinFault).fails = true
	require.Equal(t, 503, broken.do("GET", base+"/namespaces", nil).Status)
	require.Equal(t, 503, broken.do("GET", "/v1/config?warehouse=shop@0/64", nil).Status)
	broken.store.(*restPinFault).fails = false
	broken.ok("GET", base+"/namespaces", nil)
}

type restPinFault struct {
	*restMemory
	fails bool
}

func (f *restPinFault) Get(ctx context.Context, key string) ([]byte, error) {
	if f.fails {
		return nil, fs.ErrInvalid
	}
	return f.restMemory.Get(ctx, key)
}

func TestPinCacheStaysSmall(t *testing.T) {
	var p pinCache
	for n := range uint64(3 * pinsMax) {
		for range 2 {
			p.put(&State{Number: n, CommitID: "c"})
		}
		require.NotNil(t, p.get(0, "c"), "used again and again")
	}
	require.Len(t, p.states, pinsMax)
	require.Nil(t, p.get(1, "c"))
	require.Nil(t, p.get(3*pinsMax-1, "d"))
}

// TestClientsPinned reads two epochs side by side through iceberg-go's client.
func TestClientsPinned(t *testing.T) {
	p := newRestPin(t)
	for i, k := range p.kept {
		c := p.clientOf("shop@" + k.LSN.String())
		for name, want := range map[string]int64{"t": int64(i + 1), "u": int64(i + 11)} {
			tbl, err := c.LoadTable(t.Context(), []string{"a", name})
			require.NoError(t, err)
			require.Equal(t, want, tbl.CurrentSnapshot().SnapshotID)
		}
		err := c.DropTable(t.Context(), []string{"a", "t"})
		require.ErrorContains(t, err, "can only be read")
	}
	require.Equal(t, wal.LSN(300), p.kept[2].LSN)
}

// A table that an epoch was published without says itself which LSN it shows.
func TestPinnedTableBehind(t *testing.T) {
	p := newRestPin(t)
	_, err := p.log.Commit(t.Context(), func(n *State) error {
		x, _ := n.Table(restMirrorIdent)
		x.Mirror = &Mirror{OID: 42, State: Behind, LSN: 300}
		n.PutTable(restMirrorIdent, x)
		return nil
	})
	require.NoError(t, err)
	behind := p.keep()
	config := func(base, name string) map[string]any {
		return p.ok("GET", base+"/namespaces/a/tables/"+name, nil).json(t)["config"].(map[string]any)
	}
	base := p.attach("shop@" + behind.LSN.String())
	require.Subset(t, config(base, "t"), map[string]any{"client.region": "us-east-1", "firn.lsn": "0/12C", "firn.state": Behind})
	require.NotContains(t, config(base, "u"), "firn.lsn")
	require.NotContains(t, config("/v1", "t"), "firn.lsn", "who pins nothing is told no LSN to hold it against")
}

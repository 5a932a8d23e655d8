package catalog

import (
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

// restMirror is a server with a mirrored table a.t: 10 records in snapshot 1
// on main, 4 of them dead by snapshot 2.
type restMirror struct {
	*restServer
	ms    int64 // timestamp of the newest snapshot
	epoch uint64
}

const restMirrorPath = "/v1/namespaces/a/tables/t"

var restMirrorIdent = Ident{Namespace: []string{"a"}, Name: "t"}

func newRestMirror(t *testing.T, o ServerOptions) *restMirror {
	t.Helper()
	m := &restMirror{restServer: newRestServer(t, nil, o)}
	m.makeTable("t")
	m.ms = int64(m.metadata(restMirrorPath)["last-updated-ms"].(float64))
	m.snapshot(1, 0, "append", "added-records", 10, "total-records", 10, "total-position-deletes", 0)
	m.snapshot(2, 1, "delete", "added-position-deletes", 4, "total-records", 10, "total-position-deletes", 4)
	m.mirror(true)
	return m
}

// mirror makes the table firn's, or takes it back.
func (m *restMirror) mirror(on bool) {
	m.t.Helper()
	_, err := m.log.Commit(m.t.Context(), func(next *State) error {
		tbl, ok := next.Table(restMirrorIdent)
		require.True(m.t, ok)
		tbl.Mirror = nil
		if on {
			tbl.Mirror = &Mirror{OID: 42, State: Streaming}
		}
		next.PutTable(restMirrorIdent, tbl)
		return nil
	})
	require.NoError(m.t, err)
}

// keep commits an epoch, which the log then keeps.
func (m *restMirror) keep() Kept {
	m.t.Helper()
	m.epoch++
	st, err := m.log.Commit(m.t.Context(), func(next *State) error {
		next.Epoch, next.LSN = m.epoch, wal.LSN(m.epoch*100)
		next.CommitTime = time.Unix(int64(m.epoch), 0).UTC()
		return nil
	})
	require.NoError(m.t, err)
	epochs := st.Epochs()
	return epochs[len(epochs)-1]
}

func restSummary(pairs ...any) map[string]string {
	out := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[pairs[i].(string)] = fmt.Sprint(pairs[i+1])
	}
	return out
}

func (m *restMirror) snapshot(id, parent int64, op string, summary ...any) {
	m.t.Helper()
	a := m.try(id, parent, "main", op, summary...)
	require.Equal(m.t, 200, a.Status, "%s", a.Body)
}

// try commits a snapshot to a branch.
func (m *restMirror) try(id, parent int64, branch, op string, summary ...any) answer {
	m.t.Helper()
	seq := int(m.metadata(restMirrorPath)["last-sequence-number"].(float64)) + 1
	m.ms++
	return m.do("POST", restMirrorPath, restCommit(restSnapshot(id, parent, seq, m.ms, op, restSummary(summary...), branch)...))
}

func (m *restMirror) refused(a answer) string {
	m.t.Helper()
	require.Equal(m.t, 403, a.Status, "%s", a.Body)
	require.Equal(m.t, "ForbiddenException", a.errorType(m.t))
	return a.message(m.t)
}

func TestMirrorAcceptsRewrites(t *testing.T) {
	m := newRestMirror(t, ServerOptions{})
	// All 10 records rewritten to the 6 live ones, deletes dropped with them.
	m.snapshot(3, 2, "replace", "added-records", 6, "deleted-records", 10, "removed-position-deletes", 4, "total-records", 6, "total-position-deletes", 0)
	// Delete files rewritten, nothing else.
	m.snapshot(4, 3, "replace", "added-position-deletes", 2, "removed-position-deletes", 2, "total-records", 6)
	// Two snapshots in one commit.
	seq := int(m.metadata(restMirrorPath)["last-sequence-number"].(float64))
	sum := restSummary("added-records", 6, "deleted-records", 6, "total-records", 6)
	m.ok("POST", restMirrorPath, restCommit(append(
		restSnapshot(5, 4, seq+1, m.ms+1, "replace", sum, ""), restSnapshot(6, 5, seq+2, m.ms+2, "replace", sum, "main")...)...))
	tbl, _ := m.log.Head().Table(restMirrorIdent)
	require.EqualValues(t, 6, tbl.SnapshotID)
	require.EqualValues(t, 42, tbl.Mirror.OID, "still a mirror")
}

// Dead rows may go while the delete files that name them stay behind, as
// Spark leaves them.
func TestMirrorAcceptsDanglingDeletes(t *testing.T) {
	m := newRestMirror(t, ServerOptions{})
	m.snapshot(3, 2, "replace", "added-records", 6, "deleted-records", 10, "total-records", 6, "total-position-deletes", 4)
}

func TestMirrorRefusesRowChanges(t *testing.T) {
	m := newRestMirror(t, ServerOptions{AllowRowChanges: func(id Ident) bool { return id.Name != "t" }})
	before := m.log.Head().Number
	cases := map[string][]any{
		"append":      {"added-records", 1, "total-records", 11},
		"overwrite":   {"added-records", 1, "deleted-records", 1, "total-records", 10},
		"delete":      {"added-position-deletes", 1, "total-records", 10},
		"replace":     {"added-records", 11, "deleted-records", 10, "total-records", 11},
		"replace ":    {"added-records", 5, "deleted-records", 10, "total-records", 5},
		"replace  ":   {"added-position-deletes", 3, "removed-position-deletes", 2, "total-records", 10},
		"replace   ":  {"added-records", 10, "deleted-records", 10, "total-records", 9},
		"replace    ": {"added-records", "many", "deleted-records", 10},
	}
	id := int64(100)
	for op, summary := range cases {
		id++
		text := m.refused(m.try(id, 2, "main", trim(op), summary...))
		require.Contains(t, text, "table_settings:\n  a.t:\n    allow_writes: true", "names the setting")
	}
	require.Equal(t, before, m.log.Head().Number, "no entry was written")

	// The same in a transaction, which another table must not get through.
	m.makeTable("u")
	seq := int(m.metadata(restMirrorPath)["last-sequence-number"].(float64)) + 1
	body := map[string]any{"table-changes": []any{
		map[string]any{"identifier": Ident{[]string{"a"}, "u"}, "updates": []any{map[string]any{"action": "set-properties", "updates": map[string]string{"a": "b"}}}},
		map[string]any{"identifier": restMirrorIdent, "updates": restSnapshot(99, 2, seq, m.ms+1, "append", nil, "main")},
	}}
	m.refused(m.do("POST", "/v1/transactions/commit", body))
	require.Nil(t, m.metadata("/v1/namespaces/a/tables/u")["properties"])
}

func trim(op string) string {
	for len(op) > 0 && op[len(op)-1] == ' ' {
		op = op[:len(op)-1]
	}
	return op
}

func TestMirrorAllowsRowChangesWhenSet(t *testing.T) {
	m := newRestMirror(t, ServerOptions{AllowRowChanges: func(id Ident) bool { return id.String() == "a.t" }})
	m.snapshot(3, 2, "append", "added-records", 1, "total-records", 11)
	m.snapshot(4, 3, "overwrite", "added-records", 1, "deleted-records", 5)
	require.Contains(t, m.refused(m.try(5, 4, "main", "delete", "added-equality-deletes", 1)), "equality deletes")
	require.Contains(t, m.refused(m.try(5, 3, "main", "append")), "does not descend")
}

// A main that is no descendant could not be followed by the row index.
func TestRule20MainDescends(t *testing.T) {
	m := newRestMirror(t, ServerOptions{AllowRowChanges: func(Ident) bool { return true }})
	ref := func(name string, id int64) map[string]any {
		return restCommit(map[string]any{"action": "set-snapshot-ref", "ref-name": name, "type": "branch", "snapshot-id": id})
	}
	require.Contains(t, m.refused(m.do("POST", restMirrorPath, ref("main", 1))), "does not descend", "a rollback")
	require.Contains(t, m.refused(m.try(3, 1, "main", "replace")), "does not descend", "a fork")
	require.Contains(t, m.refused(m.try(3, 0, "main", "replace")), "does not descend", "another root")
	m.refused(m.do("POST", restMirrorPath, restCommit(map[string]any{"action": "remove-snapshot-ref", "ref-name": "main"})))

	// Forks beside main are anyone's, but main can't be set to one.
	require.Equal(t, 200, m.try(3, 1, "fork", "append").Status)
	m.refused(m.do("POST", restMirrorPath, ref("main", 3)))
	m.ok("POST", restMirrorPath, restCommit(map[string]any{"action": "set-snapshot-ref", "ref-name": "before", "type": "tag", "snapshot-id": 1}))
	m.ok("POST", restMirrorPath, restCommit(map[string]any{"action": "remove-snapshot-ref", "ref-name": "fork"}))
}

func TestMirrorKeepsItsShape(t *testing.T) {
	m := newRestMirror(t, ServerOptions{AllowRowChanges: func(Ident) bool { return true }})
	wide := `{"type":"struct","schema-id":1,"fields":[{"id":1,"name":"id","type":"long","required":true},{"id":2,"name":"name","type":"string","required":false},{"id":3,"name":"x","type":"int","required":false}]}`
	for what, updates := range map[string]string{
		"schema":         `{"action":"add-schema","schema":` + wide + `}`,
		"format version": `{"action":"upgrade-format-version","format-version":3}`,
		"location":       `{"action":"set-location","location":"mem://lake/b/x"}`,
		"partitioning":   `{"action":"add-spec","spec":{"spec-id":1,"fields":[{"source-id":1,"field-id":1000,"name":"b","transform":"bucket[4]"}]}}`,
		"sort order":     `{"action":"add-sort-order","sort-order":{"order-id":1,"fields":[{"source-id":1,"transform":"identity","direction":"asc","null-order":"nulls-first"}]}}`,
		"firn.lsn":       `{"action":"set-properties","updates":{"firn.lsn":"0/1"}}`,
	} {
		require.Contains(t, m.refused(m.do("POST", restMirrorPath, `{"requirements":[],"updates":[`+updates+`]}`)), what)
	}
	updated := m.metadata(restMirrorPath)["last-updated-ms"]
	m.ok("POST", restMirrorPath, `{"requirements":[],"updates":[{"action":"set-properties","updates":{"owner":"me"}}]}`)
	require.Equal(t, updated, m.metadata(restMirrorPath)["last-updated-ms"], "Postgres' clock")
	m.ok("POST", restMirrorPath, `{"requirements":[],"updates":[{"action":"set-statistics","snapshot-id":2,"statistics":{"snapshot-id":2,"statistics-path":"mem://lake/s.puffin","file-size-in-bytes":1,"file-footer-size-in-bytes":1,"blob-metadata":[]}}]}`)

	m.refused(m.do("DELETE", restMirrorPath, nil))
	m.refused(m.do("DELETE", restMirrorPath+"?purgeRequested=true", nil))
	m.refused(m.do("POST", "/v1/tables/rename", `{"source":{"namespace":["a"],"name":"t"},"destination":{"namespace":["a"],"name":"u"}}`))
	where := m.ok("GET", restMirrorPath, nil).json(t)["metadata-location"]
	m.refused(m.do("POST", "/v1/namespaces/a/register", fmt.Sprintf(`{"name":"t","metadata-location":%q,"overwrite":true}`, where)))
}

// A table that has a name and no metadata yet is not there for readers, and
// its name is not free.
func TestMirrorNotLoadedYet(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("other")
	_, err := s.log.Commit(t.Context(), func(next *State) error {
		next.PutTable(restMirrorIdent, Table{Mirror: &Mirror{OID: 1, State: Loading}})
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 404, s.do("GET", restMirrorPath, nil).Status)
	require.Equal(t, 404, s.do("HEAD", restMirrorPath, nil).Status)
	require.Equal(t, 404, s.do("DELETE", restMirrorPath, nil).Status)
	require.Len(t, s.ok("GET", "/v1/namespaces/a/tables", nil).json(t)["identifiers"], 1)
	a := s.do("POST", "/v1/namespaces/a/tables", fmt.Sprintf(`{"name":"t","schema":%s}`, restSchema))
	require.Equal(t, "AlreadyExistsException", a.errorType(t))
	require.Equal(t, "NamespaceNotEmptyException", s.do("DELETE", "/v1/namespaces/a", nil).errorType(t))
}

// What a kept epoch or a tag names stays.
func TestRule14KeptSnapshotsStay(t *testing.T) {
	m := newRestMirror(t, ServerOptions{})
	remove := func(ids ...int64) answer {
		return m.do("POST", restMirrorPath, restCommit(map[string]any{"action": "remove-snapshots", "snapshot-ids": ids}))
	}
	kept := m.keep() // names snapshot 2
	m.snapshot(3, 2, "replace", "added-records", 10, "deleted-records", 10)
	m.snapshot(4, 3, "replace", "added-records", 10, "deleted-records", 10)
	require.Contains(t, m.refused(remove(2)), "epoch 1 (0/64) is kept")
	require.Contains(t, m.refused(remove(1, 2, 3)), "epoch 1")
	require.Equal(t, 200, remove(1).Status, "no epoch names it")

	// Of a table that isn't firn's a tag is what holds.
	m.mirror(false)
	_, err := m.log.Commit(t.Context(), func(next *State) error {
		next.PutTag("v1", Tag{Kept: kept, Created: time.Now()})
		return nil
	})
	require.NoError(t, err)
	require.Contains(t, m.refused(remove(2)), "tag v1")
	require.Equal(t, 200, remove(3).Status)
	_, err = m.log.Commit(t.Context(), func(next *State) error { next.DropTag("v1"); return nil })
	require.NoError(t, err)
	require.Equal(t, 200, remove(2).Status)
}

// The lake's tag on a mirrored table is not the table's to move.
func TestRule14TagRefsStay(t *testing.T) {
	m := newRestMirror(t, ServerOptions{})
	tag := func(name string, id int64) answer {
		return m.do("POST", restMirrorPath, restCommit(map[string]any{"action": "set-snapshot-ref", "ref-name": name, "type": "tag", "snapshot-id": id}))
	}
	require.Equal(t, 200, tag("v1", 1).Status)
	require.Equal(t, 200, tag("mine", 1).Status)
	kept := m.keep()
	_, err := m.log.Commit(t.Context(), func(next *State) error {
		next.PutTag("v1", Tag{Kept: kept})
		return nil
	})
	require.NoError(t, err)
	require.Contains(t, m.refused(tag("v1", 2)), "tag v1")
	m.refused(m.do("POST", restMirrorPath, restCommit(map[string]any{"action": "remove-snapshot-ref", "ref-name": "v1"})))
	require.Equal(t, 200, tag("mine", 2).Status)
}

// Removing one snapshot in the middle leaves the log of all others.
func TestRule15SnapshotLogStays(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("t")
	ms := int64(s.metadata(restMirrorPath)["last-updated-ms"].(float64))
	const snapshots = 10
	for i := 1; i <= snapshots; i++ {
		s.ok("POST", restMirrorPath, restCommit(restSnapshot(int64(i), int64(i-1), i, ms+int64(i), "append", nil, "main")...))
	}
	// Removal and a new snapshot in one commit, as an engine may send it.
	updates := append([]map[string]any{{"action": "remove-snapshots", "snapshot-ids": []int64{7}}},
		restSnapshot(11, 10, 11, ms+11, "append", nil, "main")...)
	s.ok("POST", restMirrorPath, restCommit(updates...))
	var got []int64
	for _, e := range s.metadata(restMirrorPath)["snapshot-log"].([]any) {
		got = append(got, int64(e.(map[string]any)["snapshot-id"].(float64)))
	}
	require.Equal(t, []int64{1, 2, 3, 4, 5, 6, 8, 9, 10, 11}, got)
}

// A commit that was planned on a head that has moved since is planned anew.
func TestCommitIsPlannedOnTheHead(t *testing.T) {
	m := newRestMirror(t, ServerOptions{})
	other := newRestServer(t, m.store, ServerOptions{HeadAgeMax: -1})
	_ = other.metadata(restMirrorPath) // it has the head of now
	m.snapshot(3, 2, "replace", "added-records", 10, "deleted-records", 10)
	// A snapshot made on the old head is a conflict, not a bad request.
	a := other.do("POST", restMirrorPath, restCommit(restSnapshot(4, 2, 3, m.ms+1, "replace", nil, "main")...))
	require.Equal(t, 409, a.Status)
	require.Equal(t, "CommitFailedException", a.errorType(t))
	a = other.do("POST", restMirrorPath, map[string]any{
		"requirements": []any{map[string]any{"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": 2}},
		"updates":      []any{map[string]any{"action": "set-properties", "updates": map[string]string{"a": "b"}}},
	})
	require.Equal(t, "CommitFailedException", a.errorType(t))
	require.NotContains(t, m.metadata(restMirrorPath), "properties")
}

// The plan runs on the head outside the log's lock, and again inside on a head
// that has moved in between.
func TestPlanRunsAgainWhenTheTableMoved(t *testing.T) {
	m := newRestMirror(t, ServerOptions{})
	srv := NewServer(m.log, m.store, ServerOptions{}).(*server)
	id := restMirrorIdent
	ch := &tableChange{Updates: []byte(`[{"action":"set-properties","updates":{"mine":"1"}}]`)}
	old := m.log.Head()
	p, err := srv.planTable(t.Context(), old, id, ch)
	require.NoError(t, err)
	require.True(t, p.holds(old))
	m.ok("POST", restMirrorPath, restCommit(map[string]any{"action": "set-properties", "updates": map[string]string{"theirs": "1"}}))
	require.False(t, p.holds(m.log.Head()))
	p, err = srv.planTable(t.Context(), m.log.Head(), id, ch)
	require.NoError(t, err)
	want := map[string]string{"mine": "1", "theirs": "1"}
	require.True(t, maps.Equal(want, p.next.Meta.Properties()))
	// An epoch that does not touch the table leaves the plan good.
	m.keep()
	require.True(t, p.holds(m.log.Head()))
}

func TestMetadataCacheStaysInItsBudget(t *testing.T) {
	c := newMetadataCache(100)
	for i := range 50 {
		c.put(&metadataFile{URI: strconv.Itoa(i), JSON: make([]byte, 30)})
		require.LessOrEqual(t, c.bytes, 100)
	}
	require.NotNil(t, c.get("49"))
	require.Nil(t, c.get("1"))
	c.put(&metadataFile{URI: "big", JSON: make([]byte, 101)})
	require.Nil(t, c.get("big"))
}

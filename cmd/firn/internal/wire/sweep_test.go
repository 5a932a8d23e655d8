package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/compaction"
	"firn/lake"
	"firn/lake/snapshot"
)

// While epochs are thinned, files rewritten and what nobody needs removed, every
// kept epoch shows what Postgres held then, a tagged one among them, and the rest
// goes: what a killed run had uploaded, too.
func TestRule14EveryKeptEpochAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Freshness, r.o.Grace = 20*time.Millisecond, time.Second
	r.o.Compaction = &compaction.Options{SpareFiles: 2, MaxDead: 0.1}
	r.o.Retention = catalog.Retention{Newest: 40, Minutes: time.Hour}
	r.o.LogNumbers = 30
	r.exec("create table a (id int primary key, v text); create table b (id int primary key, v text)")
	e, stop := r.run()
	r.caughtUp(e)
	orphan := r.folder(e, "a") + "/data/019b0a6e-5d2c-7a31-9c44-2f1d5f0e9a77.parquet" // of a killed run
	theirs := r.folder(e, "a") + "/data/00000-0-2d3d7d6e-0f43-4a35-8d61-8a9c1f3b2a10-0-00001.parquet"
	for _, key := range []string{orphan, theirs} {
		require.NoError(t, e.Store.Put(t.Context(), key, strings.NewReader("PAR1"), 4))
	}
	ledger := map[uint64]map[string][]string{}
	for i := range 200 {
		r.exec("insert into a select i, 'new' from generate_series($1::int, $1::int + 9) i", 10*i)
		r.exec("update a set v = $2 where id % 13 = $1", i%13, fmt.Sprint("round ", i))
		r.exec("delete from a where id % 29 = $1", i%29)
		if i%5 == 0 {
			r.exec("insert into b values ($1, 'slow')", i)
		}
		r.caughtUp(e)
		ledger[e.Lake.Status().Epoch] = map[string][]string{"a": r.postgres("a"), "b": r.postgres("b")}
		if i == 50 {
			tag, err := e.Log.Tag(t.Context(), "fifty", catalog.Moment{})
			require.NoError(t, err)
			t.Logf("tagged epoch %d", tag.Epoch)
		}
	}
	// Two graces after the last change nothing is left to go.
	var files int
	require.Eventually(t, func() bool {
		keys, err := e.Store.Keys(t.Context(), "public/", "", 0)
		require.NoError(t, err)
		was := files
		files = len(keys)
		time.Sleep(1500 * time.Millisecond)
		return was == files
	}, time.Minute, time.Millisecond)
	// Asked for, the log's old entries go at once: a grace after they are named.
	require.Eventually(t, func() bool {
		did, err := e.Expire(t.Context(), false)
		require.NoError(t, err)
		time.Sleep(500 * time.Millisecond)
		return did.Waiting == 1 && did.Removed == 0 // theirs
	}, time.Minute, time.Millisecond)
	entries, err := e.Store.Keys(t.Context(), catalog.LogPrefix, "", 0)
	require.NoError(t, err)
	require.Less(t, len(entries), 150)
	_, err = e.Store.Head(t.Context(), orphan)
	require.Error(t, err, "what nothing names goes")
	_, err = e.Store.Head(t.Context(), theirs)
	require.NoError(t, err, "what another engine may be about to commit stays")
	keys, err := e.Store.Keys(t.Context(), "public/", "", 0)
	require.NoError(t, err)
	for _, k := range keys {
		require.True(t, snapshot.OwnName(k) || k == theirs || strings.HasSuffix(k, "/version-hint.text"), k)
	}
	head, err := e.Log.Refresh(t.Context())
	require.NoError(t, err)
	compared := 0
	kept := head.Epochs()
	if tag, ok := head.Tag("fifty"); ok {
		kept = append(kept, tag.Kept)
	}
	for _, k := range kept {
		s, err := e.Log.Entry(t.Context(), k.Number)
		require.NoError(t, err)
		for _, name := range []string{"a", "b"} {
			x, ok := s.Table(catalog.Ident{Namespace: []string{"public"}, Name: name})
			if !ok {
				continue // the birth of the lake
			}
			now, _ := head.Table(catalog.Ident{Namespace: []string{"public"}, Name: name})
			require.NotNil(t, r.metadata(e, now.Metadata).SnapshotByID(x.SnapshotID), "the present metadata of %s lists what epoch %d shows", name, k.Epoch)
			got := r.rowsOf(e, lake.Ident{Namespace: "public", Name: name}, x.Metadata)
			if want, ok := ledger[k.Epoch]; ok {
				require.Equal(t, len(want[name]), len(got), "%s at epoch %d", name, k.Epoch)
				require.Equal(t, want[name], got, "%s at epoch %d", name, k.Epoch)
				compared++
			}
		}
	}
	tag, ok := head.Tag("fifty")
	require.True(t, ok)
	was, err := e.Log.Entry(t.Context(), tag.Number)
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		id := catalog.Ident{Namespace: []string{"public"}, Name: name}
		now, _ := head.Table(id)
		then, _ := was.Table(id)
		sn := r.metadata(e, now.Metadata).SnapshotByName("fifty")
		require.NotNil(t, sn, "the tag is a ref of %s", name)
		require.Equal(t, then.SnapshotID, sn.SnapshotID)
	}
	t.Logf("%d kept epochs, %d tables compared, %d objects, %d rewrites", len(kept), compared, files, e.Lake.Counters().Rewrites.Load())
	require.Greater(t, compared, 40)
	require.NoError(t, stop())
}

// metadata reads a table's metadata file.
func (r *rig) metadata(e *wire.Engine, uri string) table.Metadata {
	r.t.Helper()
	key, ok := e.Store.Key(uri)
	require.True(r.t, ok)
	b, err := e.Store.Get(r.t.Context(), key)
	require.NoError(r.t, err)
	m, err := table.ParseMetadataBytes(b)
	require.NoError(r.t, err)
	return m
}

// folder is the key of a table's folder.
func (r *rig) folder(e *wire.Engine, table string) string {
	for _, h := range r.head(e).Tables {
		if h.Ident.Name == table {
			key, ok := e.Store.Key(h.Metadata)
			require.True(r.t, ok)
			folder, _, _ := strings.Cut(key, "/metadata/")
			return folder
		}
	}
	r.t.Fatalf("there is no table %s", table)
	return ""
}

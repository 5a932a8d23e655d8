package engines

import (
	"fmt"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/lake/snapshot"
)

// TestRewriteKeepsRowLineage has Spark, whose reader is Iceberg's own, and
// DuckDB read the ids that rows have before firn rewrites their files and after,
// rows of which some died meanwhile.
func TestRewriteKeepsRowLineage(t *testing.T) {
	uri := laketest.IcebergREST(t, nil, "")
	spark, duck := laketest.Spark(t), laketest.DuckDB(t)
	spark.Catalog(t, "lineage", map[string]string{"uri": uri})
	spark.Query(t, "CREATE NAMESPACE lineage.db")

	store, err := object.Open(t.Context(), t.TempDir(), object.Options{})
	require.NoError(t, err)
	sc := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
		iceberg.NestedField{ID: 2, Name: "v", Type: iceberg.PrimitiveTypes.String})
	tab, err := snapshot.Create(snapshot.CreateOptions{FormatVersion: 3, Schema: sc,
		Options: snapshot.Options{Store: store, Ident: lake.Ident{Namespace: "db", Name: "t"}, Location: "db/t", TempDir: t.TempDir()}})
	require.NoError(t, err)
	clock, epoch := time.Now().Add(-time.Hour), uint64(0)
	commit := func(c *lake.Change) {
		epoch++
		clock = clock.Add(time.Second)
		c.Stamp = lake.Stamp{Epoch: epoch, CommitTime: clock, Kind: "stream"}
		p, err := tab.Prepare(t.Context(), c)
		require.NoError(t, err)
		require.NoError(t, p.Upload(t.Context()))
		tab.Adopt(p)
	}
	as, err := table.SchemaToArrowSchema(sc, nil, true, false)
	require.NoError(t, err)
	write := func(from, n int) *lake.NewFile {
		w, err := tab.NewFile(sc, nil)
		require.NoError(t, err)
		b := array.NewRecordBuilder(memory.DefaultAllocator, as)
		defer b.Release()
		for i := range n {
			b.Field(0).(*array.Int64Builder).Append(int64(from + i))
			b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("row ", from+i))
		}
		rec := b.NewRecordBatch()
		defer rec.Release()
		require.NoError(t, w.Write(rec))
		f, err := w.Close(t.Context())
		require.NoError(t, err)
		return f
	}
	registered := 0
	read := func() (ofSpark, ofDuck *laketest.Result) {
		registered++
		name := fmt.Sprintf("t%d", registered)
		spark.Query(t, fmt.Sprintf("CALL lineage.system.register_table(table => 'db.%s', metadata_file => '%s')", name, tab.Metadata()))
		const of = "SELECT id, v, _row_id, _last_updated_sequence_number FROM "
		return spark.Query(t, of+"lineage.db."+name),
			duck.Query(t, of+"iceberg_scan("+laketest.Quote(tab.Metadata())+")")
	}

	a, b := write(0, 1000), write(1000, 500)
	commit(&lake.Change{Add: []*lake.NewFile{a}})
	commit(&lake.Change{Add: []*lake.NewFile{b}, Dead: map[string]*roaring.Bitmap{a.Path: roaring.BitmapOf(0, 7, 999)}})
	inputs := func() (all []lake.RewriteInput) {
		for _, f := range tab.Files() {
			in := lake.RewriteInput{Path: f.Path}
			if f.Dead != nil {
				in.Dead = f.Dead.Clone()
			}
			all = append(all, in)
		}
		return all
	}
	r, err := tab.Rewrite(t.Context(), inputs())
	require.NoError(t, err)
	died := roaring.BitmapOf(3, 8)
	commit(&lake.Change{Add: []*lake.NewFile{write(2000, 10)}, Dead: map[string]*roaring.Bitmap{a.Path: died}})
	before, beforeDuck := read()
	require.Len(t, before.Rows, 1505)
	require.Contains(t, before.Rows, []string{"1001", "row 1001", "1001", "2"})
	require.Empty(t, laketest.Diff(before.Multiset(), beforeDuck.Multiset()))

	commit(&lake.Change{Rewrites: []*lake.Rewritten{r}, Dead: map[string]*roaring.Bitmap{r.Output.Path: r.Moved[0].Positions(died)}})
	require.Len(t, tab.Files(), 2)
	after, afterDuck := read()
	require.Empty(t, laketest.Diff(before.Multiset(), after.Multiset()), "Spark")
	require.Empty(t, laketest.Diff(before.Multiset(), afterDuck.Multiset()), "DuckDB")

	// A rewrite of a rewrite reads the ids that the first one wrote.
	r, err = tab.Rewrite(t.Context(), inputs())
	require.NoError(t, err)
	commit(&lake.Change{Rewrites: []*lake.Rewritten{r}})
	require.Len(t, tab.Files(), 1)
	after, afterDuck = read()
	require.Empty(t, laketest.Diff(before.Multiset(), after.Multiset()), "Spark")
	require.Empty(t, laketest.Diff(before.Multiset(), afterDuck.Multiset()), "DuckDB")
}

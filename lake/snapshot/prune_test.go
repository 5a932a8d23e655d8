package snapshot

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
)

// Readers leave out what the statistics exclude: data files by the bounds in
// manifests; row groups by those in the file, of a sorted table all but one for a
// small range of its column, where before every row group had to be read.
func TestReadersPrune(t *testing.T) {
	duck, py := laketest.DuckDB(t), laketest.PyIceberg(t)
	store, err := object.Open(t.Context(), t.TempDir(), object.Options{})
	require.NoError(t, err)
	sc := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64},
		iceberg.NestedField{ID: 2, Name: "n", Type: iceberg.PrimitiveTypes.Int64}, // in no order
		iceberg.NestedField{ID: 3, Name: "note", Type: iceberg.PrimitiveTypes.String})
	h := newHarness(t, 2, 1)
	h.store = store
	h.tab, err = Create(CreateOptions{Options: Options{Store: store, Ident: h.tab.o.Ident, Location: "prune", TempDir: t.TempDir(), RowGroupRows: 2048}, Schema: sc})
	require.NoError(t, err)
	const files, rows = 4, 8192
	c := &lake.Change{Stamp: h.stamp("snapshot")}
	for i := range files {
		w, err := h.tab.NewFile(sc, nil)
		require.NoError(t, err)
		rb := array.NewRecordBuilder(memory.DefaultAllocator, w.(*fileWriter).arrow)
		for row := range rows {
			id := i*rows + row
			rb.Field(0).(*array.Int64Builder).Append(int64(id))
			rb.Field(1).(*array.Int64Builder).Append(int64(id) * 7919 % (files * rows))
			rb.Field(2).(*array.StringBuilder).Append(fmt.Sprintf("%d %s", i, strings.Repeat("é", 20)))
		}
		rec := rb.NewRecordBatch()
		require.NoError(t, w.Write(rec))
		rec.Release()
		rb.Release()
		f, err := w.Close(h.ctx)
		require.NoError(t, err)
		h.rows[f.Path] = make([]int64, f.Rows)
		c.Add = append(c.Add, f)
	}
	h.commit(c)
	// opened is how many data files DuckDB's scan opens, and PyIceberg's would.
	opened := func(sql, python string) (n int) {
		path := strings.TrimPrefix(h.tab.Metadata(), "file://")
		text := fmt.Sprint(duck.Query(t, fmt.Sprintf("EXPLAIN ANALYZE SELECT count(note) FROM iceberg_scan(%s) WHERE %s", laketest.Quote(path), sql)).Rows)
		m := regexp.MustCompile(`Total Files Read: (\d+)`).FindStringSubmatch(text)
		require.NotNil(t, m, text)
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		var planned int
		py.Python(t, `
from pyiceberg.table import StaticTable
result = len(list(StaticTable.from_metadata(args[0]).scan(row_filter=args[1]).plan_files()))
`, []string{h.tab.Metadata(), python}, &planned)
		require.Equal(t, n, planned, sql)
		return n
	}
	require.Equal(t, 1, opened("id BETWEEN 8200 AND 8300", "id >= 8200 and id <= 8300"))
	require.Equal(t, 2, opened("note > '2 '", "note > '2 '"))
	require.Equal(t, 4, opened("n BETWEEN 5000 AND 5100", "n >= 5000 and n <= 5100"))
	// groups is how many row groups the bounds leave for a range of n.
	groups := func() (left, all int) {
		for _, f := range h.tab.files {
			p, err := h.tab.open(h.ctx, f.path, f.bytes)
			require.NoError(t, err)
			for g := range p.rd.NumRowGroups() {
				chunk, err := p.rd.MetaData().RowGroup(g).ColumnChunk(1)
				require.NoError(t, err)
				stats, err := chunk.Statistics()
				require.NoError(t, err)
				s := stats.(interface {
					Min() int64
					Max() int64
				})
				all++
				if s.Min() <= 5100 && s.Max() >= 5000 {
					left++
				}
			}
		}
		return left, all
	}
	left, all := groups()
	require.Equal(t, 16, left)
	require.Equal(t, 16, all)
	h.sortBy("n")
	ch := &lake.Change{Stamp: h.stamp("stream")}
	r := h.rewrite()
	h.install(ch, r)
	p, err := h.tab.Prepare(h.ctx, ch)
	require.NoError(t, err)
	require.NoError(t, p.Upload(h.ctx))
	h.tab.Adopt(p)
	left, all = groups()
	require.Equal(t, 1, left)
	require.Equal(t, 16, all)
	require.Equal(t, 1, opened("n BETWEEN 5000 AND 5100", "n >= 5000 and n <= 5100"))
	next := int64(-1)
	require.NoError(t, h.tab.Read(h.ctx, r.Output.Path, []int{2}, nil, func(_ int64, rec arrow.RecordBatch) error {
		for _, v := range rec.Column(0).(*array.Int64).Int64Values() {
			require.Equal(t, next+1, v)
			next = v
		}
		return nil
	}))
}

package snapshot

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
)

var bloomSchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64},
	iceberg.NestedField{ID: 2, Name: "mail", Type: iceberg.PrimitiveTypes.String}, // all different
	iceberg.NestedField{ID: 3, Name: "kind", Type: iceberg.PrimitiveTypes.String}, // in a dictionary of ours
	iceberg.NestedField{ID: 4, Name: "uid", Type: iceberg.PrimitiveTypes.UUID},
	iceberg.NestedField{ID: 5, Name: "at", Type: iceberg.PrimitiveTypes.TimestampTz},
	iceberg.NestedField{ID: 6, Name: "plain", Type: iceberg.PrimitiveTypes.Int64})

// spread puts ids in no order, so that bounds tell nothing.
func spread(i int) int64 { return int64(i) * 7919 % 1_000_003 }

// bloomFile is a table of one file, of three row groups of 1,000 rows, with
// filters of all columns but plain.
func bloomFile(t *testing.T, store object.Store) (*harness, *lake.NewFile) {
	h := newHarness(t, 2, 1)
	h.store = store
	var err error
	h.tab, err = Create(CreateOptions{Options: Options{Store: store, Ident: h.tab.o.Ident, Location: "bloom", TempDir: t.TempDir(), RowGroupRows: 1000,
		BloomFilters: BloomFilters{"id", "mail", "kind", "uid", "at"}}, Schema: bloomSchema})
	require.NoError(t, err)
	w, err := h.tab.NewFile(bloomSchema, nil)
	require.NoError(t, err)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, w.(*fileWriter).arrow)
	defer rb.Release()
	for i := range 3000 {
		n := spread(i)
		rb.Field(0).(*array.Int64Builder).Append(n)
		rb.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("%d@example.org", n))
		if i%3 == 0 {
			rb.Field(2).AppendNull()
		} else {
			rb.Field(2).(*array.StringBuilder).Append(fmt.Sprint("kind ", i/1000, i%5))
		}
		rb.Field(3).(*extensions.UUIDBuilder).Append(uuidOf(n))
		rb.Field(4).(*array.TimestampBuilder).Append(arrow.Timestamp(n * 1e6))
		rb.Field(5).(*array.Int64Builder).Append(n)
	}
	rec := rb.NewRecordBatch()
	defer rec.Release()
	require.NoError(t, w.Write(rec))
	f, err := w.Close(h.ctx)
	require.NoError(t, err)
	h.rows[f.Path] = make([]int64, f.Rows)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{f}})
	return h, f
}

func uuidOf(n int64) (u uuid.UUID) {
	binary.BigEndian.PutUint64(u[8:], uint64(n)*0x9e3779b97f4a7c15)
	return u
}

// DuckDB finds every value that is there by the filters, and skips the row
// groups of nearly all that are not: of a file as it landed, and of a rewritten one.
func TestBloomFiltersInDuckDB(t *testing.T) {
	duck := laketest.DuckDB(t)
	store, err := object.Open(t.Context(), t.TempDir(), object.Options{})
	require.NoError(t, err)
	h, f := bloomFile(t, store)
	excluded := func(file, column, value string) (n int) {
		r := duck.Query(t, fmt.Sprintf("SELECT count(*) FILTER (bloom_filter_excludes), count(*) FROM parquet_bloom_probe(%s, %s, %s)",
			laketest.Quote(strings.TrimPrefix(file, "file://")), laketest.Quote(column), value))
		require.EqualValues(t, "3", fmt.Sprint(r.Rows[0][1]))
		_, err := fmt.Sscan(fmt.Sprint(r.Rows[0][0]), &n)
		require.NoError(t, err)
		return n
	}
	check := func(file string) {
		for column, value := range map[string]func(n int64) string{
			"id":   func(n int64) string { return fmt.Sprintf("%d::BIGINT", n) },
			"mail": func(n int64) string { return fmt.Sprintf("'%d@example.org'", n) },
		} {
			absent := 0
			for i := range 60 {
				require.LessOrEqual(t, excluded(file, column, value(spread(i*50))), 2, "%s %d is there", column, spread(i*50))
				absent += excluded(file, column, value(1_000_003+int64(i)))
			}
			require.Greater(t, absent, 3*60*95/100, "%s: the filters tell what is not there", column)
		}
		require.LessOrEqual(t, excluded(file, "kind", "'kind 1 1'"), 2)
		require.Equal(t, 3, excluded(file, "kind", "'kind 9 9'"))
		require.Zero(t, excluded(file, "plain", "1000004::BIGINT"), "it has no filters")
	}
	check(f.Path)
	r := h.rewrite()
	check(r.Output.Path)
}

// The setting becomes the table's, and says what is wrong with it.
func TestBloomFilterSetting(t *testing.T) {
	h, _ := bloomFile(t, laketest.NewMemoryStore())
	asks := func() (out []string) {
		for _, f := range bloomSchema.Fields() {
			if h.metadata().Properties()[bloomProperty+f.Name] == "true" {
				out = append(out, f.Name)
			}
		}
		return out
	}
	require.Equal(t, []string{"id", "mail", "kind", "uid", "at"}, asks())
	h.tab.o.BloomFilters = BloomFilters{"uid"}
	h.tab = h.load(h.tab.metaURI)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot")})
	require.Equal(t, []string{"uid"}, asks())
	h.tab.o.BloomFilters = nil
	h.tab = h.load(h.tab.metaURI)
	require.Equal(t, "true", h.tab.Properties()[bloomProperty+"uid"], "who has no settings changes nothing")
	require.ErrorContains(t, BloomFilters{"id", "nope"}.Check(bloomSchema), "there is no column nope")
	require.ErrorContains(t, BloomFilters{"amount"}.Check(testSchema), "column amount is of type decimal(12, 2), for which there are no Bloom filters")
	require.NoError(t, BloomFilters{"id", "uid", "at"}.Check(testSchema))
}

// A filter that lacks a value hides its rows. Each has all, whether its column
// begins with a dictionary, keeps it, or gives it up in the middle of a row group.
func TestBloomFiltersHoldEveryValue(t *testing.T) {
	h := newHarness(t, 2, 1)
	h.tab.o.RowGroupRows = 4000
	h.tab.meta = h.tab.meta.clone()
	require.NoError(t, h.tab.meta.setSchema(bloomSchema))
	require.NoError(t, h.tab.meta.setBloomFilters(BloomFilters{"id", "mail", "kind", "uid", "at"}))
	w, err := h.tab.NewFile(bloomSchema, nil)
	require.NoError(t, err)
	var want [][5][]byte
	rb := array.NewRecordBuilder(memory.DefaultAllocator, w.(*fileWriter).arrow)
	defer rb.Release()
	for i := range 10_000 {
		n := int64(h.rng.IntN(9))
		if i%4000 >= 1000 { // as from there on nearly all differ
			n = int64(h.rng.IntN(1 << 40))
		}
		few, text := int64(h.rng.IntN(3)), strings.Repeat("x", h.rng.IntN(5))+fmt.Sprint(n)
		u := uuidOf(n)
		rb.Field(0).(*array.Int64Builder).Append(n)
		rb.Field(1).(*array.StringBuilder).Append(text)
		rb.Field(2).(*array.StringBuilder).Append(fmt.Sprint(few))
		rb.Field(3).(*extensions.UUIDBuilder).Append(u)
		rb.Field(4).(*array.TimestampBuilder).Append(arrow.Timestamp(few))
		rb.Field(5).AppendNull()
		le := binary.LittleEndian.AppendUint64
		want = append(want, [5][]byte{le(nil, uint64(n)), []byte(text), fmt.Append(nil, few), u[:], le(nil, uint64(few))})
		if i%500 == 499 {
			rec := rb.NewRecordBatch()
			require.NoError(t, w.Write(rec))
			rec.Release()
		}
	}
	f, err := w.Close(h.ctx)
	require.NoError(t, err)
	<-f.Uploaded
	p, err := h.tab.open(h.ctx, f.Path, f.Bytes)
	require.NoError(t, err)
	require.NoError(t, p.src.want([]span{{0, f.Bytes}}))
	for g := range p.rd.NumRowGroups() {
		filters, err := p.rd.GetBloomFilterReader().RowGroup(g)
		require.NoError(t, err)
		for c := range 5 {
			filter, err := filters.GetColumnBloomFilter(c)
			require.NoError(t, err)
			require.NotNil(t, filter)
			for row := 4000 * g; row < min(len(want), 4000*(g+1)); row++ {
				require.True(t, filter.CheckHash(filter.Hasher().Sum64(want[row][c])), "row %d of column %d", row, c)
			}
			require.LessOrEqual(t, filter.Size(), int64(8<<10))
		}
		filter, err := filters.GetColumnBloomFilter(5)
		require.NoError(t, err)
		require.Nil(t, filter)
	}
}

package snapshot

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// countingStore counts what is read.
type countingStore struct {
	Store
	bytes, requests atomic.Int64
}

func (s *countingStore) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	s.bytes.Add(n)
	s.requests.Add(1)
	return s.Store.GetRange(ctx, key, off, n)
}

func TestRead(t *testing.T) {
	const rows = 30_000
	h := newHarness(t, 2, 10)
	store := &countingStore{Store: h.store}
	h.tab.o.Store = store
	h.tab.o.RowGroupRows = 8000
	h.tab.o.MemoryBytes = 1000 // a temporary file
	f := h.write(testSchema, rows)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{f}})
	require.Zero(t, store.requests.Load(), "writing and committing read nothing")

	read := func(fields []int, positions []uint32) []int64 {
		var ids []int64
		next := int64(0)
		require.NoError(t, h.tab.Read(h.ctx, f.Path, fields, positions, func(first int64, rec arrow.RecordBatch) error {
			require.Equal(t, next, first)
			next += rec.NumRows()
			require.Equal(t, len(fields), int(rec.NumCols()))
			want := record(t, testSchema, rec.Column(slices.Index(fields, 1)).(*array.Int64).Int64Values())
			defer want.Release()
			for i, id := range fields {
				if id == 1 {
					ids = append(ids, rec.Column(i).(*array.Int64).Int64Values()...)
				}
				if id == 9 {
					require.Equal(t, rec.Column(i).Len(), rec.Column(i).NullN())
					continue
				}
				at := slices.IndexFunc(testSchema.Fields(), func(f iceberg.NestedField) bool { return f.ID == id })
				require.True(t, array.Equal(want.Column(at), rec.Column(i)), "field %d", id)
			}
			return nil
		}))
		return ids
	}
	all := []int{7, 6, 4, 3, 2, 1}
	require.Equal(t, h.rows[f.Path], read(all, nil))
	require.Equal(t, h.rows[f.Path], read([]int{1}, nil))
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 10, 500, 20_000, rows} {
		for range 5 {
			perm := rng.Perm(rows)[:n]
			slices.Sort(perm)
			positions, want := []uint32{}, []int64(nil)
			for _, p := range perm {
				positions = append(positions, uint32(p))
				want = append(want, h.rows[f.Path][p])
			}
			require.Equal(t, want, read(all, positions), "%d positions", n)
		}
	}
	require.Error(t, h.tab.Read(h.ctx, f.Path, []int{1}, []uint32{rows}, nil))
	require.Error(t, h.tab.Read(h.ctx, f.Path, []int{99}, nil, nil))
	require.Error(t, h.tab.Read(h.ctx, f.Path+"x", []int{1}, nil, nil))

	// A loaded table, whose footers aren't known, and a file it no longer has.
	h.tab = h.sameAsLoaded()
	require.Equal(t, h.rows[f.Path], read(all, nil))
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Truncate: true})
	h.tab = h.sameAsLoaded()
	require.Equal(t, h.rows[f.Path], read(all, nil))
}

func TestReadFetchesOnlyPages(t *testing.T) {
	h := newHarness(t, 2, 11)
	store := &countingStore{Store: h.store}
	h.tab.o.Store = store
	h.tab.o.RowGroupRows = defaultRowGroupRows
	f := h.write(testSchema, 300_000)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{f}})
	before := store.bytes.Load()
	require.NoError(t, h.tab.Read(h.ctx, f.Path, []int{1, 6}, []uint32{5, 250_000}, func(first int64, rec arrow.RecordBatch) error {
		require.Equal(t, int64(2), rec.NumRows())
		require.Equal(t, int64(250_001), rec.Column(0).(*array.Int64).Value(1))
		require.Equal(t, byte(250_001&0xff), rec.Column(1).(*extensions.UUIDArray).Value(1)[15])
		return nil
	}))
	read := store.bytes.Load() - before
	t.Logf("%d of %d bytes in %d requests", read, f.Bytes, store.requests.Load())
	require.Less(t, read, f.Bytes/4)
}

// A field that the file does not have is NULL, and a widened one is promoted.
func TestReadOlderSchema(t *testing.T) {
	old := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int32, Required: true},
		iceberg.NestedField{ID: 2, Name: "f", Type: iceberg.PrimitiveTypes.Float32},
		iceberg.NestedField{ID: 3, Name: "d", Type: iceberg.DecimalTypeOf(5, 2)},
	)
	wide := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
		iceberg.NestedField{ID: 2, Name: "renamed", Type: iceberg.PrimitiveTypes.Float64},
		iceberg.NestedField{ID: 3, Name: "d", Type: iceberg.DecimalTypeOf(20, 2)},
		iceberg.NestedField{ID: 4, Name: "new", Type: iceberg.PrimitiveTypes.UUID},
	)
	h := newHarness(t, 2, 12)
	var err error
	h.tab, err = Create(CreateOptions{Options: h.tab.o, Schema: old})
	require.NoError(t, err)
	w, err := h.tab.NewFile(old, nil)
	require.NoError(t, err)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, w.(*fileWriter).arrow, strings.NewReader(`[{"id":1,"f":1.5,"d":"1.25"},{"id":2,"f":null,"d":"-1.25"}]`))
	require.NoError(t, err)
	require.NoError(t, w.Write(rec))
	f, err := w.Close(h.ctx)
	require.NoError(t, err)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{f}})
	h.commit(&lake.Change{Stamp: h.stamp("schema"), Schema: wide})
	require.Equal(t, 1, h.tab.Schema().ID)
	require.True(t, h.tab.Schema().Equals(wide))
	n := 0
	require.NoError(t, h.tab.Read(h.ctx, f.Path, []int{4, 3, 2, 1}, nil, func(_ int64, rec arrow.RecordBatch) error {
		n++
		require.Equal(t, 2, rec.Column(0).NullN())
		require.Equal(t, "1.25", rec.Column(1).ValueStr(0))
		require.Equal(t, 1.5, rec.Column(2).(*array.Float64).Value(0))
		require.True(t, rec.Column(2).IsNull(1))
		require.Equal(t, []int64{1, 2}, rec.Column(3).(*array.Int64).Int64Values())
		return nil
	}))
	require.Equal(t, 1, n)
}

func TestWriter(t *testing.T) {
	h := newHarness(t, 2, 13)
	w, err := h.tab.NewFile(testSchema, nil)
	require.NoError(t, err)
	f, err := w.Close(h.ctx)
	require.NoError(t, err)
	require.Nil(t, f, "a file without rows")

	w, err = h.tab.NewFile(testSchema, nil)
	require.NoError(t, err)
	require.Error(t, w.Write(record(t, widerSchema, []int64{1})))
	w.Abort()

	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	w, err = h.tab.NewFile(testSchema, nil)
	require.NoError(t, err)
	require.NoError(t, w.Write(record(t, testSchema, []int64{1, 2})))
	f, err = w.Close(ctx)
	require.NoError(t, err)
	<-f.Uploaded
	require.ErrorIs(t, f.UploadErr(), context.Canceled)

	h.tab.o.RowGroupRows, h.tab.o.RowGroupBytes = defaultRowGroupRows, 100<<10
	f = h.write(testSchema, 100_000)
	require.Greater(t, len(f.Entry.SplitOffsets()), 2)
	h.tab.o.RowGroupRows, h.tab.o.RowGroupBytes = 64, defaultRowGroupBytes
	f = h.write(testSchema, 300)
	require.Len(t, f.Entry.SplitOffsets(), 5)
	require.Equal(t, int64(300), f.Entry.ValueCounts()[1])
	require.NotEmpty(t, f.Entry.LowerBoundValues()[1])
	<-f.Uploaded
	require.NoError(t, f.UploadErr())
}

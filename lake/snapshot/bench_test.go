package snapshot

import (
	"crypto/md5"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// BenchmarkCommit is one epoch (a new file of 100 rows, deletes in four files)
// after so many others, each a second after the last. File encoding is not
// counted: the benchmark is of Prepare and Adopt.
func BenchmarkCommit(b *testing.B) {
	histories := []int{100, 2000, 5000}
	if testing.Short() {
		histories = histories[:1]
	}
	for _, version := range []int{2, 3} {
		for _, history := range histories {
			b.Run(fmt.Sprintf("v%d/history=%d", version, history), func(b *testing.B) {
				h := newHarness(b, version, 1)
				rng := rand.New(rand.NewPCG(1, 1))
				entry := h.write(testSchema, 100)
				n := 0
				epoch := func() (lake.Prepared, error) {
					n++
					f := *entry // one body under many names: only metadata is measured
					f.Path = fmt.Sprintf("%s-%d", entry.Path, n)
					f.Entry = renamed(b, entry.Entry, f.Path)
					c := &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{&f}, Dead: map[string]*roaring.Bitmap{}}
					c.CommitTime = time.Unix(int64(1e9+n), 0)
					for range min(4, len(h.tab.files)) {
						live := h.tab.files[max(0, len(h.tab.files)-64):]
						c.Dead[live[rng.IntN(len(live))].path] = dead(uint32(rng.IntN(100)))
					}
					p, err := h.tab.Prepare(h.ctx, c)
					return p, err
				}
				for range history {
					p, err := epoch()
					require.NoError(b, err)
					h.tab.Adopt(p)
				}
				objects, bytes := 0, 0
				b.ReportAllocs()
				cpu := cpuTime()
				for b.Loop() {
					p, err := epoch()
					require.NoError(b, err)
					h.tab.Adopt(p)
					for _, o := range p.(*prepared).objects {
						objects++
						bytes += len(o.body)
					}
				}
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(objects)/float64(b.N), "objects/op")
				b.ReportMetric(float64(bytes)/float64(b.N), "written-B/op")
				b.ReportMetric(float64(len(h.tab.data)), "data-manifests")
				b.ReportMetric(float64(len(h.tab.deletes)), "delete-manifests")
				b.ReportMetric(float64(h.tab.total.deleteFiles), "delete-files")
				b.ReportMetric(float64(h.tab.total.dataFiles), "data-files")
			})
		}
	}
}

func renamed(tb testing.TB, f iceberg.DataFile, path string) iceberg.DataFile {
	n, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, path, iceberg.ParquetFile, nil, nil, nil, f.Count(), f.FileSizeBytes())
	require.NoError(tb, err)
	return n.ColumnSizes(f.ColumnSizes()).ValueCounts(f.ValueCounts()).NullValueCounts(f.NullValueCounts()).
		LowerBoundValues(f.LowerBoundValues()).UpperBoundValues(f.UpperBoundValues()).SplitOffsets(f.SplitOffsets()).Build()
}

// tenColumns are of the kinds that tables have: a key that counts up, a foreign
// key, an amount, a time, a note that is all different, a float with all its
// digits, and four of few values.
func tenColumns(b *testing.B, rows, batches int) (*iceberg.Schema, []arrow.RecordBatch) {
	p := iceberg.PrimitiveTypes
	sc := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: p.Int64, Required: true},
		iceberg.NestedField{ID: 2, Name: "user_id", Type: p.Int32},
		iceberg.NestedField{ID: 3, Name: "kind", Type: p.String},
		iceberg.NestedField{ID: 4, Name: "amount", Type: iceberg.DecimalTypeOf(12, 2)},
		iceberg.NestedField{ID: 5, Name: "ok", Type: p.Bool},
		iceberg.NestedField{ID: 6, Name: "created_at", Type: p.TimestampTz},
		iceberg.NestedField{ID: 7, Name: "note", Type: p.String},
		iceberg.NestedField{ID: 8, Name: "f1", Type: p.Float64},
		iceberg.NestedField{ID: 9, Name: "i1", Type: p.Int32},
		iceberg.NestedField{ID: 10, Name: "tags", Type: p.String},
	)
	as, err := table.SchemaToArrowSchema(sc, nil, true, false)
	require.NoError(b, err)
	var recs []arrow.RecordBatch
	for batch := range batches {
		rb := array.NewRecordBuilder(memory.DefaultAllocator, as)
		for i := range rows {
			id := int64(batch*rows + i)
			rb.Field(0).(*array.Int64Builder).Append(id)
			rb.Field(1).(*array.Int32Builder).Append(int32(id % 100_000))
			rb.Field(2).(*array.StringBuilder).Append(fmt.Sprint("kind", id%10))
			rb.Field(3).(*array.Decimal128Builder).Append(decimal128.FromI64(id % 10_000))
			rb.Field(4).(*array.BooleanBuilder).Append(id%2 == 0)
			rb.Field(5).(*array.TimestampBuilder).Append(arrow.Timestamp(1e15 + id*1e6))
			rb.Field(6).(*array.StringBuilder).Append(fmt.Sprintf("%xnote", md5.Sum(fmt.Append(nil, id))))
			rb.Field(7).(*array.Float64Builder).Append(float64(id) / 3)
			rb.Field(8).(*array.Int32Builder).Append(int32(id % 1000))
			rb.Field(9).(*array.StringBuilder).Append(fmt.Sprint("tag", id%100))
		}
		recs = append(recs, rb.NewRecordBatch())
		rb.Release()
	}
	return sc, recs
}

// BenchmarkEncode writes tenColumns.
func BenchmarkEncode(b *testing.B) {
	const rows, batches = 48 << 10, 20
	sc, recs := tenColumns(b, rows, batches)
	h := newHarness(b, 2, 1)
	h.tab.o.RowGroupRows = defaultRowGroupRows
	h.tab.o.TempDir = b.TempDir()
	b.ResetTimer()
	cpu := cpuTime()
	var size int64
	for b.Loop() {
		w, err := h.tab.NewFile(sc, nil)
		require.NoError(b, err)
		for _, r := range recs {
			require.NoError(b, w.Write(r))
		}
		f, err := w.Close(h.ctx)
		require.NoError(b, err)
		size = f.Bytes
		<-f.Uploaded
		require.NoError(b, h.store.Delete(h.ctx, w.(*fileWriter).key))
	}
	b.ReportMetric(float64(rows*batches*b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric((cpuTime()-cpu).Seconds()/float64(rows*batches*b.N)*1e6, "cpu-s/Mrow")
	b.ReportMetric(float64(size)/(rows*batches), "B/row")
}

// cpuTime is what the process has used: a loaded machine doesn't change it.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReadScattered reads values of 2.4 KB at random positions, as those
// are that Postgres sends an update without.
func BenchmarkReadScattered(b *testing.B) {
	const rows, batches, wanted = 8 << 10, 12, 6_000
	sc := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
		iceberg.NestedField{ID: 2, Name: "body", Type: iceberg.PrimitiveTypes.String})
	as, err := table.SchemaToArrowSchema(sc, nil, true, false)
	require.NoError(b, err)
	h := newHarness(b, 2, 1)
	h.tab.o.RowGroupRows = defaultRowGroupRows
	h.tab.o.TempDir = b.TempDir()
	w, err := h.tab.NewFile(sc, nil)
	require.NoError(b, err)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer rb.Release()
	for batch := range batches {
		for i := range rows {
			id := int64(batch*rows + i)
			rb.Field(0).(*array.Int64Builder).Append(id)
			rb.Field(1).(*array.StringBuilder).Append(strings.Repeat(fmt.Sprintf("%x a document of some length, ", md5.Sum(fmt.Append(nil, id))), 40))
		}
		rec := rb.NewRecordBatch()
		require.NoError(b, w.Write(rec))
		rec.Release()
	}
	f, err := w.Close(h.ctx)
	require.NoError(b, err)
	<-f.Uploaded
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{f}})
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	for b.Loop() {
		positions := make([]uint32, wanted)
		for i, p := range rng.Perm(rows * batches)[:wanted] {
			positions[i] = uint32(p)
		}
		slices.Sort(positions)
		var got int64
		require.NoError(b, h.tab.Read(h.ctx, f.Path, []int{2}, positions, func(_ int64, rec arrow.RecordBatch) error {
			got += rec.NumRows()
			return nil
		}))
		require.EqualValues(b, wanted, got)
	}
	b.ReportMetric((cpuTime()-cpu).Seconds()/float64(wanted*b.N)*1e6, "cpu-µs/value")
	b.ReportMetric(float64(f.Bytes)/(rows*batches), "B/row")
}

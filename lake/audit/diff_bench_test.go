package audit

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake"
	"firn/lake/object"
	"firn/lake/snapshot"
	"firn/wal"
)

// BenchmarkDiff compares two epochs of which every row was updated, in another
// order. FIRN_DIFF_ROWS is their number (1,000,000); rss-MB is the most memory
// that the process has had since it wrote them.
func BenchmarkDiff(b *testing.B) {
	rows := int64(1_000_000)
	if s := os.Getenv("FIRN_DIFF_ROWS"); s != "" {
		var err error
		rows, err = strconv.ParseInt(s, 10, 64)
		require.NoError(b, err)
	}
	store, err := object.Open(b.Context(), b.TempDir(), object.Options{})
	require.NoError(b, err)
	fields := []iceberg.NestedField{{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true}}
	for i := 2; i <= 9; i++ {
		typ := []iceberg.Type{iceberg.PrimitiveTypes.Int64, iceberg.PrimitiveTypes.TimestampTz, iceberg.PrimitiveTypes.String, iceberg.PrimitiveTypes.Float64}[i%4]
		fields = append(fields, iceberg.NestedField{ID: i, Name: fmt.Sprint("c", i), Type: typ})
	}
	schema := iceberg.NewSchemaWithIdentifiers(0, []int{1}, fields...)
	tab, err := snapshot.Create(snapshot.CreateOptions{Options: snapshot.Options{Store: store, Ident: lake.Ident{Namespace: "public", Name: "t"}, Location: "t", TempDir: b.TempDir()}, Schema: schema})
	require.NoError(b, err)
	as, err := table.SchemaToArrowSchema(schema, nil, true, false)
	require.NoError(b, err)
	write := func(shift int64) (files []*lake.NewFile) {
		const perFile = 1_000_000
		for first := int64(0); first < rows; first += perFile {
			w, err := tab.NewFile(schema, nil)
			require.NoError(b, err)
			for from := first; from < min(rows, first+perFile); from += 16 << 10 {
				rb := array.NewRecordBuilder(memory.DefaultAllocator, as)
				for i := from; i < min(rows, first+perFile, from+16<<10); i++ {
					id := i
					if shift > 0 {
						id = rows - 1 - i
					}
					for c, f := range rb.Fields() {
						v := id
						if c > 0 {
							v = (id + shift) * int64(c) % 1_000_003
						}
						switch f := f.(type) {
						case *array.Int64Builder:
							f.Append(v)
						case *array.TimestampBuilder:
							f.Append(arrow.Timestamp(v))
						case *array.Float64Builder:
							f.Append(float64(v))
						case *array.StringBuilder:
							f.Append(fmt.Sprint("a text of some length ", v))
						}
					}
				}
				rec := rb.NewRecordBatch()
				require.NoError(b, w.Write(rec))
				rec.Release()
				rb.Release()
			}
			f, err := w.Close(b.Context())
			require.NoError(b, err)
			files = append(files, f)
		}
		return files
	}
	var points []Point
	commit := func(c *lake.Change) {
		n := uint64(len(points) + 1)
		c.Stamp = lake.Stamp{Epoch: n, LSN: wal.LSN(n), CommitTime: time.Unix(int64(1e9+n), 0), Kind: "stream"}
		p, err := tab.Prepare(b.Context(), c)
		require.NoError(b, err)
		require.NoError(b, p.Upload(b.Context()))
		tab.Adopt(p)
		points = append(points, Point{Epoch: n, Table: &catalog.Table{Metadata: tab.Metadata()}})
	}
	commit(&lake.Change{Add: write(0)})
	dead := map[string]*roaring.Bitmap{}
	for _, f := range tab.Files() {
		dead[f.Path] = roaring.Flip(roaring.New(), 0, uint64(f.Rows))
	}
	commit(&lake.Change{Add: write(1), Dead: dead})
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Skip("no way to measure memory: ", err)
	}
	b.ResetTimer()
	for b.Loop() {
		d, err := OpenDiff(b.Context(), DiffOptions{Store: store, Table: modelIdent, From: points[0], To: points[1], TempDir: b.TempDir()})
		require.NoError(b, err)
		counts, err := d.Rows(b.Context(), func(Changes) error { return nil })
		require.NoError(b, err)
		require.Equal(b, Counts{Updated: rows}, counts)
	}
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.ParseFloat(strings.Fields(peak)[0], 64)
	require.NoError(b, err)
	b.ReportMetric(kb/1024, "rss-MB")
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

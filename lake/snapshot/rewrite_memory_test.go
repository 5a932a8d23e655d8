package snapshot

import (
	"encoding/hex"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
)

// What a rewrite holds in memory doesn't grow with its inputs, nor with the
// width of the rows: at most rewriteMemoryMax, of narrow rows far less.
func TestRewriteMemory(t *testing.T) {
	const rewriteMemoryMax = 256 << 20
	if testing.Short() {
		t.Skip("it writes some hundred megabytes")
	}
	files := 24
	if laketest.Race {
		files = 6 // as many go through the sorter's spill still
	}
	store, err := object.Open(t.Context(), t.TempDir(), object.Options{})
	require.NoError(t, err)
	sc := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
		iceberg.NestedField{ID: 2, Name: "body", Type: iceberg.PrimitiveTypes.String})
	for _, c := range []struct {
		name        string
		rows, width int
		by          string
	}{
		{"narrow", 300_000, 8, ""}, {"wide", 4_000, 4 << 10, ""}, {"very-wide", 16, 1 << 20, ""},
		{"narrow-sorted", 300_000, 8, "body"}, {"very-wide-sorted", 16, 1 << 20, "id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, 2, 1)
			h.tab, err = Create(CreateOptions{Options: Options{Store: store, Ident: h.tab.o.Ident, Location: c.name, TempDir: t.TempDir()}, Schema: sc})
			require.NoError(t, err)
			if c.by != "" {
				h.sortBy(c.by)
				h.tab.o.SortBytes = defaultSortBytes
			}
			rng := rand.NewChaCha8([32]byte{1})
			change := &lake.Change{Stamp: h.stamp("snapshot")}
			var total int64
			for range files {
				w, err := h.tab.NewFile(sc, nil)
				require.NoError(t, err)
				rb := array.NewRecordBuilder(memory.DefaultAllocator, w.(*fileWriter).arrow)
				for row := range c.rows {
					raw := make([]byte, c.width/2)
					_, _ = rng.Read(raw) // it has no error
					rb.Field(0).(*array.Int64Builder).Append(int64(row))
					rb.Field(1).(*array.StringBuilder).Append(hex.EncodeToString(raw))
					if (row+1)%max(1, 8<<20/c.width) == 0 || row == c.rows-1 {
						rec := rb.NewRecordBatch()
						require.NoError(t, w.Write(rec))
						rec.Release()
					}
				}
				rb.Release()
				f, err := w.Close(h.ctx)
				require.NoError(t, err)
				<-f.Uploaded
				require.NoError(t, f.UploadErr())
				total += f.Bytes
				h.rows[f.Path] = make([]int64, f.Rows)
				change.Add = append(change.Add, f)
			}
			h.commit(change)
			debug.FreeOSMemory()
			var before, now runtime.MemStats
			runtime.ReadMemStats(&before)
			stop, peak := make(chan struct{}), make(chan uint64)
			go func() {
				var most uint64
				for {
					select {
					case <-stop:
						peak <- most
						return
					case <-time.After(2 * time.Millisecond):
						runtime.ReadMemStats(&now)
						most = max(most, now.HeapInuse)
					}
				}
			}()
			h.rewrite()
			close(stop)
			held := int64(<-peak) - int64(before.HeapInuse)
			t.Logf("%d MB of files, at most %d MB of heap", total>>20, held>>20)
			require.Less(t, held, int64(rewriteMemoryMax), "garbage included")
		})
	}
}

package snapshot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// BenchmarkRewrite merges eight files of BenchmarkEncode's ten columns, of whose
// rows one in ten is dead; live rows are counted. Of the CPU time, reading-back
// is what the proof takes besides hashing the inputs' rows.
func BenchmarkRewrite(b *testing.B) {
	const files = 8
	for _, c := range []struct {
		version int
		by      string
	}{{2, ""}, {3, ""}, {2, "user_id, created_at desc"}, {2, "note"}} {
		version, by := c.version, c.by
		b.Run(fmt.Sprintf("v%d/by=%s", version, strings.ReplaceAll(c.by, ", ", ",")), func(b *testing.B) {
			sc, recs := tenColumns(b, 48<<10, 20)
			h := newHarness(b, version, 1)
			h.tab.o.RowGroupRows = defaultRowGroupRows
			h.tab.o.TempDir = b.TempDir()
			c := &lake.Change{Stamp: h.stamp("snapshot"), Schema: sc, Dead: map[string]*roaring.Bitmap{}}
			for i := range files {
				w, err := h.tab.NewFile(sc, nil)
				require.NoError(b, err)
				for j := i * len(recs) / files; j < (i+1)*len(recs)/files; j++ {
					require.NoError(b, w.Write(recs[j]))
				}
				f, err := w.Close(h.ctx)
				require.NoError(b, err)
				c.Add = append(c.Add, f)
				h.rows[f.Path] = make([]int64, f.Rows)
				dead := roaring.New()
				for row := uint32(i); int64(row) < f.Rows; row += 10 {
					dead.Add(row)
				}
				c.Dead[f.Path] = dead
			}
			h.commit(c)
			if by != "" {
				h.sortBy(by)
				h.tab.o.SortBytes = defaultSortBytes
			}
			inputs := inputsOf(h.tab)
			b.ReportAllocs()
			b.ResetTimer()
			var rows int64
			var cpu, back time.Duration
			for b.Loop() {
				start := cpuTime()
				r, err := h.tab.Rewrite(h.ctx, inputs)
				cpu += cpuTime() - start
				require.NoError(b, err)
				rows += r.Output.Rows

				b.StopTimer()
				w, _, err := h.tab.newRewriter(inputs)
				require.NoError(b, err)
				w.sum = r.Sum
				start = cpuTime()
				require.NoError(b, w.prove(h.ctx, r.Output))
				back += cpuTime() - start
				key, _ := h.store.Key(r.Output.Path)
				require.NoError(b, h.store.Delete(h.ctx, key))
				b.StartTimer()
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(cpu.Seconds()/float64(rows)*1e6, "cpu-s/Mrow")
			b.ReportMetric(back.Seconds()/float64(rows)*1e6, "reading-back-cpu-s/Mrow")
		})
	}
}

// inputsOf are all files of a table, without what is dead now.
func inputsOf(t *Table) []lake.RewriteInput {
	var out []lake.RewriteInput
	for _, f := range t.Files() {
		in := lake.RewriteInput{Path: f.Path}
		if f.Dead != nil {
			in.Dead = f.Dead.Clone()
		}
		out = append(out, in)
	}
	return out
}

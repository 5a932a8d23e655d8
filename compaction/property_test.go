package compaction

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawTable(r *rapid.T) Table {
	size := rapid.Custom(func(r *rapid.T) int64 { // a kilobyte to a gigabyte, each magnitude as likely
		return int64(1000 * math.Pow(10, rapid.Float64Range(0, 6).Draw(r, "magnitude")))
	})
	partition := rapid.Custom(func(r *rapid.T) Partition {
		return Partition{Spec: rapid.IntRange(0, 1).Draw(r, "spec"), Values: rapid.SampledFrom([]string{"", "day=1"}).Draw(r, "values")}
	})
	part := rapid.Custom(func(r *rapid.T) float64 {
		return rapid.SampledFrom([]float64{0, 0, 0, 0.1, 0.5, 0.9, 1}).Draw(r, "part")
	})
	hot := rapid.Bool().Draw(r, "hot")
	var t Table
	for i := range rapid.IntRange(0, 80).Draw(r, "data files") {
		f := DataFile{Path: fmt.Sprint("data", i), Partition: partition.Draw(r, "partition"), Bytes: size.Draw(r, "bytes"),
			Young: hot && rapid.Bool().Draw(r, "young"), Unsorted: rapid.IntRange(0, 9).Draw(r, "unsorted") == 0}
		f.Rows = f.Bytes / 100
		f.Dead = int64(part.Draw(r, "dead") * float64(f.Rows))
		t.Data = append(t.Data, f)
	}
	return t
}

// apply installs a rewrite, checking that its inputs may become one file.
func apply(r *rapid.T, t Table, w Rewrite, out string) Table {
	require.NotEmpty(r, w.Reason)
	var bytes, rows int64
	inputs, young := 0, false
	var left []DataFile
	for _, f := range t.Data {
		if !slices.Contains(w.Inputs, f.Path) {
			left = append(left, f)
			continue
		}
		require.Equal(r, w.Partition, f.Partition)
		inputs++
		bytes, rows, young = bytes+f.Bytes, rows+f.Rows-f.Dead, young || f.Young
	}
	if w.OutFiles() > 0 {
		left = append(left, DataFile{Path: out, Partition: w.Partition, Bytes: max(1, w.OutBytes), Rows: w.OutRows, Young: young})
	}
	require.Equal(r, len(w.Inputs), inputs, "each input is live")
	require.Equal(r, bytes, w.InBytes)
	require.Equal(r, rows, w.OutRows)
	require.GreaterOrEqual(r, w.Gain.Worth(), int64(0))
	return Table{Data: left}
}

func TestPlanOfAnyTable(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table := drawTable(r)
		o := Options{
			SpareFiles:   rapid.IntRange(1, 10).Draw(r, "spare files"),
			RewriteFiles: rapid.IntRange(2, 64).Draw(r, "files at once"),
		}.withDefaults()

		for rounds, begun := 0, len(table.Data); ; rounds++ {
			plan := Plan(table, o)
			shuffled := Table{slices.Clone(table.Data)}
			slices.Reverse(shuffled.Data)
			require.Equal(r, plan, Plan(shuffled, o), "a plan depends on the files, not on their order")
			if len(plan) == 0 {
				break
			}
			require.LessOrEqual(r, rounds, 2*begun, "it comes to an end")
			require.True(r, slices.IsSortedFunc(plan, ByUrgency))
			taken := map[string]bool{}
			for i, w := range plan {
				if len(w.Inputs) > 1 {
					require.LessOrEqual(r, len(w.Inputs), o.RewriteFiles)
					require.LessOrEqual(r, w.InBytes, o.RewriteBytes)
				}
				for _, path := range w.Inputs {
					require.False(r, taken[path], "%s is in one rewrite only", path)
					taken[path] = true
				}
				if i > 0 && rapid.IntRange(0, 3).Draw(r, "left out") == 0 {
					continue
				}
				before := len(table.Data)
				table = apply(r, table, w, fmt.Sprintf("round%d-%d", rounds, i))
				require.LessOrEqual(r, len(table.Data), before, "files never become more")
			}
		}
		requireTidy(r, table, o)
	})
}

// requireTidy checks what holds of a table that nothing is planned for.
func requireTidy(r *rapid.T, t Table, o Options) {
	files, content := map[Partition]int{}, map[Partition]int64{}
	young := map[Partition]bool{}
	for _, f := range t.Data {
		young[f.Partition] = young[f.Partition] || f.Young
	}
	for _, f := range t.Data {
		files[f.Partition]++
		content[f.Partition] += f.Bytes
		if f.Bytes >= OpenBytes {
			most := o.MaxDead
			if young[f.Partition] && 2*(1-most)*float64(f.Bytes) < float64(o.TargetBytes) {
				most = 0.5
			}
			require.LessOrEqual(r, float64(f.Dead), most*float64(f.Rows))
			require.False(r, f.Unsorted)
		}
	}
	for of, n := range files {
		require.LessOrEqual(r, n, o.SpareFiles+int(2*content[of]/o.TargetBytes), "data files of %v", of)
	}
}

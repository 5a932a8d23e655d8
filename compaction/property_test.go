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
	for i := range rapid.IntRange(0, 60).Draw(r, "delete files") {
		d := DeleteFile{Path: fmt.Sprint("delete", i), Partition: partition.Draw(r, "partition"), Bytes: size.Draw(r, "bytes") / 100}
		if len(t.Data) > 0 && rapid.Bool().Draw(r, "own") {
			f := t.Data[rapid.IntRange(0, min(3, len(t.Data)-1)).Draw(r, "of")]
			d.Of, d.Partition = f.Path, f.Partition
		}
		d.Entries = d.Bytes/4 + 1
		d.Stale = int64(part.Draw(r, "stale") * float64(d.Entries))
		t.Deletes = append(t.Deletes, d)
	}
	for i := range rapid.IntRange(0, 60).Draw(r, "manifests") {
		m := Manifest{Path: fmt.Sprint("manifest", i), Spec: rapid.IntRange(0, 1).Draw(r, "spec"), Deletes: rapid.Bool().Draw(r, "deletes"),
			Entries: rapid.Int64Range(0, 3000).Draw(r, "entries")}
		m.Bytes = 500 + 100*m.Entries
		t.Manifests = append(t.Manifests, m)
	}
	return t
}

// without is files but for those of w, and those of w.
func without[T any](files []T, w Rewrite, path func(T) string) (kept, taken []T) {
	for _, f := range files {
		if slices.Contains(w.Inputs, path(f)) {
			taken = append(taken, f)
		} else {
			kept = append(kept, f)
		}
	}
	return kept, taken
}

func (t Table) files() int { return len(t.Data) + len(t.Deletes) + len(t.Manifests) }

// apply installs a rewrite, checking that its inputs may become one file.
func apply(r *rapid.T, t Table, w Rewrite, out string) Table {
	require.NotEmpty(r, w.Reason)
	var bytes, rows int64
	inputs := 0
	switch w.Kind {
	case DataFiles:
		var taken []DataFile
		t.Data, taken = without(t.Data, w, func(f DataFile) string { return f.Path })
		young := false
		for _, f := range taken {
			require.Equal(r, w.Partition, f.Partition)
			bytes, rows, young = bytes+f.Bytes, rows+f.Rows-f.Dead, young || f.Young
		}
		inputs = len(taken)
		t.Deletes = slices.DeleteFunc(slices.Clone(t.Deletes), func(d DeleteFile) bool { return slices.Contains(w.Inputs, d.Of) })
		if w.OutFiles() > 0 {
			t.Data = append(t.Data, DataFile{Path: out, Partition: w.Partition, Bytes: max(1, w.OutBytes), Rows: w.OutRows, Young: young})
		}
	case DeleteFiles:
		var taken []DeleteFile
		t.Deletes, taken = without(t.Deletes, w, func(f DeleteFile) string { return f.Path })
		for _, f := range taken {
			require.Equal(r, w.Partition, f.Partition)
			require.Equal(r, taken[0].Of, f.Of)
			bytes, rows = bytes+f.Bytes, rows+f.Entries-f.Stale
		}
		inputs = len(taken)
		if w.OutFiles() > 0 {
			t.Deletes = append(t.Deletes, DeleteFile{Path: out, Partition: w.Partition, Of: taken[0].Of, Bytes: w.OutBytes, Entries: w.OutRows})
		}
	case Manifests:
		var taken []Manifest
		t.Manifests, taken = without(t.Manifests, w, func(f Manifest) string { return f.Path })
		for _, f := range taken {
			require.Equal(r, w.Partition.Spec, f.Spec)
			require.Equal(r, taken[0].Deletes, f.Deletes)
			bytes, rows = bytes+f.Bytes, rows+f.Entries
		}
		inputs = len(taken)
		t.Manifests = append(t.Manifests, Manifest{Path: out, Spec: taken[0].Spec, Deletes: taken[0].Deletes, Bytes: w.OutBytes, Entries: w.OutRows})
	}
	require.Equal(r, len(w.Inputs), inputs, "each input is live")
	require.Equal(r, bytes, w.InBytes)
	require.Equal(r, rows, w.OutRows)
	require.GreaterOrEqual(r, w.Gain.Worth(), int64(0))
	return t
}

func TestPlanOfAnyTable(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table := drawTable(r)
		o := Options{
			SpareFiles:   rapid.IntRange(1, 10).Draw(r, "spare files"),
			DeleteFiles:  rapid.IntRange(2, 9).Draw(r, "delete files allowed"),
			RewriteFiles: rapid.IntRange(2, 64).Draw(r, "files at once"),
		}.withDefaults()

		for rounds, begun := 0, table.files(); ; rounds++ {
			plan := Plan(table, o)
			shuffled := Table{slices.Clone(table.Data), slices.Clone(table.Deletes), slices.Clone(table.Manifests)}
			slices.Reverse(shuffled.Data)
			slices.Reverse(shuffled.Deletes)
			slices.Reverse(shuffled.Manifests)
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
				before := table.files()
				table = apply(r, table, w, fmt.Sprintf("round%d-%d", rounds, i))
				require.LessOrEqual(r, table.files(), before, "files never become more")
			}
		}
		requireTidy(r, table, o)
	})
}

// requireTidy checks what holds of a table that nothing is planned for.
func requireTidy(r *rapid.T, t Table, o Options) {
	files, content := map[Partition]int{}, map[Partition]int64{}
	for _, f := range t.Data {
		files[f.Partition]++
		content[f.Partition] += f.Bytes
		if f.Bytes >= OpenBytes {
			require.LessOrEqual(r, float64(f.Dead), o.MaxDead*float64(f.Rows))
			require.False(r, f.Unsorted)
		}
	}
	for of, n := range files {
		require.LessOrEqual(r, n, o.SpareFiles+int(2*content[of]/o.TargetBytes), "data files of %v", of)
	}
	deletes := map[string]int{}
	for _, d := range t.Deletes {
		deletes[fmt.Sprint(d.Partition, d.Of)]++
	}
	for of, n := range deletes {
		require.LessOrEqual(r, n, o.DeleteFiles/2, "delete files of %v", of)
	}
	manifests, entries := map[string]int{}, map[string]int64{}
	for _, m := range t.Manifests {
		if m.Entries > 0 {
			of := fmt.Sprint(m.Spec, m.Deletes)
			manifests[of]++
			entries[of] += m.Entries
		}
	}
	for of, n := range manifests {
		require.LessOrEqual(r, n, o.SpareManifests+int(2*entries[of]/o.ManifestEntries), "manifests of %v", of)
	}
}

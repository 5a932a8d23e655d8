package compaction

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

const mb = 1 << 20

// file is a data file of 10,000 rows a megabyte that landed lately.
func file(name string, megabytes float64) DataFile {
	return DataFile{Path: name, Bytes: int64(megabytes * mb), Rows: int64(megabytes * 10_000), Young: true}
}

func dead(f DataFile, share float64) DataFile {
	f.Dead = int64(share * float64(f.Rows))
	return f
}

func old(files ...DataFile) []DataFile {
	for i := range files {
		files[i].Young = false
	}
	return files
}

func in(values string, f DataFile) DataFile {
	f.Partition.Values = values
	return f
}

// times are n files of a size, name1 and so on.
func times(n int, name string, megabytes float64) (files []DataFile) {
	for i := range n {
		files = append(files, file(fmt.Sprint(name, i+1), megabytes))
	}
	return files
}

func join[T any](lists ...[]T) (all []T) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func TestPlan(t *testing.T) {
	unsorted := func(f DataFile) DataFile { f.Unsorted = true; return f }
	resting := func(f DataFile) DataFile { f.Resting = true; return f }
	asked := func(files ...DataFile) []DataFile {
		for i := range files {
			files[i].Asked = true
		}
		return files
	}
	busy := func(files ...DataFile) []DataFile {
		for i := range files {
			files[i].Busy = true
		}
		return files
	}
	cases := []struct {
		name  string
		table Table
		o     Options
		want  []string // inputs: reason
	}{
		{name: "nothing of nothing"},
		{name: "of one that rests, next to nothing may be dead",
			table: Table{Data: []DataFile{resting(dead(file("worn", 100), 0.002)), resting(dead(file("fine", 100), 0.001)), dead(file("hot", 100), 0.002)}},
			want:  []string{"[worn]: 0.2% of 1000000 rows dead"}},
		{name: "and nothing, if somebody asks for it",
			table: Table{Data: asked(dead(file("worn", 100), 0.0001), file("fine", 100), dead(file("s", 1), 0.0001))},
			want:  []string{"[s worn]: 2 files: 0.01% of 1010000 rows dead"}},
		{name: "those that a rewrite is at work on count, but for half of the spare",
			table: Table{Data: join(busy(times(3, "b", 1)...), times(4, "s", 1))}, o: Options{SpareFiles: 4},
			want: []string{"[s1 s2 s3 s4]: 7 data files, more than 6: the 4 smallest"}},
		{name: "and leave half of it to others, however many they are",
			table: Table{Data: join(busy(times(50, "b", 1)...), times(2, "s", 1))}, o: Options{SpareFiles: 4}},
		{name: "and no more than that",
			table: Table{Data: join(busy(times(50, "b", 1)...), times(3, "s", 1))}, o: Options{SpareFiles: 4},
			want: []string{"[s1 s2 s3]: 53 data files, more than 52: the 3 smallest"}},
		{name: "and are fewer than might be",
			table: Table{Data: join(busy(times(4, "b", 1)...), times(2, "s", 1))}, o: Options{SpareFiles: 4}},
		{name: "and are left alone",
			table: Table{Data: busy(dead(file("worn", 100), 0.5), unsorted(file("a", 100)))}},
		{name: "where no new ones come, small files go with those that are rewritten anyway",
			table: Table{Data: old(dead(file("a", 2), 0.5), dead(file("b", 2), 0.5), file("s", 1), file("t", 3), file("big", 30))},
			want:  []string{"[a b s t]: 4 files: 25% of 80000 rows dead"}},
		{name: "a handful of small files may lie about",
			table: Table{Data: times(8, "s", 1)}},
		{name: "one too many: all of one size are merged",
			table: Table{Data: times(4, "s", 1)}, o: Options{SpareFiles: 3},
			want: []string{"[s1 s2 s3 s4]: 4 data files, more than 3: the 4 smallest"}},
		{name: "a merge ends at a gap",
			table: Table{Data: join(times(3, "s", 1), times(1, "b", 10))}, o: Options{SpareFiles: 3},
			want: []string{"[s1 s2 s3]: 4 data files, more than 3: the 3 smallest"}},
		{name: "and goes over one that comes before any two are alike",
			table: Table{Data: join(times(1, "s", 1), times(2, "b", 10), times(1, "c", 40))}, o: Options{SpareFiles: 3},
			want: []string{"[s1 b1 b2]: 4 data files, more than 3: the 3 smallest"}},
		{name: "of files all unlike the least unlike",
			table: Table{Data: join(times(1, "a", 1), times(1, "b", 5), times(1, "c", 9), times(1, "d", 40))}, o: Options{SpareFiles: 3},
			want: []string{"[a1 b1 c1]: 4 data files, more than 3: the 3 smallest"}},
		{name: "full files stay, and count for the half that they are at least",
			table: Table{Data: join(times(6, "f", 128), times(9, "s", 1))}, o: Options{SpareFiles: 3}},
		{name: "half full is full",
			table: Table{Data: old(times(2, "f", 64)...)}},
		{name: "no more than one full file comes of a merge",
			table: Table{Data: times(6, "s", 50)}, o: Options{SpareFiles: 1},
			want: []string{"[s1 s2]: 6 data files, more than 5: the 2 smallest"}},
		{name: "as many merges as it takes",
			table: Table{Data: times(300, "s", 0.001)}, o: Options{SpareFiles: 3, RewriteFiles: 100},
			want: []string{"100 files: 102 data files, more than 3: the 100 smallest", "100 files: 201 data files, more than 3: the 100 smallest", "100 files: 300 data files, more than 3: the 100 smallest"}},
		{name: "partitions and specs are not mixed",
			table: Table{Data: join(
				[]DataFile{in("day=1", file("a", 1)), in("day=1", file("b", 1)), in("day=2", file("c", 1)), in("day=2", file("d", 1))},
				[]DataFile{{Path: "e", Bytes: mb, Rows: 1, Young: true, Partition: Partition{Spec: 1, Values: "day=1"}}})},
			o:    Options{SpareFiles: 1},
			want: []string{"[a b]: 2 data files, more than 1: the 2 smallest", "[c d]: 2 data files, more than 1: the 2 smallest"}},
		{name: "where nothing new comes, small files don't wait for more",
			table: Table{Data: old(times(3, "s", 1)...)},
			want:  []string{"[s1 s2 s3]: 3 small data files, and no new ones come"}},
		{name: "unless that were to write a larger one for little",
			table: Table{Data: old(file("a", 1), file("b", 2.5))}},
		{name: "or fills a file",
			table: Table{Data: old(file("a", 40), file("b", 50))},
			want:  []string{"[a b]: 2 small data files, and no new ones come"}},
		{name: "a worn file is rewritten, alone",
			table: Table{Data: []DataFile{dead(file("worn", 100), 0.25), dead(file("fine", 100), 0.15)}},
			want:  []string{"[worn]: 25% of 1000000 rows dead"}},
		{name: "or with others if they go into one file",
			table: Table{Data: []DataFile{dead(file("a", 100), 0.6), dead(file("b", 100), 0.7), dead(file("c", 100), 0.3)}},
			want:  []string{"[b a]: 2 files: 65% of 2000000 rows dead", "[c]: 30% of 1000000 rows dead"}},
		{name: "which small files have not to make up for",
			table: Table{Data: join([]DataFile{dead(file("a", 80), 0.9), dead(file("b", 80), 0.9)}, times(2, "s", 10))}, o: Options{SpareFiles: 3},
			want: []string{"[a b]: 2 files: 90% of 1600000 rows dead"}},
		{name: "a worn one that is quick to read waits for its next merge",
			table: Table{Data: []DataFile{dead(file("a", 1), 0.9)}}},
		{name: "and a small one",
			table: Table{Data: []DataFile{dead(file("a", 50), 0.5)}}},
		{name: "unless less of it is alive than dead",
			table: Table{Data: []DataFile{dead(file("a", 50), 0.51)}},
			want:  []string{"[a]: 51% of 500000 rows dead"}},
		{name: "or none of its rows has died for long",
			table: Table{Data: []DataFile{resting(dead(file("a", 50), 0.01))}},
			want:  []string{"[a]: 1% of 500000 rows dead"}},
		{name: "if one is to come",
			table: Table{Data: old(dead(file("a", 1), 0.9))},
			want:  []string{"[a]: 90% of 10000 rows dead"}},
		{name: "one without live rows goes",
			table: Table{Data: []DataFile{dead(file("a", 1), 1)}},
			want:  []string{"[a]: 100% of 10000 rows dead"}},
		{name: "unsorted files are sorted",
			table: Table{Data: []DataFile{unsorted(file("a", 100)), file("b", 100)}},
			want:  []string{"[a]: not in the table's sort order"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, w := range Plan(c.table, c.o) {
				inputs := fmt.Sprint(w.Inputs)
				if len(w.Inputs) > 10 {
					inputs = fmt.Sprintf("%d files", len(w.Inputs))
				}
				got = append(got, inputs+": "+w.Reason)
			}
			require.ElementsMatch(t, c.want, got)
		})
	}
}

func TestRewriteSaysWhatItGains(t *testing.T) {
	table := Table{Data: []DataFile{dead(file("a", 120), 0.6), dead(file("b", 120), 0.25)}}
	plan := Plan(table, Options{})
	require.Len(t, plan, 2)
	require.Equal(t, Rewrite{Inputs: []string{"a"}, Reason: "60% of 1200000 rows dead",
		InBytes: 120 * mb, OutBytes: 48 * mb, OutRows: 480_000,
		Gain: Gain{Bytes: 72 * mb, Deletes: 720_000}}, plan[0])
	require.Equal(t, 1, plan[0].OutFiles())
	require.Equal(t, []string{"b"}, plan[1].Inputs, "the one that gains less comes second")
}

func TestUrgency(t *testing.T) {
	first := func(t Table, o Options) Rewrite { return Plan(t, o)[0] }
	ranking := []Rewrite{
		first(Table{Data: times(60, "s", 0.05)}, Options{}),                                              // many small files
		first(Table{Data: times(9, "s", 1)}, Options{}),                                                  // fewer and larger ones
		first(Table{Data: []DataFile{dead(file("a", 100), 0.6)}}, Options{}),                             // more dead than alive
		first(Table{Data: []DataFile{dead(file("b", 100), 0.25)}}, Options{}),                            // a quarter
		first(Table{Data: []DataFile{{Path: "c", Bytes: 100 * mb, Rows: 1, Unsorted: true}}}, Options{}), // a matter of order
	}
	for i := range ranking[1:] {
		require.Negative(t, ByUrgency(ranking[i], ranking[i+1]), "%d before %d", i, i+1)
	}
	require.Zero(t, ByUrgency(ranking[0], ranking[0]))
}

// TestCommitsOfOneSize: no order of merges writes less than the k-binomial
// transform, and the rule comes near it.
func TestCommitsOfOneSize(t *testing.T) {
	for _, k := range []int{4, 6, 8, 10, 12} {
		r := rule{full: 1 << 40, spare: k, bytes: 1 << 40, files: 64}
		var pieces []piece // with the times that their rows were written again, at most, for dead
		binomial := k + 1
		for commits, w := 1, 1; 2*w < k; commits++ {
			pieces = append(pieces, piece{path: fmt.Sprint(commits), bytes: 1, size: 1})
			for _, m := range r.merges(pieces) {
				out := piece{path: fmt.Sprint("m", commits), bytes: m.bytes(), size: m.size()}
				for _, f := range m.pieces {
					out.dead = max(out.dead, f.dead+1)
				}
				pieces = append(pieces[len(m.pieces):], out)
				if out.dead == int64(w) {
					require.Greater(t, 10*commits, 9*binomial, "with %d files allowed, written again %d times", k, w)
					w++
					binomial = binomial * (k + w) / w // C(k+w, w)
				}
			}
			require.LessOrEqual(t, len(pieces), k)
		}
	}
}

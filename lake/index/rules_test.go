package index

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRule19 shows what the owner can rely on: an answer may name a dead file,
// which is in no list any more, and a duplicate key is told, not papered over.
func TestRule19(t *testing.T) {
	dir := t.TempDir()
	x := fill(t, dir, small(Options{}), 100)
	no := x.NextFile()
	// All files of commit 1 are replaced without a word about their keys.
	require.NoError(t, x.Put(Key{Lo: 1}, Loc{no, 0}))
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(2, 2, []FileName{{No: no, Path: "file 2"}}, nil))
	l, ok := x.Get(Key{Lo: 2})
	require.True(t, ok)
	require.Equal(t, Loc{1, 2}, l, "of a file that is not in the list")
	requireFiles(t, []FileName{{No: no, Path: "file 2"}}, x)
	// Growing drops what is dead.
	for i := range uint64(1000) {
		require.NoError(t, x.Put(Key{Lo: 1000 + i}, Loc{no, 1}))
	}
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(3, 3, []FileName{{No: no, Path: "file 2"}}, nil))
	require.EqualValues(t, 1001, x.Len())

	// A location in a file that nobody named is refused.
	require.NoError(t, x.Put(Key{Lo: 1}, Loc{no + 5, 0}))
	require.NoError(t, x.Seal())
	require.ErrorIs(t, x.Merge(4, 4, []FileName{{No: no, Path: "file 2"}}, nil), ErrFile)
	require.NoError(t, x.Reset())
	err := x.Load(0, func(put func(Key, Loc) error) error {
		require.NoError(t, put(Key{Lo: 7}, Loc{1, 1}))
		return put(Key{Lo: 7}, Loc{1, 2})
	})
	require.ErrorIs(t, err, ErrDuplicate)
	require.Equal(t, State{}, x.State())
	require.Zero(t, x.Len())
	require.NoError(t, x.Load(0, func(put func(Key, Loc) error) error { return put(Key{Lo: 7}, Loc{9, 1}) }))
	require.ErrorIs(t, x.CommitLoad(1, 1, []FileName{{No: 8, Path: "file 8"}}), ErrFile)
}

// TestRule20 interrupts a merge that brought a new file, and sees that neither
// a restart nor a rebuild gives the file's number to another one.
func TestRule20(t *testing.T) {
	dir := t.TempDir()
	x := fill(t, dir, small(Options{}), 1000)
	no := x.NextFile()
	list := []FileName{{No: 1, Path: "file 1"}, {No: no, Path: "file 2"}}
	for i := range uint64(500) {
		require.NoError(t, x.Put(Key{Lo: i}, Loc{VirtualFile, uint32(i)}))
	}
	require.NoError(t, x.Seal())
	real := func(l Loc) (Loc, bool) { return Loc{no, l.Pos}, true }
	require.True(t, crashIn(t, x, 250, func(r func(Loc) (Loc, bool)) error { return x.Merge(2, 12, list, r) }, real))

	x = reopen(t, dir, small(Options{}))
	require.Equal(t, State{Phase: Applying, N: 2, Base: 1, Snapshot: 11}, x.State())
	requireFiles(t, list[:1], x)
	require.Equal(t, list[1:], x.Interrupted())
	other := x.NextFile()
	require.Greater(t, other, no, "slots may hold the number already")
	require.ErrorIs(t, x.Merge(2, 12, []FileName{{No: no, Path: "other"}}, nil), ErrFile)
	require.ErrorIs(t, x.Merge(1, 12, list, nil), ErrState)

	// Applied again, with the number it had.
	for i := range uint64(500) {
		require.NoError(t, x.Put(Key{Lo: i}, Loc{no, uint32(i)}))
	}
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(2, 12, list, nil))
	crash(x)
	x = reopen(t, dir, small(Options{}))
	require.Equal(t, State{Phase: At, N: 2, Base: 2, Snapshot: 12}, x.State())
	requireFiles(t, list, x)
	require.Empty(t, x.Interrupted())
	for i := range uint64(1000) {
		l, ok := x.Get(Key{Lo: i})
		require.True(t, ok)
		want := Loc{1, uint32(i)}
		if i < 500 {
			want.File = no
		}
		require.Equal(t, want, l)
	}
	next := x.NextFile()
	require.NoError(t, x.Reset())
	require.Greater(t, x.NextFile(), next)
}

// TestRule20Journal sees that the file list survives many commits, the
// rewriting of the journal among them, at a cost that doesn't grow.
func TestRule20Journal(t *testing.T) {
	dir := t.TempDir()
	o := small(Options{})
	x := reopen(t, dir, o)
	require.NoError(t, x.CommitLoad(0, 0, nil))
	var files []FileName
	for n := uint64(1); n <= 3000; n++ {
		no := x.NextFile()
		files = append(files, FileName{No: no, Path: fmt.Sprintf("s3://lake/shop/public/orders/data/%08d-long-enough.parquet", no)})
		if len(files) > 20 {
			files = files[1:]
		}
		require.NoError(t, x.Put(Key{Lo: n}, Loc{no, 0}))
		require.NoError(t, x.Seal())
		require.NoError(t, x.Merge(n, int64(n), files, nil))
		require.Less(t, x.journal.size, int64(2*journalLimit))
	}
	crash(x)
	x = reopen(t, dir, o)
	require.Equal(t, State{Phase: At, N: 3000, Base: 3000, Snapshot: 3000}, x.State())
	requireFiles(t, files, x)
	require.EqualValues(t, 3001, x.NextFile())
}

// TestRule22 has a table without a key: equal rows share a hash, and deleting
// one takes one location, wherever it is on its way into a file.
func TestRule22(t *testing.T) {
	o := small(Options{Multi: true})
	x := reopen(t, t.TempDir(), o)
	require.NoError(t, x.CommitLoad(1, 1, nil))
	k := Key{Hi: 1 << 60, Lo: 5}
	one, two := Loc{VirtualFile, 0}, Loc{VirtualFile, 1}
	require.NoError(t, x.Put(k, one))
	require.NoError(t, x.Put(k, two))
	require.NoError(t, x.Put(k, two), "a slot is (hash, file, position), once")
	require.Equal(t, map[Loc]bool{one: true, two: true}, rowsIn(x, k))
	require.NoError(t, x.Seal())

	// The next epoch deletes one of them while the first is being committed.
	require.NoError(t, x.Remove(k, one))
	require.Equal(t, map[Loc]bool{two: true}, rowsIn(x, k))
	real := func(l Loc) (Loc, bool) { return Loc{1, l.Pos}, true }
	files := []FileName{{No: 1, Path: "file 1"}}
	require.NoError(t, x.Merge(2, 2, files, real))
	require.Equal(t, map[Loc]bool{{1, 1}: true}, rowsIn(x, k), "the mark has followed the row into its file")
	require.EqualValues(t, 2, x.Len())
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(3, 3, files, nil))
	require.Equal(t, map[Loc]bool{{1, 1}: true}, rowsIn(x, k))
	require.EqualValues(t, 1, x.Len())

	// Born and dead in one epoch: nothing to merge.
	require.NoError(t, x.Put(k, Loc{VirtualFile + 1, 0}))
	require.NoError(t, x.Remove(k, Loc{VirtualFile + 1, 0}))
	require.True(t, x.filling.empty())
}

// TestRule22EqualRows has very many equal rows. One probe sequence for all
// would take hours.
func TestRule22EqualRows(t *testing.T) {
	n := uint32(200_000)
	if testing.Short() {
		n = 20_000
	}
	x := reopen(t, t.TempDir(), Options{Multi: true})
	k, files := Key{Hi: 1 << 60, Lo: 5}, []FileName{{No: 1, Path: "file 1"}}
	start := time.Now()
	require.NoError(t, x.Load(0, func(put func(Key, Loc) error) error {
		for i := range n {
			if err := put(k, Loc{1, i}); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, x.CommitLoad(1, 1, files))
	require.Len(t, rowsIn(x, k), int(n))
	seen := map[Loc]bool{}
	for commit := uint64(2); len(seen) < int(n); commit++ {
		for range n / 10 {
			l, ok := x.Get(k)
			require.True(t, ok)
			require.False(t, seen[l])
			seen[l] = true
			require.NoError(t, x.Remove(k, l))
		}
		require.NoError(t, x.Seal())
		require.NoError(t, x.Merge(commit, 0, files, nil))
		require.EqualValues(t, int(n)-len(seen), x.Len())
	}
	_, ok := x.Get(k)
	require.False(t, ok)
	t.Logf("%d equal rows loaded and deleted one by one in %v", n, time.Since(start))
}

// TestOverlaySpill: an epoch far beyond OverlayMemory lies in deleted files.
func TestOverlaySpill(t *testing.T) {
	x := reopen(t, t.TempDir(), Options{OverlayMemory: 1 << 20})
	require.NoError(t, x.CommitLoad(1, 1, nil))
	const n = 300_000
	for i := range uint64(n) {
		if err := x.Put(Key{Lo: i}, Loc{VirtualFile, uint32(i)}); err != nil {
			require.NoError(t, err)
		}
	}
	_, memory, spilled := x.Bytes()
	require.LessOrEqual(t, memory, int64(1<<20))
	require.Greater(t, spilled, int64(4<<20))
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(2, 2, []FileName{{No: 3, Path: "file 3"}}, func(l Loc) (Loc, bool) { return Loc{3, l.Pos}, true }))
	_, _, spilled = x.Bytes()
	require.Zero(t, spilled)
	require.EqualValues(t, n, x.Len())
	for i := range uint64(n) {
		if l, ok := x.Get(Key{Lo: i}); !ok || l != (Loc{3, uint32(i)}) {
			require.Fail(t, "wrong answer", "key %d: %v %v", i, l, ok)
		}
	}
}

// A file whose rows are only partly found again in it is none that the index
// knows: whoever finds it after a kill reads the file. But their places count,
// and so do those where the others were.
func TestRule21PartialFile(t *testing.T) {
	dir := t.TempDir()
	x := fill(t, dir, Options{}, 10)
	old, out := x.Files()[0], FileName{No: x.NextFile(), Path: "file 2", Partial: true}
	require.NoError(t, x.Put(Key{Lo: 3}, Loc{out.No, 30}))
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(2, 2, []FileName{old, out}, nil))
	x.release() // a kill
	x = reopen(t, dir, Options{})
	require.Equal(t, At, x.State().Phase)
	requireFiles(t, []FileName{old}, x)
	require.Greater(t, x.NextFile(), out.No)
	for i := range uint64(10) {
		l, ok := x.Get(Key{Lo: i})
		require.True(t, ok)
		if i == 3 {
			require.Equal(t, Loc{out.No, 30}, l)
		} else {
			require.Equal(t, Loc{old.No, uint32(i)}, l)
		}
	}
	out.Partial = false
	require.NoError(t, x.Merge(3, 3, []FileName{out}, nil))
	requireFiles(t, []FileName{out}, x)
}

// A TRUNCATE after the epoch that found rows again takes their file from the list
// before that epoch is merged: the rows go, and it is no contradiction.
func TestRule21TruncateBeforeTheMerge(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			x := fill(t, t.TempDir(), small(o), 100)
			out := x.NextFile()
			for i := range uint64(100) {
				require.NoError(t, x.Remove(keyFor(o, i), Loc{x.Files()[0].No, uint32(i)}))
				require.NoError(t, x.Put(keyFor(o, i), Loc{out, uint32(i)}))
			}
			require.NoError(t, x.Seal())
			x.Truncate()
			require.NoError(t, x.Merge(2, 2, nil, nil))
			require.NoError(t, x.Seal())
			require.NoError(t, x.Merge(3, 3, nil, nil))
			require.Zero(t, x.Len())
		})
	}
}

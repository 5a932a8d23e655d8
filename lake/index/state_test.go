package index

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fill makes an index of n keys at commit 1, in file 1.
func fill(t *testing.T, dir string, o Options, n uint64) *Index {
	t.Helper()
	x, err := Open(dir, o)
	require.NoError(t, err)
	no := x.NextFile()
	require.NoError(t, x.Load(0, func(put func(Key, Loc) error) error {
		for i := range n {
			if err := put(keyFor(o, i), Loc{no, uint32(i)}); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, x.CommitLoad(1, 11, []FileName{{No: no, Path: "file 1"}}))
	return x
}

func requireFilled(t *testing.T, x *Index, n uint64) {
	t.Helper()
	require.EqualValues(t, n, x.Len())
	for i := range n {
		l, ok := x.Get(keyFor(x.o, i))
		require.True(t, ok)
		require.Equal(t, Loc{x.Files()[0].No, uint32(i)}, l)
	}
}

func reopen(t *testing.T, dir string, o Options) *Index {
	t.Helper()
	x, err := Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { x.release() })
	return x
}

func TestRule18BootID(t *testing.T) {
	first, second := Options{BootID: "first"}, Options{BootID: "second"}
	dir := t.TempDir()

	crash(fill(t, dir, first, 1000))
	x := reopen(t, dir, first)
	require.Equal(t, At, x.State().Phase, "a kill alone harms nothing")
	crash(x)

	x = reopen(t, dir, second)
	require.Equal(t, Untrusted, x.State().Phase, "the machine went down with it")
	require.Contains(t, x.State().Reason, "restarted")
	_, ok := x.Get(Key{Lo: 1})
	require.False(t, ok)
	require.ErrorIs(t, x.Put(Key{Lo: 1}, Loc{1, 1}), ErrState)
	require.ErrorIs(t, x.Merge(2, 2, nil, nil), ErrState)
	require.Greater(t, x.NextFile(), uint32(1), "rule 20: numbers go on")
	require.NoError(t, x.Close())

	x = reopen(t, dir, second)
	require.Equal(t, Untrusted, x.State().Phase, "closing it makes it no better")
	require.NoError(t, x.Reset())
	require.Equal(t, State{}, x.State())
	require.NoError(t, x.CommitLoad(5, 5, nil))
	require.NoError(t, x.Close())
	require.Equal(t, At, reopen(t, dir, Options{BootID: "third"}).State().Phase)
}

func TestRule18CleanClose(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, fill(t, dir, Options{BootID: "first"}, 1000).Close())

	// Closed, it outlives the machine; and looking at it takes nothing back.
	crash(reopen(t, dir, Options{BootID: "second"}))
	x := reopen(t, dir, Options{BootID: "third"})
	require.Equal(t, State{Phase: At, N: 1, Base: 1, Snapshot: 11}, x.State())
	requireFilled(t, x, 1000)

	// The first change takes the word back.
	require.NoError(t, x.Merge(2, 12, []FileName{{No: 1, Path: "file 1"}}, nil))
	crash(x)
	require.Equal(t, Untrusted, reopen(t, dir, Options{BootID: "fourth"}).State().Phase)
}

func TestRule18UnknownBootID(t *testing.T) {
	// identity of "" is what a system without boot ids has.
	dir := t.TempDir()
	x := fill(t, dir, Options{}, 10)
	x.boot = ""
	require.NoError(t, x.Merge(2, 2, x.Files(), nil))
	require.NoError(t, x.rewriteJournal(true))
	crash(x)
	x = reopen(t, dir, Options{})
	require.Equal(t, Untrusted, x.State().Phase)
}

func TestRule18CopiedFolder(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	x := fill(t, dir, Options{}, 1000)
	require.NoError(t, os.CopyFS(other, os.DirFS(dir)))
	require.Equal(t, Untrusted, reopen(t, other, Options{}).State().Phase, "copied in use")
	require.NoError(t, x.Close())
	require.NoError(t, os.RemoveAll(other))
	require.NoError(t, os.CopyFS(other, os.DirFS(dir)))
	requireFilled(t, reopen(t, other, Options{}), 1000)
}

func TestRule18Damage(t *testing.T) {
	journal := func(change func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, journalName))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), change(b), 0o644))
		}
	}
	segment := func(change func(path string) error) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			found, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
			require.NoError(t, err)
			require.NotEmpty(t, found)
			require.NoError(t, change(found[0]))
		}
	}
	flip := func(at int) func(b []byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x40; return b }
	}
	for name, harm := range map[string]func(t *testing.T, dir string){
		"empty journal":    journal(func([]byte) []byte { return nil }),
		"torn at birth":    journal(func(b []byte) []byte { return b[:20] }),
		"length":           journal(flip(2)),
		"length's sum":     journal(flip(5)),
		"payload":          journal(flip(14)),
		"zeros after":      journal(func(b []byte) []byte { return append(b, make([]byte, 100)...) }),
		"garbage":          journal(func(b []byte) []byte { return []byte("this is no journal, and never was one") }),
		"segment missing":  segment(os.Remove),
		"segment short":    segment(func(p string) error { return os.Truncate(p, 100) }),
		"another's header": segment(func(p string) error { return os.WriteFile(p, make([]byte, headerBytes+16<<9), 0o644) }),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := small(Options{})
			require.NoError(t, fill(t, dir, o, 2000).Close())
			harm(t, dir)
			x := reopen(t, dir, o)
			require.Equal(t, Untrusted, x.State().Phase)
			require.NotEmpty(t, x.State().Reason)
			require.NoError(t, x.Reset())
			require.NoError(t, x.Close())
			requireFilled(t, fill(t, dir, o, 2000), 2000)
		})
	}
	t.Run("other options", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, fill(t, dir, Options{}, 10).Close())
		require.Equal(t, Untrusted, reopen(t, dir, Options{Wide: true}).State().Phase)
	})
}

// TestRule18TornJournal cuts the journal at every byte of its last records: a
// kill within a write leaves such a one.
func TestRule18TornJournal(t *testing.T) {
	dir := t.TempDir()
	o := small(Options{})
	o.deltaFrom = 1000 // segments of records cut off would be swept
	x := fill(t, dir, o, 100)
	before := x.journal.size
	require.NoError(t, x.Put(Key{Lo: 1}, Loc{2, 1}))
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(2, 12, []FileName{{No: 1, Path: "file 1"}, {No: 2, Path: "file 2"}}, nil))
	path := filepath.Join(dir, journalName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	crash(x)
	seen := map[Phase]int{}
	for cut := before; cut <= int64(len(whole)); cut++ {
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o644))
		x := reopen(t, dir, o)
		st := x.State()
		seen[st.Phase]++
		switch st.Phase {
		case At:
			if cut == int64(len(whole)) {
				require.EqualValues(t, 2, st.N)
				break
			}
			require.EqualValues(t, 1, st.N)
		case Applying:
			require.Equal(t, State{Phase: Applying, N: 2, Base: 1, Snapshot: 11}, st)
			require.Equal(t, []FileName{{No: 2, Path: "file 2"}}, x.Interrupted())
			require.EqualValues(t, 3, x.NextFile())
		default:
			require.Fail(t, "untrusted", st.Reason)
		}
		crash(x)
	}
	require.Positive(t, seen[At])
	require.Positive(t, seen[Applying])
}

// TestRule18CatchUp applies, over an interrupted commit, the difference from
// the last complete commit to a later one, as a restart does when the lake has
// gone on. What the interrupted commit alone knew of may stay, but it names
// files or positions that are dead.
func TestRule18CatchUp(t *testing.T) {
	for name, o := range kinds {
		for _, at := range []int{1, 100, 700} {
			t.Run(fmt.Sprint(name, at), func(t *testing.T) {
				dir := t.TempDir()
				h := newHistory(o)
				x := reopen(t, dir, h.o)
				require.NoError(t, x.CommitLoad(0, 0, nil))
				for range 5 {
					require.NoError(t, h.next(x, true))
					require.NoError(t, h.merge(x, h.resolve))
				}
				base := h.clone()
				require.NoError(t, h.next(x, true))
				require.True(t, crashIn(t, x, at, func(r func(Loc) (Loc, bool)) error { return h.merge(x, r) }, h.resolve))

				x = reopen(t, dir, h.o)
				require.Equal(t, State{Phase: Applying, N: 6, Base: 5, Snapshot: 5}, x.State())
				for range 3 {
					require.NoError(t, h.next(nowhere{}, false))
				}
				for _, k := range h.keys {
					for l := range base.rows[k] {
						if !h.rows[k][l] {
							require.NoError(t, x.Remove(k, l))
						}
					}
					for l := range h.rows[k] {
						if !base.rows[k][l] {
							require.NoError(t, x.Put(k, l))
						}
					}
				}
				require.NoError(t, h.merge(x, nil))
				require.Equal(t, State{Phase: At, N: 9, Base: 9, Snapshot: 9}, x.State())
				stale := 0
				for _, k := range h.keys {
					got := rowsIn(x, k)
					for l := range h.rows[k] {
						require.True(t, got[l], "key %v has lost %v", k, l)
					}
					for l := range got {
						if !h.rows[k][l] {
							require.EqualValues(t, 6, l.File, "key %v has %v, which only commit 6 can have left", k, l)
							stale++
						}
					}
				}
				t.Logf("%d stale locations", stale)
			})
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	x := reopen(t, dir, Options{})
	_, err := Open(dir, Options{})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, x.Close())
	reopen(t, dir, Options{})
}

// TestLoadInterrupted: a load that a crash ended has never been.
func TestLoadInterrupted(t *testing.T) {
	dir := t.TempDir()
	o := small(Options{})
	x := reopen(t, dir, o)
	require.NoError(t, x.Load(0, func(put func(Key, Loc) error) error {
		for i := range uint64(3000) {
			require.NoError(t, put(Key{Lo: i}, Loc{1, 1}))
		}
		return nil
	}))
	crash(x)
	x = reopen(t, dir, o)
	require.Equal(t, State{}, x.State())
	require.Zero(t, x.Len())
	left, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// FuzzJournal feeds garbage to the replay: no panic, and nothing trusted that
// does not begin with a whole record.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	x, err := Open(dir, small(Options{}))
	require.NoError(f, err)
	require.NoError(f, x.CommitLoad(1, -1, []FileName{{No: 1, Path: "a"}, {No: 70, Path: "b"}}))
	for i := range uint64(2000) {
		require.NoError(f, x.Put(Key{Lo: i}, Loc{70, 1}))
	}
	require.NoError(f, x.Seal())
	require.NoError(f, x.Merge(2, 5, []FileName{{No: 70, Path: "b"}, {No: 71, Path: "c"}}, nil))
	require.NoError(f, x.Close())
	b, err := os.ReadFile(filepath.Join(dir, journalName))
	require.NoError(f, err)
	f.Add(b, byte(recFull))
	f.Add([]byte{}, byte(recSwap))
	f.Fuzz(func(t *testing.T, b []byte, kind byte) {
		if r, err := replay(b); err == nil {
			require.NotNil(t, r)
			require.LessOrEqual(t, r.length, int64(len(b)))
		}
		// The sums keep a fuzzer out; this lets it in.
		r := recovered{names: map[uint32]string{}}
		r.apply(kind, &decoder{b: b})
		_, _ = replay(frame(nil, append([]byte{kind}, b...)))
	})
}

// TestOlderJournal: an index of an earlier version is built anew, in its folder.
func TestOlderJournal(t *testing.T) {
	dir, o := t.TempDir(), small(Options{})
	x := fill(t, dir, o, 1000)
	old := recordFull(x)
	require.NoError(t, x.Close())
	require.EqualValues(t, journalVersion, old[1])
	old[1]--
	require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), frame(nil, old), 0o644))
	x = reopen(t, dir, o)
	require.Equal(t, Untrusted, x.State().Phase)
	require.NoError(t, x.Reset())
	left, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, x.Load(0, func(put func(Key, Loc) error) error { return put(Key{Lo: 1}, Loc{1, 1}) }))
	require.NoError(t, x.CommitLoad(1, 1, []FileName{{No: 1, Path: "file 1"}}))
	require.EqualValues(t, 1, x.Len())
}

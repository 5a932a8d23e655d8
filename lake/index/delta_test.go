package index

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDelta: changes of a large index stay in the delta until a segment of it is
// full, and a kill with half of such a segment moved changes nothing.
func TestDelta(t *testing.T) {
	for _, o := range []Options{{}, {Wide: true}} {
		dir, o := t.TempDir(), small(o)
		x, err := Open(dir, o)
		require.NoError(t, err)
		const keys = 5000
		want := rowsOf{}
		var all []Key
		require.NoError(t, x.Load(keys, func(put func(Key, Loc) error) error {
			for i := range uint64(keys) {
				k := keyFor(o, i)
				all = append(all, k)
				want.put(k, Loc{1, uint32(i)}, false)
				if err := put(k, Loc{1, uint32(i)}); err != nil {
					return err
				}
			}
			return nil
		}))
		files := []FileName{{No: x.NextFile(), Path: "f1"}}
		require.NoError(t, x.CommitLoad(1, 1, files))
		require.Nil(t, x.delta)
		flushed, rng := 0, uint64(0)
		for n := uint64(2); n < 60; n++ {
			files = append(files, FileName{No: x.NextFile(), Path: fmt.Sprint("f", n)})
			for i := range uint32(60) {
				rng++
				k := all[mix(rng)%keys]
				l := Loc{uint32(n), i}
				switch i % 5 {
				case 0:
					k = keyFor(o, keys+rng) // another one
					all = append(all, k)
				case 1:
					require.NoError(t, x.Remove(k, Loc{}))
					delete(want, k)
					continue
				}
				require.NoError(t, x.Put(k, l))
				want.put(k, l, false)
			}
			require.NoError(t, x.Seal())
			before := x.segments()
			require.NoError(t, x.Merge(n, 1, files, nil))
			require.NotNil(t, x.delta)
			for _, s := range before {
				if s.delta && s.mapped == nil {
					flushed++
				}
			}
			requireRows(t, want, x, all)
			require.Equal(t, want.count(), x.Len())
			if n%7 != 0 {
				continue
			}
			fullest := x.delta.all()[0]
			for _, s := range x.delta.all() {
				if s.used > fullest.used {
					fullest = s
				}
			}
			left := fullest.used / 2
			require.NoError(t, x.journal.append(recordBegin(n, x.nextFile, nil)))
			x.state.Phase = Applying
			require.NoError(t, fullest.each(func(k Key, w uint64) error {
				if left--; left < 0 {
					return nil
				}
				h := x.base.hash(k)
				if w == wordRemoved {
					x.base.remove(h, k)
					return nil
				}
				_, err := x.base.put(h, k, w)
				return err
			}))
			crash(x)
			x = reopen(t, dir, o)
			require.Equal(t, Applying, x.State().Phase)
			requireRows(t, want, x, all)
			require.Equal(t, want.count(), x.Len())
		}
		require.Positive(t, flushed)
		require.NoError(t, x.Close())
		x = reopen(t, dir, o)
		requireRows(t, want, x, all)
		require.NotNil(t, x.delta)
		limits := map[int]bool{}
		for _, s := range x.delta.all() {
			limits[s.limit] = true
		}
		require.Greater(t, len(limits), 10, "not all are full within a few merges")

		// A delta that is not empty makes way for changes that are too many, and
		// comes back for fewer.
		o.deltaShare = 8
		x.o.deltaShare = 8
		for n := uint32(60); n < 63; n++ {
			many, changes := n != 61, int64(60)
			if many {
				changes = x.deltaRows() + 1
			}
			files = append(files, FileName{No: x.NextFile(), Path: fmt.Sprint("f", n)})
			for i := range uint32(changes) {
				k, l := all[int(i)*7%len(all)], Loc{n, i}
				if i%3 == 0 {
					require.NoError(t, x.Remove(k, Loc{}))
					delete(want, k)
					continue
				}
				require.NoError(t, x.Put(k, l))
				want.put(k, l, false)
			}
			require.NoError(t, x.Seal())
			require.NoError(t, x.Merge(uint64(n), 1, files, nil))
			require.Equal(t, many, x.delta == nil)
			requireRows(t, want, x, all)
			crash(x)
			x = reopen(t, dir, o)
			require.Equal(t, many, x.delta == nil)
			requireRows(t, want, x, all)
			require.Equal(t, want.count(), x.Len())
		}
		x.Truncate()
		require.NoError(t, x.Seal())
		require.NoError(t, x.Merge(100, 1, files, nil))
		require.Zero(t, x.Len())
		require.Nil(t, x.delta)
		crash(x)
	}
}

// TestDeltaTrouble: wherever in a merge by way of a delta there is no room for a
// segment, or the process dies, look-ups are right, of a kill for what the epoch
// did not touch, and the same changes applied again make the rest right.
func TestDeltaTrouble(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 7))
		dir, o := t.TempDir(), small(Options{Wide: seed%2 == 1})
		x := reopen(t, dir, o)
		require.NoError(t, x.CommitLoad(0, 0, nil))
		var keys []Key
		for i := range uint64(3000) {
			keys = append(keys, keyFor(o, i))
		}
		want := rowsOf{}
		var files []FileName
		failed, killed, by := 0, 0, 0
		for n := uint64(1); n < 40; n++ {
			files = append(files, FileName{No: uint32(n), Path: fmt.Sprint("f", n)})
			before, truncate := want.clone(), rng.IntN(20) == 0
			changes := map[Key]Loc{}
			for i := range uint32(50 + rng.IntN(3)*500) {
				k := keys[rng.IntN(len(keys))]
				changes[k] = Loc{}
				if rng.IntN(3) > 0 {
					changes[k] = Loc{uint32(n), i}
				}
			}
			fill := func() {
				if truncate {
					x.Truncate()
				}
				for k, l := range changes {
					if l == (Loc{}) {
						require.NoError(t, x.Remove(k, l))
					} else {
						require.NoError(t, x.Put(k, Loc{VirtualFile, l.Pos}))
					}
				}
				require.NoError(t, x.Seal())
			}
			if truncate {
				want = rowsOf{}
			}
			for k, l := range changes {
				delete(want, k)
				if l != (Loc{}) {
					want.put(k, l, false)
				}
			}
			fill()
			real := func(l Loc) (Loc, bool) { return Loc{uint32(n), l.Pos}, true }
			for try := 0; ; try++ {
				block := filepath.Join(dir, segmentName(x.files.next+1+rng.Uint64N(8)))
				if try < 3 {
					require.NoError(t, os.WriteFile(block, nil, 0o644))
				}
				if x.delta != nil {
					by++
				}
				var err error
				if rng.IntN(3) == 0 {
					if crashIn(t, x, rng.IntN(len(changes)), func(r func(Loc) (Loc, bool)) error {
						err = x.Merge(n, int64(n), files, r)
						return nil
					}, real) {
						killed++
						err = nil
						x = reopen(t, dir, o)
						require.Equal(t, Applying, x.State().Phase)
						for _, k := range keys {
							if _, ok := changes[k]; !ok && !truncate {
								requireRows(t, before, x, []Key{k})
							}
						}
						fill()
						continue
					}
				} else {
					err = x.Merge(n, int64(n), files, real)
				}
				if try < 3 {
					require.NoError(t, os.Remove(block))
				}
				if err == nil {
					break
				}
				require.ErrorIs(t, err, os.ErrExist)
				failed++
				for _, k := range keys {
					l, ok := x.Get(k)
					if l.Virtual() {
						l, _ = real(l)
					}
					require.Equal(t, ok, len(want[k]) > 0)
					require.True(t, !ok || want[k][l])
				}
			}
			requireRows(t, want, x, keys)
			require.Equal(t, want.count(), x.Len())
			for _, s := range x.segments() {
				live, used := s.live, s.used
				s.recount()
				require.Equal(t, used, s.used)
				if !s.delta {
					require.Equal(t, live, s.live)
				}
			}
			left, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
			require.NoError(t, err)
			require.Len(t, left, len(x.segments()), "files of segments that are in no table")
			if rng.IntN(4) == 0 {
				crash(x)
				x = reopen(t, dir, o)
				require.Equal(t, At, x.State().Phase)
				requireRows(t, want, x, keys)
				require.Equal(t, want.count(), x.Len())
			}
		}
		require.True(t, failed > 0 && killed > 0 && by > 0)
	}
}

package index

import (
	"fmt"
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

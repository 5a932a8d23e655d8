package index

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLoad loads fewer, as many and more rows than are expected, straight into
// segments, by way of a spool, and half of each.
func TestLoad(t *testing.T) {
	for _, o := range []Options{{}, {Wide: true}, {Multi: true}} {
		for _, direct := range []int64{1, 20_001, 100_000} {
			for _, expected := range []int64{0, 1, 100, 400, 40_000, 100_000} {
				o.baseLog, o.overlayLog, o.directRows = 12, 9, direct
				dir := t.TempDir()
				x, err := Open(dir, o)
				require.NoError(t, err)
				const rows = 40_000 // a part of a spool is longer than a block in some
				key := func(i uint64) Key {
					k := Key{Lo: i}
					if x.o.Wide {
						k.Hi = mix(i) &^ levelMask
					}
					return k
				}
				require.NoError(t, x.Load(expected, func(put func(Key, Loc) error) error {
					for i := range uint64(rows) {
						require.NoError(t, put(key(i), Loc{1, uint32(i)}))
					}
					return nil
				}))
				require.NoError(t, x.CommitLoad(1, 1, []FileName{{No: 1, Path: "a"}}))
				crash(x)
				x, err = Open(dir, o)
				require.NoError(t, err)
				require.EqualValues(t, rows, x.Len())
				for i := range uint64(rows) {
					l, ok := x.Get(key(i))
					require.True(t, ok)
					require.Equal(t, Loc{1, uint32(i)}, l)
				}
				crash(x)
				left, err := os.ReadDir(dir)
				require.NoError(t, err)
				for _, f := range left {
					require.NotContains(t, f.Name(), overlayPrefix)
				}
			}
		}
	}
}

// TestLoadTellsDuplicates: however late.
func TestLoadTellsDuplicates(t *testing.T) {
	for i, rows := range []int{2, loadAhead, loadAhead + 1, 3*loadAhead - 1, 3*loadAhead - 1} {
		o := Options{}
		if i == 4 {
			o.directRows = 1
		}
		x, err := Open(t.TempDir(), o)
		require.NoError(t, err)
		err = x.Load(0, func(put func(Key, Loc) error) error {
			for i := range rows {
				if err := put(Key{Lo: uint64(i % (rows - 1))}, Loc{1, uint32(i)}); err != nil {
					return err
				}
			}
			return nil
		})
		require.ErrorIs(t, err, ErrDuplicate)
		require.Equal(t, Empty, x.State().Phase)
		require.Zero(t, x.Len())
		require.NoError(t, x.Close())
	}
}

// TestNoAllocations: what the index allocates it allocates by segments.
func TestNoAllocations(t *testing.T) {
	for name, o := range map[string]Options{"exact": {}, "wide": {Wide: true}} {
		x, err := Open(t.TempDir(), o)
		require.NoError(t, err)
		const keys = 10_000
		key := func(i int) Key {
			k := Key{Lo: uint64(i)}
			if o.Wide {
				k.Hi = mix(uint64(i))
			}
			return k
		}
		require.NoError(t, x.Load(0, func(put func(Key, Loc) error) error {
			for i := range keys {
				if err := put(key(i), Loc{1, uint32(i)}); err != nil {
					return err
				}
			}
			return nil
		}))
		require.NoError(t, x.CommitLoad(1, 1, []FileName{{No: 1, Path: "a"}}))
		change := func() {
			for i := range keys {
				k := key(i)
				x.Look(k)
				l, _ := x.Get(k)
				if err := x.Remove(k, l); err != nil {
					t.Fatal(err)
				}
				if err := x.Put(k, Loc{VirtualFile + 1, uint32(i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		change() // the overlay grows
		require.Zero(t, testing.AllocsPerRun(3, change), name)
		require.NoError(t, x.Close())
	}
}

// TestLoadOfMoreThanExpected: rows that come out of a spool never meet segments
// that have yet to grow, where they would pile up (100M rows of which nobody
// knew: hours). So these are as if the number had been known.
func TestLoadOfMoreThanExpected(t *testing.T) {
	for _, o := range kinds {
		const rows, depth = 12_000, 6
		for _, expected := range []int64{0, 100, rows} {
			o := small(o)
			o.directRows = 1000
			x, err := Open(t.TempDir(), o)
			require.NoError(t, err)
			for part := range uint64(2) { // the second finds segments there
				require.NoError(t, x.Load(expected, func(put func(Key, Loc) error) error {
					for i := range uint64(rows / 2) {
						n := part*rows/2 + i
						k := keyFor(o, n)
						if o.Multi && i%10 == 0 {
							k = keyFor(o, 0) // many rows of one key
						}
						if err := put(k, Loc{1, uint32(n)}); err != nil {
							return err
						}
					}
					return nil
				}))
			}
			require.NoError(t, x.CommitLoad(1, 1, []FileName{{No: 1, Path: "a"}}))
			require.EqualValues(t, rows, x.Len())
			if o.Multi { // whose key of many rows may split any segment
				require.Len(t, rowsIn(x, keyFor(o, 0)), rows/10)
			} else {
				for n := range uint64(rows) {
					l, ok := x.Get(keyFor(o, n))
					require.True(t, ok && l == Loc{1, uint32(n)})
				}
				for _, s := range x.base.all() {
					require.EqualValues(t, depth, s.depth)
				}
			}
			crash(x)
		}
	}
}

package index

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A merge into a segment whose levels' slots just don't fit once had it copied
// to the same size for ever.
func TestMergeRoomForLevels(t *testing.T) {
	for keys := uint64(1); keys <= 40; keys++ {
		x, err := Open(t.TempDir(), Options{Multi: true})
		require.NoError(t, err)
		require.NoError(t, x.Load(0, func(func(Key, Loc) error) error { return nil }))
		require.NoError(t, x.CommitLoad(1, 1, nil))
		files := []FileName{{No: 1, Path: "f"}}
		done := make(chan struct{})
		go func() {
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				panic("the merge hangs")
			}
		}()
		pos := uint32(0)
		for n := uint64(2); n < 12; n++ {
			for k := range keys {
				for range 3 {
					require.NoError(t, x.Put(Key{Hi: k << 8, Lo: k}, Loc{File: 1, Pos: pos}))
					pos++
				}
			}
			require.NoError(t, x.Seal())
			require.NoError(t, x.Merge(n, 1, files, nil))
		}
		close(done)
		require.EqualValues(t, pos, x.Len())
		require.NoError(t, x.Close())
	}
}

package index

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// evict puts all of an index out of memory that the kernel lets go.
func evict(t *testing.T, x *Index) {
	for _, s := range x.segments() {
		require.NoError(t, unix.Msync(s.mapped, unix.MS_SYNC))
		require.NoError(t, unix.Madvise(s.mapped, unix.MADV_DONTNEED))
		f, err := os.Open(filepath.Join(x.dir, segmentName(s.id)))
		require.NoError(t, err)
		require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		require.NoError(t, f.Close())
	}
}

func TestWarmerReadsWhatLookUpsWaitFor(t *testing.T) {
	const keys = 200_000 // 8 MB
	ctx := context.Background()
	x, err := Open(t.TempDir(), Options{})
	require.NoError(t, err)
	defer x.release()
	require.NoError(t, x.Load(keys, func(put func(Key, Loc) error) error {
		for i := range uint64(keys) {
			if err := put(Key{Lo: i}, Loc{1, uint32(i)}); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, x.CommitLoad(1, 1, []FileName{{No: 1, Path: "a"}}))
	lookUp := func() {
		for i := range uint64(keys) {
			loc, ok := x.Get(Key{Lo: i})
			require.True(t, ok && loc == Loc{1, uint32(i)})
		}
	}

	var w Warmer
	w.Warm(nil)
	lookUp()
	read, _ := w.Warm([]*Index{x})
	require.Nil(t, read, "an index that is in memory was read")

	evict(t, x)
	lookUp()
	var room int64
	w = Warmer{faults: w.faults, room: func() int64 { return room }}
	probe := w
	if !probe.isCold() {
		t.Skip("this folder's files can't be put out of memory")
	}
	full := w
	size, _, _ := x.Bytes()
	room = 2*size - 1
	read, _ = full.Warm([]*Index{x})
	require.Nil(t, read, "an index was read that leaves nothing for others")
	room = 2 * size
	read, bytes := w.Warm([]*Index{x})
	require.NotNil(t, read, "look-ups waited for the disk and nobody did anything about it")
	require.Equal(t, size, bytes)

	evict(t, x)
	require.NoError(t, read(ctx))
	w.isCold()
	lookUp()
	require.False(t, w.isCold(), "look-ups wait for pages that were read")

	w.cold = func() bool { return true }
	again, _ := w.Warm([]*Index{x})
	require.Nil(t, again, "read again at once")

	stopped, stop := context.WithCancel(ctx)
	stop()
	require.ErrorIs(t, read(stopped), context.Canceled)
	require.NoError(t, x.Reset())
	require.NoError(t, read(ctx), "segments that were replaced meanwhile")
}

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

// loaded is an index of so many keys, 40 bytes each on disk, and what looks all of
// them up.
func loaded(t *testing.T, keys uint64) (*Index, func()) {
	x, err := Open(t.TempDir(), Options{})
	require.NoError(t, err)
	t.Cleanup(x.release)
	require.NoError(t, x.Load(int64(keys), func(put func(Key, Loc) error) error {
		for i := range keys {
			if err := put(Key{Lo: i}, Loc{1, uint32(i)}); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, x.CommitLoad(1, 1, []FileName{{No: 1, Path: "a"}}))
	return x, func() {
		for i := range keys {
			loc, ok := x.Get(Key{Lo: i})
			require.True(t, ok && loc == Loc{1, uint32(i)})
		}
	}
}

func TestWarmerReadsWhereThereIsRoom(t *testing.T) {
	ctx := t.Context()
	x, _ := loaded(t, 200_000)
	size, _, _ := x.Bytes()
	cold, room := false, 2*size
	warmer := func() *Warmer {
		return &Warmer{cold: func() bool { return cold }, room: func() int64 { return room }}
	}
	read, _ := warmer().Warm([]*Index{x})
	require.Nil(t, read, "an index that is in memory was read")
	cold = true
	small, _ := loaded(t, 100)
	read, _ = warmer().Warm([]*Index{small})
	require.Nil(t, read, "so few pages are nothing to wait for")
	room = 2*size - 1
	read, _ = warmer().Warm([]*Index{x})
	require.Nil(t, read, "an index was read that leaves nothing for others")
	room = 2 * size
	w := warmer()
	read, bytes := w.Warm([]*Index{x})
	require.NotNil(t, read, "look-ups waited for the disk and nobody did anything about it")
	require.Equal(t, size, bytes)
	require.NoError(t, read(ctx))
	again, _ := w.Warm([]*Index{x})
	require.Nil(t, again, "read again at once")

	stopped, stop := context.WithCancel(ctx)
	stop()
	require.ErrorIs(t, read(stopped), context.Canceled)
	require.NoError(t, x.Reset())
	require.NoError(t, read(ctx), "segments that were replaced meanwhile")
}

// What the kernel really does, and counts.
func TestWarmerReadsWhatLookUpsWaitFor(t *testing.T) {
	x, lookUp := loaded(t, 200_000) // 8 MB
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(x.dir, &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the temporary folder is memory, of which nothing is put on a disk; TestWarmerReadsWhereThereIsRoom has the rest")
	}
	var w Warmer
	w.isCold() // what was before is over
	lookUp()
	require.False(t, w.isCold(), "look-ups wait for pages that are in memory")
	evict(t, x)
	lookUp()
	require.True(t, w.isCold(), "look-ups in an index that lies on disk don't count as waiting")

	evict(t, x)
	lookUp()
	read, _ := w.Warm([]*Index{x})
	require.NotNil(t, read)
	evict(t, x)
	require.NoError(t, read(t.Context()))
	w.isCold()
	lookUp()
	require.False(t, w.isCold(), "look-ups wait for pages that were read")
}

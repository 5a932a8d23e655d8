package index

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// exhaust drives an index into a full disk in each way there is: it loads, it
// merges, it fills an overlay. release makes room again.
func exhaust(t *testing.T, dir string, want error, release func()) {
	o := Options{OverlayMemory: 1 << 20}
	x := fill(t, dir, o, 5000)
	files := x.Files()
	put := func(i uint64) error { return x.Put(Key{Lo: i}, Loc{1, uint32(i)}) }

	// An overlay beyond its memory.
	var err error
	n := uint64(0)
	for ; err == nil && n < 10_000_000; n++ {
		err = put(n)
	}
	require.ErrorIs(t, err, want)
	l, ok := x.Get(Key{Lo: n - 2})
	require.True(t, ok)
	require.Equal(t, Loc{1, uint32(n - 2)}, l)
	x.Discard()

	// A merge, in small epochs.
	n, err = 0, nil
	commit := uint64(1)
	for err == nil && commit < 1000 {
		for range 20_000 {
			if err := put(n); err != nil {
				require.NoError(t, err)
			}
			n++
		}
		require.NoError(t, x.Seal())
		commit++
		err = x.Merge(commit, 0, files, nil)
	}
	require.ErrorIs(t, err, want)
	require.Equal(t, Applying, x.State().Phase)
	for i := range n {
		if l, ok := x.Get(Key{Lo: i}); !ok || l != (Loc{1, uint32(i)}) {
			require.Fail(t, "wrong answer after the failed merge", "key %d: %v %v", i, l, ok)
		}
	}
	if release != nil {
		release()
		require.NoError(t, x.Merge(commit, 0, files, nil))
		require.Equal(t, At, x.State().Phase)
		require.EqualValues(t, n, x.Len())
	}

	// A load.
	require.NoError(t, x.Reset())
	err = x.Load(0, func(put func(Key, Loc) error) error {
		for i := range uint64(10_000_000) {
			if err := put(Key{Lo: i}, Loc{1, uint32(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	require.ErrorIs(t, err, want)
	require.Equal(t, State{}, x.State())
	left, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, x.CommitLoad(1, 1, nil))
	require.NoError(t, x.Close())
}

// TestRule18DiskFull fills a small file system: always an error, never SIGBUS.
func TestRule18DiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	exhaust(t, filepath.Join(dir, "index"), unix.ENOSPC, func() {
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"))
	})
}

// TestRule18FileLimit does the same with a limit on the size of files, which
// needs no rights, in a process of its own.
func TestRule18FileLimit(t *testing.T) {
	if dir := os.Getenv("FIRN_INDEX_LIMITED"); dir != "" {
		signal.Ignore(unix.SIGXFSZ)
		limit := unix.Rlimit{Cur: 600 << 10, Max: 600 << 10}
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
		exhaust(t, dir, unix.EFBIG, nil)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRule18FileLimit$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("FIRN_INDEX_LIMITED=%s", filepath.Join(t.TempDir(), "index")))
	cmd.SysProcAttr = dieWithParent()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

// TestFault: a disk that breaks under a mapping is an error in Merge and Load.
func TestFault(t *testing.T) {
	dir := t.TempDir()
	x := reopen(t, dir, small(Options{}))
	require.NoError(t, x.CommitLoad(1, 1, nil))
	require.NoError(t, x.Put(Key{Lo: 1}, Loc{1, 1}))
	require.NoError(t, x.Seal())
	require.NoError(t, x.Merge(2, 2, []FileName{{No: 1, Path: "file 1"}}, nil))
	require.NoError(t, os.Truncate(filepath.Join(dir, segmentName(x.base.all()[0].id)), 0))
	require.NoError(t, x.Put(Key{Lo: 2}, Loc{1, 2}))
	require.NoError(t, x.Seal())
	require.ErrorContains(t, x.Merge(3, 3, []FileName{{No: 1, Path: "file 1"}}, nil), "access mapped memory")
	require.Equal(t, Applying, x.State().Phase)
	require.Panics(t, func() {
		_ = x.Merge(3, 3, []FileName{{No: 1, Path: "file 1"}}, func(Loc) (Loc, bool) { panic("not a fault") })
		panic("a fault outside is none of ours")
	})
	require.NoError(t, x.Reset())
}

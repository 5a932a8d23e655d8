package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

func TestFullDisk(t *testing.T) {
	at := t.TempDir()
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("can't make a small disk: %v", err)
	}
	// Reached through a descriptor alone, it goes with the process.
	disk, openErr := os.Open(at)
	require.NoError(t, syscall.Unmount(at, syscall.MNT_DETACH))
	require.NoError(t, openErr)
	t.Cleanup(func() { require.NoError(t, disk.Close()) })
	dir := fmt.Sprintf("/proc/self/fd/%d", disk.Fd())
	filler := filepath.Join(dir, "filler")
	require.NoError(t, os.WriteFile(filler, make([]byte, 900<<10), 0o600))

	b := NewBudget(100 << 20)
	s, err := Create(dir, "t", b)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Remove()) })
	n := 0
	for err == nil {
		if err = s.Append(wal.LSN(n)<<20, uint32(n), message(n)); err == nil {
			n++
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Greater(t, n, 1500)
	require.Equal(t, s.Bytes(), b.Used(), "the refused message is not counted")
	require.ErrorIs(t, s.Append(wal.LSN(n)<<20, uint32(n), message(n)), syscall.ENOSPC)

	// What was taken can be read, and once there is room it goes on.
	r, err := s.Reader()
	require.NoError(t, err)
	readN(t, r, 0, n)
	require.NoError(t, os.Remove(filler))
	appendN(t, s, n, n+1000)
	readN(t, r, n, n+1000)
	require.NoError(t, s.Remove())
	require.Zero(t, b.Used())
	require.Zero(t, b.memory.Load())
}

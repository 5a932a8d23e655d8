package spool

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"firn/wal"
)

func create(t testing.TB, b *Budget) *Spool {
	t.Helper()
	s, err := Create(filepath.Join(t.TempDir(), "spools"), "table-1", b)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Remove()) })
	return s
}

// message n is made from its number, so that readers can check it alone.
func message(n int) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, n%700)
}

func readN(t *testing.T, r *Reader, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		lsn, xid, msg, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, wal.LSN(n)<<20, lsn)
		require.Equal(t, uint32(n), xid)
		require.Equal(t, message(n), append([]byte{}, msg...))
	}
}

func appendN(t *testing.T, s *Spool, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		require.NoError(t, s.Append(wal.LSN(n)<<20, uint32(n), message(n)))
	}
}

func TestSmallStaysInMemory(t *testing.T) {
	b := NewBudget(10 << 20)
	s := create(t, b)
	appendN(t, s, 0, 1000)
	require.Nil(t, s.file)
	require.NoDirExists(t, s.dir)
	require.EqualValues(t, 1000, s.Records())
	require.Equal(t, s.Bytes(), b.Used())

	r, err := s.Reader()
	require.NoError(t, err)
	readN(t, r, 0, 1000)
	for range 2 {
		_, _, _, err = r.Next()
		require.Equal(t, io.EOF, err)
	}
	appendN(t, s, 1000, 1001)
	readN(t, r, 1000, 1001)

	require.NoError(t, s.Remove())
	require.NoError(t, s.Remove())
	require.Zero(t, b.Used())
	require.Zero(t, b.memory.Load())
	_, _, _, err = r.Next()
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, s.Append(1, 1, nil), os.ErrClosed)
	_, err = s.Reader()
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestLargeGoesToANamelessFile(t *testing.T) {
	b := NewBudget(100 << 20)
	s := create(t, b)
	appendN(t, s, 0, 20_000)
	require.NotNil(t, s.file)
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is left behind by a killed process")
	require.Less(t, len(s.mem), bufferBytes)
	require.Equal(t, s.Bytes(), b.Used())
	require.EqualValues(t, len(s.mem), b.memory.Load())
	for range 2 { // each reader starts at the beginning
		r, err := s.Reader()
		require.NoError(t, err)
		readN(t, r, 0, 20_000)
		_, _, _, err = r.Next()
		require.Equal(t, io.EOF, err)
	}
	require.NoError(t, s.Remove())
	require.Zero(t, b.Used())
}

func TestHugeMessage(t *testing.T) {
	s := create(t, NewBudget(100<<20))
	huge := bytes.Repeat([]byte("firn"), 2<<20)
	require.NoError(t, s.Append(1, 2, huge))
	require.NoError(t, s.Append(3, 4, nil))
	r, err := s.Reader()
	require.NoError(t, err)
	_, _, msg, err := r.Next()
	require.NoError(t, err)
	require.True(t, bytes.Equal(huge, msg))
	lsn, xid, msg, err := r.Next()
	require.NoError(t, err)
	require.Empty(t, msg)
	require.Equal(t, wal.LSN(3), lsn)
	require.Equal(t, uint32(4), xid)
}

func TestReadersDuringAppends(t *testing.T) {
	const messages = 30_000
	s := create(t, NewBudget(100<<20))
	var appended atomic.Int64
	errs := make(chan error, 3)
	for range 3 {
		r, err := s.Reader()
		require.NoError(t, err)
		go func() {
			for n := 0; n < messages; {
				before := int(appended.Load())
				lsn, _, msg, err := r.Next()
				switch {
				case err == io.EOF && n < before:
					errs <- fmt.Errorf("message %d of %d is missing", n, before)
					return
				case err == io.EOF:
					continue
				case err != nil:
					errs <- err
					return
				case lsn != wal.LSN(n)<<20 || !bytes.Equal(msg, message(n)):
					errs <- fmt.Errorf("message %d is wrong", n)
					return
				}
				n++
			}
			errs <- nil
		}()
	}
	for n := range messages {
		require.NoError(t, s.Append(wal.LSN(n)<<20, uint32(n), message(n)))
		appended.Store(int64(n + 1))
	}
	for range 3 {
		require.NoError(t, <-errs)
	}
}

func TestBudgetIsShared(t *testing.T) {
	b := NewBudget(3 * (headerBytes + 100))
	one, two := create(t, b), create(t, b)
	msg := make([]byte, 100)
	require.NoError(t, one.Append(1, 1, msg))
	require.NoError(t, two.Append(1, 1, msg))
	require.NoError(t, two.Append(2, 1, msg))
	require.ErrorIs(t, two.Append(3, 1, msg), ErrBudget)
	require.ErrorIs(t, one.Append(3, 1, nil), ErrBudget)
	require.EqualValues(t, 2, two.Records())
	require.NoError(t, one.Remove())
	require.NoError(t, two.Append(3, 1, msg))
	require.Equal(t, b.Max(), b.Used())
}

func TestManyMediumSpoolsDoNotPileUpInMemory(t *testing.T) {
	b := NewBudget(100 << 20)
	b.memoryMax = 1 << 20
	var all []*Spool
	for range 20 {
		s := create(t, b)
		appendN(t, s, 0, 700) // 260 kB each
		all = append(all, s)
	}
	require.LessOrEqual(t, b.memory.Load(), b.memoryMax+20*pressedBytes)
	for _, s := range all {
		r, err := s.Reader()
		require.NoError(t, err)
		readN(t, r, 0, 700)
	}
}

func TestDamageIsFound(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, f *os.File){
		"a bit of a message": func(t *testing.T, f *os.File) { flip(t, f, 50_000) },
		"a length":           func(t *testing.T, f *os.File) { flip(t, f, 4+3) },
		"an LSN":             func(t *testing.T, f *os.File) { flip(t, f, 12) },
		"a short file":       func(t *testing.T, f *os.File) { require.NoError(t, f.Truncate(100_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := create(t, NewBudget(100<<20))
			appendN(t, s, 0, 5000)
			damage(t, s.file)
			r, err := s.Reader()
			require.NoError(t, err)
			for err == nil {
				_, _, _, err = r.Next()
			}
			require.ErrorIs(t, err, ErrCorrupt)
			_, _, _, err = r.Next()
			require.ErrorIs(t, err, ErrCorrupt, "it stays wrong")
		})
	}
}

func flip(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
}

func TestUnusableFolder(t *testing.T) {
	notDir := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(notDir, nil, 0o600))
	s, err := Create(notDir, "t", NewBudget(100<<20))
	require.NoError(t, err)
	err = s.Append(1, 1, make([]byte, memoryBytes))
	require.ErrorIs(t, err, syscall.ENOTDIR)
	require.ErrorContains(t, err, "append to spool t")
	require.Zero(t, s.Bytes())

	_, err = Create(".", "a/b", NewBudget(1))
	require.Error(t, err)
	_, err = Create(".", "a", nil)
	require.Error(t, err)
}

// TestModel compares random appends and reads with a slice of messages.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(rt, err)
		b := NewBudget(8 << 20)
		b.memoryMax = rapid.SampledFrom([]int64{0, 100 << 10, memoryBytesMax}).Draw(rt, "memory")
		s, err := Create(dir, "m", b)
		require.NoError(rt, err)
		defer s.Remove()
		readers := make([]*Reader, 3)
		next := make([]int, 3)
		for i := range readers {
			readers[i], err = s.Reader()
			require.NoError(rt, err)
		}
		var model [][]byte
		rnd := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(rt, "seed")))
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(rt, "count") {
					msg := make([]byte, rnd.IntN(1+rnd.IntN(20_000)))
					for i := range msg {
						msg[i] = byte(rnd.Uint32())
					}
					if err := s.Append(wal.LSN(len(model)), uint32(len(model)), msg); err != nil {
						require.ErrorIs(rt, err, ErrBudget)
						continue
					}
					model = append(model, msg)
				}
			},
			"read": func(rt *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(rt, "reader")
				for range rapid.IntRange(1, 300).Draw(rt, "count") {
					lsn, _, msg, err := readers[i].Next()
					if next[i] == len(model) {
						require.Equal(rt, io.EOF, err)
						return
					}
					require.NoError(rt, err)
					require.Equal(rt, wal.LSN(next[i]), lsn)
					require.True(rt, bytes.Equal(model[next[i]], msg))
					next[i]++
				}
			},
		})
	})
}

func BenchmarkAppendAndRead(b *testing.B) {
	budget := NewBudget(1 << 40)
	s := create(b, budget)
	r, err := s.Reader()
	require.NoError(b, err)
	msg := make([]byte, 120)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for i := range b.N {
		if err := s.Append(wal.LSN(i), 7, msg); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		if _, _, _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

package snapshot

import (
	"errors"
	"io"
	"os"
	"sync"
)

// bodyChunk is the piece that a file in memory grows by: small, for an epoch may
// have a thousand small files.
const bodyChunk = 32 << 10

// bodyChunks keeps pieces for the next file: fresh memory costs more than what
// is written into it.
var bodyChunks = sync.Pool{New: func() any { return new([bodyChunk]byte) }}

// body holds a file being encoded: in memory, and past the limit in a temporary
// file, which has no name and so is gone with the process.
type body struct {
	dir   string
	limit int64
	file  *os.File
	size  int64

	// reading is held by ReadAt, and by free to keep it out: net/http may read on
	// in an attempt that was given up, when the upload has ended.
	reading sync.RWMutex
	chunks  []*[bodyChunk]byte // all full but the last, while file is nil
}

func (b *body) Write(p []byte) (int, error) {
	if b.file == nil && b.size+int64(len(p)) > b.limit {
		if err := b.spill(); err != nil {
			return 0, err
		}
	}
	if b.file != nil {
		n, err := b.file.Write(p)
		b.size += int64(n)
		return n, err
	}
	for rest := p; len(rest) > 0; {
		at := int(b.size % bodyChunk)
		if at == 0 {
			b.chunks = append(b.chunks, bodyChunks.Get().(*[bodyChunk]byte))
		}
		n := copy(b.chunks[len(b.chunks)-1][at:], rest)
		b.size += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// spill moves the file from memory to disk.
func (b *body) spill() error {
	f, err := os.CreateTemp(b.dir, "firn-*.parquet")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := io.Copy(f, io.NewSectionReader(b, 0, b.size)); err != nil {
		return errors.Join(err, f.Close())
	}
	b.free()
	b.file = f
	return nil
}

// ReadAt reads what is in memory; nothing once that is freed.
func (b *body) ReadAt(p []byte, off int64) (n int, err error) {
	b.reading.RLock()
	defer b.reading.RUnlock()
	if b.chunks == nil && b.size > 0 {
		return 0, os.ErrClosed
	}
	for n < len(p) && off < b.size {
		c := b.chunks[off/bodyChunk][off%bodyChunk:]
		m := copy(p[n:], c[:min(int64(len(c)), b.size-off)])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// reader reads the whole file from the start. It is also an io.ReaderAt.
func (b *body) reader() io.ReadSeeker {
	if b.file == nil {
		return io.NewSectionReader(b, 0, b.size)
	}
	return io.NewSectionReader(b.file, 0, b.size)
}

func (b *body) free() {
	b.reading.Lock()
	defer b.reading.Unlock()
	for _, c := range b.chunks {
		bodyChunks.Put(c)
	}
	b.chunks = nil
}

// discard frees what the body holds; who still reads gets an error. The file
// has no name: closing it is all.
func (b *body) discard() {
	b.free()
	if b.file != nil {
		_ = b.file.Close()
		b.file = nil
	}
}

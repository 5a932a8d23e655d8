package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"firn/wal"
)

// ErrCorrupt is returned by Next for a record that is not what was appended.
var ErrCorrupt = errors.New("the record is damaged")

// readBytes is how much a Reader asks for at once.
const readBytes = 256 << 10

// Reader reads a spool from its start, while appends go on. One goroutine may
// use it. It holds nothing that must be closed.
type Reader struct {
	s    *Spool
	pos  int64  // in the spool, of buf[0]
	buf  []byte // read ahead
	next int    // in buf, of the next record
	err  error  // sticky, io.EOF excepted
}

// Next returns the next message and what it was appended with. io.EOF means
// that all appended so far was read: a later Next returns what was appended
// since; any other error stays. msg is valid until the next call of Next.
func (r *Reader) Next() (lsn wal.LSN, xid uint32, msg []byte, err error) {
	if r.err != nil {
		return 0, 0, nil, r.err
	}
	if err := r.need(headerBytes); err != nil {
		return 0, 0, nil, r.fail(err)
	}
	size := int64(binary.LittleEndian.Uint32(r.buf[r.next+4:]))
	if err := r.need(headerBytes + size); err != nil {
		if err == io.EOF { // records are appended whole: the length is wrong
			err = ErrCorrupt
		}
		return 0, 0, nil, r.fail(err)
	}
	rec := r.buf[r.next : int64(r.next)+headerBytes+size]
	if crc32.Checksum(rec[4:], castagnoli) != binary.LittleEndian.Uint32(rec) {
		return 0, 0, nil, r.fail(ErrCorrupt)
	}
	r.next += len(rec)
	return wal.LSN(binary.LittleEndian.Uint64(rec[12:])), binary.LittleEndian.Uint32(rec[8:]), rec[headerBytes:], nil
}

func (r *Reader) fail(err error) error {
	if err == io.EOF {
		return err
	}
	r.err = fmt.Errorf("read spool %s at byte %d: %w", r.s.name, r.pos+int64(r.next), err)
	return r.err
}

// need makes n bytes from next on available in buf; io.EOF: there are fewer.
func (r *Reader) need(n int64) error {
	if int64(len(r.buf)-r.next) >= n {
		return nil
	}
	// What is left moves to the front; the message returned last is done with.
	left := copy(r.buf, r.buf[r.next:])
	r.buf = r.buf[:left]
	r.pos += int64(r.next)
	r.next = 0
	for int64(len(r.buf)) < n {
		if err := r.more(n); err != nil {
			return err
		}
	}
	return nil
}

// more reads on: from the file what is there, else from the spool's memory.
func (r *Reader) more(n int64) error {
	at := r.pos + int64(len(r.buf))
	want := max(n-int64(len(r.buf)), readBytes)

	r.s.mu.Lock()
	written, file, removed := r.s.written, r.s.file, r.s.removed
	total := written + int64(len(r.s.mem))
	switch {
	case removed:
		r.s.mu.Unlock()
		return os.ErrClosed
	case r.pos+n > total:
		r.s.mu.Unlock()
		return io.EOF
	case at >= written:
		tail := r.s.mem[at-written:]
		r.buf = append(r.buf, tail[:min(want, int64(len(tail)))]...)
		r.s.mu.Unlock()
		return nil
	}
	r.s.mu.Unlock()

	// What is written never changes, so the file needs no lock.
	want = min(want, written-at)
	have := len(r.buf)
	if int64(cap(r.buf)) < int64(have)+want {
		grown := make([]byte, have, int64(have)+want)
		copy(grown, r.buf)
		r.buf = grown
	}
	got, err := file.ReadAt(r.buf[have:int64(have)+want], at)
	r.buf = r.buf[:have+got]
	if int64(got) < want {
		if err == io.EOF { // the file is shorter than what was written to it
			err = ErrCorrupt
		}
		return err
	}
	return nil
}

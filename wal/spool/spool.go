// Package spool parks pgoutput messages: those of streamed transactions until
// they commit, and those of tables that are still loading. A small spool stays
// in memory, a larger one goes to a file. Spools don't outlive the process,
// not even one that is killed: recovery gets the changes from Postgres again.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"firn/wal"
)

const (
	// memoryBytes is what a spool keeps in memory before it opens a file.
	memoryBytes = 1 << 20
	// bufferBytes is what a spool with a file gathers before it writes.
	bufferBytes = 256 << 10
	// pressedBytes is the same when all spools together use too much memory.
	pressedBytes = 16 << 10
)

// A record is: CRC-32C of all that follows, length of the message, transaction
// (4 bytes each), LSN (8 bytes), message; little endian.
const headerBytes = 4 + 4 + 4 + 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Spool holds messages in the order of their Append. One goroutine appends;
// others may read meanwhile, each with a Reader of its own.
//
// The file has no name while it is used, so the system frees it when the
// process ends, however that happens.
type Spool struct {
	dir, name string
	budget    *Budget

	mu      sync.Mutex
	file    *os.File // nil: all is in mem
	written int64    // bytes in file: records before those in mem
	mem     []byte
	records int64
	removed bool
}

// Create returns an empty spool. Nothing is made in dir before the spool
// outgrows memory; name is for the file and for errors.
func Create(dir, name string, b *Budget) (*Spool, error) {
	if b == nil {
		return nil, fmt.Errorf("create spool %s: no budget given", name)
	}
	if name == "" || filepath.Base(name) != name {
		return nil, fmt.Errorf("create spool %q: the name must be a file name", name)
	}
	return &Spool{dir: dir, name: name, budget: b}, nil
}

// Append parks a copy of msg. On an error (ErrBudget, or what the file system
// said, such as ENOSPC) the spool is as before and the same Append may be
// tried again.
func (s *Spool) Append(lsn wal.LSN, xid uint32, msg []byte) error {
	if int64(len(msg)) > math.MaxUint32-headerBytes {
		return fmt.Errorf("append to spool %s: a message of %d bytes is too long", s.name, len(msg))
	}
	n := int64(headerBytes + len(msg))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return fmt.Errorf("append to spool %s: %w", s.name, os.ErrClosed)
	}
	if !s.budget.take(n) {
		return fmt.Errorf("append to spool %s: %w", s.name, ErrBudget)
	}
	at := len(s.mem)
	// Built in place: a header on the stack would escape into the checksum.
	s.mem = append(slices.Grow(s.mem, int(n))[:at+headerBytes], msg...)
	rec := s.mem[at:]
	binary.LittleEndian.PutUint32(rec[4:], uint32(len(msg)))
	binary.LittleEndian.PutUint32(rec[8:], xid)
	binary.LittleEndian.PutUint64(rec[12:], uint64(lsn))
	binary.LittleEndian.PutUint32(rec, crc32.Checksum(rec[4:], castagnoli))
	s.budget.memory.Add(n)
	if len(s.mem) >= s.flushAt() {
		if err := s.flush(); err != nil {
			s.mem = s.mem[:at]
			s.budget.memory.Add(-n)
			s.budget.give(n)
			return fmt.Errorf("append to spool %s: %w", s.name, err)
		}
	}
	s.records++
	return nil
}

// flushAt is how many bytes in memory are written out.
func (s *Spool) flushAt() int {
	switch {
	case s.budget.memory.Load() > s.budget.memoryMax:
		return pressedBytes
	case s.file == nil:
		return memoryBytes
	}
	return bufferBytes
}

// flush writes mem to the file, making it first where there is none. After an
// error mem is still whole, and the next flush writes at the same place again.
func (s *Spool) flush() error {
	if s.file == nil {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		f, err := os.CreateTemp(s.dir, s.name+"-*")
		if err != nil {
			return fmt.Errorf("create file: %w", err)
		}
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("take the file's name: %w", err), f.Close())
		}
		s.file = f
	}
	if _, err := s.file.WriteAt(s.mem, s.written); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	s.written += int64(len(s.mem))
	s.budget.memory.Add(-int64(len(s.mem)))
	if cap(s.mem) > 2*bufferBytes || s.budget.memory.Load() > s.budget.memoryMax {
		s.mem = nil
	}
	s.mem = s.mem[:0]
	return nil
}

// Bytes is the size of all records with their headers.
func (s *Spool) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written + int64(len(s.mem))
}

// Records is the number of messages.
func (s *Spool) Records() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records
}

// Reader returns a reader that stands before the first message.
func (s *Spool) Reader() (*Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return nil, fmt.Errorf("read spool %s: %w", s.name, os.ErrClosed)
	}
	return &Reader{s: s}, nil
}

// Remove drops all messages and gives their bytes back to the budget. Readers
// get os.ErrClosed once they have no more read ahead. Removing twice is harmless.
func (s *Spool) Remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return nil
	}
	s.removed = true
	s.budget.memory.Add(-int64(len(s.mem)))
	s.budget.give(s.written + int64(len(s.mem)))
	s.written, s.mem, s.records = 0, nil, 0
	if s.file == nil {
		return nil
	}
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("remove spool %s: %w", s.name, err)
	}
	return nil
}

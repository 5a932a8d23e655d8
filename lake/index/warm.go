package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// coldFaults is how many pages the process has waited for since it was last
	// asked, before its indexes are taken for cold: some 30 ms of waiting.
	coldFaults = 500
	// warmEvery is how long what was read is left to itself. If the kernel wants
	// the memory for something else, no more than this is spent on the quarrel.
	warmEvery = time.Minute
	warmBlock = 1 << 20 // bytes
)

// Warmer sees to it that look-ups don't wait for the disk where there is memory.
//
// The pages of an index that nobody has asked for in a while, or since a start,
// are on disk only. A look-up in one costs 70 µs, most of them waiting, so a
// backlog of random changes to a large table is applied at 14,000 a second; the
// whole of 4 GB, read from front to back, takes as long as 40,000 such look-ups.
// Reading ahead around each one was rejected: what it reads in vain would be the
// ruin of an index larger than memory, which a warmer leaves alone.
//
// What was read also has to stay. Where the kernel was told that reading ahead is
// of no use, it takes no look-up for a reason to keep a page (since Linux 6.3), so
// whatever else is read from files, Postgres' WAL for one, drives the index out.
// An index that fits is therefore mapped without that advice from here on.
//
// The zero value is ready. Its methods are for one goroutine.
type Warmer struct {
	faults int64
	began  time.Time
	cold   func() bool  // of tests
	room   func() int64 // of tests
}

// Warm returns what reads the indexes into memory, and how many bytes that are;
// nil while they seem to be there, for a minute after the last time, and if they
// would take more than half of the memory that is free for it. Indexes of fewer
// pages than the process has waited for are left alone. The owner of the indexes
// calls Warm; what it returns may run beside their use, and their end.
func (w *Warmer) Warm(indexes []*Index) (read func(context.Context) error, bytes int64) {
	cold := w.isCold
	if w.cold != nil {
		cold = w.cold
	}
	if !cold() || time.Since(w.began) < warmEvery {
		return nil, 0
	}
	var stored []*segment
	var paths []string
	for _, x := range indexes {
		for _, s := range x.segments() {
			if s.id != 0 {
				stored = append(stored, s)
				paths = append(paths, filepath.Join(x.dir, segmentName(s.id)))
				bytes += int64(len(s.mapped))
			}
		}
	}
	if bytes < coldFaults*int64(os.Getpagesize()) {
		return nil, 0 // it was something else that the process waited for
	}
	w.began = time.Now()
	room := memoryAvailable
	if w.room != nil {
		room = w.room
	}
	fits := bytes <= room()/2
	for _, x := range indexes {
		x.files.keep = fits
	}
	for _, s := range stored {
		if fits {
			retain(s.mapped)
		} else {
			advise(s.mapped)
		}
	}
	if !fits {
		return nil, 0
	}
	return func(ctx context.Context) error {
		block := make([]byte, warmBlock)
		for _, path := range paths {
			// One that isn't there any more was replaced, by one just written.
			if err := readThrough(ctx, path, block); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("read index into memory: %w", err)
			}
		}
		return nil
	}, bytes
}

// isCold says whether the process has waited for many pages since the last call.
func (w *Warmer) isCold() bool {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return false // nowhere, for this process
	}
	faults := int64(u.Majflt) - w.faults
	w.faults = int64(u.Majflt)
	return faults >= coldFaults
}

// readThrough reads a file to its end. It is copied for nothing, which costs 0.07
// s of CPU per GB; told to fetch it (fadvise, madvise), the kernel
// takes so much on at once that a look-up beside it waits its turn: 500,000 of
// them in 2 GB took 11 s instead of 2.
func readThrough(ctx context.Context, path string, block []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.Read(block); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

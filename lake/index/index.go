// Package index knows where each live row of a table is: key → (data file, row
// position). It is what lets an update or delete mark the old row's position
// instead of writing an equality delete that every reader would pay for.
//
// # How it lies on disk
//
// A folder per table holds a journal and segments. A segment is an
// open-addressing hash table in a memory-mapped file of its own; a directory of
// segments is addressed by the high bits of a seeded, mixed hash (extendible
// hashing), so a full segment doubles or splits alone and no pause is longer
// than the copying of one segment. Home slots are the hash bits after the
// directory's, so the order of slots is the order of hashes: a merge, and a
// split, walks memory forwards instead of jumping about in it.
//
// # Why a kill at any instruction is harmless
//
// Pages of a shared mapping belong to the kernel: they survive the process as
// long as the machine stays up. What could go wrong is a change that is half
// done. A slot is its key and one 8-byte location word, and the word alone says
// whether the slot is empty, removed or taken; the key is stored before the
// word, a changed location is one store, and so is a removal. So there is no
// torn slot, only slots that have had their change and slots that have not. A
// new segment is filled before a journal record puts it in its predecessor's
// place. The journal says "applying N" before the first slot of N changes and
// "at N" after the last; every change is "this key is there" or "this key is
// not there", so applying N again over any mixture of old and new gives N.
//
// Backward-shift deletion, which needs no tombstones, was rejected: it moves
// slots, and a kill between the two halves of a move loses or doubles a row
// that N never touched, which applying N again does not repair.
//
// # What is trusted
//
// An index found after the machine restarted is trusted only if it was closed,
// which syncs it; after a kill, only under the same boot id. Anything else is
// [Untrusted], and the caller rebuilds it from the lake, whose truth it is.
package index

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrLocked: another process has the index open.
	ErrLocked = errors.New("index is open in another process")
	// ErrState: the call does not fit the index's state.
	ErrState = errors.New("index is in the wrong state")
	// ErrDuplicate: Load was given a key twice in an index of unique keys.
	ErrDuplicate = errors.New("key has two live rows")
	// ErrFile: a location or file list contradicts the file numbers known.
	ErrFile = errors.New("file number contradicts the index")
)

// VirtualFile is the lowest File of a virtual location.
const VirtualFile = 1 << 31

// Key identifies a row, or equal rows. Keys that fit 8 bytes are stored
// exactly, with Hi = 0; wider ones are a 128-bit hash.
type Key struct{ Hi, Lo uint64 }

// Loc is a row's place: data file number and row position in it. File is never
// 0. File >= [VirtualFile] is a row still in memory (the number of a batch); it
// lives in overlays only and becomes real in Merge.
type Loc struct{ File, Pos uint32 }

// Virtual reports whether the row is still in memory.
func (l Loc) Virtual() bool { return l.File >= VirtualFile }

func (l Loc) word() uint64   { return uint64(l.File)<<32 | uint64(l.Pos) }
func locOf(w uint64) Loc     { return Loc{File: uint32(w >> 32), Pos: uint32(w)} }
func (l Loc) String() string { return fmt.Sprintf("%d:%d", l.File, l.Pos) }
func (k Key) String() string { return fmt.Sprintf("%016x%016x", k.Hi, k.Lo) }
func isLoc(w uint64) bool    { return w>>32 != 0 }

// FileName is a data file's number in this table. Numbers are given by
// [Index.NextFile] and never used for another path.
type FileName struct {
	No   uint32
	Path string
	// Partial: the keys of not all of its live rows are at their places in it. A
	// commit doesn't tell of such a file, so that whoever finds the index reads it.
	Partial bool
}

// Options of an index. Wide and Multi are part of what is stored: an index
// opened with others than it was made with is Untrusted.
type Options struct {
	// Wide is for keys of 128 bits; without it Key.Hi must be 0.
	Wide bool
	// Multi allows several rows per key (tables without a key). It implies
	// Wide; the lowest four bits of Key.Hi are then not compared.
	Multi bool
	// OverlayMemory is how many bytes the changes not yet committed may take in
	// memory; what is more lies in deleted temporary files in the index's
	// folder. Default 32 MB.
	OverlayMemory int64
	// BootID is the identity of this run of the machine; default the kernel's.
	BootID string

	// Sizes beyond which segments split, as powers of two, and a load's rows are
	// spooled; tests make them small.
	baseLog, overlayLog   uint8
	heapBytes             int64
	directRows            int64
	deltaLog              uint8
	deltaFrom, deltaShare int64
}

// Phase is what an index can be.
type Phase uint8

const (
	// Empty: no commit yet; Load and CommitLoad make the first.
	Empty Phase = iota
	// At: all of commit N and no more.
	At
	// Applying: the merge of N was interrupted. Rows that N did not touch are
	// as in the last complete commit, Base; those it touched are as before or
	// as after. Bringing the changes from Base to N or any later commit into
	// the overlay and merging them makes it right.
	Applying
	// Untrusted: Reset, and build it anew.
	Untrusted
)

func (p Phase) String() string {
	return [...]string{"empty", "at", "applying", "untrusted"}[p]
}

// State says which commit the segments hold.
type State struct {
	Phase    Phase
	N        uint64 // the commit: of At the complete one, of Applying the interrupted one
	Base     uint64 // the last complete commit
	Snapshot int64  // of Base
	Reason   string // of Untrusted
}

// Index is one table's index. One goroutine owns it: none of its methods may
// run beside another.
type Index struct {
	dir  string
	o    Options
	lock *os.File // the folder, locked
	boot string

	seed     uint64
	state    State
	names    map[uint32]string // as of Base
	pending  []FileName        // of the interrupted merge
	nextFile uint32
	loading  bool    // Load has put rows that CommitLoad has not made a commit
	loaded   fileSet // and these are their files

	journal *journal
	clean   bool // everything is on disk and the journal's last record says so
	files   *segmentFiles
	base    *table
	delta   *table // changes on their way into base; nil: they go there at once

	scratch    *scratch
	filling    *overlay
	committing *overlay // nil: none
	spare      *overlay // cleared, for the next Seal
}

// State says which commit the index holds.
func (x *Index) State() State { return x.state }

// Len is the number of rows in the segments, changes in the overlays left out.
func (x *Index) Len() int64 {
	n := x.base.live()
	if x.delta != nil {
		// fn returns no error
		_ = x.delta.each(func(k Key, w uint64) error {
			if x.base.get(x.base.hash(k), k) != wordEmpty {
				n--
			}
			if isLoc(w) {
				n++
			}
			return nil
		})
	}
	return n
}

// Bytes is what the index takes: of disk for segments, of memory for changes
// not yet committed, and of disk for such changes beyond OverlayMemory.
func (x *Index) Bytes() (disk, memory, spilled int64) {
	for _, s := range x.segments() {
		disk += int64(len(s.mapped))
	}
	return disk, x.scratch.used, x.scratch.spilled
}

// Files is the complete file list of the last complete commit, in no order.
func (x *Index) Files() []FileName {
	out := make([]FileName, 0, len(x.names))
	for no, path := range x.names {
		out = append(out, FileName{No: no, Path: path})
	}
	return out
}

// Interrupted lists the files that the interrupted merge of an Applying index
// added. A catch-up that gives such a path the same number again leaves no
// stale location behind; another number is as right, for the stale ones name a
// file that is in no list.
func (x *Index) Interrupted() []FileName { return append([]FileName(nil), x.pending...) }

// NextFile gives a number that no data file of this table has had. It returns 0
// once all 2³¹-1 are used; a Reset then starts anew.
func (x *Index) NextFile() uint32 {
	if x.nextFile >= VirtualFile {
		return 0
	}
	no := x.nextFile
	x.nextFile++
	return no
}

// Reset forgets everything, overlays included, and leaves an Empty index. File
// numbers go on from where they were, unless they were used up.
func (x *Index) Reset() error {
	next := x.nextFile
	if next >= VirtualFile {
		next = 1
	}
	old := x.stored()
	if x.journal != nil {
		x.journal.close()
		x.journal = nil
	}
	if err := x.begin(next, true); err != nil {
		return fmt.Errorf("reset index: %w", err)
	}
	for _, t := range old {
		t.unmap()
	}
	return x.sweep()
}

// Close syncs the segments and marks the index clean, so that it is trusted
// after a restart of the machine too. Changes in the overlays are lost: they
// were never committed. The Index may not be used afterwards.
func (x *Index) Close() error {
	err := x.sync()
	x.release()
	if err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

func (x *Index) sync() error {
	if x.journal == nil || x.clean || x.loading {
		return nil
	}
	x.storeCounts()
	for _, s := range x.segments() {
		if s.mapped == nil {
			continue
		}
		if err := unix.Msync(s.mapped, unix.MS_SYNC); err != nil {
			return fmt.Errorf("sync segment %d: %w", s.id, err)
		}
	}
	if err := x.lock.Sync(); err != nil {
		return fmt.Errorf("sync index folder: %w", err)
	}
	if err := x.journal.append(recordClosed()); err != nil {
		return err
	}
	if err := x.journal.sync(); err != nil {
		return err
	}
	x.clean = true
	return nil
}

func (x *Index) release() {
	for _, o := range []*overlay{x.filling, x.committing, x.spare} {
		if o != nil {
			o.free()
		}
	}
	if x.base != nil {
		for _, t := range x.stored() {
			t.unmap()
		}
	}
	if x.journal != nil {
		x.journal.close()
	}
	x.lock.Close() // also ends the lock; nothing was written through it
}

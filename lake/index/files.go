package index

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	segmentPrefix = "segment-"
	overlayPrefix = "overlay-"
	headerBytes   = 4096
	heapBytes     = 64 << 10                  // of an overlay's segment, before it is worth a mapping
	segmentMagic  = 0x31_67_65_53_6e_72_69_46 // "FirnSeg1", read as a little-endian number
)

// The header of a segment file, in numbers of 8 bytes in the machine's order.
const (
	headMagic = iota
	headID
	headSeed
	headWords
	headLog2
	headDepth
	headTop
	headLive
	headUsed
)

// segmentID is what the journal says of a segment.
type segmentID struct {
	id          uint64
	log2, depth uint8
	delta       bool
	top         uint64
}

func segmentName(id uint64) string { return fmt.Sprintf("%s%08x", segmentPrefix, id) }

// segmentFiles makes and opens the files of the segments in a folder.
type segmentFiles struct {
	dir    string
	words  int
	maxLog uint8
	seed   uint64
	next   uint64 // id; never used twice in a folder
	keep   bool   // new ones are to stay in memory, like the others (Warmer)
}

func (f *segmentFiles) size(log2 uint8) int64 { return headerBytes + int64(f.words)*8<<log2 }

func (f *segmentFiles) alloc(log2, depth uint8, top uint64) (*segment, error) {
	f.next++
	id := f.next
	path := filepath.Join(f.dir, segmentName(id))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create index segment: %w", err)
	}
	m, err := mapNew(file, f.size(log2))
	if err != nil {
		os.Remove(path) // if that fails too, the next Open does it
		return nil, fmt.Errorf("create index segment %d: %w", id, err)
	}
	if f.keep {
		retain(m)
	}
	s := f.segment(m, segmentID{id: id, log2: log2, depth: depth, top: top})
	head := numbers(m[:headerBytes])
	head[headMagic], head[headID], head[headSeed] = segmentMagic, id, f.seed
	head[headWords], head[headLog2], head[headDepth], head[headTop] = uint64(f.words), uint64(log2), uint64(depth), top
	return s, nil
}

// open maps a segment of which the journal speaks. An error means that the file
// is not what the journal says.
func (f *segmentFiles) open(d segmentID) (*segment, error) {
	if d.log2 > maxBaseLog || d.depth > maxDepth {
		return nil, fmt.Errorf("index segment %d has 2^%d slots at depth %d", d.id, d.log2, d.depth)
	}
	file, err := os.OpenFile(filepath.Join(f.dir, segmentName(d.id)), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open index segment: %w", err)
	}
	defer file.Close()
	size := f.size(d.log2)
	if fi, err := file.Stat(); err != nil {
		return nil, fmt.Errorf("stat index segment: %w", err)
	} else if fi.Size() != size {
		return nil, fmt.Errorf("index segment %d has %d bytes instead of %d", d.id, fi.Size(), size)
	}
	m, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map index segment %d: %w", d.id, err)
	}
	advise(m)
	head := numbers(m[:headerBytes])
	s := f.segment(m, d)
	s.live, s.used = int(head[headLive]), int(head[headUsed])
	if head[headMagic] != segmentMagic || head[headID] != d.id || head[headSeed] != f.seed ||
		head[headWords] != uint64(f.words) || head[headLog2] != uint64(d.log2) ||
		head[headDepth] != uint64(d.depth) || head[headTop] != d.top ||
		s.live > s.used || s.used > len(s.slots)/s.words {
		s.unmap()
		return nil, fmt.Errorf("index segment %d has another segment's header", d.id)
	}
	return s, nil
}

func (f *segmentFiles) segment(m []byte, d segmentID) *segment {
	s := &segment{id: d.id, mapped: m, delta: d.delta}
	s.shape(numbers(m[headerBytes:]), f.words, d.log2, d.depth, d.top, f.maxLog)
	s.free = func() {
		s.unmap()
		os.Remove(filepath.Join(f.dir, segmentName(d.id))) // if that fails, the next Open does it
	}
	return s
}

// storeCount brings the header up to date.
func (s *segment) storeCount() {
	if s.id == 0 {
		return
	}
	head := numbers(s.mapped[:headerBytes])
	if head[headLive] != uint64(s.live) || head[headUsed] != uint64(s.used) {
		head[headLive], head[headUsed] = uint64(s.live), uint64(s.used)
	}
}

// unmap gives the memory back; a file stays.
func (s *segment) unmap() {
	if s.mapped == nil {
		return
	}
	// Fails only for what is no mapping, which would be our own error.
	if err := unix.Munmap(s.mapped); err != nil {
		panic(fmt.Sprintf("unmap index segment %d: %v", s.id, err))
	}
	s.mapped, s.slots = nil, nil
}

func (s *segment) contains(addr uintptr) bool {
	if s.mapped == nil {
		return false
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(s.mapped)))
	return addr >= start && addr < start+uintptr(len(s.mapped))
}

// scratch is the memory of overlays: the heap for what is small, anonymous
// mappings, and deleted files once the memory is used up.
type scratch struct {
	dir           string
	words         int
	maxLog        uint8
	heap          int64 // bytes up to where a segment is worth no mapping of its own
	memory        int64
	used, spilled int64 // bytes
}

func (f *scratch) alloc(log2, depth uint8, top uint64) (*segment, error) {
	size := int64(f.words) * 8 << log2
	s := &segment{}
	var slots []uint64
	switch {
	case size <= f.heap && f.used+size <= f.memory:
		slots = make([]uint64, size/8)
	case f.used+size <= f.memory:
		m, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, fmt.Errorf("map %d bytes for index overlay: %w", size, err)
		}
		huge(m)
		s.mapped, slots = m, numbers(m)
	default:
		m, err := mapDeleted(f.dir, size)
		if err != nil {
			return nil, fmt.Errorf("create index overlay: %w", err)
		}
		s.mapped, slots = m, numbers(m)
		f.spilled += size
		s.free = func() { f.spilled -= size; s.unmap() }
	}
	if s.free == nil {
		f.used += size
		s.free = func() { f.used -= size; s.unmap() }
	}
	s.shape(slots, f.words, log2, depth, top, f.maxLog)
	return s, nil
}

func mapDeleted(dir string, size int64) ([]byte, error) {
	file, err := createDeleted(dir)
	if err != nil {
		return nil, err
	}
	return mapNew(file, size)
}

// createDeleted makes a file that is gone with the process.
func createDeleted(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, overlayPrefix+"*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// mapNew gives a new file its size and its blocks, maps it and closes it. All
// pages are made here, where a full disk is an error; touched first by a slot
// it would be a signal.
func mapNew(file *os.File, size int64) ([]byte, error) {
	defer file.Close()
	if err := allocate(file, size); err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", size, err)
	}
	m, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	if err := populate(m); err != nil {
		unix.Munmap(m) // the first error is the one to tell
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return m, nil
}

// zeroFill writes size zeros, for file systems that cannot allocate.
func zeroFill(file *os.File, size int64) error {
	zeros := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		n := min(int64(len(zeros)), size-off)
		if _, err := file.WriteAt(zeros[:n], off); err != nil {
			return err
		}
	}
	return nil
}

func numbers(b []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

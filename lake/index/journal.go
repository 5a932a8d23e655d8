package index

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The journal is an append-only file of records: the payload's length, a
// CRC-32C of these four bytes, a CRC-32C of the payload, and the payload, whose
// first byte is its kind. Everything that is not a slot is in it, so there is no
// second record to disagree with it. A record is one write; a kill may cut the
// last one short, and then it is as if it had never been. The length has its
// own sum so that a damaged one is not taken for that.
const (
	journalName    = "journal"
	journalVersion = 2
	frameBytes     = 12

	recFull   = 'F' // everything, first in a journal: phase Empty or At
	recOpened = 'O' // from here on the folder is only as good as this boot
	recClosed = 'C' // all before this is on disk
	recBegin  = 'B' // applying N
	recSwap   = 'S' // segments replaced
	recCommit = 'A' // at N

	// A journal is rewritten when it is longer than this and than four times
	// what it was when it was written whole.
	journalLimit = 64 << 10
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// untrustedError says why a journal cannot be believed.
type untrustedError struct{ reason string }

func (e *untrustedError) Error() string { return e.reason }

type journal struct {
	f    *os.File
	size int64
	full int64 // size when it was written whole
}

func openJournal(path string, length, full int64) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open index journal: %w", err)
	}
	j := &journal{f: f, size: length, full: full}
	if err := f.Truncate(length); err != nil {
		f.Close()
		return nil, fmt.Errorf("cut torn record off index journal: %w", err)
	}
	return j, nil
}

// append writes one record; on an error the journal is as before.
func (j *journal) append(payload []byte) error {
	b := frame(nil, payload)
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		return fmt.Errorf("write index journal: %w", errors.Join(err, j.f.Truncate(j.size)))
	}
	j.size += int64(len(b))
	return nil
}

func (j *journal) sync() error {
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("sync index journal: %w", err)
	}
	return nil
}

func (j *journal) close() { j.f.Close() } // what matters was synced or lives in the page cache

func (j *journal) long() bool { return j.size > journalLimit && j.size > 4*j.full }

// writeJournal replaces the journal in dir. With sync, a power failure leaves
// the old one or the new one.
func writeJournal(dir *os.File, payloads [][]byte, sync bool) (*journal, error) {
	var b []byte
	for _, p := range payloads {
		b = frame(b, p)
	}
	path := filepath.Join(dir.Name(), journalName)
	f, err := os.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create index journal: %w", err)
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write index journal: %w", err)
	}
	// Renamed: from here on this is the journal, whatever else happens.
	j := &journal{f: f, size: int64(len(b)), full: int64(len(b))}
	if sync {
		if err := dir.Sync(); err != nil {
			return j, fmt.Errorf("sync index folder: %w", err)
		}
	}
	return j, nil
}

func frame(dst, payload []byte) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], crcTable))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(payload, crcTable))
	return append(dst, payload...)
}

// recovered is what a journal tells.
type recovered struct {
	words       int
	multi       bool
	seed        uint64
	phase       Phase
	n, base     uint64
	snapshot    int64
	nextFile    uint32
	nextSegment uint64
	names       map[uint32]string
	pending     []FileName
	segments    []segmentID
	boot        string
	clean       bool

	length int64 // up to the end of the last whole record
	full   int64 // of the first record
}

// readJournal replays a journal. With an *untrustedError it may return what it
// understood up to there.
func readJournal(path string) (*recovered, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open index journal: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read index journal: %w", err)
	}
	return replay(b)
}

func replay(b []byte) (*recovered, error) {
	var r *recovered
	for off := 0; ; {
		rest := b[off:]
		if len(rest) < frameBytes {
			break
		}
		n := int(binary.LittleEndian.Uint32(rest))
		sound := n > 0 && crc32.Checksum(rest[:4], crcTable) == binary.LittleEndian.Uint32(rest[4:])
		if sound && n > len(rest)-frameBytes {
			break
		}
		var payload []byte
		if sound {
			payload = rest[frameBytes : frameBytes+n]
			sound = crc32.Checksum(payload, crcTable) == binary.LittleEndian.Uint32(rest[8:])
		}
		if !sound {
			return r, &untrustedError{fmt.Sprintf("journal record at byte %d is damaged", off)}
		}
		d := decoder{b: payload[1:]}
		if (payload[0] == recFull) != (r == nil) {
			return r, &untrustedError{fmt.Sprintf("journal record at byte %d is out of place", off)}
		}
		if r == nil {
			r = &recovered{names: map[uint32]string{}}
		}
		off += frameBytes + n
		r.apply(payload[0], &d)
		if d.bad || len(d.b) > 0 {
			return r, &untrustedError{fmt.Sprintf("journal record before byte %d makes no sense", off)}
		}
		r.length = int64(off)
		if payload[0] == recFull {
			r.full = r.length
		}
	}
	if r == nil {
		return nil, &untrustedError{"journal is empty"}
	}
	return r, nil
}

func (r *recovered) apply(kind byte, d *decoder) {
	if kind != recClosed && kind != recOpened {
		r.clean = false
	}
	switch kind {
	case recFull:
		if d.uint() != journalVersion {
			d.bad = true
			return
		}
		r.words, r.multi, r.seed = int(d.uint()), d.uint() == 1, d.uint()
		r.phase, r.n, r.snapshot = Phase(d.uint()), d.uint(), int64(d.uint())
		r.base = r.n
		r.nextFile, r.nextSegment = uint32(d.uint()), d.uint()
		for _, f := range d.files() {
			r.names[f.No] = f.Path
		}
		r.segments = d.segments()
		d.bad = d.bad || r.phase > At
	case recOpened:
		r.boot, r.clean = d.string(), false
	case recClosed:
		r.clean = true
	case recBegin:
		r.phase, r.n, r.nextFile = Applying, d.uint(), uint32(d.uint())
		r.pending = d.files()
	case recSwap:
		old := map[uint64]bool{}
		for range d.count() {
			old[d.uint()] = true
		}
		kept := r.segments[:0]
		for _, s := range r.segments {
			if !old[s.id] {
				kept = append(kept, s)
			}
		}
		r.segments = append(kept, d.segments()...)
		for _, s := range r.segments {
			r.nextSegment = max(r.nextSegment, s.id)
		}
	case recCommit:
		r.phase, r.n, r.snapshot, r.nextFile = At, d.uint(), int64(d.uint()), uint32(d.uint())
		r.base, r.pending = r.n, nil
		for range d.count() {
			delete(r.names, uint32(d.uint()))
		}
		for _, f := range d.files() {
			r.names[f.No] = f.Path
		}
	default:
		d.bad = true
	}
}

func recordFull(x *Index) []byte {
	b := []byte{recFull}
	multi := uint64(0)
	if x.o.Multi {
		multi = 1
	}
	for _, v := range []uint64{journalVersion, uint64(x.words()), multi, x.seed, uint64(x.state.Phase),
		x.state.N, uint64(x.state.Snapshot), uint64(x.nextFile), x.files.next} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendFiles(b, x.Files())
	return appendSegments(b, x.segments())
}

func recordOpened(boot string) []byte { return appendString([]byte{recOpened}, boot) }

func recordClosed() []byte { return []byte{recClosed} }

func recordBegin(n uint64, nextFile uint32, added []FileName) []byte {
	b := binary.AppendUvarint([]byte{recBegin}, n)
	b = binary.AppendUvarint(b, uint64(nextFile))
	return appendFiles(b, added)
}

func recordSwap(old, repl []*segment) []byte {
	b := binary.AppendUvarint([]byte{recSwap}, uint64(len(old)))
	for _, s := range old {
		b = binary.AppendUvarint(b, s.id)
	}
	return appendSegments(b, repl)
}

func recordCommit(n uint64, snapshot int64, nextFile uint32, removed []uint32, added []FileName) []byte {
	b := binary.AppendUvarint([]byte{recCommit}, n)
	b = binary.AppendUvarint(b, uint64(snapshot))
	b = binary.AppendUvarint(b, uint64(nextFile))
	b = binary.AppendUvarint(b, uint64(len(removed)))
	for _, no := range removed {
		b = binary.AppendUvarint(b, uint64(no))
	}
	return appendFiles(b, added)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendFiles(b []byte, files []FileName) []byte {
	b = binary.AppendUvarint(b, uint64(len(files)))
	for _, f := range files {
		b = appendString(binary.AppendUvarint(b, uint64(f.No)), f.Path)
	}
	return b
}

func appendSegments(b []byte, segments []*segment) []byte {
	n := 0
	for _, s := range segments {
		if s.id != 0 {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, s := range segments {
		if s.id != 0 {
			b = binary.AppendUvarint(b, s.id)
			delta := byte(0)
			if s.delta {
				delta = 1
			}
			b = append(b, s.log2, s.depth, delta)
			b = binary.AppendUvarint(b, s.top)
		}
	}
	return b
}

// decoder reads a payload; bad is sticky.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of things of a byte at least.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(v)
}

func (d *decoder) byte() uint8 {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) string() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) files() []FileName {
	var out []FileName
	for range d.count() {
		no := uint32(d.uint())
		out = append(out, FileName{No: no, Path: d.string()})
	}
	return out
}

func (d *decoder) segments() []segmentID {
	var out []segmentID
	for range d.count() {
		out = append(out, segmentID{id: d.uint(), log2: d.byte(), depth: d.byte(), delta: d.byte() == 1, top: d.uint()})
	}
	return out
}

// identity names this boot and this very folder: a copy of a folder in use may
// hold half a change.
func identity(dir *os.File, boot string) (string, error) {
	if boot == "" {
		return "", nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d:%d", boot, st.Dev, st.Ino), nil
}

func newSeed() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

package index

import (
	"encoding/binary"
	"fmt"
	"os"
)

const (
	spoolParts = 256      // by the first bits of the hash
	spoolBlock = 64 << 10 // bytes; each part fills one in memory
)

// spool keeps the rows of a large load on disk, in parts of rows whose hashes
// are near one another. What is put straight into segments goes anywhere in all
// of them; once these are larger than what the kernel lets lie about unwritten,
// it writes each page again and again (100M rows: 13,000 rows/s, 2 TB written).
// Out of a spool one segment is filled after the other.
type spool struct {
	file  *os.File // deleted
	words int      // per row, as in a slot
	end   int64    // of the file
	rows  int64
	parts [spoolParts]spoolPart
}

type spoolPart struct {
	open   []byte  // not yet written
	blocks []int64 // where the full ones are
}

func newSpool(dir string, words int) (*spool, error) {
	file, err := createDeleted(dir)
	if err != nil {
		return nil, fmt.Errorf("create spool of index load: %w", err)
	}
	s := &spool{file: file, words: words}
	for i := range s.parts {
		s.parts[i].open = make([]byte, 0, spoolBlock)
	}
	return s, nil
}

func (s *spool) close() { s.file.Close() } // nobody reads it again

// add keeps a row of hash h.
func (s *spool) add(h uint64, k Key, w uint64) error {
	p := &s.parts[h>>56]
	p.open = binary.NativeEndian.AppendUint64(p.open, k.Lo)
	if s.words == 3 {
		p.open = binary.NativeEndian.AppendUint64(p.open, k.Hi)
	}
	p.open = binary.NativeEndian.AppendUint64(p.open, w)
	s.rows++
	if len(p.open)+8*s.words <= spoolBlock {
		return nil
	}
	if _, err := s.file.WriteAt(p.open, s.end); err != nil {
		return fmt.Errorf("write spool of index load: %w", err)
	}
	p.blocks = append(p.blocks, s.end)
	s.end += int64(len(p.open))
	p.open = p.open[:0]
	return nil
}

// each calls fn with every row, part by part in the order of their hashes.
func (s *spool) each(fn func(k Key, w uint64) error) error {
	full := spoolBlock / (8 * s.words) * (8 * s.words)
	buf := make([]byte, full)
	for i := range s.parts {
		p := &s.parts[i]
		for _, at := range p.blocks {
			if _, err := s.file.ReadAt(buf, at); err != nil {
				return fmt.Errorf("read spool of index load: %w", err)
			}
			if err := s.decode(buf, fn); err != nil {
				return err
			}
		}
		if err := s.decode(p.open, fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) decode(b []byte, fn func(k Key, w uint64) error) error {
	rows := numbers(b)
	for ; len(rows) > 0; rows = rows[s.words:] {
		k := Key{Lo: rows[0]}
		if s.words == 3 {
			k.Hi = rows[1]
		}
		if err := fn(k, rows[s.words-1]); err != nil {
			return err
		}
	}
	return nil
}

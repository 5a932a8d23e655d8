package snapshot

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	pqmeta "github.com/apache/arrow-go/v18/parquet/metadata"
)

// scattered reads single rows of a column of strings, ascending. To the library
// it shows a column chunk of only those pages that hold a wanted row: a seek of
// its own decodes the list of all pages each time.
type scattered struct {
	typ    arrow.DataType
	chunk  *file.ByteArrayColumnChunkReader
	pages  []pageRows // wanted, not yet read
	now    pageRows   // whose values are here
	values []parquet.ByteArray
	levels []int16 // of definition; nil: the column has no NULLs
	of     []int32 // the place in values by row of the page; -1: NULL
}

// pageRows are the rows [first, end) of a row group.
type pageRows struct{ first, end int64 }

// piecesOf is an io.ReaderAt of parts of another one, one after the other.
type piecesOf struct {
	src    io.ReaderAt
	pieces []piece
	size   int64
}

type piece struct{ at, off, size int64 } // at: here; off: there

func (p *piecesOf) add(s span) {
	p.pieces = append(p.pieces, piece{p.size, s.off, s.end - s.off})
	p.size += s.end - s.off
}

func (p *piecesOf) ReadAt(b []byte, off int64) (n int, err error) {
	for i := sort.Search(len(p.pieces), func(i int) bool { return p.pieces[i].at+p.pieces[i].size > off }); n < len(b); i++ {
		if i == len(p.pieces) {
			return n, io.EOF
		}
		c := p.pieces[i]
		within := off + int64(n) - c.at
		k, err := p.src.ReadAt(b[n:min(int64(len(b)), int64(n)+c.size-within)], c.off+within)
		n += k
		if err != nil && !(errors.Is(err, io.EOF) && int64(k) == c.size-within) {
			return n, err
		}
	}
	return n, nil
}

// scatter says how to read a column by single rows; nil if it can't be: then it
// is not a flat column of strings.
func (p *parquetFile) scatter(typ arrow.DataType, leaf int, chunk *pqmeta.ColumnChunkMetaData, head span, all []*pqmeta.PageLocation, rows int64, wanted []int64) (*scattered, error) {
	descr := p.rd.MetaData().Schema.Column(leaf)
	if typ.ID() != arrow.STRING && typ.ID() != arrow.BINARY || descr.PhysicalType() != parquet.Types.ByteArray ||
		descr.MaxRepetitionLevel() > 0 || descr.MaxDefinitionLevel() > 1 {
		return nil, nil
	}
	s := &scattered{typ: typ}
	src := &piecesOf{src: p.src}
	if head.end > head.off {
		src.add(head)
	}
	var count, most int64
	for i, page := range all {
		end := rows
		if i+1 < len(all) {
			end = all[i+1].FirstRowIndex
		}
		n := sort.Search(len(wanted), func(k int) bool { return wanted[k] >= end })
		if n > 0 {
			src.add(span{page.Offset, page.Offset + int64(page.CompressedPageSize)})
			s.pages = append(s.pages, pageRows{page.FirstRowIndex, end})
			count += end - page.FirstRowIndex
			most = max(most, end-page.FirstRowIndex)
		}
		wanted = wanted[n:]
	}
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	props.BufferedStreamEnabled = true
	stream, err := props.GetStream(src, 0, src.size)
	if err != nil {
		return nil, err
	}
	// Meant for the library's own use, and still the only way to its page decoders
	// past its seek.
	//lint:ignore SA1019 see above; the version is pinned, TestReadScattered tells
	pages, err := file.NewPageReader(stream, count, chunk.Compression(), memory.DefaultAllocator, nil)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 see above
	s.chunk = file.NewColumnReader(descr, pages, memory.DefaultAllocator, p.rd.BufferPool()).(*file.ByteArrayColumnChunkReader)
	s.values, s.of = make([]parquet.ByteArray, most), make([]int32, most)
	if descr.MaxDefinitionLevel() > 0 {
		s.levels = make([]int16, most)
	}
	return s, nil
}

// read returns n rows, the i-th of which is row(i); none is before the last
// call's.
func (s *scattered) read(n int64, row func(i int64) int64) (arrow.Array, error) {
	b := array.NewBuilder(memory.DefaultAllocator, s.typ)
	defer b.Release()
	b.Reserve(int(n))
	for i := range n {
		at := row(i)
		for at >= s.now.end {
			if err := s.nextPage(); err != nil {
				return nil, err
			}
		}
		v := s.of[at-s.now.first]
		switch b := b.(type) {
		case *array.StringBuilder:
			if v < 0 {
				b.AppendNull()
			} else {
				b.BinaryBuilder.Append(s.values[v])
			}
		case *array.BinaryBuilder:
			if v < 0 {
				b.AppendNull()
			} else {
				b.Append(s.values[v])
			}
		}
	}
	return b.NewArray(), nil
}

func (s *scattered) nextPage() error {
	if len(s.pages) == 0 {
		return errors.New("a wanted row is in none of the pages")
	}
	s.now, s.pages = s.pages[0], s.pages[1:]
	rows := s.now.end - s.now.first
	values := 0
	for row := int64(0); row < rows; {
		// What is read of a page stays valid until the next one is begun.
		var levels []int16
		if s.levels != nil {
			levels = s.levels[row:rows]
		}
		n, found, err := s.chunk.ReadBatchInPage(rows-row, s.values[values:rows], levels, nil)
		if err != nil {
			return err
		}
		if n == 0 || s.levels == nil && int64(found) != n {
			return fmt.Errorf("a page has %d rows, want %d", row, rows)
		}
		for i := range n {
			s.of[row+i] = -1
			if s.levels == nil || s.levels[row+i] == 1 {
				s.of[row+i] = int32(values)
				values++
			}
		}
		row += n
	}
	return nil
}

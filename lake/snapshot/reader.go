package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	pqmeta "github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go/table"
)

const (
	readBatchRows  = 32 << 10
	readBatchBytes = 8 << 20
	// gatherPieces is of how many pieces, each of which holds its page, scattered
	// rows are put together.
	gatherPieces = 512
)

// Read calls fn with rows of a data file; see lake.TableStore. It fetches the
// column chunks of the fields, or only the pages that hold positions.
func (t *Table) Read(ctx context.Context, path string, fields []int, positions []uint32, fn func(first int64, rec arrow.RecordBatch) error) error {
	t.mu.RLock()
	m := t.meta
	var size int64
	if f := t.byPath[path]; f != nil {
		size = f.bytes
	}
	t.mu.RUnlock()
	var taken error // what fn said
	err := t.read(ctx, m, path, size, fields, positions, func(first int64, rec arrow.RecordBatch) error {
		taken = fn(first, rec)
		return taken
	})
	if err == nil {
		return nil
	}
	if taken == nil {
		err = unreadable(ctx, err)
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// parquetFile is an open data or delete file, and the columns wanted of it.
type parquetFile struct {
	src     *ranges
	rd      *file.Reader
	fr      *pqarrow.FileReader
	columns []column
	schema  *arrow.Schema // of the batches given out
}

// column is one wanted field.
type column struct {
	index  int // of the top-level field in the file; -1: it has none
	leaves map[int]bool
	typ    arrow.DataType // as given out
}

func (t *Table) read(ctx context.Context, m *metadata, path string, size int64, fields []int, positions []uint32, fn func(int64, arrow.RecordBatch) error) (err error) {
	var p *parquetFile
	// The Parquet library panics at some damage: a page whose header says it is of
	// another kind, say.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is damaged, or its reader at fault: %v", r)
		}
		if p != nil {
			err = p.src.cause(err)
		}
	}()
	p, err = t.open(ctx, path, size)
	if err != nil {
		return err
	}
	if err := p.choose(m, fields); err != nil {
		return err
	}
	out := &output{fn: fn, schema: p.schema, positions: positions != nil}
	defer out.release()
	var base int64
	rest := positions
	for g := range p.rd.NumRowGroups() {
		rows := p.rd.MetaData().RowGroup(g).NumRows()
		if positions == nil {
			if err := p.rowGroup(ctx, g, rows, nil, out); err != nil {
				return err
			}
			base += rows
			continue
		}
		n := sort.Search(len(rest), func(i int) bool { return int64(rest[i]) >= base+rows })
		if n > 0 {
			wanted := make([]int64, n)
			for i, pos := range rest[:n] {
				wanted[i] = int64(pos) - base
			}
			if err := p.rowGroup(ctx, g, rows, wanted, out); err != nil {
				return err
			}
			rest = rest[n:]
		}
		base += rows
	}
	if len(rest) > 0 {
		return fmt.Errorf("position %d is beyond its %d rows", rest[0], base)
	}
	return out.flush()
}

// open opens a Parquet file of the given size; 0: not known.
func (t *Table) open(ctx context.Context, path string, size int64) (*parquetFile, error) {
	key, ok := t.o.Store.Key(path)
	if !ok {
		return nil, errors.New("it lies outside the warehouse")
	}
	src := &ranges{ctx: ctx, store: t.o.Store, key: key, size: size}
	cached := t.o.Footers.get(path)
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	props.BufferedStreamEnabled = true // src holds the bytes
	opts := []file.ReadOption{file.WithReadProps(props)}
	switch {
	case cached != nil:
		src.size = cached.size
		opts = append(opts, file.WithMetadata(cached.meta))
	case size == 0:
		// No longer live, so of unknown size.
		data, err := t.o.Store.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		src.size = int64(len(data))
		src.blocks = []block{{0, data}}
	default:
		if err := src.fetch(ctx, span{max(0, size-tailBytes), size}); err != nil {
			return nil, err
		}
	}
	rd, err := file.NewParquetReader(src, opts...)
	if err != nil {
		return nil, src.cause(err)
	}
	if cached == nil {
		// The fields' types are the table's. The Arrow schema that a writer may leave
		// is a FlatBuffer, which the library believes: a flipped bit asked for 23 GB.
		rd.MetaData().FileMetaData.KeyValueMetadata = nil
		t.o.Footers.put(path, &footer{meta: rd.MetaData(), size: src.size})
	}
	fr, err := pqarrow.NewFileReader(rd, pqarrow.ArrowReadProperties{BatchSize: readBatchRows, PreAllocBinaryData: true}, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	return &parquetFile{src: src, rd: rd, fr: fr}, nil
}

// choose finds the wanted fields in the file by id. Files of writers that give
// no ids are matched by name.
func (p *parquetFile) choose(m *metadata, fields []int) error {
	byID := map[int]int{}
	byName := map[string]int{}
	for i, f := range p.fr.Manifest.Fields {
		byName[f.Field.Name] = i
		if s, ok := f.Field.Metadata.GetValue(table.ArrowParquetFieldIDKey); ok {
			if id, err := strconv.Atoi(s); err == nil {
				byID[id] = i
			}
		}
	}
	var out []arrow.Field
	for _, id := range fields {
		c := column{index: -1, leaves: map[int]bool{}}
		nested, known := m.field(id)
		name := nested.Name
		if !known {
			name = reservedNames[id]
		}
		if i, ok := byID[id]; ok {
			c.index = i
		} else if i, ok := byName[name]; ok && len(byID) == 0 {
			c.index = i
		}
		var err error
		switch {
		case known:
			c.typ, err = table.TypeToArrowType(nested.Type, true, false)
		case c.index >= 0:
			c.typ = p.fr.Manifest.Fields[c.index].Field.Type
			name = p.fr.Manifest.Fields[c.index].Field.Name
		default:
			err = fmt.Errorf("neither the table nor the file has a field %d", id)
		}
		if err != nil {
			return err
		}
		if c.index >= 0 {
			leavesOf(&p.fr.Manifest.Fields[c.index], c.leaves)
		}
		p.columns = append(p.columns, c)
		out = append(out, arrow.Field{Name: name, Type: c.typ, Nullable: true,
			Metadata: arrow.NewMetadata([]string{table.ArrowParquetFieldIDKey}, []string{strconv.Itoa(id)})})
	}
	p.schema = arrow.NewSchema(out, nil)
	return nil
}

// reservedNames are the columns of a position-delete file.
var reservedNames = map[int]string{deletePathID: "file_path", deletePosID: "pos"}

func leavesOf(f *pqarrow.SchemaField, into map[int]bool) {
	if f.IsLeaf() {
		into[f.ColIndex] = true
	}
	for i := range f.Children {
		leavesOf(&f.Children[i], into)
	}
}

// rowGroup gives out the wanted rows of a row group (ascending), nil for all.
func (p *parquetFile) rowGroup(ctx context.Context, g int, rows int64, wanted []int64, out *output) error {
	cursors, err := p.prefetch(g, rows, wanted)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range cursors {
			if c.r != nil {
				c.r.Release()
			}
		}
	}()
	for i, c := range p.columns {
		if c.index < 0 || cursors[i].s != nil {
			continue
		}
		if cursors[i].r, err = p.fr.GetFieldReader(ctx, c.index, c.leaves, []int{g}); err != nil {
			return err
		}
	}
	most, err := p.batchRows(g, rows)
	if err != nil {
		return err
	}
	if wanted == nil {
		for at := int64(0); at < rows; at += most {
			if err := p.batch(ctx, cursors, at, min(most, rows-at), nil, out); err != nil {
				return err
			}
		}
		return nil
	}
	out.rowsMax = most
	inOrder := slices.ContainsFunc(cursors, func(c cursor) bool { return c.r != nil })
	for len(wanted) > 0 {
		n := 1
		for n < len(wanted) && int64(n) < most && (!inOrder || wanted[n]-wanted[0] < most && !skips(cursors, wanted[n-1], wanted[n])) {
			n++
		}
		first := wanted[0]
		length := wanted[n-1] - first + 1
		var take []int64
		if length != int64(n) {
			take = make([]int64, n)
			for i, w := range wanted[:n] {
				take[i] = w - first
			}
		}
		if err := p.batch(ctx, cursors, first, length, take, out); err != nil {
			return err
		}
		wanted = wanted[n:]
	}
	return nil
}

// batchRows is how many rows of a row group are read at a time.
func (p *parquetFile) batchRows(g int, rows int64) (int64, error) {
	var bytes int64
	meta := p.rd.MetaData().RowGroup(g)
	for _, c := range p.columns {
		for leaf := range c.leaves {
			chunk, err := meta.ColumnChunk(leaf)
			if err != nil {
				return 0, err
			}
			bytes += chunk.TotalUncompressedSize()
		}
	}
	return min(readBatchRows, max(1, readBatchBytes/(bytes/max(1, rows)+1))), nil
}

// skips says whether a column has a page between two rows that holds neither.
func skips(cursors []cursor, from, to int64) bool {
	for i := range cursors {
		if c := &cursors[i]; c.r != nil && c.page(to) > c.page(from)+1 {
			return true
		}
	}
	return false
}

// cursor reads one column of a row group forwards. It seeks to the first rows
// of pages only: arrow-go's seek into the middle of a page loses the repetition
// levels of what follows.
type cursor struct {
	s     *scattered // if rows are read one by one
	r     *pqarrow.ColumnReader
	pages []int64 // their first rows; nil: it can't seek
	next  int64   // row
}

// page is the number of the page that holds a row; -1 if pages are not known.
func (c *cursor) page(row int64) int {
	return sort.Search(len(c.pages), func(i int) bool { return c.pages[i] > row }) - 1
}

// read returns rows from first on, which is not before the last read's end.
func (c *cursor) read(first, rows int64) (*arrow.Chunked, error) {
	if i := c.page(first); i >= 0 && c.pages[i] > c.next {
		if err := c.r.SeekToRow(c.pages[i]); err != nil {
			return nil, err
		}
		c.next = c.pages[i]
	}
	for first-c.next > readBatchRows {
		dropped, err := c.r.NextBatch(readBatchRows)
		if err != nil {
			return nil, err
		}
		dropped.Release()
		c.next += readBatchRows
	}
	skip := first - c.next
	chunks, err := c.r.NextBatch(skip + rows)
	if err != nil {
		return nil, err
	}
	if int64(chunks.Len()) != skip+rows {
		chunks.Release()
		return nil, fmt.Errorf("%d rows, want %d", chunks.Len(), skip+rows)
	}
	c.next = first + rows
	if skip == 0 {
		return chunks, nil
	}
	defer chunks.Release()
	return array.NewChunkedSlice(chunks, skip, skip+rows), nil
}

// batch reads rows of all columns, and gives out those in take.
func (p *parquetFile) batch(ctx context.Context, cursors []cursor, first, rows int64, take []int64, out *output) error {
	columns := make([]arrow.Array, len(cursors))
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	given := rows
	if take != nil {
		given = int64(len(take))
	}
	for i := range cursors {
		c, typ := &cursors[i], p.columns[i].typ
		var err error
		switch {
		case c.s != nil:
			columns[i], err = c.s.read(given, func(i int64) int64 {
				if take != nil {
					i = take[i]
				}
				return first + i
			})
		case c.r == nil:
			columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, typ, int(given))
		default:
			var chunks *arrow.Chunked
			if chunks, err = c.read(first, rows); err == nil {
				columns[i], err = fit(ctx, chunks, take, typ)
				chunks.Release()
			}
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", p.schema.Field(i).Name, err)
		}
	}
	return out.add(columns, given)
}

// prefetch fetches the bytes that reading the wanted rows will ask for, and
// says where the columns' pages begin if they were chosen one by one.
func (p *parquetFile) prefetch(g int, rows int64, wanted []int64) ([]cursor, error) {
	meta := p.rd.MetaData().RowGroup(g)
	cursors := make([]cursor, len(p.columns))
	var index *pqmeta.RowGroupPageIndexReader
	if wanted != nil && int64(len(wanted)) < rows/2 {
		var err error
		if index, err = p.rd.GetPageIndexReader().RowGroup(g); err != nil {
			return nil, err
		}
	}
	var spans []span
	for i, c := range p.columns {
		for leaf := range c.leaves {
			chunk, err := meta.ColumnChunk(leaf)
			if err != nil {
				return nil, err
			}
			start := chunk.DataPageOffset()
			if chunk.HasDictionaryPage() && chunk.DictionaryPageOffset() > 0 {
				start = min(start, chunk.DictionaryPageOffset())
			}
			var pages []*pqmeta.PageLocation
			// The pages of several leaves don't begin at the same rows.
			if index != nil && len(c.leaves) == 1 {
				offsets, err := index.GetOffsetIndex(leaf)
				if err != nil {
					return nil, err
				}
				if offsets != nil {
					pages = offsets.GetPageLocations()
				}
			}
			if len(pages) == 0 {
				spans = append(spans, span{start, start + chunk.TotalCompressedSize()})
				continue
			}
			spans = append(spans, span{start, pages[0].Offset}) // the dictionary
			rest := wanted
			for j, page := range pages {
				cursors[i].pages = append(cursors[i].pages, page.FirstRowIndex)
				end := rows
				if j+1 < len(pages) {
					end = pages[j+1].FirstRowIndex
				}
				n := sort.Search(len(rest), func(k int) bool { return rest[k] >= end })
				if n > 0 {
					spans = append(spans, span{page.Offset, page.Offset + int64(page.CompressedPageSize)})
				}
				rest = rest[n:]
			}
			if cursors[i].s, err = p.scatter(c.typ, leaf, chunk, span{start, pages[0].Offset}, pages, rows, wanted); err != nil {
				return nil, err
			}
		}
	}
	return cursors, p.src.want(spans)
}

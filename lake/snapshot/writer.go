package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"firn/lake"
	"firn/lake/partition"
)

const (
	// pageBytes keeps pages small enough that reading a few rows by position
	// is cheap. Where a column's values are wide, rows that Postgres sends
	// without them are likely to be read so: its pages are narrowPageBytes.
	pageBytes       = 256 << 10
	narrowPageBytes = 32 << 10
	wideValueBytes  = 1 << 10
	// narrowStatsBytes is the longest least or greatest value that is noted of
	// such a page: with whole ones the page index grows to half of the file, and
	// stays in memory until that is closed.
	narrowStatsBytes = 512
	// rawGroupBytes bounds the pages of a row group, whose list a reader goes
	// through at each seek.
	rawGroupBytes = 64 << 20
)

// traits is what the encoder is told of a column.
type traits struct {
	repeats   bool  // its values come again: it gets a dictionary
	own       bool  // one of ours, which comes as indexes
	matchless bool  // see matchless
	bloom     bool  // it gets a Bloom filter
	width     int64 // mean size of its values, where that differs
}

// writerProperties are how data and delete files are encoded. What is not known
// of columns (nil) the encoder finds out: a dictionary that doesn't pay is given
// up again.
func writerProperties(sc *arrow.Schema, rowGroupRows int64, columns []traits) (*parquet.WriterProperties, error) {
	opts := []parquet.WriterProperty{
		parquet.WithCreatedBy("firn"),
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithCompressionLevel(zstdLevel),
		parquet.WithDataPageVersion(parquet.DataPageV2),
		parquet.WithMaxRowGroupLength(rowGroupRows),
		parquet.WithPageIndexEnabled(true),
		parquet.WithDictionaryDefault(true),
	}
	// The encoder looks at a page's size only after each so many values.
	page, between, stats := int64(pageBytes), int64(parquet.DefaultWriteBatchSize), parquet.DefaultMaxStatsSize
	for _, c := range columns {
		if c.width >= wideValueBytes {
			page, stats = narrowPageBytes, narrowStatsBytes
			between = max(1, min(between, page/c.width))
		}
	}
	opts = append(opts, parquet.WithDataPageSize(page), parquet.WithBatchSize(between), parquet.WithMaxStatsSize(stats))
	leaves, err := pqarrow.ToParquet(sc, parquet.NewWriterProperties(opts...), pqarrow.NewArrowWriterProperties())
	if err != nil {
		return nil, err
	}
	for i := range leaves.NumColumns() {
		path := leaves.Column(i).Path()
		field := sc.FieldIndices(leaves.Column(i).ColumnPath()[0])[0]
		c := traits{repeats: true}
		if columns != nil {
			c = columns[field]
		}
		if unordered(leaves.Column(i)) {
			opts = append(opts, parquet.WithStatsFor(path, false))
		}
		if c.matchless {
			opts = append(opts, parquet.WithCompressionLevelFor(path, literalLevel))
		}
		if c.bloom {
			opts = append(opts, parquet.WithBloomFilterEnabledFor(path, true), parquet.WithBloomFilterNDVFor(path, rowGroupRows))
		}
		// Values are PLAIN or indexes into a dictionary: other encodings, though
		// DELTA_BINARY_PACKED saves a quarter of the size, Iceberg's own reader in
		// Spark refuses before Iceberg 1.10.
		switch {
		case c.own:
		case c.repeats:
			opts = append(opts, parquet.WithDictionaryCostFallbackFor(path, true))
		default:
			opts = append(opts, parquet.WithDictionaryFor(path, false))
		}
	}
	return parquet.NewWriterProperties(opts...), nil
}

// flat is a column of strings or binaries.
type flat interface {
	arrow.Array
	ValueBytes() []byte // of all
	ValueLen(i int) int
}

// meanWidth is the mean size of a column's values in bytes; 0 for those of fixed
// size, which are small.
func meanWidth(a arrow.Array) int64 {
	if a.Len() == 0 {
		return 0
	}
	switch a := a.(type) {
	case flat:
		return int64(len(a.ValueBytes()) / a.Len())
	case array.ListLike:
		first, _ := a.ValueOffsets(0)
		_, end := a.ValueOffsets(a.Len() - 1)
		elem := int64(8)
		if _, ok := a.ListValues().(flat); ok {
			values := array.NewSlice(a.ListValues(), first, end)
			defer values.Release()
			elem += meanWidth(values)
		}
		return (end - first) * elem / int64(a.Len())
	}
	return 0
}

// sample is the first of a column's values as PLAIN has them, where they may be
// without matches as a whole: in whole numbers that grow zstd finds much.
func sample(a arrow.Array) []byte {
	if e, ok := a.(array.ExtensionArray); ok {
		a = e.Storage()
	}
	var b []byte
	switch t := a.DataType().(type) {
	case *arrow.StringType, *arrow.BinaryType:
		f, rest := a.(flat), a.(flat).ValueBytes()
		for i := 0; i < f.Len() && len(b) < literalSample; i++ {
			n := f.ValueLen(i)
			b = append(binary.LittleEndian.AppendUint32(b, uint32(n)), rest[:n]...)
			rest = rest[n:]
		}
	case *arrow.Float64Type, *arrow.Float32Type, *arrow.FixedSizeBinaryType:
		width, data := t.(arrow.FixedWidthDataType).BitWidth()/8, a.Data()
		b = data.Buffers()[1].Bytes()[data.Offset()*width : (data.Offset()+data.Len())*width]
	}
	return b[:min(len(b), literalSample)]
}

// fileWriter implements lake.FileWriter.
type fileWriter struct {
	t        *Table
	key, uri string
	spec     iceberg.PartitionSpec
	values   map[int]any // the partition's, by field id of the spec
	order    int         // id of the sort order that rows come in; 0: none
	props    iceberg.Properties
	schema   *iceberg.Schema
	// described is schema with what partition fields are made of, of old ones too.
	described *iceberg.Schema
	arrow     *arrow.Schema
	body      *body
	pq        *pqarrow.FileWriter // nil until the first batch has come
	dicts     []*dictionary       // of each column; nil: none of ours
	group     int64               // rows in the open row group
	groupMax  int64
	rows      int64
	bytes     atomic.Int64
	version   int
	ended     bool

	uploadErr  error // these once the upload has ended
	uploadedAt time.Time
}

// NewFile starts a data file of the given schema in one partition; nil: in that
// of an unpartitioned table.
func (t *Table) NewFile(schema *iceberg.Schema, of *partition.Place) (lake.FileWriter, error) {
	if of == nil {
		spec, err := t.Spec(nil)
		if err != nil {
			return nil, fmt.Errorf("start data file: %w", err)
		}
		of = &partition.Place{Spec: spec}
	}
	t.mu.RLock()
	m := t.meta
	t.mu.RUnlock()
	return t.newFile(m, schema, of.Spec, of.Values)
}

// newFile starts a data file of one partition.
func (t *Table) newFile(m *metadata, schema *iceberg.Schema, spec iceberg.PartitionSpec, values map[int]any) (*fileWriter, error) {
	w := &fileWriter{t: t, schema: schema, spec: spec, values: values, props: m.properties, version: m.formatVersion,
		described: withSources(schema, m, spec)}
	var err error
	w.key, w.uri = t.dataName(".parquet")
	hold(t.o.Pending, w, w.key)
	if w.arrow, err = table.SchemaToArrowSchema(schema, nil, true, false); err != nil {
		return nil, fmt.Errorf("start data file: %w", err)
	}
	w.body = &body{dir: t.o.TempDir, limit: t.o.MemoryBytes}
	return w, nil
}

// begin starts the encoder, by what the first batch tells about the columns.
func (w *fileWriter) begin(rec arrow.RecordBatch) error {
	w.dicts = make([]*dictionary, rec.NumCols())
	columns := make([]traits, rec.NumCols())
	w.groupMax = w.t.o.RowGroupRows
	for i, a := range rec.Columns() {
		c := &columns[i]
		c.repeats, c.width = repeats(a), meanWidth(a)
		if c.repeats && a.DataType().ID() == arrow.STRING {
			w.dicts[i] = &dictionary{}
			c.own = true
		}
		c.matchless = !c.repeats && matchless(sample(a))
		w.groupMax = min(w.groupMax, rawGroupBytes/(c.width+1)+1)
	}
	for i, f := range w.schema.Fields() {
		columns[i].bloom = w.props[bloomProperty+f.Name] == "true" && bloomable(f.Type) && bloomShare*rec.NumRows() >= w.groupMax
	}
	props, err := writerProperties(w.arrow, w.groupMax, columns)
	if err != nil {
		return err
	}
	w.pq, err = pqarrow.NewFileWriter(w.arrow, w.body, props, pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	return err
}

// Path is the URI the file will have.
func (w *fileWriter) Path() string { return w.uri }

// Bytes is the encoded size so far, pages in the making not counted.
func (w *fileWriter) Bytes() int64 { return w.bytes.Load() }

// Write encodes a batch whose columns are those of the schema, in order. The
// names and metadata of its Arrow schema don't matter, the types do.
func (w *fileWriter) Write(rec arrow.RecordBatch) error {
	if int(rec.NumCols()) != w.arrow.NumFields() {
		return fmt.Errorf("write data file: %d columns, its schema has %d", rec.NumCols(), w.arrow.NumFields())
	}
	for i, f := range w.arrow.Fields() {
		if have := rec.Column(i).DataType(); !arrow.TypeEqual(have, f.Type) {
			return fmt.Errorf("write data file: column %s is %s, its schema has %s", f.Name, have, f.Type)
		}
	}
	// Equal but for metadata, which the encoder would compare too.
	rec = array.NewRecordBatch(w.arrow, rec.Columns(), rec.NumRows())
	defer rec.Release()
	if w.pq == nil && rec.NumRows() > 0 {
		if err := w.begin(rec); err != nil {
			return fmt.Errorf("write data file: %w", err)
		}
	}
	for off := int64(0); off < rec.NumRows(); {
		n := min(rec.NumRows()-off, w.groupMax-w.group)
		part := rec.NewSlice(off, off+n)
		err := w.write(part)
		part.Release()
		if err != nil {
			return fmt.Errorf("write data file: %w", err)
		}
		off += n
	}
	return nil
}

// write encodes rows that the open row group has room for.
func (w *fileWriter) write(rec arrow.RecordBatch) error {
	if w.group == 0 {
		if err := w.pq.NewBufferedRowGroupChecked(); err != nil {
			return err
		}
	} else if err := w.rewind(rec); err != nil {
		return err
	}
	for i, c := range rec.Columns() {
		if d := w.dicts[i]; d != nil {
			c = d.encode(c)
			defer c.Release()
		}
		if err := w.pq.WriteColumnData(c); err != nil {
			return err
		}
	}
	w.rows += rec.NumRows()
	w.group += rec.NumRows()
	w.bytes.Store(w.pq.TotalCompressedBytes())
	if w.group >= w.groupMax || w.pq.RowGroupTotalCompressedBytes() >= w.t.o.RowGroupBytes {
		w.endGroup()
	}
	return nil
}

// rewind goes back to the row group's first column: a record without rows is
// what the encoder does that for.
func (w *fileWriter) rewind(rec arrow.RecordBatch) error {
	none := rec.NewSlice(0, 0)
	defer none.Release()
	return w.pq.WriteBuffered(none)
}

// endGroup makes the next write begin another row group.
func (w *fileWriter) endGroup() {
	w.group = 0
	for _, d := range w.dicts {
		if d != nil {
			d.reset()
		}
	}
}

// Close ends the file and starts its upload, which goes on after Close has
// returned and stops when ctx is done.
func (w *fileWriter) Close(ctx context.Context) (*lake.NewFile, error) {
	if w.ended {
		return nil, errors.New("close data file: it is closed already")
	}
	if w.rows == 0 {
		w.Abort()
		return nil, nil
	}
	w.ended = true
	w.endGroup()
	if err := w.pq.Close(); err != nil {
		w.body.discard()
		return nil, fmt.Errorf("close data file: %w", err)
	}
	n, err := w.describe()
	if err != nil {
		w.body.discard()
		return nil, fmt.Errorf("close data file: %w", err)
	}
	w.pq, w.dicts = nil, nil // their buffers are many times the file, and w lives until its epoch is published
	done := make(chan struct{})
	// The file is pending as long as somebody has n, and with it w.
	n.Uploaded, n.UploadErr, n.UploadedAt = done, func() error { return w.uploadErr }, func() time.Time { return w.uploadedAt }
	go func() {
		defer close(done)
		w.uploadErr = w.upload(ctx)
		w.uploadedAt = w.t.o.Now()
	}()
	return n, nil
}

func (w *fileWriter) describe() (*lake.NewFile, error) {
	meta, err := w.pq.FileMetadata()
	if err != nil {
		return nil, err
	}
	w.bytes.Store(w.body.size)
	props, err := boundable(w.props, meta)
	if err != nil {
		return nil, err
	}
	entry, err := table.DataFileFromMetadata(table.DataFileArgs{
		Schema: w.described, Spec: w.spec, Format: iceberg.ParquetFile, Metadata: meta,
		FilePath: w.uri, FileSize: w.body.size, Content: iceberg.EntryContentData, PartitionValues: w.values,
		Properties: props, FormatVersion: w.version, SortOrderID: w.order,
	})
	if err != nil {
		return nil, err
	}
	w.t.o.Footers.put(w.uri, &footer{meta: meta, size: w.body.size})
	return &lake.NewFile{Path: w.uri, Rows: w.rows, Bytes: w.body.size, Entry: entry}, nil
}

func (w *fileWriter) upload(ctx context.Context) error {
	defer w.body.discard()
	if err := w.t.o.Uploads.acquire(ctx); err != nil {
		return fmt.Errorf("upload %s: %w", w.key, err)
	}
	defer w.t.o.Uploads.release()
	if err := w.t.o.Store.Put(ctx, w.key, w.body.reader(), w.body.size); err != nil {
		return fmt.Errorf("upload %s: %w", w.key, err)
	}
	return nil
}

// Abort drops what was encoded.
func (w *fileWriter) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	w.t.o.Pending.remove(w.key)
	w.endGroup()
	w.body.discard()
}

package lake

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"firn/lake/partition"
)

const (
	// fanFilesMax is how many data files of one table, or of one COPY, are
	// written at the same time, a partition each; fanBytesMax is the wire bytes
	// that their encoders may hold together, of each at most fanFileBytes: by
	// then its first row group is done.
	fanFilesMax  = 256
	fanBytesMax  = 256 << 20
	fanFileBytes = 32 << 20
	// fanUploadsMax is how many ended files may wait for their upload.
	fanUploadsMax = 256
)

// fan is the data files that rows are being appended to, one for each partition
// that they belong to. There may be more partitions than files can be open: the
// one whose last rows are longest ago ends then, and rows that come for it later
// go to another.
type fan struct {
	layout *Layout
	split  *partition.Splitter // nil: the table is not partitioned
	begin  func(of *partition.Place) (*dataFile, error)

	open  map[string]*dataFile // by partition
	bytes int                  // of all of open, each counted up to fanFileBytes
	turn  uint64
	ended []*encoder // of a partitioned table, not known to be uploaded
}

// newFan appends to the files of store's table that begin opens.
func newFan(store TableStore, l *Layout, begin func(of *partition.Place) (*dataFile, error)) (*fan, error) {
	f := &fan{layout: l, begin: begin, open: map[string]*dataFile{}}
	if len(l.Partition) == 0 {
		return f, nil
	}
	spec, err := store.Spec(l.Partition)
	if err != nil {
		return nil, err
	}
	f.split, err = partition.NewSplitter(spec, l.Schema())
	return f, err
}

// partitions says whether rows are told apart by a column.
func (f *fan) partitions(col int) bool {
	if f.split != nil {
		for _, c := range f.split.Columns() {
			if c == col {
				return true
			}
		}
	}
	return false
}

// put gives the batch's live rows their places and hands them to their files'
// encoders. It takes rec over, and waits while the encoders are full.
func (f *fan) put(ctx context.Context, rec arrow.RecordBatch, b *batch) error {
	if f.split == nil {
		d, err := f.file(ctx, "", nil)
		if err != nil {
			rec.Release()
			return err
		}
		d.rows += b.flushed(d, d.rows)
		return f.send(ctx, d, rec, b, encodeJob{}, b.bytes)
	}
	defer rec.Release()
	parts, err := f.split.Split(rec.Columns(), b.rows, b.isDead)
	if err != nil {
		return err
	}
	b.scatter(parts)
	live := len(b.order)
	for i := range parts {
		p := &parts[i]
		d, err := f.file(ctx, p.Key, f.split.Place(p))
		if err != nil {
			return err
		}
		b.shares[i].file, b.shares[i].start = d, d.rows
		d.rows += uint32(len(p.Rows))
		rec.Retain()
		weight := int(int64(b.bytes) * int64(len(p.Rows)) / int64(max(1, live)))
		if err := f.send(ctx, d, rec, b, encodeJob{rows: p.Rows, share: i}, weight); err != nil {
			return err
		}
	}
	return nil
}

// file is the open file of a partition. Its rows must be sent before the next
// is asked for.
func (f *fan) file(ctx context.Context, key string, of *partition.Place) (*dataFile, error) {
	f.turn++
	d := f.open[key]
	if d != nil && d.enc.out.Bytes() >= fileBytesMax {
		f.end(d)
		d = nil
	}
	if d == nil {
		for len(f.open) >= fanFilesMax {
			f.endOldest(nil)
		}
		if err := f.drain(ctx); err != nil {
			return nil, err
		}
		var err error
		if d, err = f.begin(of); err != nil {
			return nil, err
		}
		d.part = key
		f.open[key] = d
	}
	d.turn = f.turn
	return d, nil
}

func (f *fan) send(ctx context.Context, d *dataFile, rec arrow.RecordBatch, b *batch, job encodeJob, weight int) error {
	job.rec, job.batch, job.weight = rec, b, min(int64(weight)+1, encodingBytesMax)
	if err := d.enc.send(ctx, job); err != nil {
		return err
	}
	more := min(weight, fanFileBytes-d.held)
	d.held += more
	f.bytes += more
	for f.bytes > fanBytesMax && len(f.open) > 1 {
		f.endOldest(d)
	}
	return nil
}

// endOldest ends the file whose last rows are longest ago, but for one.
func (f *fan) endOldest(but *dataFile) {
	var oldest *dataFile
	for _, d := range f.open {
		if d != but && (oldest == nil || d.turn < oldest.turn) {
			oldest = d
		}
	}
	f.end(oldest)
}

// end says that no rows follow in an open file: its upload begins.
func (f *fan) end(d *dataFile) {
	d.enc.finish()
	delete(f.open, d.part)
	f.bytes -= d.held
	if f.split != nil {
		f.ended = append(f.ended, d.enc)
	}
}

// drain waits while too many ended files are not on the store yet.
func (f *fan) drain(ctx context.Context) error {
	for len(f.ended) > fanUploadsMax {
		if err := f.ended[0].readable(ctx); err != nil {
			return err
		}
		f.ended = f.ended[1:]
	}
	return nil
}

// endAll ends all files.
func (f *fan) endAll() {
	for _, d := range f.open {
		f.end(d)
	}
}

// isOpen says whether rows may follow in a file.
func (f *fan) isOpen(d *dataFile) bool { return f.open[d.part] == d }

// takeRows are some rows of a record, ascending. The result is the caller's.
func takeRows(ctx context.Context, rec arrow.RecordBatch, rows []int32, mem memory.Allocator) (arrow.RecordBatch, error) {
	if n := len(rows); n > 0 && int(rows[n-1]-rows[0]) == n-1 {
		return rec.NewSlice(int64(rows[0]), int64(rows[n-1])+1), nil
	}
	data := array.NewData(arrow.PrimitiveTypes.Int32, len(rows),
		[]*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(rows))}, nil, 0, 0)
	defer data.Release()
	at := array.NewInt32Data(data)
	defer at.Release()
	cols := make([]arrow.Array, rec.NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range rec.Columns() {
		ext, extended := c.(array.ExtensionArray)
		if extended {
			c = ext.Storage()
		}
		taken, err := compute.TakeArray(compute.WithAllocator(ctx, mem), c, at)
		if err != nil {
			return nil, fmt.Errorf("take the rows of a partition: %w", err)
		}
		if extended {
			cols[i] = array.NewExtensionArrayWithStorage(ext.ExtensionType(), taken)
			taken.Release()
		} else {
			cols[i] = taken
		}
	}
	return array.NewRecordBatch(rec.Schema(), cols, int64(len(rows))), nil
}

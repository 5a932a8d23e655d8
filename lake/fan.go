package lake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"firn/lake/partition"
)

const (
	// fansFilesMax is how many data files of partitioned tables are written at the
	// same time by a session, a partition each, and fanFilesMax by one table or one
	// part of a COPY. fanFilesFree of its own each may have whatever the others do.
	fansFilesMax = 1024
	fanFilesMax  = 256
	fanFilesFree = 32
	// fansBytesMax is the wire bytes that their encoders may hold together, of
	// each at most fanFileBytes: by then its first row group is done. As much as
	// that each table may have whatever the others do.
	fansBytesMax = 256 << 20
	fanFileBytes = 32 << 20
	// endedFilesMax and endedBytesMax are how many of them that have ended may wait
	// for their upload, and what these may hold in memory, of each at most
	// endedFileBytes: the rest of it is in a temporary file.
	endedFilesMax  = 1024
	endedBytesMax  = 128 << 20
	endedFileBytes = 8 << 20
)

// fanRoom is what the fans of a session hold together.
type fanRoom struct {
	files, bytes atomic.Int64 // of open files

	mu    sync.Mutex
	ended []*encoder // not known to be uploaded
}

// end notes a file that begins its upload once it is encoded.
func (r *fanRoom) end(e *encoder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, e)
}

// crowd is the oldest file that waits for its upload, if these are too many.
func (r *fanRoom) crowd() *encoder {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = slices.DeleteFunc(r.ended, (*encoder).settled)
	bytes := int64(0)
	for _, e := range r.ended {
		bytes += min(e.out.Bytes(), endedFileBytes)
	}
	if len(r.ended) > 0 && (bytes > endedBytesMax || len(r.ended) > endedFilesMax) {
		return r.ended[0]
	}
	return nil
}

// drain waits while too many ended files are not on the store yet, whose ever
// they are. None of them waits for a file that is still open.
func (r *fanRoom) drain(ctx context.Context) error {
	for {
		e := r.crowd()
		if e == nil {
			return nil
		}
		// Who the file belongs to hears of its error.
		if err := e.readable(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	}
}

// fan is the data files that rows are being appended to, one for each partition
// that they belong to. There may be more partitions than files can be open: the
// one whose last rows are longest ago ends then, and rows that come for it later
// go to another.
type fan struct {
	layout *Layout
	split  *partition.Splitter // nil: the table is not partitioned
	begin  func(of *partition.Place) (*dataFile, error)
	room   *fanRoom

	open  map[string]*dataFile // by partition
	bytes int                  // of all of open, each counted up to fanFileBytes
	turn  uint64
}

// newFan appends to the files of store's table that begin opens.
func newFan(store TableStore, l *Layout, room *encoding, begin func(of *partition.Place) (*dataFile, error)) (*fan, error) {
	f := &fan{layout: l, begin: begin, room: &room.fans, open: map[string]*dataFile{}}
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
		for len(f.open) >= fanFilesMax || len(f.open) >= fanFilesFree && f.room.files.Load() >= fansFilesMax {
			f.endOldest(nil)
		}
		if f.split != nil {
			if err := f.room.drain(ctx); err != nil {
				return nil, err
			}
		}
		var err error
		if d, err = f.begin(of); err != nil {
			return nil, err
		}
		d.part = key
		f.open[key] = d
		f.count(1, 0)
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
	f.count(0, more)
	for len(f.open) > 1 && f.bytes > fanFileBytes && f.room.bytes.Load() > fansBytesMax {
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
	f.count(-1, -d.held)
	if f.split != nil {
		f.room.end(d.enc)
	}
}

// count keeps the sums of what is open.
func (f *fan) count(files, bytes int) {
	f.bytes += bytes
	if f.split != nil {
		f.room.files.Add(int64(files))
		f.room.bytes.Add(int64(bytes))
	}
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

package lake

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/semaphore"

	"firn/lake/partition"
)

const (
	// encodingBytesMax bounds the wire bytes of all batches between the owner
	// and the encoders; the owner waits for room.
	encodingBytesMax = 64 << 20
	// fileBytesMax is where a data file is closed and the next one begun.
	fileBytesMax = 128 << 20
)

// dataFile is a data file as the owner knows it: live, committing, or still
// being written.
type dataFile struct {
	no   uint32 // the index's number for it
	path string
	rows uint32 // given out so far
	// dead holds every position known to be dead, published or not.
	dead *roaring.Bitmap
	born time.Time // when its epoch was published; zero: before this session
	worn time.Time // when rows of it died last, or the session began

	rewriting bool // it is being rewritten
	partial   bool // it came of a rewrite, and the index has not yet found all its rows there

	part string // its partition, while it is one of a fan's
	turn uint64 // when rows last went to it
	held int    // wire bytes that went to it, up to fanFileBytes

	enc  *encoder // nil once the file is part of a snapshot, or a load has made it
	load *encoder // the load's; it tells when the file can be read
}

func (f *dataFile) isDead(pos uint32) bool { return f.dead != nil && f.dead.Contains(pos) }

// encoding is the room and the processors that all encoders of a session share.
type encoding struct {
	bytes     *semaphore.Weighted
	cpus      *semaphore.Weighted
	resolving *semaphore.Weighted // of batches whose unchanged values are fetched at once
	mem       memory.Allocator
	fans      fanRoom

	pending int // wire bytes in all open batches; the owner's
}

// encoder writes one data file beside the owner: batches in, in order, then a
// NewFile. It runs from newEncoder's go function until its input is closed.
type encoder struct {
	store  TableStore
	layout *Layout
	out    FileWriter
	room   *encoding
	jobs   chan encodeJob
	ending atomic.Bool   // no job follows those in the channel
	done   chan struct{} // closed when file and err are set
	file   *NewFile      // nil if no row was alive
	err    error

	valueBytes int64 // what an unchanged TOAST value weighed in the last portion
}

type encodeJob struct {
	rec    arrow.RecordBatch // released by the encoder
	batch  *batch            // dead, fixups: read only
	rows   []int32           // which of rec's; nil: those that are not dead
	share  int               // of batch
	weight int64             // of encoding.bytes, given back after the write
}

// newEncoder opens a file; the caller runs run in a goroutine of its group.
func newEncoder(store TableStore, layout *Layout, of *partition.Place, room *encoding) (*encoder, error) {
	out, err := store.NewFile(layout.Schema(), of)
	if err != nil {
		return nil, err
	}
	return &encoder{store: store, layout: layout, out: out, room: room,
		jobs: make(chan encodeJob, 2), done: make(chan struct{})}, nil
}

// send hands over a batch, or some of its rows, waiting for room.
func (e *encoder) send(ctx context.Context, job encodeJob) error {
	if err := e.room.bytes.Acquire(ctx, job.weight); err != nil {
		job.rec.Release()
		return err
	}
	select {
	case e.jobs <- job:
		return nil
	case <-ctx.Done():
		job.rec.Release()
		e.room.bytes.Release(job.weight)
		return ctx.Err()
	}
}

// finish says that no batch follows.
func (e *encoder) finish() {
	e.ending.Store(true)
	close(e.jobs)
}

// wait returns the file once it is encoded.
func (e *encoder) wait(ctx context.Context) (*NewFile, error) {
	select {
	case <-e.done:
		return e.file, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readable waits until the file's rows can be read from the store.
func (e *encoder) readable(ctx context.Context) error {
	f, err := e.wait(ctx)
	if err != nil || f == nil {
		return err
	}
	select {
	case <-f.Uploaded:
		return f.UploadErr()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settled says whether the file is on the store, or never will be.
func (e *encoder) settled() bool {
	select {
	case <-e.done:
	default:
		return false
	}
	if e.file == nil {
		return true
	}
	select {
	case <-e.file.Uploaded:
		return true
	default:
		return false
	}
}

func (e *encoder) run(ctx context.Context) error {
	defer close(e.done)
	e.err = e.encode(ctx)
	if e.err != nil {
		e.out.Abort()
	}
	return e.err
}

// encode works off the jobs. A file ends in the turn of its last batch: were it
// to wait for another, the encoders of a thousand tables would be open at once.
func (e *encoder) encode(ctx context.Context) error {
	for ended := false; !ended; {
		select {
		case job, ok := <-e.jobs:
			var err error
			if ok {
				ended, err = e.take(ctx, job)
			} else {
				ended, err = true, e.turn(ctx, func() error { return e.close(ctx) })
			}
			if err != nil {
				return fmt.Errorf("encode %s: %w", e.out.Path(), err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// turn runs fn when a processor is free for it.
func (e *encoder) turn(ctx context.Context, fn func() error) error {
	if err := e.room.cpus.Acquire(ctx, 1); err != nil {
		return err
	}
	defer e.room.cpus.Release(1)
	return fn()
}

// take writes a batch, and ends the file if that was its last one.
func (e *encoder) take(ctx context.Context, job encodeJob) (ended bool, err error) {
	defer e.room.bytes.Release(job.weight)
	rec := job.rec
	defer func() { rec.Release() }()
	if job.rows != nil || job.batch.dead != nil {
		err := e.turn(ctx, func() error {
			live, err := job.live(ctx, e.room.mem)
			if err != nil {
				return err
			}
			rec.Release()
			rec = live
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	if missing := job.batch.missing(job.share); len(missing) > 0 {
		return e.writeResolved(ctx, rec, missing)
	}
	return e.write(ctx, rec, true)
}

// write encodes rows; last says that none of their batch follow.
func (e *encoder) write(ctx context.Context, rec arrow.RecordBatch, last bool) (ended bool, err error) {
	err = e.turn(ctx, func() error {
		if rec.NumRows() > 0 {
			if err := e.out.Write(rec); err != nil {
				return err
			}
		}
		if ended = last && e.ending.Load() && len(e.jobs) == 0; ended {
			return e.close(ctx)
		}
		return nil
	})
	return ended, err
}

func (e *encoder) close(ctx context.Context) (err error) {
	e.file, err = e.out.Close(ctx)
	return err
}

// live returns the rows to be written.
func (j *encodeJob) live(ctx context.Context, mem memory.Allocator) (arrow.RecordBatch, error) {
	if j.rows != nil {
		return takeRows(ctx, j.rec, j.rows, mem)
	}
	return dropDead(ctx, j.rec, j.batch, mem)
}

// dropDead returns rec without the rows that died in their batch.
func dropDead(ctx context.Context, rec arrow.RecordBatch, b *batch, mem memory.Allocator) (arrow.RecordBatch, error) {
	keep := array.NewBooleanBuilder(mem)
	defer keep.Release()
	keep.Reserve(b.rows)
	for i := range b.rows {
		keep.UnsafeAppend(!b.isDead(uint32(i)))
	}
	mask := keep.NewBooleanArray()
	defer mask.Release()
	out, err := compute.FilterRecordBatch(compute.WithAllocator(ctx, mem), rec, mask, compute.DefaultFilterOptions())
	if err != nil {
		return nil, fmt.Errorf("leave out dead rows: %w", err)
	}
	return out, nil
}

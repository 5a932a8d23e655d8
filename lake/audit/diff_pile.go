package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/zeebo/xxh3"
)

const (
	pileBits  = 8 // a pile that is too large becomes 256 parts
	depthsMax = 3 // rows that are still together after so many divisions are equal
)

// pile holds records in memory up to a limit, and past it divides their rows by
// the hash of the key into temporary files. Within a part rows keep their order.
type pile struct {
	mem    memory.Allocator
	schema *arrow.Schema
	dir    string
	limit  int64
	depth  int
	key    func(rec arrow.RecordBatch, row int) xxh3.Uint128

	held  []arrow.RecordBatch
	bytes int64
	parts []*part // nil: all is held
}

// add takes rec's rows in; rec stays the caller's.
func (p *pile) add(ctx context.Context, rec arrow.RecordBatch) error {
	rec.Retain()
	p.held = append(p.held, rec)
	p.bytes += sizeOf(rec)
	if p.bytes <= p.limit {
		return nil
	}
	return p.divide(ctx)
}

// divide moves what is held into the parts.
func (p *pile) divide(ctx context.Context) error {
	if len(p.held) == 0 {
		return nil
	}
	if p.parts == nil {
		p.parts = make([]*part, 1<<pileBits)
	}
	all, err := concat(p.mem, p.schema, p.held)
	if err != nil {
		return fmt.Errorf("divide rows: %w", err)
	}
	defer all.Release()
	release(p.held)
	p.held, p.bytes = nil, 0
	rows := make([][]int64, len(p.parts))
	shift := 64 - pileBits*(p.depth+1)
	for i := range int(all.NumRows()) {
		at := p.key(all, i).Hi >> shift % uint64(len(p.parts))
		rows[at] = append(rows[at], int64(i))
	}
	for i, rows := range rows {
		if len(rows) == 0 {
			continue
		}
		rec, err := pick(ctx, p.mem, all, rows)
		if err != nil {
			return fmt.Errorf("divide rows: %w", err)
		}
		if p.parts[i] == nil {
			p.parts[i], err = newPart(p.dir, p.schema, p.mem)
		}
		if err == nil {
			err = p.parts[i].write(rec)
		}
		rec.Release()
		if err != nil {
			return fmt.Errorf("put rows aside: %w", err)
		}
	}
	return nil
}

// each calls fn with the records of a pile that is held; they are fn's until it
// returns.
func (p *pile) each(fn func(arrow.RecordBatch) error) error {
	for _, rec := range p.held {
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// batches are records that can be read again and again.
type batches func(fn func(arrow.RecordBatch) error) error

// drain calls join with all rows, those of one key together, and closes the
// pile.
func (p *pile) drain(ctx context.Context, join func(batches) error) (err error) {
	defer func() { err = errors.Join(err, p.close()) }()
	if p.parts == nil {
		return join(p.each)
	}
	if err := p.divide(ctx); err != nil {
		return err
	}
	for i, part := range p.parts {
		if part == nil {
			continue
		}
		if err := part.end(); err != nil {
			return fmt.Errorf("put rows aside: %w", err)
		}
		if err := p.drainPart(ctx, part, join); err != nil {
			return err
		}
		p.parts[i] = nil
		if err := part.close(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (p *pile) drainPart(ctx context.Context, part *part, join func(batches) error) error {
	if part.bytes <= p.limit || p.depth+1 >= depthsMax {
		return join(part.each)
	}
	sub := &pile{mem: p.mem, schema: p.schema, dir: p.dir, limit: p.limit, depth: p.depth + 1, key: p.key}
	if err := part.each(func(rec arrow.RecordBatch) error { return sub.add(ctx, rec) }); err != nil {
		return errors.Join(err, sub.close())
	}
	return sub.drain(ctx, join)
}

func (p *pile) close() error {
	release(p.held)
	p.held = nil
	var errs []error
	for _, part := range p.parts {
		if part != nil {
			errs = append(errs, part.close())
		}
	}
	p.parts = nil
	return errors.Join(errs...)
}

// part is a temporary file of records, without a name: it is gone with the
// process.
type part struct {
	file  *os.File
	buf   *bufio.Writer
	w     *ipc.Writer
	mem   memory.Allocator
	bytes int64
}

func newPart(dir string, schema *arrow.Schema, mem memory.Allocator) (*part, error) {
	f, err := unnamed(dir)
	if err != nil {
		return nil, err
	}
	p := &part{file: f, mem: mem}
	p.buf = bufio.NewWriterSize(f, 16<<10)
	p.w = ipc.NewWriter(p.buf, ipc.WithSchema(schema), ipc.WithAllocator(mem))
	return p, nil
}

// unnamed makes a temporary file without a name.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "firn-diff-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (p *part) write(rec arrow.RecordBatch) error {
	p.bytes += sizeOf(rec)
	return p.w.Write(rec)
}

// end is for after the last write.
func (p *part) end() error { return errors.Join(p.w.Close(), p.buf.Flush()) }

func (p *part) each(fn func(arrow.RecordBatch) error) error {
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read rows put aside: %w", err)
	}
	r, err := ipc.NewReader(bufio.NewReaderSize(p.file, 256<<10), ipc.WithAllocator(p.mem))
	if err != nil {
		return fmt.Errorf("read rows put aside: %w", err)
	}
	defer r.Release()
	for r.Next() {
		if err := fn(r.RecordBatch()); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("read rows put aside: %w", err)
	}
	return nil
}

func (p *part) close() error { return p.file.Close() }

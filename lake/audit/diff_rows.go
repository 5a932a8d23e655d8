package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"firn/lake/snapshot"
)

const (
	// positionsAtOnce bounds the positions that are asked for in one read.
	positionsAtOnce = 128 << 10
	// Small files are read side by side, for each is a few round trips to the
	// store: so many at most, and as long as their rows take no more memory than
	// this, each taken for so many times its encoded size. A large one is read
	// alone.
	filesAtOnce  = 8
	decodedMax   = 16 << 20
	decodedRatio = 32
)

// diffSide reads one side's rows that the other doesn't have in the same place.
type diffSide struct {
	d      *Diff
	t      *snapshot.Table
	fields []int // that exist on this side
	places []int // of the diff's columns in fields; -1: none
	mu     sync.Mutex
	take   func(rec arrow.RecordBatch) error // under mu
}

// rows gives take all rows that may have changed: first the old side's, then
// the new one's. rec has the diff's schema and is take's until it returns.
func (d *Diff) rows(ctx context.Context, take func(old bool, rec arrow.RecordBatch) error) error {
	for _, old := range []bool{true, false} {
		s := diffSide{d: d, t: d.new, take: func(rec arrow.RecordBatch) error { return take(old, rec) }}
		other := d.old
		if old {
			s.t, other = d.old, d.new
		}
		if s.t == nil {
			continue
		}
		for _, c := range d.columns {
			id := c.new
			if old {
				id = c.old
			}
			if id == noField {
				s.places = append(s.places, -1)
				continue
			}
			s.places = append(s.places, len(s.fields))
			s.fields = append(s.fields, id)
		}
		if err := s.read(ctx, other); err != nil {
			return err
		}
	}
	return nil
}

func (s *diffSide) read(ctx context.Context, other *snapshot.Table) error {
	there := map[string]*roaring.Bitmap{}
	if other != nil {
		for _, f := range other.Files() {
			there[f.Path] = orEmpty(f.Dead)
		}
	}
	budget := semaphore.NewWeighted(decodedMax)
	g, gctx := errgroup.WithContext(ctx)
	for _, f := range s.t.Files() {
		live := roaring.Flip(orEmpty(f.Dead), 0, uint64(f.Rows))
		dead, both := there[f.Path]
		if both {
			live.And(dead) // the others are in the same place on both sides
		}
		if live.IsEmpty() {
			continue
		}
		weight := min(decodedMax, max(decodedMax/filesAtOnce, f.Bytes*decodedRatio))
		if budget.Acquire(gctx, weight) != nil {
			break // Wait tells why
		}
		g.Go(func() error {
			defer budget.Release(weight)
			if int64(live.GetCardinality()) > f.Rows/4 {
				return s.all(gctx, f.Path, live)
			}
			return s.at(gctx, f.Path, live) // by pages
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

func orEmpty(b *roaring.Bitmap) *roaring.Bitmap {
	if b == nil {
		return roaring.New()
	}
	return b
}

// at reads the rows at positions.
func (s *diffSide) at(ctx context.Context, path string, positions *roaring.Bitmap) error {
	part := make([]uint32, min(positionsAtOnce, positions.GetCardinality()))
	for it := positions.ManyIterator(); ; {
		n := it.NextMany(part)
		if n == 0 {
			return nil
		}
		err := s.t.Read(ctx, path, s.fields, part[:n], func(_ int64, rec arrow.RecordBatch) error { return s.give(ctx, rec) })
		if err != nil {
			return err
		}
	}
}

// all reads a whole file, and gives out the rows that live.
func (s *diffSide) all(ctx context.Context, path string, live *roaring.Bitmap) error {
	return s.t.Read(ctx, path, s.fields, nil, func(first int64, rec arrow.RecordBatch) error {
		var rows []int64
		for i := range rec.NumRows() {
			if live.Contains(uint32(first + i)) {
				rows = append(rows, i)
			}
		}
		if int64(len(rows)) == rec.NumRows() {
			return s.give(ctx, rec)
		}
		part, err := pick(ctx, s.d.o.Allocator, rec, rows)
		if err != nil {
			return err
		}
		defer part.Release()
		return s.give(ctx, part)
	})
}

// give makes of what was read a record of the diff's schema.
func (s *diffSide) give(ctx context.Context, rec arrow.RecordBatch) error {
	if rec.NumRows() == 0 {
		return nil
	}
	mem := s.d.o.Allocator
	columns := make([]arrow.Array, len(s.places))
	defer release(columns)
	for i, at := range s.places {
		want := s.d.schema.Field(i).Type
		switch {
		case at < 0:
			columns[i] = array.MakeArrayOfNull(mem, want, int(rec.NumRows()))
		case arrow.TypeEqual(rec.Column(at).DataType(), want):
			columns[i] = rec.Column(at)
			columns[i].Retain()
		default:
			// The type was promoted since.
			var err error
			if columns[i], err = compute.CastArray(compute.WithAllocator(ctx, mem), rec.Column(at), compute.SafeCastOptions(want)); err != nil {
				return fmt.Errorf("column %s: %w", s.d.columns[i].name, err)
			}
		}
	}
	out := array.NewRecordBatch(s.d.schema, columns, rec.NumRows())
	defer out.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(out)
}

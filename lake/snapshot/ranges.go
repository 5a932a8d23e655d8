package snapshot

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	pqmeta "github.com/apache/arrow-go/v18/parquet/metadata"
	"golang.org/x/sync/errgroup"
)

const (
	// tailBytes is read at the end of a Parquet file for its footer and, with
	// luck, its page index.
	tailBytes = 64 << 10
	// missBytes is the least that a read nobody announced fetches.
	missBytes = 64 << 10
	// gapBytes between two wanted ranges are fetched rather than asked for in
	// another request.
	gapBytes = 128 << 10
	// requestBytes bounds one request.
	requestBytes   = 8 << 20
	requestsAtOnce = 8
)

// span is a byte range.
type span struct{ off, end int64 }

// ranges reads an object by ranged requests and holds what it has fetched. It
// is the io.ReaderAt and io.Seeker that the Parquet reader wants.
type ranges struct {
	ctx   context.Context // of one Read
	store Store
	key   string
	size  int64
	pos   int64

	mu     sync.Mutex
	blocks []block
	failed error // the store's first
}

// cause is the store's error where err has come of it: the Parquet library does
// not pass on all that it is told.
func (r *ranges) cause(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || r.failed == nil || errors.Is(err, r.failed) {
		return err
	}
	return fmt.Errorf("%w (%v)", r.failed, err)
}

type block struct {
	off  int64
	data []byte
}

func (r *ranges) find(off, end int64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.blocks {
		if b.off <= off && end <= b.off+int64(len(b.data)) {
			return b.data[off-b.off : end-b.off]
		}
	}
	return nil
}

func (r *ranges) fetch(ctx context.Context, s span) error {
	data, err := r.store.GetRange(ctx, r.key, s.off, s.end-s.off)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failed == nil && ctx.Err() == nil {
			r.failed = err
		}
		return err
	}
	if int64(len(data)) != s.end-s.off {
		return fmt.Errorf("read %s: %d bytes at %d, want %d", r.key, len(data), s.off, s.end-s.off)
	}
	r.mu.Lock()
	r.blocks = append(r.blocks, block{s.off, data})
	r.mu.Unlock()
	return nil
}

// ReadAt serves from what was fetched, and fetches what was not.
func (r *ranges) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	end := min(off+int64(len(p)), r.size)
	data := r.find(off, end)
	if data == nil {
		s := span{off, min(max(end, off+missBytes), r.size)}
		if err := r.fetch(r.ctx, s); err != nil {
			return 0, err
		}
		data = r.find(off, end)
	}
	n := copy(p, data)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Seek is for finding the size.
func (r *ranges) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		r.pos = off
	case io.SeekCurrent:
		r.pos += off
	case io.SeekEnd:
		r.pos = r.size + off
	default:
		return 0, errors.New("seek: bad whence")
	}
	return r.pos, nil
}

// want fetches ranges in parallel, the near ones together, and drops what
// earlier calls fetched.
func (r *ranges) want(spans []span) error {
	slices.SortFunc(spans, func(a, b span) int { return int(min(max(a.off-b.off, -1), 1)) })
	var merged []span
	for _, s := range spans {
		s.end = min(s.end, r.size)
		if n := len(merged); n > 0 && s.off <= merged[n-1].end+gapBytes && max(s.end, merged[n-1].end)-merged[n-1].off <= requestBytes {
			merged[n-1].end = max(merged[n-1].end, s.end)
			continue
		}
		merged = append(merged, s)
	}
	r.mu.Lock()
	r.blocks = slices.DeleteFunc(r.blocks, func(b block) bool { return b.off+int64(len(b.data)) < r.size })
	r.mu.Unlock()
	g, ctx := errgroup.WithContext(r.ctx)
	g.SetLimit(requestsAtOnce)
	for _, s := range merged {
		if r.find(s.off, s.end) == nil && s.end > s.off {
			g.Go(func() error { return r.fetch(ctx, s) })
		}
	}
	return g.Wait()
}

// footer is a Parquet file's metadata.
type footer struct {
	meta *pqmeta.FileMetaData
	size int64
}

// Footers is a cache of Parquet footers, the least recently used going first.
type Footers struct {
	limit int
	mu    sync.Mutex
	byURI map[string]*list.Element
	order list.List // of footerOf, most recent first
}

type footerOf struct {
	uri string
	*footer
}

// NewFooters caches n footers, some 10 to 100 KB each.
func NewFooters(n int) *Footers {
	return &Footers{limit: n, byURI: map[string]*list.Element{}}
}

func (c *Footers) get(uri string) *footer {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byURI[uri]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(footerOf).footer
}

// drop makes the next reader of a file fetch its footer.
func (c *Footers) drop(uri string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byURI[uri]; e != nil {
		c.order.Remove(e)
		delete(c.byURI, uri)
	}
}

func (c *Footers) put(uri string, f *footer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byURI[uri]; e != nil {
		e.Value = footerOf{uri, f}
		c.order.MoveToFront(e)
		return
	}
	c.byURI[uri] = c.order.PushFront(footerOf{uri, f})
	for c.order.Len() > c.limit {
		last := c.order.Back()
		delete(c.byURI, last.Value.(footerOf).uri)
		c.order.Remove(last)
	}
}

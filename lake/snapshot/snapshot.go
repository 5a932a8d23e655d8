// Package snapshot writes and reads one Iceberg table's files: Parquet data
// files, v2 position deletes and v3 deletion vectors, manifests, manifest lists
// and metadata.
//
// It is a raw committer. A [Table] holds the live manifest entries, the delete
// bitmaps and the metadata document in memory, so that Prepare reads nothing
// from the store: it encodes the objects of the next snapshot, under names
// nobody has used before, and Upload puts them all in parallel. Only Adopt
// changes the Table, after the catalog has published the new metadata file.
//
// What a commit costs does not grow with the commits before it. Manifests are
// merged in tiers, like the runs of a log-structured tree, so an entry is
// written again O(log) times in its life; delete files likewise; the history
// is that of the kept epochs (history.go), and a kept snapshot's JSON is copied,
// not made again. iceberg-go's transactions were measured for this and
// rejected: they open a table's manifests at every commit and clear the
// snapshot log when a snapshot is taken out of its middle.
//
// Rewrite makes one data file of many beside the commits, and proves by reading
// it back from the store that the rows are the same; a later Change installs it
// together with the deletes that came meanwhile (replace.go).
package snapshot

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"firn/lake"
)

// Store is the object storage below a warehouse. Keys are slash-separated and
// relative to it. Names are written once and never again, but for
// version-hint.text.
type Store interface {
	// Put writes a whole object of size bytes, replacing one of that name.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error
	// Get reads a whole object; fs.ErrNotExist if there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	// GetRange reads n bytes from byte off on.
	GetRange(ctx context.Context, key string, off, n int64) ([]byte, error)
	// URI is the absolute URI of a key.
	URI(key string) string
	// Key is the key of a URI; false if it lies outside the warehouse.
	Key(uri string) (string, bool)
}

// Options configure a Table. The zero value of a field is its default.
type Options struct {
	Store Store
	Ident lake.Ident
	// Location is the key of the table's folder under the warehouse.
	Location string
	Logger   *slog.Logger
	// TempDir holds files being encoded once they are larger than MemoryBytes;
	// default os.TempDir().
	TempDir string
	// MemoryBytes is how much of a file being encoded stays in memory; default
	// 8 MB.
	MemoryBytes int64
	// RowGroupRows and RowGroupBytes (encoded) bound a row group; default
	// 131,072 rows, 32 MB.
	RowGroupRows, RowGroupBytes int64
	// Uploads limits how many data files of all tables sharing it are uploaded
	// at a time; nil: no limit.
	Uploads Limiter
	// Footers caches Parquet footers of all tables sharing it; nil: a small one
	// of the Table's own.
	Footers *Footers
	// Pending is told of data files until a snapshot names them; nil: nobody is.
	Pending *Pending
	// Pacer holds Rewrite back, of all tables sharing it; nil: nothing does.
	Pacer *lake.Pacer
	// History tells what of the past the metadata goes on showing. It is asked at
	// each Prepare, and must not block; nil: the newest snapshots.
	History func() *History
	// SortBy is the order that rewrites put rows in; nil: the table's own. The
	// table's metadata takes it over with its next commit.
	SortBy SortBy
	// BloomFilters are of columns by which rows are looked up; nil: the table's own.
	BloomFilters BloomFilters
	// SortBytes is how much a rewrite sorts in memory at a time, the rest waits in
	// TempDir; default 16 MB.
	SortBytes int64
	// Now is the clock that uploads age by; default time.Now.
	Now func() time.Time
}

// Limiter is a counting semaphore shared between tables.
type Limiter chan struct{}

// NewLimiter admits n at a time.
func NewLimiter(n int) Limiter { return make(Limiter, n) }

func (l Limiter) acquire(ctx context.Context) error {
	if l == nil {
		return ctx.Err()
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l Limiter) release() {
	if l != nil {
		<-l
	}
}

const (
	defaultMemoryBytes   = 8 << 20
	defaultRowGroupRows  = 128 << 10
	defaultRowGroupBytes = 32 << 20
	defaultFooters       = 16
	defaultSortBytes     = 16 << 20
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = defaultMemoryBytes
	}
	if o.RowGroupRows <= 0 {
		o.RowGroupRows = defaultRowGroupRows
	}
	if o.RowGroupBytes <= 0 {
		o.RowGroupBytes = defaultRowGroupBytes
	}
	if o.SortBytes <= 0 {
		o.SortBytes = defaultSortBytes
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Footers == nil {
		o.Footers = NewFooters(defaultFooters)
	}
	return o
}

package lake

import (
	"context"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"firn/lake/partition"
	"firn/wal"
)

// Ident names a mirrored table. Namespace is the Postgres schema, Name the
// Postgres table; both are kept exactly as Postgres has them.
type Ident struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (i Ident) String() string { return i.Namespace + "." + i.Name }

// Stamp says which moment of Postgres a snapshot shows. It becomes the
// firn.* keys of the snapshot's summary.
type Stamp struct {
	Epoch      uint64
	LSN        wal.LSN   // end of the last commit record in it
	CommitTime time.Time // of the last Postgres commit in it
	XID        uint32    // of that commit
	Source     string    // system identifier / timeline / database
	Kind       string    // snapshot, stream, rewrite or schema
}

// File is a live data file of a table's current snapshot.
type File struct {
	Path  string // URI; unique for ever
	Rows  int64  // as written, dead ones included
	Bytes int64
	// Partition tells the partitions of all specs apart.
	Partition string
	// Dead holds the positions that the snapshot's delete files or deletion
	// vectors mark. It belongs to the TableStore, which changes it in Adopt
	// only; nil means none.
	Dead *roaring.Bitmap
	// Unsorted: the table has a sort order, which the rows are not known to be
	// in, and a rewrite would put them.
	Unsorted bool
}

// Footprint is the size of a table's current snapshot. Bytes are those of data
// and delete files.
type Footprint struct {
	DataFiles, DeleteFiles int
	Bytes                  int64
	SnapshotID             int64
	FormatVersion          int
}

// NewFile is a data file that has been encoded and may already be on the
// store, but that no snapshot names yet.
type NewFile struct {
	Path  string
	Rows  int64
	Bytes int64
	Entry iceberg.DataFile // with metrics and split offsets
	// Uploaded is closed when the upload has ended; UploadErr and UploadedAt (by
	// this machine's clock) are valid then.
	Uploaded   <-chan struct{}
	UploadErr  func() error
	UploadedAt func() time.Time
}

// Change is what one epoch does to one table, in this order: Schema, Truncate,
// Rewrites, Add, Dead.
type Change struct {
	Stamp
	// Schema is the new current schema (field ids assigned), nil if unchanged.
	Schema *iceberg.Schema
	// Partition, with Schema, is what the table is partitioned by from here on;
	// files keep the spec that they were written by.
	Partition []partition.Field
	// Properties are table properties to set; an empty value removes the key.
	Properties map[string]string
	// Truncate drops every data and delete file of the base snapshot.
	Truncate bool
	// Rewrites replace their inputs, those that are still live, by their output.
	// What has died in an input since it was rewritten, by this Change too, must
	// be named in Dead as rows of the output, and of an input no longer live all
	// that it holds: a Change by which a dead row would live is ErrRowsChanged.
	Rewrites []*Rewritten
	Add      []*NewFile
	// Dead holds the newly dead positions by data file path; a path may be one
	// of the base's, one of Add or an output of Rewrites. Positions already dead
	// are not repeated. An input of Rewrites may be named as well, and must be
	// where rows that only this Change lets die were not carried over.
	Dead map[string]*roaring.Bitmap
}

// Move is one table's step from one metadata file to the next, as the catalog
// publishes it.
type Move struct {
	Table       Ident
	UUID        string
	Location    string // URI of the table's folder
	From        string // metadata URI before; empty: the table is created
	To          string // metadata URI after
	SnapshotID  int64  // 0: the table has none
	SequenceNum int64
}

// FileWriter encodes record batches into one Parquet data file. One goroutine
// at a time may use it, except for Bytes.
type FileWriter interface {
	// Path is the URI the file will have.
	Path() string
	// Write encodes rec; rec is released by the caller, after Write returns.
	Write(rec arrow.RecordBatch) error
	// Bytes is the encoded size so far, for the decision to roll. It may be
	// called from any goroutine.
	Bytes() int64
	// Close ends the file and starts its upload in the background. A file
	// without rows returns nil.
	Close(ctx context.Context) (*NewFile, error)
	// Abort drops what was encoded.
	Abort()
}

// Prepared is a table's next snapshot: encoded, not published. All its objects
// have names nobody has used before, so an abandoned one harms nothing.
type Prepared interface {
	Move() Move
	// Upload puts the manifests, delete files and metadata in parallel, and
	// waits for the data files of the Change as well. One uploaded long ago is
	// looked at again: ErrVanished.
	Upload(ctx context.Context) error
}

// TableStore is one Iceberg table's files and history: what is live, and how
// the next snapshot is written. Its methods are called by the owner or, for
// one change at a time, by the owner's committing goroutine; Prepare doesn't
// alter it, Adopt does.
type TableStore interface {
	Schema() *iceberg.Schema
	Properties() map[string]string
	Files() []File
	// Footprint counts what the current snapshot names, without I/O.
	Footprint() Footprint
	Prepare(ctx context.Context, c *Change) (Prepared, error)
	// Outdated says whether what the lake keeps of its past has changed so that an
	// empty Change is worth publishing: a tag came or went, say. No I/O.
	Outdated() bool
	// Adopt makes p the current state, after its publication.
	Adopt(p Prepared)
	// WriteHint tells readers by path which metadata is current. It may be
	// called from any goroutine; what is current then is what it writes.
	WriteHint(ctx context.Context) error
	// Spec is the spec that these fields have, or will have once a Change says so.
	Spec(fields []partition.Field) (iceberg.PartitionSpec, error)
	// NewFile starts a data file of the given schema (with field ids) in a
	// partition; nil: in that of an unpartitioned table.
	NewFile(schema *iceberg.Schema, of *partition.Place) (FileWriter, error)
	// Read calls fn with the rows of a data file as record batches of the
	// given fields, dead rows included, with the position of the batch's first
	// row. positions, if not nil, lists the wanted rows ascending: then only
	// these come, in order, first being the ordinal in positions. A field the
	// file does not have is all NULL. The batch is fn's until it returns.
	// ErrUnreadable.
	Read(ctx context.Context, path string, fields []int, positions []uint32, fn func(first int64, rec arrow.RecordBatch) error) error
	// Rewrite makes one data file, of the current schema, of what is live in the
	// inputs, in the table's sort order or else in theirs, uploads it and proves by reading it that it holds
	// just that: ErrRowsChanged if not. An input that is not live when it
	// begins is ErrInputGone. In v3 rows keep their ids. The table doesn't change;
	// it may be called from any goroutine. After an error what was uploaded is one
	// of the files that no snapshot names.
	Rewrite(ctx context.Context, inputs []RewriteInput) (*Rewritten, error)
}

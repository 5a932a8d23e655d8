package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"firn/catalog"
	"firn/lake"
	"firn/lake/object"
	"firn/lake/snapshot"
	"firn/wal"
)

// Point is one table in one epoch.
type Point struct {
	Epoch uint64         `json:"epoch"`
	LSN   wal.LSN        `json:"lsn"`
	Time  time.Time      `json:"time"` // of the last Postgres commit in it
	Table *catalog.Table `json:"-"`    // nil: the epoch has no such table
}

// DiffOptions of OpenDiff. Store, Table, From and To are required.
type DiffOptions struct {
	Store    object.Store
	Table    catalog.Ident
	From, To Point
	// MemoryBytes is how many bytes of rows are held at a time; default 16 MB.
	// What else a diff needs (row groups being read, hashes, copies) comes to a
	// few times that, whatever the number of rows.
	MemoryBytes int64
	TempDir     string // for rows beyond that; default os.TempDir()
	Allocator   memory.Allocator
	Logger      *slog.Logger
}

// Diff is what one table's rows became between two epochs. It is computed from
// the files alone.
//
// The epochs' metadata give two sets of live files and dead rows. A file that
// is in both with the same dead rows is never read; of the others, only rows
// that live on one side and not on the other are. Those that a rewrite has
// moved are on both, and cancel out by a hash of their values; what is left is
// joined by key. Rows that exceed the memory are divided by their keys' hashes
// into temporary files, again and again until a part fits, and joined part by
// part. Sorting them instead would cost a merge for an order that nobody asked
// for.
type Diff struct {
	Table    string   `json:"table"`
	From     Point    `json:"from"`
	To       Point    `json:"to"`
	Key      []string `json:"key,omitempty"`   // the columns that identify a row; empty: rows are compared whole
	Notes    []string `json:"notes,omitempty"` // what a reader of the rows has to know
	schema   *arrow.Schema
	o        DiffOptions
	old, new *snapshot.Table // nil: the epoch has no such table
	columns  []diffColumn
	key      []int // places in columns
}

// diffColumn is a compared column, with its field on each side.
type diffColumn struct {
	name     string
	typ      iceberg.Type
	old, new int // field ids; noField: that side has none, its values are NULL
}

const noField = -1

// ErrBackwards: a diff's From is after its To. What a dropped column held is
// gone for all rows at once, and in no file.
var ErrBackwards = errors.New("the first moment is after the second")

// OpenDiff reads the metadata of both sides. The error is ErrNoTable if neither
// has the table, ErrBackwards, or snapshot.ErrEqualityDeletes where somebody
// wrote those.
func OpenDiff(ctx context.Context, o DiffOptions) (*Diff, error) {
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = 16 << 20
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.Allocator == nil {
		o.Allocator = memory.DefaultAllocator
	}
	d := &Diff{Table: o.Table.String(), From: o.From, To: o.To, o: o}
	if o.From.Table == nil && o.To.Table == nil {
		return nil, fmt.Errorf("diff %s: %w at either moment", d.Table, ErrNoTable)
	}
	if o.From.Epoch > o.To.Epoch {
		return nil, fmt.Errorf("diff %s: %w: epoch %d and epoch %d", d.Table, ErrBackwards, o.From.Epoch, o.To.Epoch)
	}
	err := errors.Join(d.load(ctx, o.From, &d.old), d.load(ctx, o.To, &d.new))
	if err == nil {
		err = d.match()
	}
	if err != nil {
		return nil, fmt.Errorf("diff %s: %w", d.Table, err)
	}
	return d, nil
}

// Schema is the schema of the rows given out: the table's at To, or where it
// is gone its last.
func (d *Diff) Schema() *arrow.Schema { return d.schema }

func (d *Diff) load(ctx context.Context, p Point, into **snapshot.Table) error {
	if p.Table == nil {
		return nil
	}
	id := lake.Ident{Namespace: strings.Join(d.o.Table.Namespace, "."), Name: d.o.Table.Name}
	t, err := snapshot.Load(ctx, snapshot.Options{Store: d.o.Store, Ident: id, Logger: d.o.Logger, TempDir: d.o.TempDir}, p.Table.Metadata)
	if err != nil {
		return fmt.Errorf("epoch %d: %w", p.Epoch, err)
	}
	*into = t
	if m := p.Table.Mirror; m != nil && m.State != catalog.Streaming {
		d.note("in epoch %d the table was not up to date but at %s (%s)", p.Epoch, m.LSN, standing(m.State, m.Reason))
	}
	return nil
}

func (d *Diff) note(format string, args ...any) {
	d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
}

// match finds for each column of the later schema its field in the earlier one,
// and the key.
func (d *Diff) match() error {
	last := d.new
	switch {
	case d.old == nil:
		d.note("the table is not in epoch %d: all its rows are inserted", d.From.Epoch)
	case d.new == nil:
		d.note("the table is not in epoch %d: all its rows are deleted", d.To.Epoch)
		last = d.old
	}
	layout, err := lake.LayoutOf(last.Properties())
	if err != nil {
		return err
	}
	if d.old == nil || d.new == nil {
		for _, f := range last.Schema().Fields() {
			c := diffColumn{name: f.Name, typ: f.Type, old: f.ID, new: f.ID}
			d.columns = append(d.columns, c)
		}
	} else if err := d.matchColumns(layout); err != nil {
		return err
	}
	if err := d.findKey(layout, last.Schema()); err != nil {
		return err
	}
	fields := make([]arrow.Field, len(d.columns))
	for i, c := range d.columns {
		typ, err := table.TypeToArrowType(c.typ, true, false)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		fields[i] = arrow.Field{Name: c.name, Type: typ, Nullable: true}
	}
	d.schema = arrow.NewSchema(fields, nil)
	return nil
}

// matchColumns pairs columns by field id. Those of a table that was dropped and
// made again have other ids, and are paired by name.
func (d *Diff) matchColumns(layout *lake.Layout) error {
	was, err := lake.LayoutOf(d.old.Properties())
	if err != nil {
		return err
	}
	another := d.old.UUID() != d.new.UUID() || was != nil && layout != nil && was.OID != layout.OID
	if another {
		d.note("the table was dropped and created again between the epochs: columns are matched by name")
	}
	matched := map[int]bool{}
	for _, f := range d.new.Schema().Fields() {
		c := diffColumn{name: f.Name, typ: f.Type, old: noField, new: f.ID}
		for _, g := range d.old.Schema().Fields() {
			if another && g.Name == f.Name && sameType(g.Type, f.Type) || !another && g.ID == f.ID {
				c.old = g.ID
				matched[g.ID] = true
				if g.Name != f.Name {
					d.note("column %s was called %s", f.Name, g.Name)
				}
			}
		}
		if c.old == noField {
			d.note("column %s is in epoch %d only: it counts as NULL in the other", f.Name, d.To.Epoch)
		}
		d.columns = append(d.columns, c)
	}
	for _, g := range d.old.Schema().Fields() {
		if !matched[g.ID] {
			d.note("column %s is in epoch %d only: it is left out", g.Name, d.From.Epoch)
		}
	}
	return nil
}

// findKey finds the columns that identify a row: the mirrored table's key, else
// the identifier fields of the schema.
func (d *Diff) findKey(layout *lake.Layout, schema *iceberg.Schema) error {
	fields := schema.IdentifierFieldIDs
	if layout != nil {
		fields = layout.KeyFields()
	}
	for _, id := range fields {
		i := slices.IndexFunc(d.columns, func(c diffColumn) bool { return c.new == id })
		if i < 0 {
			return fmt.Errorf("its key has field %d, which is no column", id)
		}
		if d.columns[i].old == noField {
			d.note("the key's column %s is not in epoch %d: rows are compared whole, an update is a row deleted and one inserted", d.columns[i].name, d.From.Epoch)
			d.key, d.Key = nil, nil
			return nil
		}
		d.key, d.Key = append(d.key, i), append(d.Key, d.columns[i].name)
	}
	if len(d.key) == 0 {
		d.note("the table has no key: rows are compared whole, an update is a row deleted and one inserted")
	}
	return nil
}

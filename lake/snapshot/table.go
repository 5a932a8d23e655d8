package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"github.com/google/uuid"

	"firn/lake"
	"firn/lake/partition"
)

var _ lake.TableStore = (*Table)(nil)

// Table is one Iceberg table as of its last adopted snapshot. It implements
// lake.TableStore. Read and NewFile may be called from any goroutine; the
// other methods as lake.TableStore says.
type Table struct {
	o   Options
	uri string // of the table's folder

	mu   sync.RWMutex // guards what follows against Read and NewFile
	meta *metadata
	// metaURI is where meta is stored, empty before the first publication.
	metaURI   string
	written   time.Time // when meta was adopted or loaded
	data      []*manifest
	deletes   []*manifest
	files     []*dataFile
	byPath    map[string]*dataFile
	shared    map[string][]*deleteFile // v2 delete files of several data files, by partition
	deleteSet map[*deleteFile]struct{}
	// dangling delete files name nothing that lives, as other engines' rewrites
	// leave them; the next snapshot drops them.
	dangling []*deleteFile
	total    totals
	begun    []iceberg.PartitionSpec // that Spec has told of
}

// CreateOptions describe a new table.
type CreateOptions struct {
	Options
	// UUID of the table; a random one if empty.
	UUID string
	// Schema with field ids.
	Schema *iceberg.Schema
	// Partition is what it is partitioned by; none: nothing.
	Partition []partition.Field
	// FormatVersion is 2 or 3; 0 means 2.
	FormatVersion int
	// Properties besides, or instead of, those that every table of ours has.
	Properties map[string]string
}

// Create describes a new table. Nothing is written before its first Prepare,
// whose Move has an empty From.
func Create(o CreateOptions) (*Table, error) {
	if o.FormatVersion == 0 {
		o.FormatVersion = 2
	}
	if o.FormatVersion != 2 && o.FormatVersion != 3 {
		return nil, fmt.Errorf("create table %s: format version %d is not supported, only 2 and 3", o.Ident, o.FormatVersion)
	}
	if o.Schema == nil || o.Store == nil || o.Location == "" {
		return nil, fmt.Errorf("create table %s: schema, store and location are needed", o.Ident)
	}
	if o.UUID == "" {
		o.UUID = uuid.NewString()
	}
	t := newTable(o.Options)
	properties := map[string]string{
		"write.format.default":            "parquet",
		"write.delete.format.default":     "parquet",
		"write.parquet.compression-codec": "zstd",
		"write.parquet.compression-level": "1",
		"write.delete.mode":               "merge-on-read",
		"write.update.mode":               "merge-on-read",
		"write.merge.mode":                "merge-on-read",
		// Engines that expire snapshots or remove orphans see one metadata file, and
		// not what the lake's older epochs need: Firn does that itself.
		"gc.enabled": "false",
	}
	maps.Copy(properties, o.Properties)
	var err error
	if t.meta, err = newMetadata(o.FormatVersion, o.UUID, t.uri, o.Schema, properties); err != nil {
		return nil, fmt.Errorf("create table %s: %w", o.Ident, err)
	}
	t.settle(t.meta)
	if err := t.meta.partitionBy(o.Partition); err != nil {
		return nil, fmt.Errorf("create table %s: %w", o.Ident, err)
	}
	return t, nil
}

// settle gives m the sort order and Bloom filters that are wanted, as far as its
// columns allow.
func (t *Table) settle(m *metadata) {
	if err := m.setSortOrder(t.o.SortBy); err != nil {
		t.o.Logger.Warn("the table has no sort order", "table", t.o.Ident.String(), "err", err)
	}
	if err := m.setBloomFilters(t.o.BloomFilters); err != nil {
		t.o.Logger.Warn("the table lacks Bloom filters", "table", t.o.Ident.String(), "err", err)
	}
}

func newTable(o Options) *Table {
	o = o.withDefaults()
	if _, ok := o.Store.(origin); !ok {
		o.Store = origin{o.Store}
	}
	o.Location = strings.Trim(o.Location, "/")
	return &Table{
		o: o, written: o.Now(), uri: o.Store.URI(o.Location),
		byPath: map[string]*dataFile{}, shared: map[string][]*deleteFile{}, deleteSet: map[*deleteFile]struct{}{},
	}
}

// Schema is the current schema.
func (t *Table) Schema() *iceberg.Schema { return t.meta.schema() }

// Properties is a copy of the table properties.
func (t *Table) Properties() map[string]string { return maps.Clone(t.meta.properties) }

// UUID of the table.
func (t *Table) UUID() string { return t.meta.uuid }

// FormatVersion is 2 or 3.
func (t *Table) FormatVersion() int { return t.meta.formatVersion }

// Metadata is the URI of the current metadata file, empty before the first
// publication.
func (t *Table) Metadata() string { return t.metaURI }

// Footprint counts the live files.
func (t *Table) Footprint() lake.Footprint {
	return lake.Footprint{
		DataFiles: int(t.total.dataFiles), DeleteFiles: int(t.total.deleteFiles),
		Bytes: t.total.bytes, SnapshotID: t.meta.current, FormatVersion: t.meta.formatVersion,
	}
}

// Files lists the live data files, oldest first. The bitmaps are the Table's.
func (t *Table) Files() []lake.File {
	out, sorts := make([]lake.File, len(t.files)), t.meta.sorts()
	for i, f := range t.files {
		out[i] = lake.File{Path: f.path, Rows: f.rows, Bytes: f.bytes, Partition: f.partition, Dead: f.dead, Unsorted: sorts && f.rows <= sortRowsMax && f.sortOrder() != t.meta.sortOrderID}
	}
	return out
}

// Adopt makes p the current state. p must come from this Table's Prepare since
// the last Adopt.
func (t *Table) Adopt(next lake.Prepared) {
	p := next.(*prepared)
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.base != t.meta {
		panic("snapshot: adopt of a change prepared on another state")
	}
	t.meta, t.metaURI, t.written = p.meta, p.move.To, t.o.Now()
	for _, o := range p.objects {
		t.o.Pending.remove(o.key)
	}
	if p.snapshotID == 0 {
		return
	}
	t.data, t.deletes, t.total, t.dangling = p.data, p.deletes, p.total, nil
	if len(p.removed) > 0 {
		t.files = slices.DeleteFunc(t.files, func(f *dataFile) bool { return p.removed[f] })
	}
	for f := range p.removed {
		delete(t.byPath, f.path)
		for _, d := range f.deletes {
			t.release(d, f.path)
		}
	}
	for _, f := range p.added {
		t.files = append(t.files, f)
		t.byPath[f.path] = f
		if key, ok := t.o.Store.Key(f.path); ok {
			t.o.Pending.remove(key)
		}
	}
	for d := range p.gone {
		t.forget(d)
	}
	for f, rows := range p.dead {
		if f.dead == nil {
			f.dead = rows
		} else {
			f.dead.Or(rows)
		}
		if p.meta.formatVersion >= 3 {
			for _, d := range slices.Clone(f.deletes) {
				t.release(d, f.path)
			}
			f.deletes = nil
		}
	}
	for _, d := range p.addDeletes {
		t.hold(d)
	}
	for _, m := range p.written {
		for _, e := range m.entries {
			e.home = m
			if f := t.byPath[e.file.FilePath()]; f != nil {
				f.entry = e
			}
		}
	}
}

// hold enters a live delete file.
func (t *Table) hold(d *deleteFile) {
	t.deleteSet[d] = struct{}{}
	for path := range d.rows {
		if f := t.byPath[path]; f != nil {
			f.deletes = append(f.deletes, d)
		}
	}
	if d.shared {
		t.shared[d.partition] = append(t.shared[d.partition], d)
	}
}

// release lets d no longer stand for the rows of one data file.
func (t *Table) release(d *deleteFile, path string) {
	if rows, ok := d.rows[path]; ok && rows != nil {
		d.count -= rows.GetCardinality()
	}
	delete(d.rows, path)
	if f := t.byPath[path]; f != nil {
		f.deletes = slices.DeleteFunc(f.deletes, func(x *deleteFile) bool { return x == d })
	}
}

// forget takes out a delete file that is no longer live.
func (t *Table) forget(d *deleteFile) {
	for path := range d.rows {
		if f := t.byPath[path]; f != nil {
			f.deletes = slices.DeleteFunc(f.deletes, func(x *deleteFile) bool { return x == d })
		}
	}
	delete(t.deleteSet, d)
	if d.shared {
		t.shared[d.partition] = slices.DeleteFunc(t.shared[d.partition], func(x *deleteFile) bool { return x == d })
	}
}

var metadataName = regexp.MustCompile(`^v?(\d+)(-[^/]*)?\.(gz\.)?metadata\.json(\.gz)?$`)

// metadataVersion is the number in a metadata file's name; -1 without one.
func metadataVersion(uri string) int {
	m := metadataName.FindStringSubmatch(path.Base(uri))
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

// WriteHint overwrites version-hint.text, by which readers that are given the
// table's folder find its metadata. It is for after the publication; a failure
// harms only them, until the next one.
func (t *Table) WriteHint(ctx context.Context) error {
	t.mu.RLock()
	uri := t.metaURI
	t.mu.RUnlock()
	name, ok := strings.CutSuffix(path.Base(uri), ".metadata.json")
	if !ok {
		return errors.New("write version hint: the metadata file's name has no version")
	}
	if err := t.o.Store.Put(ctx, t.metadataKey("version-hint.text"), bytes.NewReader([]byte(name)), int64(len(name))); err != nil {
		return fmt.Errorf("write version hint: %w", err)
	}
	return nil
}

// check that a Change's positions lie within the file they name.
func checkPositions(f *dataFile, rows *roaring.Bitmap) error {
	if !rows.IsEmpty() && int64(rows.Maximum()) >= f.rows {
		return fmt.Errorf("position %d is beyond the %d rows of %s", rows.Maximum(), f.rows, f.path)
	}
	return nil
}

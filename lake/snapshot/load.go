package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"
)

// ErrEqualityDeletes is the error of loading a table that has them: what they
// delete can't be told without reading the table.
var ErrEqualityDeletes = errors.New("the table has equality deletes, which firn does not follow; rewrite its data files to remove them")

const loadsAtOnce = 16

// Load reads a table's metadata, manifests, delete files and deletion vectors,
// so that Files has the dead rows of each data file. Tables that other engines
// have written or rewritten are as good as our own. Options.Location may be
// empty: it is the metadata's. lake.ErrUnreadable.
func Load(ctx context.Context, o Options, metadataURI string) (*Table, error) {
	t, err := loadMetadata(ctx, o, metadataURI)
	if err == nil && t.meta.current != 0 {
		if err = t.loadManifests(ctx); err == nil {
			err = t.loadDeletes(ctx)
		}
	}
	return loaded(ctx, o, metadataURI, t, err)
}

// LoadBase is Load without the current snapshot's files, of which none need be
// readable: for a Change that begins with Truncate.
func LoadBase(ctx context.Context, o Options, metadataURI string) (*Table, error) {
	t, err := loadMetadata(ctx, o, metadataURI)
	return loaded(ctx, o, metadataURI, t, err)
}

func loaded(ctx context.Context, o Options, metadataURI string, t *Table, err error) (*Table, error) {
	if err != nil {
		return nil, fmt.Errorf("load table %s from %s: %w", o.Ident, metadataURI, unreadable(ctx, err))
	}
	return t, nil
}

func loadMetadata(ctx context.Context, o Options, metadataURI string) (*Table, error) {
	o.Store = origin{o.Store}
	b, err := get(ctx, o.Store, metadataURI)
	if err != nil {
		return nil, err
	}
	m, err := parseMetadata(b)
	if err != nil {
		return nil, err
	}
	if o.Location == "" {
		key, ok := o.Store.Key(strings.TrimRight(m.location, "/"))
		if !ok {
			return nil, fmt.Errorf("its location %s lies outside the warehouse", m.location)
		}
		o.Location = key
	}
	t := newTable(o)
	t.meta, t.metaURI = m, metadataURI
	t.settle(m)
	return t, nil
}

func get(ctx context.Context, s Store, uri string) ([]byte, error) {
	key, ok := s.Key(uri)
	if !ok {
		return nil, fmt.Errorf("%s lies outside the warehouse", uri)
	}
	b, err := s.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", uri, err)
	}
	return b, nil
}

// loadManifests reads the live entries of the current snapshot.
func (t *Table) loadManifests(ctx context.Context) error {
	var current struct {
		List string `json:"manifest-list"`
	}
	for _, s := range t.meta.snapshots {
		if s.id == t.meta.current {
			if err := json.Unmarshal(s.doc, &current); err != nil {
				return fmt.Errorf("read snapshot %d: %w", s.id, err)
			}
		}
	}
	if current.List == "" {
		return fmt.Errorf("snapshot %d has no manifest list", t.meta.current)
	}
	b, err := get(ctx, t.o.Store, current.List)
	if err != nil {
		return err
	}
	files, err := iceberg.ReadManifestList(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("read %s: %w", current.List, err)
	}
	manifests := make([]*manifest, len(files))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(loadsAtOnce)
	for i, f := range files {
		g.Go(func() error {
			b, err := get(gctx, t.o.Store, f.FilePath())
			if err != nil {
				return err
			}
			entries, err := iceberg.ReadManifest(f, bytes.NewReader(b), true)
			if err != nil {
				return fmt.Errorf("read %s: %w", f.FilePath(), err)
			}
			m := &manifest{file: f}
			for _, read := range entries {
				m.entries = append(m.entries, t.liveEntry(read, m))
			}
			manifests[i] = m
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range manifests {
		if m.file.ManifestContent() == iceberg.ManifestContentDeletes {
			t.deletes = append(t.deletes, m)
			continue
		}
		t.data = append(t.data, m)
		for _, e := range m.entries {
			f := &dataFile{entry: e, path: e.file.FilePath(), rows: e.file.Count(), bytes: e.file.FileSizeBytes(), partition: partitionKey(e.file)}
			if t.byPath[f.path] != nil {
				return fmt.Errorf("data file %s is in the snapshot twice", f.path)
			}
			if f.rows > 1<<32 {
				return fmt.Errorf("data file %s has %d rows, more than 32 bits can count", f.path, f.rows)
			}
			t.files = append(t.files, f)
			t.byPath[f.path] = f
			t.total.add(e, nil, 1)
		}
	}
	slices.SortStableFunc(t.files, func(a, b *dataFile) int { return int(min(max(a.entry.sequence-b.entry.sequence, -1), 1)) })
	return nil
}

func (t *Table) liveEntry(read iceberg.ManifestEntry, m *manifest) *entry {
	e := newEntry(read.DataFile(), read.SnapshotID(), read.SequenceNum())
	if s := read.FileSequenceNum(); s != nil {
		e.fileSequence = *s
	}
	e.home = m
	e.rowIDAssigned = e.file.FirstRowID() != nil
	if t.meta.formatVersion >= 3 && e.file.ContentType() == iceberg.EntryContentData && !e.rowIDAssigned {
		m.unassigned = true
	}
	return e
}

// loadDeletes reads the delete files and vectors into the bitmaps.
func (t *Table) loadDeletes(ctx context.Context) error {
	vectors := map[string][]*deleteFile{} // by Puffin file
	var files []*deleteFile
	for _, m := range t.deletes {
		for _, e := range m.entries {
			d := &deleteFile{entry: e, partition: partitionKey(e.file), count: uint64(e.file.Count())}
			switch {
			case e.file.ContentType() == iceberg.EntryContentEqDeletes:
				return fmt.Errorf("%s: %w", e.file.FilePath(), ErrEqualityDeletes)
			case e.file.FileFormat() == iceberg.PuffinFile:
				d.vector = true
				vectors[e.file.FilePath()] = append(vectors[e.file.FilePath()], d)
			case e.file.FileFormat() == iceberg.ParquetFile:
				files = append(files, d)
			default:
				return fmt.Errorf("delete file %s is %s; only Parquet and Puffin are read", e.file.FilePath(), e.file.FileFormat())
			}
			t.total.add(e, d, 1)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(loadsAtOnce)
	for _, d := range files {
		g.Go(func() error { return t.loadPositions(gctx, d) })
	}
	var mu sync.Mutex
	bitmaps := map[*deleteFile]*roaring.Bitmap{}
	for path, of := range vectors {
		g.Go(func() error {
			read, err := t.loadVectors(gctx, path, of)
			mu.Lock()
			maps.Copy(bitmaps, read)
			mu.Unlock()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range slices.Concat(files, slices.Collect(maps.Keys(bitmaps))) {
		rows := d.rows
		if d.vector {
			path := *d.entry.file.ReferencedDataFile()
			if f := t.byPath[path]; f == nil || f.entry.sequence > d.entry.sequence {
				rows = nil
			} else {
				rows = map[string]*roaring.Bitmap{path: bitmaps[d]}
				d.rows = map[string]*roaring.Bitmap{path: nil}
			}
		}
		for path, r := range rows {
			f := t.byPath[path]
			if err := checkPositions(f, r); err != nil {
				return fmt.Errorf("delete file %s: %w", d.entry.file.FilePath(), err)
			}
			if f.dead == nil {
				f.dead = roaring.New()
			}
			f.dead.Or(r)
		}
		t.hold(d)
		if len(d.rows) == 0 {
			t.dangling = append(t.dangling, d)
		}
	}
	return nil
}

// loadPositions reads a Parquet delete file. Of what it names, only live data
// files of its own partition that are not younger than it count.
func (t *Table) loadPositions(ctx context.Context, d *deleteFile) error {
	d.rows = map[string]*roaring.Bitmap{}
	uri := d.entry.file.FilePath()
	var last string
	var rows *roaring.Bitmap
	err := t.read(ctx, t.meta, uri, d.entry.file.FileSizeBytes(), []int{deletePathID, deletePosID}, nil, func(_ int64, rec arrow.RecordBatch) error {
		path, err := stringsOf(rec.Column(0))
		if err != nil {
			return err
		}
		pos, ok := rec.Column(1).(*array.Int64)
		if !ok {
			return fmt.Errorf("its positions are %s", rec.Column(1).DataType())
		}
		for i := range pos.Len() {
			if name := path(i); rows == nil || name != last {
				last = strings.Clone(name)
				rows = d.rows[last]
				if rows == nil {
					rows = roaring.New()
					d.rows[last] = rows
				}
			}
			if v := pos.Value(i); v < 0 || v >= 1<<32 {
				return fmt.Errorf("position %d does not fit 32 bits", v)
			}
			rows.Add(uint32(pos.Value(i)))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read delete file %s: %w", uri, err)
	}
	d.shared = len(d.rows) > 1
	d.count = 0
	for path, rows := range d.rows {
		f := t.byPath[path]
		if f == nil || f.partition != d.partition || f.entry.sequence > d.entry.sequence {
			delete(d.rows, path)
			continue
		}
		d.count += rows.GetCardinality()
	}
	return nil
}

func stringsOf(a arrow.Array) (func(i int) string, error) {
	switch a := a.(type) {
	case *array.String:
		return a.Value, nil
	case *array.LargeString:
		return a.Value, nil
	case *array.Dictionary:
		values, err := stringsOf(a.Dictionary())
		return func(i int) string { return values(a.GetValueIndex(i)) }, err
	}
	return nil, fmt.Errorf("its paths are %s", a.DataType())
}

// loadVectors reads the vectors of one Puffin file.
func (t *Table) loadVectors(ctx context.Context, uri string, of []*deleteFile) (map[*deleteFile]*roaring.Bitmap, error) {
	key, ok := t.o.Store.Key(uri)
	if !ok {
		return nil, fmt.Errorf("%s lies outside the warehouse", uri)
	}
	src := &ranges{ctx: ctx, store: t.o.Store, key: key, size: of[0].entry.file.FileSizeBytes()}
	var spans []span
	for _, d := range of {
		f := d.entry.file
		if f.ContentOffset() == nil || f.ContentSizeInBytes() == nil || f.ReferencedDataFile() == nil {
			return nil, fmt.Errorf("deletion vector in %s: its entry has no offset, size or data file", uri)
		}
		spans = append(spans, span{*f.ContentOffset(), *f.ContentOffset() + *f.ContentSizeInBytes()})
	}
	if err := src.want(slices.Clone(spans)); err != nil {
		return nil, fmt.Errorf("read %s: %w", uri, err)
	}
	out := make(map[*deleteFile]*roaring.Bitmap, len(of))
	for i, d := range of {
		blob := make([]byte, spans[i].end-spans[i].off)
		if _, err := src.ReadAt(blob, spans[i].off); err != nil {
			return nil, fmt.Errorf("read %s: %w", uri, err)
		}
		rows, err := decodeVector(blob, d.entry.file.Count())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", uri, err)
		}
		out[d] = rows
	}
	return out, nil
}

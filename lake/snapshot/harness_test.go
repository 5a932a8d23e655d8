package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/wal"
)

var testSchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
	iceberg.NestedField{ID: 2, Name: "name", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 3, Name: "amount", Type: iceberg.DecimalTypeOf(12, 2)},
	iceberg.NestedField{ID: 4, Name: "tags", Type: &iceberg.ListType{ElementID: 5, Element: iceberg.PrimitiveTypes.String}},
	iceberg.NestedField{ID: 6, Name: "uid", Type: iceberg.PrimitiveTypes.UUID},
	iceberg.NestedField{ID: 7, Name: "at", Type: iceberg.PrimitiveTypes.TimestampTz},
)

var widerSchema = iceberg.NewSchema(0, append(testSchema.Fields(),
	iceberg.NestedField{ID: 8, Name: "extra", Type: iceberg.PrimitiveTypes.Int32})...)

// harness drives one table and holds what it should contain.
type harness struct {
	t     testing.TB
	ctx   context.Context
	rng   *rand.Rand
	store object.Store
	tab   *Table
	clock time.Time
	epoch uint64
	next  int64              // id
	rows  map[string][]int64 // ids by data file, as written
	alive map[int64]string   // id to file
}

func newHarness(t testing.TB, version int, seed uint64) *harness {
	ctx := context.Background()
	store := laketest.NewMemoryStore()
	h := &harness{t: t, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 1)), store: store,
		clock: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), rows: map[string][]int64{}, alive: map[int64]string{}}
	var err error
	h.tab, err = Create(CreateOptions{
		Options: Options{Store: store, Ident: lake.Ident{Namespace: "public", Name: "t"}, Location: "public/t", TempDir: t.TempDir(), RowGroupRows: 40},
		Schema:  testSchema, FormatVersion: version, Properties: map[string]string{"firn.lsn": "0/0"},
	})
	require.NoError(t, err)
	return h
}

// sortBy sorts what is rewritten from here on, a few dozen rows at a time.
func (h *harness) sortBy(by string) {
	var err error
	h.tab.o.SortBy, err = ParseSortBy(by)
	require.NoError(h.t, err)
	h.tab.o.SortBytes = 8 << 10
	h.tab.meta = h.tab.meta.clone()
	h.tab.settle(h.tab.meta)
}

// name and such are functions of the id, so that the model needs only ids.
func nameOf(id int64) string { return fmt.Sprintf("name-%d", id%97) }

func record(t testing.TB, sc *iceberg.Schema, ids []int64) arrow.RecordBatch {
	as, err := table.SchemaToArrowSchema(sc, nil, true, false)
	require.NoError(t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer b.Release()
	for _, id := range ids {
		b.Field(0).(*array.Int64Builder).Append(id)
		if id%7 == 0 {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(nameOf(id))
		}
		b.Field(2).(*array.Decimal128Builder).Append(decimal128.FromI64(id * 100))
		l := b.Field(3).(*array.ListBuilder)
		if id%5 == 0 {
			l.AppendNull()
		} else {
			l.Append(true)
			for i := range id % 4 {
				l.ValueBuilder().(*array.StringBuilder).Append(fmt.Sprint("tag", i))
			}
		}
		b.Field(4).(*extensions.UUIDBuilder).Append(uuid.UUID{15: byte(id), 14: byte(id >> 8), 13: byte(id >> 16)})
		b.Field(5).(*array.TimestampBuilder).Append(arrow.Timestamp(id * 1e6))
		if sc.NumFields() > 6 {
			b.Field(6).(*array.Int32Builder).Append(int32(id))
		}
	}
	return b.NewRecordBatch()
}

// write makes a data file of n new rows.
func (h *harness) write(sc *iceberg.Schema, n int) *lake.NewFile {
	w, err := h.tab.NewFile(sc, nil)
	require.NoError(h.t, err)
	var ids []int64
	for range n {
		h.next++
		ids = append(ids, h.next)
	}
	for part := range slices.Chunk(ids, 64) {
		rec := record(h.t, sc, part)
		require.NoError(h.t, w.Write(rec))
		rec.Release()
	}
	f, err := w.Close(h.ctx)
	require.NoError(h.t, err)
	h.rows[f.Path] = ids
	return f
}

func (h *harness) stamp(kind string) lake.Stamp {
	h.epoch++
	h.clock = h.clock.Add(time.Duration(h.rng.IntN(90)) * time.Second)
	return lake.Stamp{Epoch: h.epoch, LSN: wal.LSN(h.epoch * 1000), CommitTime: h.clock, XID: uint32(h.epoch), Source: "1/1/db", Kind: kind}
}

// commit prepares, uploads and adopts c, and brings the model up to it.
func (h *harness) commit(c *lake.Change) lake.Move {
	p, err := h.tab.Prepare(h.ctx, c)
	require.NoError(h.t, err)
	require.NoError(h.t, p.Upload(h.ctx))
	h.tab.Adopt(p)
	if c.Truncate {
		h.alive = map[int64]string{}
	}
	for _, r := range c.Rewrites {
		h.move(r)
	}
	for _, f := range c.Add {
		for _, id := range h.rows[f.Path] {
			h.alive[id] = f.Path
		}
	}
	for path, rows := range c.Dead {
		for _, pos := range rows.ToArray() {
			delete(h.alive, h.rows[path][pos])
		}
	}
	return p.Move()
}

// kill picks up to n live rows of a file.
func (h *harness) kill(path string, n int) *roaring.Bitmap {
	b := roaring.New()
	for pos, id := range h.rows[path] {
		if h.alive[id] == path && n > 0 && h.rng.IntN(3) > 0 {
			b.Add(uint32(pos))
			n--
		}
	}
	return b
}

// random is one epoch of random changes.
func (h *harness) random() *lake.Change {
	c := &lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{}}
	sc := h.tab.Schema()
	switch r := h.rng.IntN(100); {
	case r < 1:
		c.Truncate = true
	case r < 3 && sc.NumFields() == testSchema.NumFields():
		c.Schema = widerSchema
		sc = widerSchema
	case r < 8:
		c.Properties = map[string]string{"firn.lsn": fmt.Sprint(h.epoch)}
	}
	for range h.rng.IntN(3) {
		f := h.write(sc, 1+h.rng.IntN(150))
		c.Add = append(c.Add, f)
		if h.rng.IntN(4) == 0 {
			dead := roaring.New()
			for pos := range h.rows[f.Path] {
				if h.rng.IntN(4) == 0 {
					dead.Add(uint32(pos))
				}
			}
			c.Dead[f.Path] = dead
		}
	}
	touch := h.rng.IntN(6)
	if h.rng.IntN(5) == 0 {
		touch = 40 // shared delete files
	}
	files := h.tab.Files()
	h.rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, f := range files[:min(touch, len(files))] {
		n := 1 + h.rng.IntN(10)
		if h.rng.IntN(12) == 0 {
			n = 1 << 30
			b := roaring.New()
			for pos, id := range h.rows[f.Path] {
				if h.alive[id] == f.Path {
					b.Add(uint32(pos))
				}
			}
			c.Dead[f.Path] = b
			continue
		}
		if b := h.kill(f.Path, n); !b.IsEmpty() {
			c.Dead[f.Path] = b
		}
	}
	return c
}

func (h *harness) metadata() table.Metadata {
	b, err := get(h.ctx, h.store, h.tab.Metadata())
	require.NoError(h.t, err)
	m, err := table.ParseMetadataBytes(b)
	require.NoError(h.t, err)
	return m
}

// open opens the table as iceberg-go sees it.
func (h *harness) open() *table.Table {
	tab, err := table.NewFromLocation(h.ctx, table.Identifier{"public", "t"}, h.tab.Metadata(),
		func(context.Context) (iceio.IO, error) { return object.FileIO(h.ctx, h.store), nil }, nil)
	require.NoError(h.t, err)
	return tab
}

// scan reads ids by iceberg-go, checking the other columns.
func (h *harness) scan(opts ...table.ScanOption) []int64 {
	_, it, err := h.open().Scan(opts...).ToArrowRecords(h.ctx)
	require.NoError(h.t, err)
	var out []int64
	for rec, err := range it {
		require.NoError(h.t, err)
		ids := rec.Column(0).(*array.Int64)
		names := rec.Column(1).(*array.String)
		for i := range ids.Len() {
			id := ids.Value(i)
			out = append(out, id)
			require.Equal(h.t, id%7 == 0, names.IsNull(i))
			if names.IsValid(i) {
				require.Equal(h.t, nameOf(id), names.Value(i))
			}
		}
		rec.Release()
	}
	slices.Sort(out)
	return out
}

func (h *harness) want() []int64 { return slices.Sorted(maps.Keys(h.alive)) }

// check compares everything that can be read with the model.
func (h *harness) check() {
	t := h.t
	require.Equal(t, nonNil(h.want()), nonNil(h.scan()))
	m := h.metadata()
	s := m.CurrentSnapshot()
	require.NotNil(t, s)

	// Totals from what iceberg-go finds in the manifests.
	fs := object.FileIO(h.ctx, h.store)
	manifests, err := s.Manifests(fs)
	require.NoError(t, err)
	var want totals
	nData, nDeletes := 0, 0
	deletesOf := map[string]int{}
	vectorsOf := map[string]int{}
	for _, mf := range manifests {
		if mf.ManifestContent() == iceberg.ManifestContentData {
			nData++
		} else {
			nDeletes++
		}
		for e, err := range mf.Entries(fs, true) {
			require.NoError(t, err)
			df := e.DataFile()
			switch {
			case df.ContentType() == iceberg.EntryContentData:
				want.dataFiles++
				want.records += df.Count()
				want.bytes += df.FileSizeBytes()
				if m.Version() >= 3 {
					require.NotNil(t, df.FirstRowID())
				}
			case df.FileFormat() == iceberg.PuffinFile:
				want.vectors++
				want.deleteFiles++
				want.deletes += df.Count()
				want.bytes += *df.ContentSizeInBytes()
				vectorsOf[*df.ReferencedDataFile()]++
			default:
				want.positionFiles++
				want.deleteFiles++
				want.deletes += df.Count()
				want.bytes += df.FileSizeBytes()
				if r := df.ReferencedDataFile(); r != nil {
					deletesOf[*r]++
				}
			}
		}
	}
	require.Equal(t, want, h.tab.total)
	require.LessOrEqual(t, nData, 20)
	for path, n := range vectorsOf {
		require.Equal(t, 1, n, path)
	}
	for path, n := range deletesOf {
		require.LessOrEqual(t, n, liveDeletes, path)
	}
	for _, f := range h.tab.files {
		require.LessOrEqual(t, len(f.deletes), liveDeletes)
	}
	for key, n := range map[string]int64{
		"total-data-files": want.dataFiles, "total-records": want.records, "total-files-size": want.bytes,
		"total-delete-files": want.deleteFiles, "total-position-deletes": want.deletes, "total-equality-deletes": 0,
	} {
		require.Equal(t, strconv.FormatInt(n, 10), s.Summary.Properties[key], key)
	}
	h.sameAsLoaded()
}

// sameAsLoaded compares the table in memory with the one on the store.
func (h *harness) sameAsLoaded() *Table {
	t := h.t
	got, err := Load(h.ctx, Options{Store: h.store, Ident: h.tab.o.Ident, TempDir: h.tab.o.TempDir, RowGroupRows: 40, SortBytes: h.tab.o.SortBytes}, h.tab.Metadata())
	require.NoError(t, err)
	require.Equal(t, h.tab.o.Location, got.o.Location)
	require.Equal(t, h.tab.total, got.total)
	require.Equal(t, len(h.tab.files), len(got.files))
	require.Equal(t, len(h.tab.deleteSet), len(got.deleteSet))
	for _, f := range h.tab.files {
		g := got.byPath[f.path]
		require.NotNil(t, g)
		require.Equal(t, f.rows, g.rows)
		require.Equal(t, f.bytes, g.bytes)
		require.Equal(t, f.deadRows(), g.deadRows(), f.path)
		if f.dead != nil {
			require.True(t, f.dead.Equals(g.dead))
		}
		require.Equal(t, f.entry.sequence, g.entry.sequence)
		require.Equal(t, f.entry.snapshot, g.entry.snapshot)
		require.Equal(t, f.entry.file.FirstRowID(), g.entry.file.FirstRowID())
		require.Equal(t, len(f.deletes), len(g.deletes))
	}
	a, err := h.tab.meta.marshal()
	require.NoError(t, err)
	b, err := got.meta.marshal()
	require.NoError(t, err)
	require.JSONEq(t, string(a), string(b))
	require.True(t, json.Valid(a))
	return got
}

// marshalForeign is metadata as iceberg-go writes it.
func marshalForeign(m table.Metadata) ([]byte, error) { return json.Marshal(m) }

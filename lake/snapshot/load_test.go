package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/table/dv"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/object"
)

// foreignCatalog commits what iceberg-go's transactions do.
type foreignCatalog struct {
	h        *harness
	metadata string
	n        int
}

func (c *foreignCatalog) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	return table.NewFromLocation(ctx, id, c.metadata, func(context.Context) (iceio.IO, error) { return object.FileIO(ctx, c.h.store), nil }, c)
}

func (c *foreignCatalog) CommitTable(ctx context.Context, _ table.Identifier, _ []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	b, err := get(ctx, c.h.store, c.metadata)
	if err != nil {
		return nil, "", err
	}
	m, err := table.ParseMetadataBytes(b)
	if err != nil {
		return nil, "", err
	}
	if m, err = table.UpdateTableMetadata(m, updates, c.metadata); err != nil {
		return nil, "", err
	}
	c.n++
	uri, err := c.h.putMetadata(m, fmt.Sprintf("public/t/metadata/%05d-foreign.metadata.json", 1000+c.n))
	if err != nil {
		return nil, "", err
	}
	c.metadata = uri
	return m, uri, nil
}

func (h *harness) putMetadata(m any, key string) (string, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	return h.store.URI(key), h.store.Put(h.ctx, key, bytes.NewReader(b), int64(len(b)))
}

func (h *harness) load(metadata string) *Table {
	tab, err := Load(h.ctx, h.tab.o, metadata)
	require.NoError(h.t, err)
	return tab
}

// What another writer appends, deletes and rewrites is followed, and our
// commits go on from it.
func TestLoadForeignCommits(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			h := newHarness(t, version, 20)
			for range 10 {
				h.commit(h.random())
			}
			h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{h.write(h.tab.Schema(), 20)}})
			cat := &foreignCatalog{h: h, metadata: h.tab.Metadata()}
			tab, err := cat.LoadTable(h.ctx, table.Identifier{"public", "t"})
			require.NoError(t, err)

			rec := record(t, h.tab.Schema(), []int64{1_000_001, 1_000_002, 1_000_003})
			rows := array.NewTableFromRecords(rec.Schema(), []arrow.RecordBatch{rec})
			tab, err = tab.AppendTable(h.ctx, rows, 10, nil)
			require.NoError(t, err)
			tab, err = tab.Delete(h.ctx, iceberg.EqualTo(iceberg.Reference("id"), int64(1_000_002)), nil)
			require.NoError(t, err)
			victim := h.want()[0]
			_, err = tab.Delete(h.ctx, iceberg.EqualTo(iceberg.Reference("id"), victim), nil)
			require.NoError(t, err)

			h.tab = h.load(cat.metadata)
			require.Equal(t, h.tab.Footprint().SnapshotID, h.metadata().CurrentSnapshot().SnapshotID)
			// The model learns the new files by reading them.
			h.alive = map[int64]string{}
			for _, f := range h.tab.Files() {
				h.rows[f.Path] = nil
				require.NoError(t, h.tab.Read(h.ctx, f.Path, []int{1}, nil, func(_ int64, rec arrow.RecordBatch) error {
					h.rows[f.Path] = append(h.rows[f.Path], rec.Column(0).(*array.Int64).Int64Values()...)
					return nil
				}))
				for pos, id := range h.rows[f.Path] {
					if f.Dead == nil || !f.Dead.Contains(uint32(pos)) {
						h.alive[id] = f.Path
					}
				}
			}
			require.NotContains(t, h.alive, victim)
			require.NotContains(t, h.alive, int64(1_000_002))
			require.Contains(t, h.alive, int64(1_000_003))
			require.Equal(t, h.want(), h.scan()) // check would find that iceberg-go counts a Puffin file whole
			before := h.metadata().CurrentSnapshot().TimestampMs
			for range 10 {
				h.commit(h.random())
			}
			h.check()
			require.GreaterOrEqual(t, h.metadata().CurrentSnapshot().TimestampMs, before, "the other writer's clock is ahead")
		})
	}
}

// A v2 table upgraded to v3: its files get row ids, and vectors take the place
// of its delete files one by one.
func TestLoadUpgraded(t *testing.T) {
	h := newHarness(t, 2, 21)
	for range 30 {
		h.commit(h.random())
	}
	m := h.tab.meta.clone()
	m.formatVersion = 3
	b, err := m.marshal()
	require.NoError(t, err)
	uri, err := h.putMetadata(json.RawMessage(b), "public/t/metadata/00999-up.metadata.json")
	require.NoError(t, err)
	h.tab = h.load(uri)
	require.Equal(t, 3, h.tab.FormatVersion())
	for i := range 40 {
		h.commit(h.random())
		if i%8 == 0 && h.tab.meta.current != m.current {
			h.check()
		}
	}
	h.check()
}

func TestLoadRefusesEqualityDeletes(t *testing.T) {
	h := newHarness(t, 2, 22)
	f := h.write(testSchema, 5)
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{f}})
	b, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentEqDeletes, h.store.URI("public/t/data/eq.parquet"), iceberg.ParquetFile, nil, nil, nil, 1, 100)
	require.NoError(t, err)
	next, err := h.tab.Prepare(h.ctx, &lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{f.Path: dead(1)}})
	require.NoError(t, err)
	p := next.(*prepared)
	p.objects, p.written = nil, nil
	p.addDeletes[0].entry = newEntry(b.EqualityFieldIDs([]int{1}).Build(), p.snapshotID, p.sequence)
	list, err := p.manifests()
	require.NoError(t, err)
	s := &p.meta.snapshots[len(p.meta.snapshots)-1]
	s.doc = json.RawMessage(fmt.Sprintf(`{"snapshot-id":%d,"sequence-number":%d,"timestamp-ms":%d,"summary":{"operation":"delete"},"manifest-list":%q,"schema-id":0}`, s.id, p.sequence, s.timestampMS, list))
	doc, err := p.meta.marshal()
	require.NoError(t, err)
	require.NoError(t, p.Upload(h.ctx))
	uri, err := h.putMetadata(json.RawMessage(doc), "public/t/metadata/00998-eq.metadata.json")
	require.NoError(t, err)
	_, err = Load(h.ctx, h.tab.o, uri)
	require.ErrorIs(t, err, ErrEqualityDeletes)
}

// Another engine's rewrite may leave delete files of what it rewrote.
func TestLoadDangling(t *testing.T) {
	for _, version := range []int{2, 3} {
		h := newHarness(t, version, 24)
		a, b := h.write(testSchema, 5), h.write(testSchema, 5)
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{a, b}})
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{a.Path: dead(1), b.Path: dead(2)}})
		f := h.tab.byPath[a.Path]
		kept := f.deletes
		f.deletes = nil // so that removing the file doesn't remove them
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{a.Path: dead(0, 2, 3, 4)}})
		require.Len(t, kept, 1)
		require.Equal(t, h.want(), h.scan())
		h.tab = h.load(h.tab.Metadata())
		require.Len(t, h.tab.dangling, 1)
		require.Equal(t, 2, h.tab.Footprint().DeleteFiles)
		h.commit(&lake.Change{Stamp: h.stamp("schema")})
		require.Equal(t, 1, h.tab.Footprint().DeleteFiles)
		h.check()
	}
}

func TestLoadBroken(t *testing.T) {
	h := newHarness(t, 2, 23)
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{h.write(testSchema, 5)}})
	_, err := Load(h.ctx, h.tab.o, "s3://elsewhere/x.metadata.json")
	require.ErrorContains(t, err, "outside the warehouse")
	_, err = Load(h.ctx, h.tab.o, h.store.URI("public/t/metadata/none.metadata.json"))
	require.Error(t, err)
	for i, doc := range []string{`{}`, `not json`, `{"format-version":1}`} {
		uri, err := h.putMetadata(json.RawMessage(`null`), fmt.Sprintf("public/t/metadata/%d.json", i))
		require.NoError(t, err)
		require.NoError(t, h.store.Put(h.ctx, fmt.Sprintf("public/t/metadata/%d.json", i), bytes.NewReader([]byte(doc)), int64(len(doc))))
		_, err = Load(h.ctx, h.tab.o, uri)
		require.Error(t, err)
	}
}

// Vectors are what iceberg-go reads and writes.
func TestVectorFormat(t *testing.T) {
	rows := roaring.New()
	rows.AddRange(10, 100_000)
	rows.AddMany([]uint32{1, 5, 1 << 31, 1<<32 - 1})
	b, err := encodeVector(rows)
	require.NoError(t, err)
	theirs, err := dv.DeserializeDV(b, int64(rows.GetCardinality()))
	require.NoError(t, err)
	var n uint64
	for pos := range theirs.Positions() {
		require.True(t, rows.Contains(uint32(pos)))
		n++
	}
	require.Equal(t, rows.GetCardinality(), n)
	c, err := dv.SerializeDV(theirs)
	require.NoError(t, err)
	require.Equal(t, c, b)
	back, err := decodeVector(c, int64(n))
	require.NoError(t, err)
	require.True(t, rows.Equals(back))
	empty, err := dv.SerializeDV(dv.NewRoaringPositionBitmap())
	require.NoError(t, err)
	back, err = decodeVector(empty, 0)
	require.NoError(t, err)
	require.True(t, back.IsEmpty())
	theirs.Set(1 << 40)
	c, err = dv.SerializeDV(theirs)
	require.NoError(t, err)
	_, err = decodeVector(c, int64(n+1))
	require.ErrorContains(t, err, "32 bits")
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x55
		_, err := decodeVector(bad, int64(n))
		require.Error(t, err)
		if i > 40 {
			break
		}
	}
	_, err = decodeVector(b[:10], 1)
	require.Error(t, err)
}

func TestMergePrefix(t *testing.T) {
	for _, c := range []struct {
		sizes []uint64
		limit int
		want  int
	}{
		{[]uint64{1, 2, 3, 4}, 4, 0},
		{[]uint64{1, 1, 1, 1, 1}, 4, 5},
		{[]uint64{1, 10, 100, 1000, 10000}, 4, 2},
		{[]uint64{1, 2, 3, 4, 1000}, 4, 4},
		{[]uint64{1, 100, 1000, 10000, 100000, 1000000}, 4, 3},
	} {
		require.Equal(t, c.want, mergePrefix(c.sizes, c.limit), "%v", c.sizes)
	}
}

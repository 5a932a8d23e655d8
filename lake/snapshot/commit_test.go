package snapshot

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

func dead(pos ...uint32) *roaring.Bitmap { return roaring.BitmapOf(pos...) }

func (h *harness) summary() *table.Summary { return h.metadata().CurrentSnapshot().Summary }

func TestOperationsAndSummaries(t *testing.T) {
	for _, version := range []int{2, 3} {
		h := newHarness(t, version, 3)
		move := h.commit(&lake.Change{Stamp: h.stamp("snapshot")})
		require.Empty(t, move.From)
		require.Equal(t, "append", string(h.summary().Operation))

		a, b := h.write(testSchema, 10), h.write(testSchema, 5)
		s := h.stamp("stream")
		next := h.commit(&lake.Change{Stamp: s, Add: []*lake.NewFile{a, b}})
		require.Equal(t, move.To, next.From)
		require.Equal(t, h.tab.Footprint().SnapshotID, next.SnapshotID)
		require.Equal(t, int64(2), next.SequenceNum)
		p := h.summary()
		require.Equal(t, "append", string(p.Operation))
		require.Equal(t, "2", p.Properties["added-data-files"])
		require.Equal(t, "15", p.Properties["added-records"])
		for key, want := range map[string]string{
			"firn.lsn": s.LSN.String(), "firn.epoch": "2", "firn.xid": "2", "firn.source": "1/1/db", "firn.kind": "stream",
		} {
			require.Equal(t, want, p.Properties[key], key)
		}

		h.commit(&lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{a.Path: dead(0, 3)}})
		p = h.summary()
		require.Equal(t, "delete", string(p.Operation))
		require.Equal(t, "2", p.Properties["added-position-deletes"])
		if version == 3 {
			require.Equal(t, "1", p.Properties["added-dvs"])
			require.Empty(t, p.Properties["added-position-delete-files"])
		} else {
			require.Equal(t, "1", p.Properties["added-position-delete-files"])
		}
		h.check()

		c := h.write(testSchema, 5)
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{c}, Dead: map[string]*roaring.Bitmap{a.Path: dead(1), c.Path: dead(4)}})
		p = h.summary()
		require.Equal(t, "overwrite", string(p.Operation))
		if version == 3 {
			require.Equal(t, "1", p.Properties["removed-dvs"])
			require.Equal(t, "2", p.Properties["removed-position-deletes"])
		}
		h.check()

		// What is wholly dead goes as a whole, with what named it.
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{a.Path: dead(2, 4, 5, 6, 7, 8, 9)}})
		p = h.summary()
		require.Equal(t, "delete", string(p.Operation))
		require.Equal(t, "1", p.Properties["deleted-data-files"])
		require.Equal(t, "10", p.Properties["deleted-records"])
		require.Equal(t, "2", p.Properties["total-data-files"])
		require.Equal(t, "1", p.Properties["total-delete-files"])
		h.check()

		before := h.tab.Footprint().SnapshotID
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Properties: map[string]string{"firn.lsn": "1/1", "write.merge.mode": ""}})
		require.Equal(t, before, h.tab.Footprint().SnapshotID, "properties alone make no snapshot")
		require.Equal(t, "1/1", h.tab.Properties()["firn.lsn"])
		require.NotContains(t, h.tab.Properties(), "write.merge.mode")

		d := h.write(testSchema, 3)
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Truncate: true, Add: []*lake.NewFile{d}})
		p = h.summary()
		require.Equal(t, "overwrite", string(p.Operation))
		require.Equal(t, "1", p.Properties["total-data-files"])
		require.Equal(t, "0", p.Properties["total-delete-files"])
		h.check()
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Truncate: true})
		require.Equal(t, "delete", string(h.summary().Operation))
		h.check()
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{h.write(testSchema, 3)}})
		h.check()
		require.Len(t, h.tab.data, 1, "manifests of what is gone are dropped")
	}
}

func TestBornDead(t *testing.T) {
	h := newHarness(t, 2, 4)
	a, b := h.write(testSchema, 3), h.write(testSchema, 3)
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{a, b}, Dead: map[string]*roaring.Bitmap{a.Path: dead(0, 1, 2)}})
	require.Len(t, h.tab.Files(), 1)
	h.check()
}

func TestBadChanges(t *testing.T) {
	h := newHarness(t, 2, 5)
	a := h.write(testSchema, 3)
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{a}})
	for _, c := range []*lake.Change{
		{Dead: map[string]*roaring.Bitmap{"file:///nowhere": dead(1)}},
		{Dead: map[string]*roaring.Bitmap{a.Path: dead(3)}},
		{Add: []*lake.NewFile{a}},
	} {
		_, err := h.tab.Prepare(h.ctx, c)
		require.Error(t, err)
	}
	h.check()
}

// Prepare alters nothing, so it may be repeated, or dropped.
func TestPrepareAltersNothing(t *testing.T) {
	for _, version := range []int{2, 3} {
		h := newHarness(t, version, 6)
		for range 20 {
			c := h.random()
			for range 2 {
				_, err := h.tab.Prepare(h.ctx, c)
				require.NoError(t, err)
			}
			h.commit(c)
		}
		h.check()
	}
}

// failingStore loses the puts of some names.
type failingStore struct {
	Store
	mu   sync.Mutex
	fail string
	puts []string
}

func (s *failingStore) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	s.mu.Lock()
	s.puts = append(s.puts, key)
	fail := s.fail
	s.mu.Unlock()
	if fail != "" && strings.Contains(key, fail) {
		return errors.New("no luck")
	}
	return s.Store.Put(ctx, key, body, size)
}

func TestUploadFails(t *testing.T) {
	h := newHarness(t, 3, 8)
	s := &failingStore{Store: h.store}
	h.tab.o.Store = s
	a := h.write(testSchema, 5)
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{a}})
	for _, fail := range []string{"-m0.avro", "snap-", ".metadata.json", "-dv.puffin", ".parquet"} {
		s.mu.Lock()
		s.fail = fail
		s.mu.Unlock()
		f := h.write(testSchema, 5)
		p, err := h.tab.Prepare(h.ctx, &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{f}, Dead: map[string]*roaring.Bitmap{a.Path: dead(1)}})
		require.NoError(t, err)
		require.ErrorContains(t, p.Upload(h.ctx), "no luck", fail)
	}
	s.fail = ""
	h.check()
}

// Every object has a name of its own; the hint is the one that is overwritten.
func TestRule17NamesAreNeverReused(t *testing.T) {
	h := newHarness(t, 2, 17)
	s := &failingStore{Store: h.store}
	h.tab.o.Store = s
	for range 15 {
		h.commit(h.random())
		require.NoError(t, h.tab.WriteHint(h.ctx))
	}
	seen := map[string]bool{}
	for _, key := range s.puts {
		if strings.HasSuffix(key, "/version-hint.text") {
			continue
		}
		require.False(t, seen[key], key)
		seen[key] = true
	}
	b, err := h.store.Get(h.ctx, "public/t/metadata/version-hint.text")
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(h.tab.Metadata(), "/metadata/"+string(b)+".metadata.json"))
}

// A v2 delete file that named files of several partitions would be ignored for
// all but one, and rows would come twice.
func TestRule16OneDeleteFilePerPartition(t *testing.T) {
	h := newHarness(t, 2, 16)
	spec, err := iceberg.NewPartitionSpecOpts(iceberg.WithSpecID(1),
		iceberg.AddPartitionFieldBySourceID(2, "name", iceberg.IdentityTransform{}, testSchema, nil))
	require.NoError(t, err)
	m, err := table.NewMetadata(testSchema, &spec, table.UnsortedSortOrder, h.tab.uri, nil)
	require.NoError(t, err)
	b, err := marshalForeign(m)
	require.NoError(t, err)
	h.tab.meta, err = parseMetadata(b)
	require.NoError(t, err)
	spec = h.tab.meta.specs[0]
	c := &lake.Change{Stamp: h.stamp("snapshot")}
	for i := range 24 {
		w, err := h.tab.newFile(h.tab.meta, testSchema, spec, map[int]any{spec.Field(0).FieldID: []string{"east", "west"}[i%2]})
		require.NoError(t, err)
		var ids []int64
		for range 10 {
			h.next++
			ids = append(ids, h.next)
		}
		require.NoError(t, w.Write(record(t, testSchema, ids)))
		f, err := w.Close(h.ctx)
		require.NoError(t, err)
		h.rows[f.Path] = ids
		c.Add = append(c.Add, f)
	}
	h.commit(c)
	for i := range 12 {
		d := map[string]*roaring.Bitmap{}
		for _, f := range h.tab.Files() {
			if i < 8 {
				d[f.Path] = dead(uint32(i))
			}
		}
		if i == 8 {
			d[c.Add[0].Path] = dead(8, 9) // with what died before: all of it
		}
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Dead: d})
		for d := range h.tab.deleteSet {
			require.Contains(t, []any{"east", "west"}, d.entry.file.Partition()[spec.Field(0).FieldID])
			for path := range d.rows {
				require.Equal(t, d.partition, h.tab.byPath[path].partition)
			}
		}
		require.LessOrEqual(t, len(h.tab.deleteSet), liveDeletes)
		h.sameAsLoaded()
	}
	require.Equal(t, h.want(), h.scan())

	// And where another writer did make such a file, it counts as readers
	// count it: for its own partition alone.
	east, west := h.tab.files[1], h.tab.files[2]
	require.NotEqual(t, east.partition, west.partition)
	p := &prepared{t: h.tab, meta: h.tab.meta, snapshotID: 1, sequence: h.tab.meta.lastSequence}
	require.NoError(t, p.writeDeletes(east, true, map[string]*roaring.Bitmap{east.path: dead(9), west.path: dead(9)}))
	require.NoError(t, p.Upload(h.ctx))
	d := &deleteFile{entry: p.addDeletes[0].entry, partition: east.partition}
	require.NoError(t, h.tab.loadPositions(h.ctx, d))
	require.Len(t, d.rows, 1)
	require.NotNil(t, d.rows[east.path])
}

// Row ids: each snapshot starts where the last ended, and a file keeps its ids
// for life, whatever manifests it is copied through.
func TestRowLineage(t *testing.T) {
	h := newHarness(t, 3, 9)
	ids := map[string]int64{}
	next := int64(0)
	for range 60 {
		before := h.tab.Footprint().SnapshotID
		h.commit(h.random())
		s := h.metadata().CurrentSnapshot()
		if s == nil || s.SnapshotID == before {
			continue
		}
		require.Equal(t, next, *s.FirstRowID)
		require.GreaterOrEqual(t, *s.AddedRows, int64(0))
		next = *s.FirstRowID + *s.AddedRows
		require.Equal(t, next, h.metadata().NextRowID())
		for path, f := range h.sameAsLoaded().byPath {
			id := *f.entry.file.FirstRowID()
			if was, ok := ids[path]; ok {
				require.Equal(t, was, id)
			} else {
				require.GreaterOrEqual(t, id, *s.FirstRowID)
				require.LessOrEqual(t, id+f.rows, next)
			}
			ids[path] = id
		}
	}
	type span struct{ from, to int64 }
	var spans []span
	for path, id := range ids {
		spans = append(spans, span{id, id + int64(len(h.rows[path]))})
	}
	for i, a := range spans {
		for _, b := range spans[:i] {
			require.True(t, a.to <= b.from || b.to <= a.from, "row ids overlap")
		}
	}
}

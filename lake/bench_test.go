package lake

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"firn/lake/index"
	"firn/lake/partition"
	"firn/wal"
)

// The columns of the tables measured here, and a row's values in both forms.
var benchTable = &wal.Table{
	OID: 1, Schema: "public", Name: "events", ReplicaIdentity: 'd', Key: []int{0}, MaxAttNum: 6, Usable: true,
	Columns: []wal.TableColumn{
		{AttNum: 1, Name: "id", NotNull: true, Type: wal.TypeInfo{OID: 20, Schema: "pg_catalog", Name: "int8"}},
		{AttNum: 2, Name: "user_id", Type: wal.TypeInfo{OID: 23, Schema: "pg_catalog", Name: "int4"}},
		{AttNum: 3, Name: "kind", Type: wal.TypeInfo{OID: 25, Schema: "pg_catalog", Name: "text"}},
		{AttNum: 4, Name: "ok", Type: wal.TypeInfo{OID: 16, Schema: "pg_catalog", Name: "bool"}},
		{AttNum: 5, Name: "created_at", Type: wal.TypeInfo{OID: 1184, Schema: "pg_catalog", Name: "timestamptz"}},
		{AttNum: 6, Name: "f1", Type: wal.TypeInfo{OID: 701, Schema: "pg_catalog", Name: "float8"}},
	},
}

// benchRow makes rows without allocating. Not for two goroutines.
type benchRow struct {
	tuple wal.Tuple
	row   [][]byte
	id    [8]byte
	text  []byte
}

func newBenchRow() *benchRow {
	r := &benchRow{text: make([]byte, 0, 32)}
	t := func(s string) wal.Value { return wal.Value{Kind: 't', Data: []byte(s)} }
	r.tuple = wal.Tuple{{}, t("123456"), t("an order"), t("t"), t("2026-02-03 04:05:06.789012+00"), t("0.3333333333333333")}
	r.row = [][]byte{r.id[:], binary.BigEndian.AppendUint32(nil, 123456), []byte("an order"), {1},
		binary.BigEndian.AppendUint64(nil, 8e14), binary.BigEndian.AppendUint64(nil, math.Float64bits(1.0/3))}
	return r
}

func (r *benchRow) stream(id int) wal.Tuple {
	r.text = strconv.AppendInt(r.text[:0], int64(id), 10)
	r.tuple[0] = wal.Value{Kind: 't', Data: r.text}
	return r.tuple
}

func (r *benchRow) copied(id int) [][]byte {
	binary.BigEndian.PutUint64(r.id[:], uint64(id))
	return r.row
}

// nowhere is a TableStore whose files are thrown away.
type nowhere struct {
	TableStore
	files atomic.Int64
}

func (n *nowhere) NewFile(*iceberg.Schema, *partition.Place) (FileWriter, error) {
	return &lost{path: strconv.FormatInt(n.files.Add(1), 10)}, nil
}

type lost struct {
	path string
	rows int64
}

func (l *lost) Path() string                      { return l.path }
func (l *lost) Write(rec arrow.RecordBatch) error { l.rows += rec.NumRows(); return nil }
func (l *lost) Bytes() int64                      { return 0 }
func (l *lost) Abort()                            {}
func (l *lost) Close(context.Context) (*NewFile, error) {
	return &NewFile{Path: l.path, Rows: l.rows}, nil
}

type unpublished struct{ Prepared }

func (unpublished) Move() Move { return Move{SnapshotID: 1} }

func (n *nowhere) Prepare(context.Context, *Change) (Prepared, error) { return unpublished{}, nil }
func (n *nowhere) Adopt(Prepared)                                     {}

// benchLake is a table of no lake; end waits for its encoders.
func benchLake(tb testing.TB) (s *session, t *Table, end func()) {
	layout, err := NewLayout(benchTable, nil, 0)
	require.NoError(tb, err)
	var encoders sync.WaitGroup
	room := &encoding{bytes: semaphore.NewWeighted(encodingBytesMax), cpus: semaphore.NewWeighted(2), resolving: semaphore.NewWeighted(resolversMax), mem: memory.DefaultAllocator}
	t = &Table{
		Ident: Ident{"public", "events"}, store: &nowhere{}, room: room, files: map[uint32]*dataFile{}, batches: map[uint32]*batch{},
		spawn: func(fn func(context.Context) error) {
			encoders.Go(func() {
				if err := fn(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
					tb.Error(err)
				}
			})
		},
	}
	require.NoError(tb, t.use(tb.Context(), layout))
	t.wire([]int{0, 1, 2, 3, 4, 5})
	t.index, err = index.Open(tb.TempDir(), t.key.options())
	require.NoError(tb, err)
	require.NoError(tb, t.index.CommitLoad(0, 0, nil))
	tb.Cleanup(func() { require.NoError(tb, t.index.Close()) })
	return &session{Lake: New(Options{}), room: room}, t, func() { t.roll(); encoders.Wait() }
}

// epoch seals and publishes what has been done.
func benchEpoch(tb testing.TB, t *Table, no uint64) {
	s, err := t.seal(tb.Context())
	require.NoError(tb, err)
	require.NoError(tb, s.build(tb.Context(), Stamp{Epoch: no, CommitTime: time.Unix(0, 0)}))
	require.NoError(tb, t.published(s, no, time.Unix(0, 0)))
}

// BenchmarkCopy is a row of a COPY on its way into a batch, its key into the index.
func BenchmarkCopy(b *testing.B) {
	s, t, end := benchLake(b)
	require.NoError(b, t.index.Reset())
	row := newBenchRow()
	b.ReportAllocs()
	require.NoError(b, t.index.Load(0, func(put func(index.Key, index.Loc) error) error {
		c := benchCopier(b, s, t, put)
		for i := range b.N {
			if err := c.take(b.Context(), row.copied(i)); err != nil {
				b.Fatal(err)
			}
		}
		require.NoError(b, c.flush(b.Context()))
		c.fan.endAll()
		return nil
	}))
	end()
}

func benchCopier(tb testing.TB, s *session, t *Table, put func(index.Key, index.Loc) error) *copier {
	rows, err := newRowBuilder(s.room.mem, t.layout)
	require.NoError(tb, err)
	c := &copier{session: s, table: t, progress: &progress{}, key: newRowKey(t.layout), put: put,
		mu: &sync.Mutex{}, added: new([]*dataFile), rows: rows, open: &batch{}}
	c.fan, err = newFan(t.store, t.layout, t.room, c.begin)
	require.NoError(tb, err)
	return c
}

// BenchmarkInsert and BenchmarkUpdate are a row of the stream, with an epoch
// (seal, merge) each million; updates are of keys at random, two million there are.
func BenchmarkInsert(b *testing.B) {
	_, t, end := benchLake(b)
	row := newBenchRow()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := t.insert(b.Context(), row.stream(i)); err != nil {
			b.Fatal(err)
		}
		if i%1e6 == 999_999 {
			benchEpoch(b, t, uint64(i))
		}
	}
	end()
}

func BenchmarkUpdate(b *testing.B) {
	const keys = 2_000_000
	_, t, end := benchLake(b)
	row := newBenchRow()
	for i := range keys {
		if err := t.insert(b.Context(), row.stream(i)); err != nil {
			b.Fatal(err)
		}
	}
	benchEpoch(b, t, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := t.update(b.Context(), nil, row.stream(rng.IntN(keys))); err != nil {
			b.Fatal(err)
		}
		if i%1e6 == 999_999 {
			benchEpoch(b, t, uint64(i))
		}
	}
	end()
}

// TestRowsDoNotAllocate: what a batch or an overlay grows by is shared by its
// rows, so that there is less than one allocation in a hundred rows.
func TestRowsDoNotAllocate(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: 500,000 rows")
	}
	s, table, end := benchLake(t)
	row := newBenchRow()
	per := func(n int, fn func(i int)) float64 {
		return testing.AllocsPerRun(1, func() {
			for i := range n {
				fn(i)
			}
		}) / float64(n)
	}
	const rows = 100_000
	next := 0
	require.Less(t, per(rows, func(int) {
		if err := table.insert(context.Background(), row.stream(next)); err != nil {
			t.Error(err)
		}
		next++
	}), 0.01, "insert")
	benchEpoch(t, table, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	require.Less(t, per(rows, func(int) {
		if err := table.update(context.Background(), nil, row.stream(rng.IntN(next))); err != nil {
			t.Error(err)
		}
	}), 0.01, "update")
	copier := benchCopier(t, s, table, func(index.Key, index.Loc) error { return nil })
	require.Less(t, per(rows, func(i int) {
		if err := copier.take(context.Background(), row.copied(i)); err != nil {
			t.Error(err)
		}
	}), 0.01, "copy")
	require.NoError(t, copier.flush(t.Context()))
	copier.fan.endAll()
	end()
}

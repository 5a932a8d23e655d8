package wire_test

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/wal"
)

var appendFlag = flag.Duration("wire.append", 10*time.Second, "how long TestForeignAppends lasts")

// TestForeignAppends has PyIceberg append to a table of its own through the
// catalog, one commit after the other, beside a busy stream: neither is
// disturbed, and both are whole in the end.
func TestForeignAppends(t *testing.T) {
	t.Parallel()
	s := laketest.MinIO(t)
	py := laketest.PyIceberg(t)
	r := newRig(t)
	r.o.Warehouse = "s3://" + s.Bucket(t) + "/shop"
	r.o.Object = object.Options{Endpoint: s.Endpoint, Region: s.Region, AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}
	f := newFaulty(r, nil)
	server := httptest.NewServer(catalog.NewServer(f.e.Log, f.e.Store, catalog.ServerOptions{Warehouse: r.o.Name, Logger: r.o.Logger}))
	defer server.Close()
	py.Catalog(t, "lake", map[string]string{"uri": server.URL, "warehouse": r.o.Name}, s.Properties())
	py.Python(t, `
cat = catalog('lake')
cat.create_namespace('mine')
cat.create_table('mine.notes', pa.schema([pa.field('id', pa.int64(), nullable=False), pa.field('text', pa.string())]))`, nil, nil)

	before := f.e.Lake.Counters().Epochs.Load()
	appends, slowest, behind := 0, time.Duration(0), 0.0
	began := time.Now()
	for ; time.Since(began) < *appendFlag; appends++ {
		one := time.Now()
		require.NoError(t, py.TryAppend(t.Context(), "lake", "mine.notes", []map[string]any{
			{"id": 2 * appends, "text": "first"}, {"id": 2*appends + 1, "text": nil}}), "append %d", appends)
		slowest = max(slowest, time.Since(one))
		behind = max(behind, f.e.Lake.Status().Freshness)
	}
	lasted := time.Since(began)
	epochs := f.e.Lake.Counters().Epochs.Load() - before
	t.Logf("%d appends within %s, the slowest %s, beside %d epochs; a commit was at most %.1f s old", appends, lasted.Round(time.Millisecond),
		slowest.Round(time.Millisecond), epochs, behind)
	require.Greater(t, epochs, int64(lasted.Seconds()/5), "the stream stood still") // a slow machine's epochs take seconds
	require.Less(t, behind, 10.0)
	require.Zero(t, f.outages.Load())
	require.EqualValues(t, 2*appends, py.Count(t, "lake", "mine.notes", laketest.ScanOptions{}))
	want := laketest.Rows([]string{"id", "text"}, nil)
	for i := range 2 * appends {
		text := "first"
		if i%2 == 1 {
			text = laketest.Null
		}
		want = add(want, fmt.Sprint(i), text)
	}
	require.Empty(t, laketest.Diff(want, py.Scan(t, "lake", "mine.notes", laketest.ScanOptions{}).Multiset()))
	require.Len(t, py.Snapshots(t, "lake", "mine.notes"), appends)
	f.exact()
	require.EqualValues(t, 2*appends, py.Count(t, "lake", "mine.notes", laketest.ScanOptions{}), "the stream's last entries keep it")
}

// TestNameTaken makes tables in Postgres under names that the lake has already,
// of a table and a view that others made: those stay theirs, ours are skipped, and
// the rest goes on.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); insert into a values (1)")
	e, stop := r.run()
	r.same(e, "public.a")
	schema := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "x", Type: iceberg.PrimitiveTypes.Int64})
	made, err := newElsewhere(t, r).cat.CreateTable(t.Context(), []string{"public", "taken"}, schema)
	require.NoError(t, err)
	_, err = e.Log.Commit(t.Context(), func(next *catalog.State) error {
		next.PutView(catalog.Ident{Namespace: []string{"public"}, Name: "seen"}, catalog.View{UUID: "1", Metadata: "there"})
		return nil
	})
	require.NoError(t, err)
	r.exec("create table taken (id int primary key); insert into taken values (1); create table seen (id int primary key)")
	skipped := func() {
		t.Helper()
		for _, name := range []string{"public.taken", "public.seen"} {
			r.becomes(e, name, lake.Skipped)
			require.Contains(t, state(e, name).Reason, "which firn did not make")
		}
	}
	skipped()
	restarts := e.Lake.Counters().Restarts.Load()
	r.exec("insert into a values (2); insert into taken values (2)")
	r.same(e, "public.a")
	r.settled(e)
	skipped()
	require.Equal(t, restarts, e.Lake.Counters().Restarts.Load())
	require.NoError(t, stop())
	e, stop = r.run()
	skipped()
	r.exec("drop table taken; drop table seen; insert into a values (3)")
	r.settled(e)
	r.same(e, "public.a")
	require.NoError(t, stop())
	theirs, ok := e.Log.Head().Table(catalog.Ident{Namespace: []string{"public"}, Name: "taken"})
	require.True(t, ok)
	require.Equal(t, made.MetadataLocation(), theirs.Metadata)
	require.Nil(t, theirs.Mirror)
}

func add(m laketest.Multiset, row ...string) laketest.Multiset {
	one := laketest.Rows(m.Columns, [][]string{row})
	for k, n := range one.Count {
		m.Count[k] += n
	}
	m.Len++
	return m
}

// TestRule02Idle is idle beside a busy database of the same cluster: the slot
// advances, by WAL and by time, and never past the log; and restarts find no
// other hand at it.
func TestRule02Idle(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]struct {
		bytes wal.LSN
		after time.Duration
	}{"by WAL": {256 << 10, time.Hour}, "by time": {1 << 40, 500 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.o.AdvanceBytes, r.o.AdvanceAfter = limits.bytes, limits.after
			r.exec("create table a (id int primary key); insert into a values (1)")
			r.exec("create database busy")
			e, stop := r.run()
			r.same(e, "public.a")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			busy := make(chan error, 1)
			go func() { busy <- r.busy(ctx) }()

			epoch := r.head(e).Epoch
			advances := e.Lake.Counters().Advances.Load()
			first := r.confirmed()
			for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
				confirmed := r.confirmed() // before the head is read
				require.LessOrEqual(t, confirmed, r.head(e).LSN, "the slot has passed the log")
			}
			last := r.confirmed()
			require.Greater(t, last, first+1<<20, "the slot has not followed")
			require.Greater(t, e.Lake.Counters().Advances.Load(), advances)
			require.Equal(t, epoch, r.head(e).Epoch, "an epoch was made of nothing")
			for range 2 {
				require.NoError(t, stop())
				time.Sleep(300 * time.Millisecond) // the other database writes on
				e, stop = r.run()
				r.exec("insert into a select max(id) + 1 from a")
				r.same(e, "public.a")
			}
			cancel()
			require.NoError(t, <-busy)
			require.NoError(t, stop())
		})
	}
}

// confirmed is the slot's confirmed_flush_lsn.
func (r *rig) confirmed() wal.LSN {
	r.t.Helper()
	var text string
	require.NoError(r.t, r.conn.QueryRow(r.t.Context(), "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1", r.o.Slot).Scan(&text))
	at, err := wal.ParseLSN(text)
	require.NoError(r.t, err)
	return at
}

// busy writes to database busy of the same cluster until ctx ends.
func (r *rig) busy(ctx context.Context) error {
	config, err := pgx.ParseConfig(r.url)
	if err != nil {
		return err
	}
	config.Database = "busy"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "create table noise (v text)"); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if _, err := conn.Exec(ctx, "insert into noise select repeat(md5(i::text), 10) from generate_series(1, 300) i"); err != nil && ctx.Err() == nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// TestRule05 waits for one's own commit under synchronous_commit=off: when
// COMMIT returns, pg_current_wal_lsn() may lie before it.
func TestRule05(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Freshness = time.Hour // what comes, comes because it is waited for
	r.exec("create table a (id int primary key)")
	e, stop := r.run()
	r.caughtUp(e)
	r.exec("alter system set wal_writer_delay = '300ms'")
	r.exec("select pg_reload_conf()")
	r.exec("set synchronous_commit = off")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	early := 0
	for i := range 10 {
		r.exec(fmt.Sprintf("insert into a values (%d)", i))
		var behind bool
		require.NoError(t, r.conn.QueryRow(ctx, "select pg_current_wal_lsn() < pg_current_wal_insert_lsn()").Scan(&behind))
		if behind {
			early++
		}
		at, err := e.Source.CommittedLSN(ctx) // as `firn wait` does
		require.NoError(t, err)
		_, err = e.Lake.Wait(ctx, at)
		require.NoError(t, err)
		require.Len(t, r.lake(e, "public.a"), i+1, "one's own commit is not in the lake")
	}
	require.NotZero(t, early, "Postgres flushed each commit at once: nothing was tested")
	require.NoError(t, stop())
}

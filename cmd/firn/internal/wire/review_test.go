package wire_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
	"firn/lake/object"
	"firn/wal"
)

// another opens a second connection to the rig's database.
func (r *rig) another() *pgx.Conn {
	r.t.Helper()
	c, err := pgx.Connect(r.t.Context(), r.url)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (r *rig) becomes(e *wire.Engine, table, is string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return state(e, table).State == is }, 20*time.Second, 10*time.Millisecond, "%s is %+v", table, state(e, table))
}

// TestTableDroppedWhileJoining drops a table that is loaded and waits for the
// stream to reach its floor.
func TestTableDroppedWhileJoining(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key)")
	var loaded atomic.Int32
	r.o.Fail = func(point string) {
		if point == "before-load-join" {
			loaded.Add(1)
		}
	}
	e, stop := r.run()
	r.same(e, "public.a")
	require.NoError(t, e.Lake.Hold(t.Context()))
	r.exec("create table b (id int primary key); insert into b values (1)")
	require.Eventually(t, func() bool { return loaded.Load() == 2 }, 10*time.Second, 10*time.Millisecond)
	r.exec("drop table b")
	r.becomes(e, "public.b", lake.Skipped)
	_, _, err := e.Lake.Cut(t.Context(), 1)
	require.ErrorContains(t, err, "past that LSN")
	r.exec("insert into a values (1)")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestBehindJoinsAtTheHead starts a lake with a table that is followed at a
// distance: it has to take what it lacks before it is called streaming.
func TestBehindJoinsAtTheHead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); create table b (id int primary key); insert into a values (1)")
	e, stop := r.run()
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())

	was := r.head(e).LSN
	r.exec("insert into a select i from generate_series(2, 100) i")
	var end string
	require.NoError(t, r.conn.QueryRow(t.Context(), "select pg_current_wal_flush_lsn()::text").Scan(&end))
	at, err := wal.ParseLSN(end)
	require.NoError(t, err)
	_, err = e.Log.Commit(t.Context(), func(next *catalog.State) error {
		id := catalog.Ident{Namespace: []string{"public"}, Name: "a"}
		tbl, _ := next.Table(id)
		tbl.Mirror = &catalog.Mirror{OID: tbl.Mirror.OID, LSN: was, State: lake.Behind}
		next.PutTable(id, tbl)
		next.LSN = at
		return nil
	})
	require.NoError(t, err)

	published, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.o.Fail = func(point string) {
		if point == "after-publish" {
			once.Do(func() { close(published); <-goOn })
		}
	}
	e, stop = r.run()
	select {
	case <-published:
		for _, h := range r.head(e).Tables {
			if h.Ident.Name == "a" && h.State == lake.Streaming {
				require.Len(t, r.lake(e, "public.a"), 100, "published as streaming at %s", r.head(e).LSN)
			}
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was published")
	}
	close(goOn)
	r.exec("insert into a values (1000)")
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
}

// TestLeftOutForAWhile leaves a table out of the mirror for the length of a run.
func TestLeftOutForAWhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); create table b (id int primary key); insert into a values (1)")
	run := func(meanwhile string, tables ...string) {
		t.Helper()
		e, stop := r.run()
		r.same(e, tables...)
		if meanwhile != "" {
			r.exec(meanwhile)
			r.same(e, "public.b")
		}
		require.NoError(t, stop())
	}
	run("", "public.a", "public.b")
	r.o.Patterns = []string{"public.b"}
	run("insert into a values (2); insert into b values (2)", "public.b")
	r.o.Patterns = nil
	run("", "public.a", "public.b")

	r.exec("alter table a drop constraint a_pkey")
	run("insert into a values (3); insert into b values (3)", "public.b")
	r.exec("alter table a add primary key (id)")
	run("", "public.a", "public.b")
}

// TestRenamedForAWhile has a table under another name for the length of a run,
// which can't follow it: what it has missed comes when it has its name again, and
// the slot does not wait for that.
func TestRenamedForAWhile(t *testing.T) {
	t.Parallel()
	for _, was := range []string{lake.Streaming, lake.Behind} {
		t.Run(was, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.exec("create table a (id int primary key); create table b (id int primary key); insert into a values (1)")
			e, stop := r.run()
			r.same(e, "public.a", "public.b")
			require.NoError(t, stop())
			_, err := e.Log.Commit(t.Context(), func(next *catalog.State) error {
				id := catalog.Ident{Namespace: []string{"public"}, Name: "a"}
				tbl, _ := next.Table(id)
				tbl.Mirror = &catalog.Mirror{OID: tbl.Mirror.OID, LSN: next.LSN, State: was}
				next.PutTable(id, tbl)
				return nil
			})
			require.NoError(t, err)
			r.exec("insert into a values (2); alter table a rename to elsewhere; insert into elsewhere values (3)")
			for i := range 2 {
				e, stop = r.run()
				r.exec("insert into elsewhere values ($1)", 10+i)
				r.exec("insert into b values ($1)", i)
				r.same(e, "public.b")
				require.Equal(t, lake.Quarantined, state(e, "public.a").State)
				require.Contains(t, state(e, "public.a").Reason, "renamed from public.a to public.elsewhere")
				require.Eventually(t, func() bool {
					var text string
					require.NoError(t, r.conn.QueryRow(t.Context(), "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'firn_shop'").Scan(&text))
					at, err := wal.ParseLSN(text)
					require.NoError(t, err)
					return at >= r.head(e).LSN
				}, 20*time.Second, 50*time.Millisecond, "the slot stands still")
				require.NoError(t, stop())
			}
			r.exec("alter table elsewhere rename to a")
			e, stop = r.run()
			r.exec("insert into a values (4)")
			r.same(e, "public.a", "public.b")
			require.NoError(t, stop())
		})
	}
}

// TestTakenOutOfThePublication has another hand take a table out of the
// publication, under a running mirror and between two runs.
func TestTakenOutOfThePublication(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); insert into a values (1)")
	e, stop := r.run()
	r.same(e, "public.a")
	r.exec("alter publication firn_shop drop table a")
	r.exec("insert into a values (2)")
	r.settled(e)
	r.exec("insert into a values (3)")
	r.same(e, "public.a")
	require.NoError(t, stop())
	r.exec("alter publication firn_shop drop table a")
	r.exec("insert into a values (4)")
	e, stop = r.run()
	r.exec("insert into a values (5)")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestColumnSwappedInTheBacklog replaces a column by another of its name and
// type after an update that the stream brings only when that has happened.
func TestColumnSwappedInTheBacklog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, n int); insert into a select i, i from generate_series(1, 100) i")
	e, stop := r.run()
	r.same(e, "public.a")
	require.NoError(t, stop())
	r.exec("update a set n = 7 where id < 10")
	r.exec("alter table a drop n; alter table a add n int")
	e, stop = r.run()
	r.settled(e)
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestToastedKey updates rows whose key is stored out of line: Postgres sends
// it with the old key only.
func TestToastedKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id text primary key, body text, n int);
		alter table a alter id set storage external, alter body set storage external;
		insert into a select i || repeat('k', 2500), repeat('b', 5000), 0 from generate_series(1, 20) i`)
	e, stop := r.run()
	r.same(e, "public.a")
	r.exec("update a set n = 1; update a set n = 2 where id like '1%'; delete from a where id like '2%'; update a set body = 'b' where n = 1")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestResyncWithinReplay has a change that only a fresh load can follow among
// the changes parked for a table that is about to join.
func TestResyncWithinReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, v text); insert into a select i, 'v' from generate_series(1, 1000) i")
	loading, parked := make(chan struct{}), make(chan struct{})
	var inLoad, joins sync.Once
	r.o.Fail = func(point string) {
		switch point {
		case "in-load":
			inLoad.Do(func() { close(loading); <-parked })
		case "before-load-join":
			joins.Do(func() {
				r.exec("alter table a add d int not null default 5; update a set v = repeat('x', 300)")
				r.exec("update a set v = 'end' where id < 500")
			})
		}
	}
	e, stop := r.run()
	<-loading
	for i := range 20 {
		r.exec("update a set v = repeat('y', 300) || $1::text", fmt.Sprint(i))
	}
	require.Eventually(t, func() bool { return e.Lake.Counters().SpilledBytes.Load() > 5<<20 }, 20*time.Second, 10*time.Millisecond)
	close(parked)
	r.becomes(e, "public.a", lake.Streaming)
	r.same(e, "public.a")
	require.Zero(t, e.Lake.Counters().Errors.Load())
	require.NoError(t, stop())
}

// TestStopWhileTheStreamWaits stops a mirror whose spill budget is full and
// whose load can't begin.
func TestStopWhileTheStreamWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.SpillBytes = 1 << 20
	r.exec("create table a (id int primary key)")
	e, stop := r.run()
	r.same(e, "public.a")
	open, err := r.another().Begin(t.Context())
	require.NoError(t, err)
	_, err = open.Exec(t.Context(), "insert into a values (1)") // a slot waits for its end
	require.NoError(t, err)
	r.exec("create table b (id int primary key, v text)")
	require.Eventually(t, func() bool {
		r.exec("insert into b select i, repeat('x', 100) from generate_series(1, 5000) i; delete from b")
		return e.Lake.Counters().SpilledBytes.Load() > 500<<10
	}, 20*time.Second, 50*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- stop() }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(8 * time.Second):
		t.Error("it does not stop")
	}
	require.NoError(t, open.Rollback(t.Context()))
}

// slowStore takes its time for data files.
type slowStore struct {
	object.Store
	delay time.Duration
}

func (s slowStore) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	if strings.HasSuffix(key, ".parquet") {
		select {
		case <-time.After(s.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Store.Put(ctx, key, body, size)
}

// TestToastOfALoadNotYetUploaded replays updates whose unchanged values stand
// in files of the load that are still on their way.
func TestToastOfALoadNotYetUploaded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id int primary key, body text, n int); alter table a alter body set storage external;
		insert into a select i, repeat('b', 5000), 0 from generate_series(1, 50) i`)
	parked := make(chan struct{})
	r.o.Fail = func(point string) {
		if point == "in-load" {
			<-parked
		}
	}
	store, log, err := wire.OpenStore(t.Context(), r.o)
	require.NoError(t, err)
	e, err := wire.Connect(t.Context(), r.o, slowStore{store, time.Second}, log)
	require.NoError(t, err)
	defer e.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.Lake.Run(ctx) }()
	require.Eventually(t, func() bool { return len(e.Lake.Status().Tables) > 0 }, 10*time.Second, 10*time.Millisecond)
	r.exec("update a set n = 1")
	require.Eventually(t, func() bool { return e.Lake.Counters().SpilledBytes.Load() > 1000 }, 10*time.Second, 10*time.Millisecond)
	close(parked)
	require.Eventually(t, func() bool { return len(done) > 0 || e.Lake.Status().Ready() }, 20*time.Second, 10*time.Millisecond)
	require.Empty(t, done)
	r.same(e, "public.a")
	cancel()
	require.NoError(t, <-done)
}

// failingStore refuses to read data files while it is told to.
type failingStore struct {
	object.Store
	fails *atomic.Bool
}

func (s failingStore) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if s.fails.Load() && strings.HasSuffix(key, ".parquet") {
		return nil, fmt.Errorf("read %s: out of order", key)
	}
	return s.Store.GetRange(ctx, key, off, n)
}

// TestStartFailsAndIsTriedAgain fails a start when the stream is open already:
// the next one, in the same process, must not find the slot in use.
func TestStartFailsAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); insert into a select i from generate_series(1, 100) i")
	e, stop := r.run()
	r.same(e, "public.a")
	require.NoError(t, stop())
	require.NoError(t, os.RemoveAll(r.o.StateDir)) // the index has to be read anew
	store, log, err := wire.OpenStore(t.Context(), r.o)
	require.NoError(t, err)
	fails := &atomic.Bool{}
	fails.Store(true)
	e, err = wire.Connect(t.Context(), r.o, failingStore{store, fails}, log)
	require.NoError(t, err)
	defer e.Close()
	require.ErrorContains(t, e.Lake.Run(t.Context()), "out of order")
	fails.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- e.Lake.Run(ctx) }()
	r.exec("insert into a values (1000)")
	require.Eventually(t, func() bool { return len(done) > 0 || e.Lake.Status().Running }, 30*time.Second, 10*time.Millisecond)
	require.Empty(t, done)
	require.Less(t, time.Since(began), 5*time.Second)
	r.same(e, "public.a")
	cancel()
	require.NoError(t, <-done)
}

// TestDroppedWithABacklog drops a table whose last rows the stream has not
// brought yet: they still come into the lake.
func TestDroppedWithABacklog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); create table b (id int primary key)")
	e, stop := r.run()
	r.same(e, "public.a", "public.b")
	require.NoError(t, e.Lake.Hold(t.Context()))
	r.exec("insert into a values (1)")
	r.exec("drop table a")
	time.Sleep(4 * r.o.Poll)
	_, _, err := e.Lake.Cut(t.Context(), 1)
	require.ErrorContains(t, err, "past that LSN")
	r.exec("insert into b values (1)")
	r.becomes(e, "public.a", lake.Skipped)
	r.same(e, "public.b")
	require.Len(t, r.lake(e, "public.a"), 1)
	require.NoError(t, stop())
}

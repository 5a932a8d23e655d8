package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/iceberg-go/catalog/rest"
	icetable "github.com/apache/iceberg-go/table"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
)

// refused runs the mirror and wants it to end with a refusal of that code,
// leaving the lake as it was.
func (r *rig) refused(code int, says string) {
	r.t.Helper()
	e, err := wire.Open(r.t.Context(), r.o)
	require.NoError(r.t, err)
	defer e.Close()
	before := e.Log.Head().Number
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	err = e.Lake.Run(ctx)
	var refusal *lake.Refusal
	require.True(r.t, errors.As(err, &refusal), "got %v", err)
	require.Equal(r.t, code, refusal.Code)
	require.Contains(r.t, refusal.Error(), says)
	after, err := e.Log.Refresh(r.t.Context())
	require.NoError(r.t, err)
	require.Equal(r.t, before, after.Number, "the lake was written to")
}

// TestRule04 plays out every way in which source and lake part company.
func TestRule04(t *testing.T) {
	t.Parallel()
	setUp := func(t *testing.T) *rig {
		r := newRig(t)
		r.exec("create table a (id int primary key); insert into a values (1)")
		e, stop := r.run()
		r.same(e, "public.a")
		require.NoError(t, stop())
		r.exec("insert into a values (2)")
		return r
	}
	t.Run("advanced by another hand", func(t *testing.T) {
		r := setUp(t)
		r.exec("select pg_replication_slot_advance('firn_shop', pg_current_wal_lsn())")
		r.refused(lake.CodeDiverged, "the slot was recreated, or another program advanced it")
	})
	t.Run("recreated", func(t *testing.T) {
		r := setUp(t)
		r.exec("select pg_drop_replication_slot('firn_shop')")
		r.exec("select pg_create_logical_replication_slot('firn_shop', 'pgoutput')")
		r.refused(lake.CodeDiverged, "the slot was recreated")
	})
	t.Run("dropped", func(t *testing.T) {
		r := setUp(t)
		r.exec("select pg_drop_replication_slot('firn_shop')")
		r.refused(lake.CodeDiverged, "slot is gone")
	})
	t.Run("lost", func(t *testing.T) {
		r := setUp(t)
		r.exec("alter system set max_slot_wal_keep_size = '1MB'")
		r.exec("select pg_reload_conf()")
		for range 4 {
			r.exec("insert into a select i from generate_series(10, 5000) i on conflict do nothing")
			r.exec("select pg_switch_wal()")
		}
		r.exec("checkpoint")
		r.refused(lake.CodeDiverged, "invalidated the replication slot")
	})
	t.Run("another database", func(t *testing.T) {
		r := setUp(t)
		r.exec("create database other")
		config, err := pgx.ParseConfig(r.url)
		require.NoError(t, err)
		r.o.Postgres = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/other", config.Port)
		other, err := pgx.Connect(t.Context(), r.o.Postgres)
		require.NoError(t, err)
		defer other.Close(t.Context())
		_, err = other.Exec(t.Context(), "create table a (id int primary key)")
		require.NoError(t, err)
		r.refused(lake.CodeDiverged, `mirrors database "shop"`)
	})
	t.Run("another cluster", func(t *testing.T) {
		r, second := setUp(t), newRig(t)
		r.o.Postgres = second.url
		r.refused(lake.CodeDiverged, "system identifier")
	})
	for name, recover := range map[string]bool{"restored from an older image": false, "promoted before the lake's end": true} {
		t.Run(name, func(t *testing.T) {
			r := setUp(t)
			e, stop := r.run()
			r.same(e, "public.a")
			require.NoError(t, stop())
			require.NoError(t, r.pg.Stop(t.Context()))
			image := r.pg.Dir() + ".image"
			t.Cleanup(func() { os.RemoveAll(image) })
			sh(t, "cp", "-a", r.pg.Dir(), image)
			require.NoError(t, r.pg.Restart(t.Context()))
			r.reconnect()
			r.exec("insert into a select i from generate_series(100, 3000) i")
			e, stop = r.run()
			r.same(e, "public.a")
			require.NoError(t, stop())
			require.NoError(t, r.pg.Stop(t.Context()))
			sh(t, "sh", "-c", fmt.Sprintf("rm -rf %[1]s/* && cp -a %[2]s/. %[1]s/", r.pg.Dir(), image))
			if recover {
				signal := filepath.Join(r.pg.Dir(), "recovery.signal")
				sh(t, "sh", "-c", fmt.Sprintf("touch %s && chown --reference=%s %s && echo \"restore_command='false'\" >> %s/postgresql.auto.conf", signal, r.pg.Dir(), signal, r.pg.Dir()))
			}
			require.NoError(t, r.pg.Restart(t.Context()))
			r.reconnect()
			if recover {
				require.Eventually(t, func() bool {
					var in bool
					return r.conn.QueryRow(t.Context(), "select pg_is_in_recovery()").Scan(&in) == nil && !in
				}, 30*time.Second, 50*time.Millisecond)
				// It goes on past the lake's position: only the history tells.
				r.exec("insert into a select i from generate_series(10000, 30000) i")
				r.refused(lake.CodeDiverged, "left timeline 1")
			} else {
				r.refused(lake.CodeDiverged, "restored from an older copy")
			}
		})
	}
}

func sh(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestRule23 has a foreign client rewrite a table's files while the stream goes
// on: the index follows by reading them, and the other table does not wait.
func TestRule23(t *testing.T) {
	t.Parallel()
	t.Run("at once", func(t *testing.T) { rule23(t, 0) })
	t.Run("at a distance", func(t *testing.T) { rule23(t, 100) })
}

func rule23(t *testing.T, catchUpRows int64) {
	r := newRig(t)
	r.o.CatchUpRows = catchUpRows
	r.exec(`create table a (id int primary key, v text); create table b (id int primary key);
		insert into a select i, 'v' from generate_series(1, 2000) i`)
	e, stop := r.run()
	r.same(e, "public.a", "public.b")
	r.exec("update a set v = 'w' where id % 3 = 0; delete from a where id % 7 = 0")
	r.same(e, "public.a")
	rewrite(t, r, e, "public.a")
	r.exec("update a set v = 'after' where id % 5 = 0; delete from a where id = 1; insert into a values (1, 'again'); insert into b values (1)")
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
	require.NoError(t, os.RemoveAll(r.o.StateDir)) // and once more from nothing
	e, stop = r.run()
	r.exec("update a set v = 'end' where id % 2 = 0")
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
}

// TestRule25 loads a table while more changes come for it than the spill budget
// holds: the stream stops reading until the load has ended, and nothing is lost.
func TestRule25(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.SpillBytes = 3 << 20
	r.exec("create table a (id int primary key, v text); insert into a select i, repeat('x', 200) from generate_series(1, 150000) i")
	e, stop := r.run()
	for range 12 { // some 15 MB of changes
		r.exec("update a set v = v || 'y' where id % 30 = 0")
	}
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestRule25Crash kills a load whose changes were parked: it starts again, and
// what was acknowledged meanwhile is not missing.
func TestRule25Crash(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table done (id int primary key); create table slow (id int primary key, v text); insert into slow select i, repeat('x', 100) from generate_series(1, 200000) i")
	r.o.Fail = func(point string) {
		if point == "before-load-join" {
			time.Sleep(100 * time.Millisecond)
		}
	}
	_, stop := r.run()
	for i := range 10 {
		r.exec(fmt.Sprintf("insert into done values (%d); update slow set v = 'n%d' where id %% 100 = %d", i, i, i))
	}
	stop() // mid-load or just after, nothing waits for it
	r.exec("insert into done values (100); update slow set v = 'later' where id < 50")
	e, stop := r.run()
	r.same(e, "public.done", "public.slow")
	require.NoError(t, stop())
}

// TestRule26ATruncateWhileOthersLoad: a TRUNCATE comes to wait for a table whose
// turn to load has not come. The load, which would wait behind it, stands aside.
func TestRule26ATruncateWhileOthersLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key); insert into a values (1); create table b (id int primary key); insert into b values (2); create table c (id int primary key); insert into c values (3)")
	user, err := pgx.Connect(t.Context(), r.url)
	require.NoError(t, err)
	truncated := make(chan error, 1)
	var once sync.Once
	r.o.Fail = func(point string) {
		if point != "in-load" {
			return
		}
		once.Do(func() { // a's rows are copied; the snapshot has b and c locked
			go func() { truncated <- user.PgConn().Exec(context.Background(), "truncate b").Close() }()
			assert.Eventually(t, func() bool {
				var n int
				err := r.conn.QueryRow(t.Context(), "select count(*) from pg_locks where relation = 'b'::regclass and not granted").Scan(&n)
				return err == nil && n > 0
			}, 20*time.Second, 10*time.Millisecond)
		})
	}
	e, stop := r.run()
	select {
	case err := <-truncated:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		require.Fail(t, "the user's TRUNCATE waits for ever")
	}
	require.NoError(t, user.Close(t.Context()))
	r.exec("insert into b values (4)")
	r.same(e, "public.a", "public.b", "public.c")
	require.NoError(t, stop())
}

// TestRule27 rewrites a table in ways that the stream does not show, and in one
// that it does.
func TestRule27(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, n int); insert into a select i, i from generate_series(1, 100) i")
	e, stop := r.run()
	r.same(e, "public.a")
	// Same type, other values, and no DML after: only the catalog tells.
	r.exec("alter table a alter n type int using n * 2")
	r.eventuallySame(e, "public.a")
	loads := e.Lake.Counters().RowsLoaded.Load()
	r.exec("truncate a; insert into a values (1, 1)")
	r.settled(e)
	r.same(e, "public.a")
	require.Equal(t, loads, e.Lake.Counters().RowsLoaded.Load(), "a TRUNCATE that the stream showed was taken for a rewrite")
	r.exec("vacuum full a")
	r.settled(e)
	r.exec("update a set n = 3")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestRule27Partitions: what happens to leaves is invisible in the stream, and
// stops that table.
func TestRule27Partitions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table p (id int, k int, primary key (id, k)) partition by range (k);
		create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
		create table other (id int primary key); insert into p select i, i % 20 from generate_series(1, 100) i`)
	e, stop := r.run()
	r.same(e, "public.p")
	r.exec("update p set k = (k + 11) % 20 where id % 3 = 0; delete from p where id = 5; insert into p values (1000, 1)")
	r.same(e, "public.p")
	r.exec("truncate p1")
	require.Eventually(t, func() bool { return state(e, "public.p").State == lake.Quarantined }, 20*time.Second, 50*time.Millisecond)
	require.Contains(t, state(e, "public.p").Reason, "partition")
	r.exec("insert into other values (1)")
	r.same(e, "public.other")
	require.NoError(t, stop())
}

// TestRule28 interleaves two streamed transactions that together don't fit the
// spill budget: only their commits would free it, so they are read unstreamed.
func TestRule28(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.SpillBytes = 2 << 20
	r.exec("alter system set logical_decoding_work_mem = '64kB'")
	r.exec("select pg_reload_conf()")
	r.exec("create table a (id int primary key, v text)")
	e, stop := r.run()
	r.same(e, "public.a")
	second, err := pgx.Connect(t.Context(), r.url)
	require.NoError(t, err)
	defer second.Close(context.Background())
	one, err := r.conn.Begin(t.Context())
	require.NoError(t, err)
	two, err := second.Begin(t.Context())
	require.NoError(t, err)
	for i := range 20 {
		_, err = one.Exec(t.Context(), fmt.Sprintf("insert into a select %d + i, repeat('a', 100) from generate_series(1, 1000) i", i*1000))
		require.NoError(t, err)
		_, err = two.Exec(t.Context(), fmt.Sprintf("insert into a select 1000000 + %d + i, repeat('b', 100) from generate_series(1, 1000) i", i*1000))
		require.NoError(t, err)
	}
	time.Sleep(500 * time.Millisecond)
	require.NoError(t, two.Commit(t.Context()))
	require.NoError(t, one.Commit(t.Context()))
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestRule30 drops a primary key: the table leaves the publication before its
// owner's UPDATE has failed for long, and only it stops.
func TestRule30(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, v int); create table b (id int primary key); insert into a values (1, 1)")
	e, stop := r.run()
	r.same(e, "public.a")
	r.exec("alter table a drop constraint a_pkey")
	require.Eventually(t, func() bool {
		_, err := r.conn.Exec(t.Context(), "update a set v = v + 1")
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, lake.Quarantined, state(e, "public.a").State)
	r.exec("insert into b values (1)")
	r.same(e, "public.b")
	require.NoError(t, stop())
}

// rewrite replaces all data files of a table by one, as a foreign client's
// compaction does: same rows, operation replace, through the REST server.
func rewrite(t *testing.T, r *rig, e *wire.Engine, table string) {
	t.Helper()
	server := httptest.NewServer(catalog.NewServer(e.Log, e.Store, catalog.ServerOptions{Warehouse: r.o.Name}))
	defer server.Close()
	ctx := t.Context()
	cat, err := rest.NewCatalog(ctx, "lake", server.URL)
	require.NoError(t, err)
	for try := 0; ; try++ {
		tbl, err := cat.LoadTable(ctx, strings.Split(table, "."))
		require.NoError(t, err)
		tasks, err := tbl.Scan().PlanFiles(ctx)
		require.NoError(t, err)
		tx := tbl.NewTransaction()
		_, err = tx.RewriteDataFiles(ctx, []icetable.CompactionTaskGroup{{PartitionKey: "", Tasks: tasks}}, icetable.RewriteDataFilesOptions{})
		require.NoError(t, err)
		if _, err = tx.Commit(ctx); err == nil {
			return
		}
		require.Less(t, try, 5, "rewrite %s: %v", table, err)
	}
}

// TestLoadAheadOfTheStream loads a table at a point that the stream reaches
// only later: the table must not join before, for the epoch that published it
// would name an LSN that it is ahead of.
func TestLoadAheadOfTheStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, n int); insert into a values (1, 0)")
	e, stop := r.run()
	r.same(e, "public.a")
	require.NoError(t, stop())
	// A backlog that takes a while, and a new table with changes in it.
	r.exec("create table b (id int primary key, n int); insert into b select i, 0 from generate_series(1, 100) i")
	for range 40 {
		r.exec("update a set n = n + 1; update b set n = n + 1; insert into a select m.top + i, 0 from generate_series(1, 500) i, (select max(id) from a) m(top)")
	}
	for range 3 {
		e, stop = r.run()
		time.Sleep(150 * time.Millisecond)
		require.NoError(t, stop())
		for _, h := range r.head(e).Tables {
			require.LessOrEqual(t, h.LSN, r.head(e).LSN, "%s is ahead of the lake", h.Ident)
		}
		r.exec("update b set n = n + 1; update a set n = n + 1 where id < 100")
	}
	e, stop = r.run()
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
}

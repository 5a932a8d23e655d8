package wire_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/wire"
	"firn/lake"
	"firn/lake/column"
	"firn/lake/laketest"
	"firn/wal"
	"firn/wal/localpg"
)

// rig is a Postgres database and a lake in a folder.
type rig struct {
	t    testing.TB
	pg   *localpg.Server
	url  string
	conn *pgx.Conn
	o    wire.Options
}

func newRig(t testing.TB) *rig { return newRigWith(t, nil) }

// newRigWith is a rig whose Postgres has settings of its own.
func newRigWith(t testing.TB, settings map[string]string) *rig {
	pg := laketest.PostgresWith(t, os.Getenv("FIRN_TEST_PG"), localpg.Options{Settings: settings})
	const name = "shop"
	admin, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database "+name)
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	r := &rig{t: t, pg: pg, url: pg.URL(name)}
	r.reconnect()
	dir := t.TempDir()
	r.o = wire.Options{
		Postgres: r.url, Slot: "firn_" + name, Publication: "firn_" + name, Warehouse: filepath.Join(dir, "lake"), Name: name,
		StateDir: filepath.Join(dir, "state"), Freshness: 100 * time.Millisecond, Poll: 200 * time.Millisecond,
		FormatVersion: func(lake.Ident) int { return 2 },
		Logger:        slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	return r
}

// reconnect replaces the connection, after a restart of Postgres.
func (r *rig) reconnect() {
	r.t.Helper()
	var err error
	r.conn, err = pgx.Connect(r.t.Context(), r.url)
	require.NoError(r.t, err)
	conn := r.conn
	r.t.Cleanup(func() { conn.Close(context.Background()) })
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.conn.Exec(r.t.Context(), sql, args...)
	require.NoError(r.t, err, sql)
}

// run mirrors until stop is called, which returns Run's error.
func (r *rig) run() (e *wire.Engine, stop func() error) {
	r.t.Helper()
	e, err := wire.Open(r.t.Context(), r.o)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Lake.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		err := <-done
		e.Close()
		return err
	}
	r.t.Cleanup(func() { stop() })
	go func() {
		err := <-done
		if err != nil {
			r.t.Logf("run ended: %v", err)
		}
		done <- err
	}()
	return e, stop
}

// caughtUp waits until everything Postgres has is in the lake.
func (r *rig) caughtUp(e *wire.Engine) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 4*time.Minute)
	defer cancel()
	for !e.Lake.Status().Ready() {
		require.NoError(r.t, ctx.Err(), "tables are not ready: %+v", e.Lake.Status())
		time.Sleep(10 * time.Millisecond)
	}
	at, err := e.Source.CommittedLSN(ctx)
	require.NoError(r.t, err)
	_, err = e.Lake.Wait(ctx, at)
	require.NoError(r.t, err)
}

func (r *rig) head(e *wire.Engine) *lake.HeadState {
	r.t.Helper()
	head, err := (&wire.Head{Log: e.Log}).Read(r.t.Context())
	require.NoError(r.t, err)
	return head
}

// lake reads a table's live rows as sorted lines.
func (r *rig) lake(e *wire.Engine, table string) []string {
	r.t.Helper()
	for _, h := range r.head(e).Tables {
		if h.Ident.String() == table {
			return r.rowsOf(e, h.Ident, h.Metadata)
		}
	}
	return nil
}

// rowsOf reads what a metadata file shows.
func (r *rig) rowsOf(e *wire.Engine, id lake.Ident, metadata string) []string {
	r.t.Helper()
	st, err := wire.NewTables(e.Store, r.t.TempDir(), r.o.Logger, r.o.FormatVersion).Open(r.t.Context(), id, metadata)
	require.NoError(r.t, err)
	l, err := lake.LayoutOf(st.Properties())
	require.NoError(r.t, err)
	var ids []int
	for _, f := range l.Schema().Fields() {
		ids = append(ids, f.ID)
	}
	var out []string
	for _, f := range st.Files() {
		err := st.Read(r.t.Context(), f.Path, ids, nil, func(first int64, rec arrow.RecordBatch) error {
			for i := range int(rec.NumRows()) {
				if f.Dead != nil && f.Dead.Contains(uint32(first)+uint32(i)) {
					continue
				}
				var cells []string
				for _, c := range rec.Columns() {
					if c.IsNull(i) {
						cells = append(cells, "NULL")
					} else {
						cells = append(cells, column.Render(c, i))
					}
				}
				out = append(out, strings.Join(cells, "|"))
			}
			return nil
		})
		require.NoError(r.t, err)
	}
	sort.Strings(out)
	return out
}

// postgres reads the same from Postgres, by its text forms.
func (r *rig) postgres(table string) []string {
	r.t.Helper()
	rows, err := r.conn.Query(r.t.Context(), "select * from "+table, pgx.QueryExecModeSimpleProtocol)
	require.NoError(r.t, err)
	var out []string
	for rows.Next() {
		var cells []string
		for _, v := range rows.RawValues() {
			if v == nil {
				cells = append(cells, "NULL")
			} else {
				cells = append(cells, string(v))
			}
		}
		out = append(out, strings.Join(cells, "|"))
	}
	require.NoError(r.t, rows.Err())
	sort.Strings(out)
	return out
}

func (r *rig) same(e *wire.Engine, tables ...string) {
	r.t.Helper()
	r.caughtUp(e)
	for _, table := range tables {
		want, got := r.postgres(table), r.lake(e, table)
		require.Equal(r.t, len(want), len(got), "rows of %s", table)
		require.Equal(r.t, want, got, table)
	}
}

// eventuallySame waits for what only a look at the catalogs finds.
func (r *rig) eventuallySame(e *wire.Engine, table string, after ...any) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return slices.Equal(r.lake(e, table), r.postgres(table)) }, 20*time.Second, 50*time.Millisecond, after...)
}

func TestMirrorRowChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table keyed (id int primary key, a text, b numeric(10,2), c bigint[]);
		create table wide (x text, y int, z text, primary key (x, y));
		create table whole (a int, b text); alter table whole replica identity full;
		insert into keyed select i, 'row '||i, i/3.0, array[i,i+1] from generate_series(1,5000) i;
		insert into whole select i%7, 'same' from generate_series(1,100) i`)
	e, stop := r.run()
	r.same(e, "public.keyed", "public.wide", "public.whole")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		r.exec(`insert into wide values ($1, $2, 'z'), ($1, $2+1, repeat('toast ', 3000))`, fmt.Sprint("k", i), i)
		r.exec("update keyed set a = a || '!' where id % 50 = $1", rng.IntN(50))
		r.exec("delete from keyed where id % 200 = $1", rng.IntN(200))
		r.exec("update keyed set id = id + 100000 where id = $1", rng.IntN(5000))
		r.exec("update wide set y = y + 1000 where y = $1", rng.IntN(60))
		r.exec("update whole set b = 'n' || $1::text where a = 3 and ctid in (select ctid from whole where a = 3 limit 2)", fmt.Sprint(i))
		r.exec("delete from whole where ctid in (select ctid from whole where a = 1 limit 1)")
		r.exec("insert into whole values (1, null)")
	}
	r.same(e, "public.keyed", "public.wide", "public.whole")
	r.exec("truncate keyed; insert into keyed values (1,'after',1,null)")
	r.same(e, "public.keyed")
	require.NoError(t, stop())

	r.exec("insert into keyed values (2,'while stopped',2,'{}'); update keyed set a='x' where id=1")
	e, stop = r.run()
	r.same(e, "public.keyed", "public.wide", "public.whole")
	require.NoError(t, stop())
}

func TestMirrorToast(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// External storage, so that values are out of line and never sent again.
	r.exec(`create table doc (id int primary key, body text, tags text[], n int);
		alter table doc alter body set storage external, alter tags set storage external;
		create table doc_full (id int primary key, body text, n int);
		alter table doc_full alter body set storage external, replica identity full;
		create table doc_whole (id int, body text, n int);
		alter table doc_whole alter body set storage external, replica identity full;
		insert into doc select i, repeat(md5(i::text), 200), array[repeat(md5(i::text),100)], 0 from generate_series(1,300) i;
		insert into doc_full select i, repeat(md5(i::text), 200), 0 from generate_series(1,100) i;
		insert into doc_whole select i, repeat(md5(i::text), 200), 0 from generate_series(1,100) i`)
	e, stop := r.run()
	tables := []string{"public.doc", "public.doc_full", "public.doc_whole"}
	r.same(e, tables...)
	r.exec("update doc set n = n + 1")
	r.exec("update doc_full set n = n + 1")
	r.exec("update doc_whole set n = n + 1")
	r.same(e, tables...)
	// The same rows several times in one transaction and in one epoch; new
	// rows whose value is still in the open batch; keys that move.
	r.exec(`begin; update doc set n = n + 1 where id < 50; update doc set n = n + 1 where id < 20;
		insert into doc select i, repeat(md5(i::text), 200), array[repeat(md5(i::text),100)], 0 from generate_series(1001,1020) i;
		update doc set n = 7 where id > 1000; update doc set id = id + 5000 where id between 10 and 30;
		update doc set n = 8 where id > 5000; delete from doc where id in (40, 41, 1001, 5011); commit`)
	r.exec("update doc set body = 'short' where id = 60; update doc set n = 9 where id = 60; update doc set body = null where id = 61; update doc set n = 9 where id = 61")
	r.exec("update doc_whole set n = n + 1 where id % 3 = 0; delete from doc_whole where id % 5 = 0")
	for i := range 30 {
		r.exec("update doc set n = n + 1 where id % 10 = $1", i%10)
	}
	r.same(e, tables...)
	require.NoError(t, stop())
}

func TestMirrorLargeAndAborted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table big (id int primary key, v text)")
	r.exec("alter system set logical_decoding_work_mem = '64kB'")
	r.exec("select pg_reload_conf()")
	e, stop := r.run()
	r.same(e, "public.big")
	r.exec(`begin; insert into big select i, 'v'||i from generate_series(1,50000) i;
		savepoint a; update big set v = 'gone' ; rollback to a;
		savepoint b; update big set v = 'kept' where id % 2 = 0; release b; commit`)
	r.exec(`begin; insert into big select i, 'lost' from generate_series(100001,130000) i; rollback`)
	// A table made and filled within a large transaction.
	r.exec(`begin; create table fresh (id int primary key, v text); insert into fresh select i, 'f' from generate_series(1,20000) i; commit`)
	r.exec(`begin; truncate big; insert into big select i, 'again' from generate_series(1,30000) i; delete from big where id > 29000; commit`)
	require.Eventually(t, func() bool { return len(r.lake(e, "public.fresh")) == 20000 }, 20*time.Second, 50*time.Millisecond)
	r.same(e, "public.big", "public.fresh")
	require.NoError(t, stop())
}

func TestMirrorSchemaChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table s (id int primary key, a text, b int); insert into s select i, 'a', i from generate_series(1,100) i`)
	e, stop := r.run()
	r.same(e, "public.s")
	steps := []string{
		"alter table s add c text; insert into s values (1001,'x',1,'new')",
		"update s set c = 'filled' where id < 50",
		"alter table s rename a to alpha; insert into s values (1002,'y',2,'z')",
		"alter table s drop b; insert into s values (1003,'q','w')",
		"alter table s add b int; update s set b = 5 where id > 1000",
		"alter table s alter b type bigint; insert into s values (1004,'l','m',5000000000)",
		"alter table s add d int not null default 42; insert into s(id) values (1005)",
		"alter table s alter alpha type varchar(20); update s set alpha = 'v' where id = 7",
		"alter table s alter d type text using 'n' || d; insert into s values (1006,'t','t',1,'t')",
		"alter table s alter b type bigint using b * 2",
		"alter table s drop alpha, drop c; alter table s add alpha text, add c text; insert into s(id, alpha) values (1007, 'again')",
		"alter table s drop constraint s_pkey; alter table s add primary key (id, d); insert into s values (1008, 3, 'd', 'e', 'f')",
	}
	for _, sql := range steps {
		r.exec(sql)
		r.settled(e)
		r.same(e, "public.s")
	}
	r.exec("drop table s; create table s (z int primary key, y text); insert into s values (1, 'reborn')")
	r.settled(e)
	r.same(e, "public.s")
	require.NoError(t, stop())
	e, stop = r.run()
	r.exec("update s set y = 'more'")
	r.same(e, "public.s")
	require.NoError(t, stop())
}

// settled waits until the looks at the catalogs that a change may need are done.
func (r *rig) settled(e *wire.Engine) {
	r.t.Helper()
	// The look under way may be too old, the next finds it, and one after that
	// sees the stream past it.
	for until := e.Lake.Counters().Looks.Load() + 4; e.Lake.Counters().Looks.Load() < until; {
		r.caughtUp(e)
		time.Sleep(r.o.Poll / 4)
	}
	r.caughtUp(e)
}

func TestMirrorQuarantinesOneTable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table good (id int primary key); create table bad (id int primary key, n numeric(10,2), d date);
		create table loadbad (id int primary key, d date); insert into loadbad values (1, 'infinity');
		create table nokey (id int)`)
	e, stop := r.run()
	require.Eventually(t, func() bool { return state(e, "public.loadbad").State == lake.Quarantined }, 20*time.Second, 20*time.Millisecond)
	require.Contains(t, state(e, "public.loadbad").Reason, "infinity")
	require.Equal(t, lake.Skipped, state(e, "public.nokey").State)
	r.exec("insert into bad values (1, 1.5, '2020-01-01'); insert into good values (1)")
	r.same(e, "public.good", "public.bad")
	r.exec("begin; insert into good values (2); insert into bad values (2, 'NaN', null); commit; insert into good values (3)")
	require.Eventually(t, func() bool { return state(e, "public.bad").State == lake.Quarantined }, 20*time.Second, 20*time.Millisecond)
	require.Contains(t, state(e, "public.bad").Reason, "id=2")
	r.same(e, "public.good")
	require.Len(t, r.lake(e, "public.bad"), 1)
	require.NoError(t, stop())
	e, stop = r.run()
	r.exec("insert into good values (4); insert into bad values (5, 5, null)")
	r.same(e, "public.good")
	require.Equal(t, lake.Quarantined, state(e, "public.bad").State)
	require.NoError(t, stop())
}

func state(e *wire.Engine, table string) lake.TableStatus {
	for _, t := range e.Lake.Status().Tables {
		if t.Name == table {
			return t
		}
	}
	return lake.TableStatus{}
}

// TestMirrorAppend mirrors a table without a key by its inserts and truncates:
// its owner's UPDATE and DELETE go on working, and are not mirrored.
func TestMirrorAppend(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Append = func(n wal.TableName) bool { return strings.HasPrefix(n.Name, "log") }
	r.exec("create table keyed (id int primary key); create table log (at int, what text); insert into log values (1, 'old'), (1, 'old')")
	e, stop := r.run()
	r.same(e, "public.log", "public.keyed")
	r.exec("insert into log select i, 'new' from generate_series(1, 100) i; insert into keyed values (1)")
	r.same(e, "public.log", "public.keyed")
	r.exec("update log set what = 'changed' where at = 5; delete from log where at = 6; insert into log values (7, 'last')")
	r.caughtUp(e)
	require.Len(t, r.lake(e, "public.log"), 103)
	r.exec("truncate log; insert into log values (8, 'anew')")
	r.same(e, "public.log")
	require.NoError(t, stop())
	r.exec("insert into log values (9, 'meanwhile')")
	e, stop = r.run()
	r.same(e, "public.log")
	require.NoError(t, stop())
}

func TestMirrorAppendComesLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Append = func(n wal.TableName) bool { return n.Name == "log" }
	r.exec("create table keyed (id int primary key)")
	e, stop := r.run()
	r.same(e, "public.keyed")
	r.exec("create table log (at int); insert into log values (1)")
	r.settled(e)
	r.exec("insert into log values (2); update log set at = at")
	r.caughtUp(e)
	require.Equal(t, []string{"1", "2"}, r.lake(e, "public.log"))
	require.NoError(t, stop())
}

// TestMirrorColumnsWithoutRows changes columns and then no row: nothing in the
// stream says so, and the lake follows all the same.
func TestMirrorColumnsWithoutRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, v text); insert into a values (1, 'x')")
	e, stop := r.run()
	r.same(e, "public.a")
	loaded := e.Lake.Counters().RowsLoaded.Load()
	for _, sql := range []string{"alter table a add w int", "alter table a rename v to u", "alter table a drop u", "alter table a add v text"} {
		r.exec(sql)
		r.eventuallySame(e, "public.a", sql)
	}
	require.Equal(t, loaded, e.Lake.Counters().RowsLoaded.Load(), "nothing had to be loaded anew")
	r.exec("insert into a values (2, 3, 'y')")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

package wire_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
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
)

// rig is a Postgres database and a lake in a folder.
type rig struct {
	t    *testing.T
	url  string
	conn *pgx.Conn
	o    wire.Options
}

func newRig(t *testing.T) *rig {
	pg := laketest.Postgres(t, "")
	const name = "shop"
	admin, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database "+name)
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	r := &rig{t: t, url: pg.URL(name)}
	r.conn, err = pgx.Connect(t.Context(), r.url)
	require.NoError(t, err)
	t.Cleanup(func() { r.conn.Close(context.Background()) })
	dir := t.TempDir()
	r.o = wire.Options{
		Postgres: r.url, Slot: "firn_" + name, Publication: "firn_" + name, Warehouse: filepath.Join(dir, "lake"), Name: name,
		StateDir: filepath.Join(dir, "state"), Freshness: 100 * time.Millisecond, Poll: 200 * time.Millisecond,
		FormatVersion: func(lake.Ident) int { return 2 },
		Logger:        slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	return r
}

type testWriter struct{ t *testing.T }

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
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	for !e.Lake.Status().Ready() {
		require.NoError(r.t, ctx.Err(), "tables are not ready: %+v", e.Lake.Status())
		time.Sleep(10 * time.Millisecond)
	}
	var lsn string
	require.NoError(r.t, r.conn.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&lsn))
	at, err := wal.ParseLSN(lsn)
	require.NoError(r.t, err)
	_, err = e.Lake.Wait(ctx, at)
	require.NoError(r.t, err)
}

// lake reads a table's live rows as sorted lines.
func (r *rig) lake(e *wire.Engine, table string) []string {
	r.t.Helper()
	var out []string
	head, err := (&wire.Head{Log: e.Log}).Read(r.t.Context())
	require.NoError(r.t, err)
	for _, h := range head.Tables {
		if h.Ident.String() != table {
			continue
		}
		st, err := wire.NewTables(e.Store, r.t.TempDir(), r.o.Logger, r.o.FormatVersion).Open(r.t.Context(), h.Ident, h.Metadata)
		require.NoError(r.t, err)
		var ids []int
		for _, f := range st.Schema().Fields() {
			ids = append(ids, f.ID)
		}
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

func TestMirrorRowChanges(t *testing.T) {
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

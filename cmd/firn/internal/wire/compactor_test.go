package wire_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
)

// pieces fills tables of each kind in many small epochs, with updates and deletes.
func (r *rig) pieces(e *wire.Engine) []string {
	tables := []string{"public.keyed", "public.whole", "public.wide"}
	for i := range 8 {
		r.exec("insert into keyed select $1::int * 100 + j, 0 from generate_series(1, 20) j", i)
		r.exec("update keyed set n = n + 1 where id % 17 = $1", i)
		r.exec("delete from keyed where id % 19 = $1", i)
		r.exec("insert into whole select $1::int % 3, 'same' from generate_series(1, 5)", i)
		r.exec("delete from whole where ctid in (select ctid from whole limit 1)")
		r.exec("insert into wide values ($1::int, $1::int::text, 'z')", i)
		r.same(e, tables...)
	}
	return tables
}

func (r *rig) pieceTables() {
	r.exec(`create table keyed (id int primary key, n int);
		create table whole (a int, b text); alter table whole replica identity full;
		create table wide (x int, y text, z text, primary key (x, y))`)
}

// compactor opens the lake anew, as another process would.
func (r *rig) compactor() *wire.Compactor {
	r.t.Helper()
	store, log, err := wire.OpenStore(r.t.Context(), r.o)
	require.NoError(r.t, err)
	c, err := wire.OpenCompactor(store, log, time.Hour, r.o.Logger)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, c.Close()) })
	return c
}

func compact(t *testing.T, c *wire.Compactor, names ...string) (done []wire.OfflineRewrite, err error) {
	err = c.Run(t.Context(), names, func(lake.PlannedRewrite) {}, func(r wire.OfflineRewrite) { done = append(done, r) })
	return done, err
}

// A lake is rewritten while no firn runs: LSN and epoch stay, and the next run
// follows, with its state folder and without.
func TestCompactWithoutFirn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.pieceTables()
	for _, lost := range []bool{false, true} {
		e, stop := r.run()
		tables := r.pieces(e)
		require.NoError(t, stop())
		before := r.head(e)

		c := r.compactor()
		_, err := c.Backlog(t.Context(), []string{"public.none"})
		require.ErrorIs(t, err, lake.ErrNoTable)
		all, err := c.Backlog(t.Context(), nil)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(all.Rewrites), 3, "%+v", all)
		done, err := compact(t, c, "public.keyed")
		require.NoError(t, err)
		require.NotEmpty(t, done)
		left, err := c.Backlog(t.Context(), nil)
		require.NoError(t, err)
		for _, w := range left.Rewrites {
			require.NotEqual(t, "public.keyed", w.Table)
		}
		_, err = compact(t, c)
		require.NoError(t, err)
		left, err = c.Backlog(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, left.Rewrites)

		after := r.head(e)
		require.Equal(t, before.LSN, after.LSN)
		require.Equal(t, before.Epoch, after.Epoch)
		require.Equal(t, before.CommitTime, after.CommitTime)
		for i := range after.Tables {
			require.Equal(t, before.Tables[i].TableState, after.Tables[i].TableState)
		}
		if lost {
			require.NoError(t, os.RemoveAll(r.o.StateDir))
		}
		e, stop = r.run()
		r.same(e, tables...)
		for _, table := range e.Lake.Status().Tables {
			require.LessOrEqual(t, table.DataFiles, 2, "%+v", table)
		}
		r.exec("update keyed set n = n + 1 where id % 3 = 0")
		r.exec("delete from whole where ctid in (select ctid from whole limit 3)")
		r.exec("update wide set y = y || 'y' where x % 2 = 0")
		r.same(e, tables...)
		require.Zero(t, e.Lake.Counters().Errors.Load()+e.Lake.Counters().Restarts.Load())
		require.NoError(t, stop())
		r.exec("truncate keyed, whole, wide")
	}
}

// A firn runs although its lake is being rewritten without it: what it does goes
// before, it follows what is there, and once it has claimed the lake nothing more
// is written.
func TestCompactWithoutFirnBesideOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.pieceTables()
	e, stop := r.run()
	tables := r.pieces(e)

	// It is idle: its next commit finds the tables moved.
	c := r.compactor()
	_, err := compact(t, c, "public.keyed", "public.wide")
	require.NoError(t, err)
	r.same(e, tables...)
	r.exec("update keyed set n = n + 1; delete from keyed where id % 2 = 0; update wide set z = 'y'")
	r.same(e, tables...)
	require.EqualValues(t, 1, e.Lake.Counters().Restarts.Load())

	// It commits between the plan and the rewrite.
	late := r.compactor()
	plan, err := late.Backlog(t.Context(), []string{"public.whole"})
	require.NoError(t, err)
	require.NotEmpty(t, plan.Rewrites)
	err = late.Run(t.Context(), []string{"public.whole"}, func(lake.PlannedRewrite) {
		r.exec("insert into whole values (1, 'late')")
		r.same(e, tables...)
	}, func(wire.OfflineRewrite) { t.Error("it was published") })
	var refusal *lake.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, lake.CodeFenced, refusal.Code)
	r.same(e, tables...)
	require.NoError(t, stop())

	// One starts meanwhile, and has nothing to commit.
	c = r.compactor()
	err = c.Run(t.Context(), []string{"public.whole"}, func(lake.PlannedRewrite) {
		e, stop = r.run()
		r.same(e, tables...)
	}, func(wire.OfflineRewrite) { t.Error("it was published") })
	require.ErrorAs(t, err, &refusal)
	require.Contains(t, refusal.Text, "has started")
	r.exec("insert into whole values (2, 'later')")
	r.same(e, tables...)
	require.NoError(t, stop())
}

// A table that has not come as far as the lake when firn ended is left alone: what
// a rewrite's snapshot says of its LSN would not be so.
func TestCompactLeavesTablesBehindAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.pieceTables()
	e, stop := r.run()
	r.pieces(e)
	require.NoError(t, stop())
	_, log, err := wire.OpenStore(t.Context(), r.o)
	require.NoError(t, err)
	_, err = log.Commit(t.Context(), func(n *catalog.State) error {
		for name, state := range map[string]string{"keyed": catalog.Behind, "wide": catalog.Skipped} {
			id := catalog.Ident{Namespace: []string{"public"}, Name: name}
			x, _ := n.Table(id)
			x.Mirror.State, x.Mirror.LSN = state, n.LSN-1
			n.PutTable(id, x)
		}
		return nil
	})
	require.NoError(t, err)
	var said strings.Builder
	r.o.Logger = slog.New(slog.NewTextHandler(&said, nil))
	done, err := compact(t, r.compactor(), "public.keyed", "public.whole", "public.wide")
	require.NoError(t, err)
	require.NotEmpty(t, done)
	for _, d := range done {
		require.Equal(t, "public.whole", d.Table)
	}
	require.Contains(t, said.String(), "table=public.keyed state=behind")
	require.Contains(t, said.String(), "table=public.wide state=skipped")
}

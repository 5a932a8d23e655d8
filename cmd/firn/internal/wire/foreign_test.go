package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/iceberg-go/catalog/rest"
	icetable "github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/compaction"
	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/lake/snapshot"
)

// elsewhere is a catalog server on the lake in another process than firn's, and
// an engine that rewrites tables through it.
type elsewhere struct{ cat *rest.Catalog }

func newElsewhere(t *testing.T, r *rig) *elsewhere {
	store, log, err := wire.OpenStore(t.Context(), r.o)
	require.NoError(t, err)
	server := httptest.NewServer(catalog.NewServer(log, store, catalog.ServerOptions{Warehouse: r.o.Name, HeadAgeMax: 1}))
	t.Cleanup(server.Close)
	cat, err := rest.NewCatalog(t.Context(), "lake", server.URL)
	require.NoError(t, err)
	return &elsewhere{cat}
}

// plan is a rewrite of all of a table's files, not committed yet.
func (x *elsewhere) plan(ctx context.Context, name string) (*icetable.Transaction, error) {
	tbl, err := x.cat.LoadTable(ctx, strings.Split(name, "."))
	if err != nil {
		return nil, err
	}
	tasks, err := tbl.Scan().PlanFiles(ctx)
	if err != nil {
		return nil, err
	}
	tx := tbl.NewTransaction()
	_, err = tx.RewriteDataFiles(ctx, []icetable.CompactionTaskGroup{{Tasks: tasks}}, icetable.RewriteDataFilesOptions{})
	return tx, err
}

// rewrite tries until one lands.
func (x *elsewhere) rewrite(ctx context.Context, name string) error {
	for try := 0; ; try++ {
		tx, err := x.plan(ctx, name)
		if err != nil {
			return err
		}
		if _, err = tx.Commit(ctx); err == nil || try == 20 || !errors.Is(err, rest.ErrCommitFailed) {
			return err
		}
	}
}

// A foreign rewrite of every kind of table lands at each step of the owner's: as
// an epoch is uploaded, published, merged into the indexes and acknowledged,
// while firn's own rewrite of the same files runs, between its install and its
// publication, and while its rows are found again. Kills at the same steps are
// the torture's.
func TestRule23AtEachStep(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		version     int
		catchUpRows int64
	}{{2, 0}, {3, 0}, {3, 50}} {
		t.Run(fmt.Sprintf("v%d, %d rows at once", x.version, x.catchUpRows), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.o.FormatVersion = func(lake.Ident) int { return x.version }
			r.o.CatchUpRows = x.catchUpRows
			r.o.Compaction = &compaction.Options{SpareFiles: 1, MaxDead: 0.05}
			r.o.Freshness = 50 * time.Millisecond
			r.exec(`create table keyed (id int primary key, v text);
				create table whole (a int, b text); alter table whole replica identity full;
				create table other (id int primary key);
				insert into keyed select i, 'v' from generate_series(1, 500) i;
				insert into whole select i % 9, 'v' from generate_series(1, 200) i`)
			tables := []string{"public.keyed", "public.whole", "public.other"}
			engine := newElsewhere(t, r)
			var point atomic.Pointer[string]
			landed := make(chan error)
			r.o.Fail = func(at string) {
				if p := point.Load(); p == nil || *p != at || !point.CompareAndSwap(p, nil) {
					return
				}
				ctx := context.WithoutCancel(t.Context())
				landed <- errors.Join(engine.rewrite(ctx, "public.keyed"), engine.rewrite(ctx, "public.whole"))
			}
			e, stop := r.run()
			r.same(e, tables...)
			n := 0
			change := func() {
				n++
				r.exec("update keyed set v = $2 where id % 23 = $1", n%23, fmt.Sprint("n", n))
				r.exec("delete from keyed where id % 61 = $1", n%61)
				r.exec("insert into keyed select i, 'new' from generate_series($1::int, $1::int + 20) i on conflict do nothing", n*7%600)
				r.exec("update whole set b = $2 where ctid in (select ctid from whole where a = $1 limit 3)", n%9, fmt.Sprint("b", n%3))
				r.exec("delete from whole where ctid in (select ctid from whole where a = $1 limit 1)", n%9)
				r.exec("insert into whole select $1::int, 'v' from generate_series(1, 3)", n%9)
				r.exec("insert into other values ($1)", n)
			}
			for _, at := range []string{
				"before-upload", "after-upload", "before-publish", "after-publish", "in-merge", "after-merge", "before-ack",
				"in-rewrite", "after-rewrite", "after-install", "in-relocate",
			} {
				point.Store(&at)
				for waiting, until := true, time.Now().Add(time.Minute); waiting; {
					// Not while it lands: where the owner goes on beside it, each of
					// its epochs would be faster on a slow machine.
					if point.Load() != nil {
						change()
					}
					select {
					case err := <-landed:
						require.NoError(t, err, "a rewrite at %s", at)
						waiting = false
					case <-time.After(20 * time.Millisecond):
						require.True(t, time.Now().Before(until), "%s is not reached", at)
					}
				}
				change() // of rows where they are now
				r.same(e, tables...)
			}
			c := e.Lake.Counters()
			t.Logf("%d rewrites of firn's own, %d restarts", c.Rewrites.Load(), c.Restarts.Load())
			require.Zero(t, c.Errors.Load())
			require.NotZero(t, c.Restarts.Load())
			require.NoError(t, stop())
		})
	}
}

// Somebody commits to one table faster than the stream can: that table falls
// behind, the others go on, and it comes after them as soon as it is left alone.
func TestRule23NoTableHoldsTheOthersUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Freshness, r.o.Grace = 50*time.Millisecond, time.Second
	r.exec(`create table a (id int primary key, v text); create table b (id int primary key); create table c (x int); alter table c replica identity full;
		insert into a select i, 'v' from generate_series(1, 500) i`)
	engine := newElsewhere(t, r)
	var busy atomic.Bool
	var landed atomic.Int64
	r.o.Fail = func(at string) {
		if at == "before-publish" && busy.Load() {
			if err := engine.rewrite(context.WithoutCancel(t.Context()), "public.a"); err != nil {
				t.Error(err)
			}
			landed.Add(1)
		}
	}
	e, stop := r.run()
	r.same(e, "public.a", "public.b", "public.c")
	busy.Store(true)
	for i := range 8 {
		r.exec("update a set v = $2 where id % 20 = $1", i, fmt.Sprint("n", i))
		r.exec("insert into b values ($1)", i)
		r.exec("insert into c values ($1), ($1)", i%3)
		r.exec("delete from c where ctid in (select ctid from c limit 1)")
		r.exec("delete from a where id = $1", i*7+1)
		r.eventuallySame(e, "public.b", "%d rewrites landed", landed.Load())
		r.eventuallySame(e, "public.c")
	}
	require.GreaterOrEqual(t, landed.Load(), int64(8))
	require.NotEqual(t, r.postgres("public.a"), r.lake(e, "public.a"))
	busy.Store(false)
	r.same(e, "public.a", "public.b", "public.c")
	require.Zero(t, e.Lake.Counters().Errors.Load())
	// What the epochs that came to nothing had uploaded goes, without a restart.
	require.Eventually(t, func() bool { runtime.GC(); return len(r.needless(e)) == 0 }, 20*time.Second, 200*time.Millisecond)
	require.NoError(t, stop())
}

// A table catches up while an epoch is being published that began before: the
// head still calls it behind, and the slot must not pass where it is there. Kills
// and others' commits forget that it has caught up.
func TestRule23TheSlotWaitsForTheHead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.CatchUpRows = 50
	r.exec(`create table a (id int primary key, v text); create table b (id int primary key);
		insert into a select i, 'v' from generate_series(1, 500) i`)
	st, err := object.Open(t.Context(), r.o.Warehouse, r.o.Object)
	require.NoError(t, err)
	store := laketest.NewFaultStore(st)
	log, err := catalog.OpenLog(t.Context(), store, catalog.LogOptions{Logger: r.o.Logger})
	require.NoError(t, err)
	engine := newElsewhere(t, r)
	var first, second atomic.Bool
	publishing, caughtUp := make(chan struct{}), make(chan struct{})
	r.o.Fail = func(at string) {
		if at != "before-publish" {
			return
		}
		if first.CompareAndSwap(true, false) {
			publishing <- struct{}{}
			<-caughtUp
		} else if second.CompareAndSwap(true, false) {
			if err := engine.rewrite(context.WithoutCancel(t.Context()), "public.a"); err != nil {
				t.Error(err)
			}
		}
	}
	e, err := wire.Connect(t.Context(), r.o, store, log)
	require.NoError(t, err)
	defer e.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Lake.Run(ctx) }()
	r.same(e, "public.a", "public.b")
	goOn := make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	store.Inject(laketest.Fault{Op: laketest.OpGetRange, Key: r.folder(e, "a") + "/data/", Hook: func(ctx context.Context, _ laketest.Call) error {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	require.NoError(t, engine.rewrite(t.Context(), "public.a"))
	r.exec("update a set v = 'w' where id % 3 = 0; insert into b values (0)")
	standing := func() string { return e.Lake.Status().Tables[0].State }
	require.Eventually(t, func() bool { return standing() == lake.Behind }, 20*time.Second, 10*time.Millisecond)
	r.eventuallySame(e, "public.b")
	first.Store(true)
	r.exec("insert into b values (1)")
	<-publishing
	release()
	// As long as readers don't see it.
	require.Eventually(t, func() bool { return standing() == lake.Loading }, 20*time.Second, 10*time.Millisecond)
	second.Store(true)
	close(caughtUp)
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(time.Second):
	}
	r.exec("update a set v = 'x' where id % 5 = 0; insert into b values (2)")
	r.same(e, "public.a", "public.b")
	cancel()
	require.NoError(t, <-ended)
}

// A table is given up while an epoch is being published, and joins again before
// the next, which goes on without it, for somebody else has rewritten it: that it
// was given up must be said by then, for what it has missed comes from a load only.
func TestRule23GivenUpAndLeftOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id int primary key, v text); create table b (id int primary key);
		insert into a select i, 'v' from generate_series(1, 50) i`)
	engine := newElsewhere(t, r)
	var first atomic.Bool
	publishing, joined := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(joined) })
	r.o.Fail = func(at string) {
		if at == "before-publish" && first.CompareAndSwap(true, false) {
			close(publishing)
			<-joined
		}
	}
	e, stop := r.run()
	t.Cleanup(goOn)
	r.same(e, "public.a", "public.b")
	first.Store(true)
	r.exec("insert into b values (1)")
	<-publishing
	r.exec("alter publication firn_shop drop table a")
	r.exec("insert into a values (100, 'not in the stream')")
	r.becomes(e, "public.a", lake.Loading) // until readers see it
	require.NoError(t, engine.rewrite(t.Context(), "public.a"))
	restarts := e.Lake.Counters().Restarts.Load()
	goOn()
	require.Eventually(t, func() bool { return e.Lake.Counters().Restarts.Load() > restarts }, 20*time.Second, 10*time.Millisecond)
	r.exec("insert into a values (101, 'in it'); insert into b values (2)")
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
}

// needless are the objects of firn's own in tables' folders that neither the head
// nor a kept epoch needs.
func (r *rig) needless(e *wire.Engine) (out []string) {
	r.t.Helper()
	ctx := r.t.Context()
	keys, err := e.Store.Keys(ctx, "public/", "", 0)
	require.NoError(r.t, err)
	head, err := e.Log.Refresh(ctx)
	require.NoError(r.t, err)
	var mu sync.Mutex
	needed := map[uint64]bool{}
	reach := snapshot.NewReach(e.Store, xxh3.HashString)
	visit := func(s *catalog.State, history bool) {
		for _, x := range s.Tables() {
			require.NoError(r.t, reach.Visit(ctx, x.Metadata, history, func(h uint64) {
				mu.Lock()
				needed[h] = true
				mu.Unlock()
			}))
		}
	}
	visit(head, true)
	for _, k := range head.Epochs() {
		s, err := e.Log.Entry(ctx, k.Number)
		require.NoError(r.t, err)
		visit(s, false)
	}
	for _, k := range keys {
		if snapshot.OwnName(k) && !needed[xxh3.HashString(k)] {
			out = append(out, k)
		}
	}
	return out
}

// A foreign rewrite that the stream overtakes fails with a conflict, and changes
// nothing.
func TestRule23TheStreamIsFaster(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, v text); insert into a select i, 'v' from generate_series(1, 500) i")
	e, stop := r.run()
	r.exec("update a set v = 'w' where id % 3 = 0")
	r.same(e, "public.a")
	engine := newElsewhere(t, r)
	for i, sql := range []string{"update a set v = 'x' where id % 5 = 0", "delete from a where id % 7 = 0", "insert into a values (1000, 'new')", "truncate a"} {
		tx, err := engine.plan(t.Context(), "public.a")
		require.NoError(t, err)
		r.exec(sql)
		r.same(e, "public.a")
		_, err = tx.Commit(t.Context())
		require.ErrorIs(t, err, rest.ErrCommitFailed, sql)
		r.exec("insert into a values ($1, 'after')", 2000+i)
		r.same(e, "public.a")
	}
	require.Zero(t, e.Lake.Counters().Restarts.Load())
	require.NoError(t, stop())
}

// While the index reads what somebody else wrote, the table is behind, readers
// are told so, and the other tables go on.
func TestRule23BehindMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.CatchUpRows = 50
	r.exec(`create table a (id int primary key, v text); create table b (id int primary key);
		insert into a select i, 'v' from generate_series(1, 500) i`)
	st, err := object.Open(t.Context(), r.o.Warehouse, r.o.Object)
	require.NoError(t, err)
	store := laketest.NewFaultStore(st)
	log, err := catalog.OpenLog(t.Context(), store, catalog.LogOptions{Logger: r.o.Logger})
	require.NoError(t, err)
	e, err := wire.Connect(t.Context(), r.o, store, log)
	require.NoError(t, err)
	defer e.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Lake.Run(ctx) }()
	r.same(e, "public.a", "public.b")

	goOn := make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	store.Inject(laketest.Fault{Op: laketest.OpGetRange, Key: r.folder(e, "a") + "/data/", Hook: func(ctx context.Context, _ laketest.Call) error {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	require.NoError(t, newElsewhere(t, r).rewrite(t.Context(), "public.a"))
	r.exec("update a set v = 'w' where id % 3 = 0; insert into b values (0)")
	standing := func() lake.TableStatus {
		for _, x := range e.Lake.Status().Tables {
			if x.Name == "public.a" {
				return x
			}
		}
		return lake.TableStatus{}
	}
	require.Eventually(t, func() bool { return standing().State == lake.Behind }, 20*time.Second, 10*time.Millisecond, "%+v", standing())
	require.Contains(t, standing().Reason, "follows the files that others wrote")
	for i := range 5 {
		r.exec("insert into b values ($1)", i+1)
		r.eventuallySame(e, "public.b")
		r.exec("delete from a where id = $1", i+1)
	}
	require.Equal(t, lake.Behind, standing().State)
	for _, h := range r.head(e).Tables {
		if h.Ident.Name == "a" {
			require.Equal(t, lake.Behind, h.State, "the log says so as well")
			require.Less(t, h.LSN, r.head(e).LSN)
		}
	}
	release()
	r.same(e, "public.a", "public.b")
	cancel()
	require.NoError(t, <-ended)
}

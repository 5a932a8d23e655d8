package wire_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/compaction"
	"firn/lake"
	"firn/lake/snapshot"
)

// Data files are rewritten under a stream that changes the very rows, in every
// kind of table, sorted and not, through restarts with and without the state
// folder, and no row comes back, is lost or is there twice.
func TestRule21StreamBesideRewrites(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			t.Parallel()
			streamBesideRewrites(t, version)
		})
	}
}

func streamBesideRewrites(t *testing.T, version int) {
	r := newRig(t)
	r.o.FormatVersion = func(lake.Ident) int { return version }
	r.o.Compaction = &compaction.Options{SpareFiles: 1, MaxDead: 0.05}
	r.o.SortBy = func(id lake.Ident) snapshot.SortBy {
		by, sorted := map[string]string{"keyed": "n desc, a", "wide": "y", "whole": "b, a desc"}[id.Name]
		if !sorted {
			return nil
		}
		order, err := snapshot.ParseSortBy(by)
		require.NoError(t, err)
		return order
	}
	r.exec(`create table keyed (id int primary key, a text, n int);
		create table other (id int primary key, a text, n int);
		create table wide (x text, y int, z text, primary key (x, y));
		create table whole (a int, b text); alter table whole replica identity full;
		create table doc (id int primary key, body text, n int); alter table doc alter body set storage external;
		insert into keyed select i, 'row '||i, 0 from generate_series(1,3000) i;
		insert into other select i, 'row '||i, 0 from generate_series(1,3000) i;
		insert into whole select i%7, 'same' from generate_series(1,200) i;
		insert into doc select i, repeat(md5(i::text), 200), 0 from generate_series(1,200) i`)
	tables := []string{"public.keyed", "public.other", "public.wide", "public.whole", "public.doc"}
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	next := 3000
	var rewrites, inputs int64
	for round := range 4 {
		e, stop := r.run()
		for i := range 120 {
			for _, table := range []string{"keyed", "other"} {
				r.exec("update "+table+" set n = n + 1 where id % 97 = $1", rng.IntN(97))
				r.exec("delete from "+table+" where id % 211 = $1", rng.IntN(211))
				r.exec("insert into "+table+" select i, 'new', 0 from generate_series($1::int, $1::int + 20) i", next+1)
				r.exec("update "+table+" set id = id + 1000000 where id = $1", rng.IntN(next))
			}
			next += 21
			r.exec("insert into wide values ($1, $2, 'z')", fmt.Sprint("k", i), round)
			r.exec("update wide set y = y + 1000 where x = $1", fmt.Sprint("k", rng.IntN(i+1)))
			r.exec("update whole set b = $2::text where ctid in (select ctid from whole where a = $1 limit 2)", rng.IntN(7), fmt.Sprint("b", i%3))
			r.exec("delete from whole where ctid in (select ctid from whole where a = $1 limit 1)", rng.IntN(7))
			r.exec("insert into whole values ($1, 'same')", rng.IntN(7))
			r.exec("update doc set n = n + 1 where id % 31 = $1", rng.IntN(31))
			if rng.IntN(150) == 0 {
				r.exec("truncate other")
			}
			if i%40 == 39 {
				r.same(e, tables...)
			}
		}
		r.same(e, tables...)
		// With nothing to do the rest is tidied up, too, and the index follows.
		require.Eventually(t, func() bool {
			for _, table := range e.Lake.Status().Tables {
				if table.DataFiles > 4 {
					return false
				}
			}
			return true
		}, 30*time.Second, 50*time.Millisecond, "%+v", e.Lake.Status())
		r.same(e, tables...)
		c := e.Lake.Counters()
		rewrites, inputs = rewrites+c.Rewrites.Load(), inputs+c.RewrittenFiles.Load()
		require.Zero(t, c.Errors.Load()+c.Restarts.Load())
		require.NoError(t, stop())
		if round == 2 {
			require.NoError(t, os.RemoveAll(r.o.StateDir))
		}
	}
	t.Logf("seed %d: %d rewrites of %d files", seed, rewrites, inputs)
	require.Greater(t, rewrites, int64(40))
}

// What is asked for is rewritten although nothing is by itself, and nothing else
// is: as if no more files came.
func TestCompactWhenAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id int primary key, n int); create table b (id int primary key)`)
	e, stop := r.run()
	for i := range 6 {
		// One transaction, so one epoch.
		r.exec(fmt.Sprintf(`insert into a select 10 * %d + j, 0 from generate_series(1, 8) j; insert into b values (%[1]d);
			update a set n = n + 1 where id = 10 * (%[1]d - 1) + 1`, i))
		r.same(e, "public.a", "public.b")
	}
	files := func(a, b int) {
		t.Helper()
		require.Eventually(t, func() bool {
			st := e.Lake.Status()
			return st.Tables[0].DataFiles == a && st.Tables[1].DataFiles == b
		}, 20*time.Second, 10*time.Millisecond, "%+v", e.Lake.Status().Tables)
	}
	files(6, 6)
	_, err := e.Lake.Compact(t.Context(), []string{"public.a", "public.none"})
	require.ErrorIs(t, err, lake.ErrNoTable)
	all, err := e.Lake.Backlog(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, all.Rewrites, 2, "%+v", all)
	require.Equal(t, "planned", all.Rewrites[0].State)
	asked, err := e.Lake.Compact(t.Context(), []string{"public.a"})
	require.NoError(t, err)
	require.Len(t, asked.Rewrites, 1)
	require.True(t, asked.Rewrites[0].Asked)
	require.Eventually(t, func() bool {
		left, err := e.Lake.Backlog(t.Context(), []string{"public.a"})
		require.NoError(t, err)
		return len(left.Rewrites) == 0
	}, 20*time.Second, 20*time.Millisecond)
	files(1, 6) // nobody asked for that one
	r.same(e, "public.a", "public.b")
	st := e.Lake.Status()
	require.EqualValues(t, 1, e.Lake.Counters().Rewrites.Load())
	require.EqualValues(t, 48, st.Tables[0].Compaction.RewrittenRows)
	require.Greater(t, st.Tables[0].Compaction.WriteAmplification(), 1.0)
	require.NoError(t, stop())
}

// What was asked for is lost with the session when somebody else commits: that is
// told, so that nobody takes it for done.
func TestCompactAskedAndDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id int primary key); create table b (id int primary key)`)
	engine := newElsewhere(t, r)
	var now atomic.Bool
	r.o.Fail = func(at string) {
		if at == "in-rewrite" && now.CompareAndSwap(true, false) {
			if err := engine.rewrite(context.WithoutCancel(t.Context()), "public.a"); err != nil {
				t.Error(err)
			}
		}
	}
	e, stop := r.run()
	for i := range 4 {
		r.exec(fmt.Sprintf("insert into a values (%d); insert into b values (%[1]d)", i))
		r.same(e, "public.a", "public.b")
	}
	now.Store(true)
	asked, err := e.Lake.Compact(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, asked.Rewrites, 2)
	require.Eventually(t, func() bool {
		b, err := e.Lake.Backlog(t.Context(), nil)
		require.NoError(t, err)
		return b.Dropped > asked.Dropped
	}, 20*time.Second, 20*time.Millisecond)
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
}

// A file in which rows die again does not rest any more, also while no epoch
// shows them yet: many changes at once would else have it written again in their
// midst, for the little that has died by then.
func TestRowsThatDieEndARest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	r.o.Now = func() time.Time { return time.Unix(0, clock.Load()) }
	r.o.Freshness, r.o.Compaction = 2*time.Second, &compaction.Options{}
	r.exec("create table a (id int primary key, n int); insert into a select i, 0 from generate_series(1, 10000) i")
	e, stop := r.run()
	r.same(e, "public.a")
	clock.Add(int64(2 * time.Hour))
	r.exec("delete from a where id % 100 = 0")
	for range 5 { // planned for anew before they are published
		time.Sleep(300 * time.Millisecond)
		clock.Add(int64(2 * time.Minute))
	}
	r.same(e, "public.a")
	time.Sleep(time.Second)
	require.Zero(t, e.Lake.Counters().Rewrites.Load(), "it has just been worn")
	clock.Add(int64(2 * time.Hour))
	require.Eventually(t, func() bool { return e.Lake.Counters().Rewrites.Load() == 1 }, 30*time.Second, 10*time.Millisecond)
	r.same(e, "public.a")
	require.NoError(t, stop())
}

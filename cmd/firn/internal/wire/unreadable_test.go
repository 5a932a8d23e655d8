package wire_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
)

// damage rewrites a table and then removes what the rewrite wrote: its manifest
// list, or its data file.
func (x *elsewhere) damage(ctx context.Context, name string, list bool) error {
	if err := x.rewrite(ctx, name); err != nil {
		return err
	}
	tbl, err := x.cat.LoadTable(ctx, strings.Split(name, "."))
	if err != nil {
		return err
	}
	uri := tbl.CurrentSnapshot().ManifestList
	if !list {
		tasks, err := tbl.Scan().PlanFiles(ctx)
		if err != nil {
			return err
		}
		uri = tasks[0].File.FilePath()
	}
	return os.Remove(strings.TrimPrefix(uri, "file://"))
}

// Somebody commits to tables what can't be read: they alone are loaded anew, while
// the others go on, and the slot is not held for them.
func TestRule23UnreadableCommit(t *testing.T) {
	t.Parallel()
	for _, catchUpRows := range []int64{0, 50} {
		t.Run(fmt.Sprintf("%d rows at once", catchUpRows), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.o.CatchUpRows = catchUpRows
			r.o.FormatVersion = func(id lake.Ident) int { return 2 + len(id.Name)%2 }
			r.exec(`create table nolist (id int primary key, v text); create table nodata (id int primary key, v text);
				create table nolist3 (a int, v text); alter table nolist3 replica identity full; create table good (id int primary key);
				insert into nolist select i, 'v' from generate_series(1, 500) i; insert into nodata select * from nolist; insert into nolist3 select * from nolist`)
			tables := []string{"public.nolist", "public.nodata", "public.nolist3", "public.good"}
			engine := newElsewhere(t, r)
			damage := func(ctx context.Context) {
				require.NoError(t, engine.damage(ctx, "public.nolist", true))
				require.NoError(t, engine.damage(ctx, "public.nodata", false))
				require.NoError(t, engine.damage(ctx, "public.nolist3", true))
			}
			n := 0
			change := func() {
				n++
				r.exec("update nolist set v = $2 where id % 7 = $1; ", n%7, fmt.Sprint("n", n))
				r.exec("update nodata set v = $2 where id % 5 = $1; ", n%5, fmt.Sprint("n", n))
				r.exec("update nolist3 set v = $2 where a = $1", n, fmt.Sprint("n", n))
				r.exec("insert into good values ($1)", n)
			}
			var now atomic.Bool
			r.o.Fail = func(at string) {
				if at == "before-publish" && now.CompareAndSwap(true, false) {
					damage(context.WithoutCancel(t.Context()))
				}
			}
			e, stop := r.run()
			r.same(e, tables...)
			change()
			r.same(e, tables...)

			// As the stream goes on.
			loaded := e.Lake.Counters().RowsLoaded.Load()
			now.Store(true)
			change()
			r.eventuallySame(e, "public.good")
			r.same(e, tables...)
			require.Equal(t, loaded+1500, e.Lake.Counters().RowsLoaded.Load())
			for _, x := range r.head(e).Tables {
				require.Equal(t, lake.Streaming, x.State, "%+v", x)
			}
			change()
			r.same(e, tables...)
			require.NoError(t, stop())

			// While firn is stopped.
			damage(t.Context())
			change()
			e, stop = r.run()
			r.same(e, tables...)
			require.Equal(t, int64(1500), e.Lake.Counters().RowsLoaded.Load())
			require.Zero(t, e.Lake.Counters().Errors.Load())
			before := r.confirmed()
			change()
			r.same(e, tables...)
			require.Eventually(t, func() bool { return r.confirmed() != before }, 20*time.Second, 50*time.Millisecond)
			require.NoError(t, stop())

			e, stop = r.run()
			change()
			r.same(e, tables...)
			require.Zero(t, e.Lake.Counters().RowsLoaded.Load(), "once is enough")
			require.NoError(t, stop())
		})
	}
}

// A table whose metadata itself is lost is left out, with its reason, until
// somebody has put it back.
func TestRule23MetadataIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table lost (id int primary key); create table good (id int primary key); insert into lost select generate_series(1, 100)")
	e, stop := r.run()
	r.same(e, "public.lost", "public.good")
	require.NoError(t, stop())
	e, stop = r.run()
	require.NoError(t, stop())
	var path string
	for _, x := range r.head(e).Tables {
		if x.Ident.Name == "lost" {
			path = strings.TrimPrefix(x.Metadata, "file://")
		}
	}
	require.NoError(t, os.Rename(path, path+".bak"))
	r.exec("insert into good values (1); insert into lost values (101)")
	e, stop = r.run()
	require.Eventually(t, func() bool { return state(e, "public.lost").State == lake.Skipped }, 20*time.Second, 20*time.Millisecond)
	require.Contains(t, state(e, "public.lost").Reason, "put back what is missing and start firn again")
	r.exec("insert into good values (2)")
	r.same(e, "public.good")
	r.settled(e)
	require.Equal(t, lake.Skipped, state(e, "public.lost").State)
	require.NoError(t, stop())
	require.NoError(t, os.Rename(path+".bak", path))
	e, stop = r.run()
	r.same(e, "public.lost", "public.good")
	require.NoError(t, stop())
}

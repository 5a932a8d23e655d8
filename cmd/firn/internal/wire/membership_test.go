package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
)

// TestOutOfThePublicationBetweenTwoRuns takes a table out of the publication and
// puts it back while no firn runs: that it is in it now says nothing of what was
// committed before. A firn that is killed as soon as it has put the table back
// leaves the same.
func TestOutOfThePublicationBetweenTwoRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id serial primary key); create table b (id serial primary key)")
	e, stop := r.run()
	r.same(e, "public.a", "public.b")
	require.NoError(t, stop())
	var filters bool
	require.NoError(t, r.conn.QueryRow(t.Context(), "select current_setting('server_version_num')::int >= 150000").Scan(&filters))
	for _, x := range []struct{ out, in string }{
		{"drop table a", "add table only a"},
		{"set table a where (id < 0), b", "set table only a, only b"},
		{"set (publish = 'truncate')", ""},
	} {
		if strings.Contains(x.out, "where") && !filters {
			continue
		}
		r.exec("alter publication firn_shop " + x.out)
		r.exec("insert into a default values; insert into b default values")
		if x.in != "" {
			r.exec("alter publication firn_shop " + x.in)
		}
		e, stop = r.run()
		r.exec("insert into a default values; insert into b default values")
		r.same(e, "public.a", "public.b")
		require.NoError(t, stop(), x.out)
	}
	e, stop = r.run()
	r.exec("insert into a default values")
	r.same(e, "public.a", "public.b")
	require.Zero(t, e.Lake.Counters().RowsLoaded.Load(), "nothing was missed since the run before")
	require.NoError(t, stop())
}

// TestOutOfThePublicationBetweenTwoLooks does so under a running mirror, whose
// next look finds all as it should be.
func TestOutOfThePublicationBetweenTwoLooks(t *testing.T) {
	t.Parallel()
	r, g, e, stop := gated(t, 20*time.Millisecond, "create table a (id int primary key); create table b (id int primary key)")
	g.look()
	r.exec("alter publication firn_shop drop table a")
	r.exec("insert into a values (1)")
	r.exec("alter publication firn_shop add table only a")
	g.pass()
	g.look()
	g.pass()
	g.look() // by now the one before has been taken up
	r.same(e, "public.a", "public.b")

	// The same, but that a load puts it back.
	r.exec("create table c (id int primary key)")
	g.pass()
	g.look() // it has c
	r.exec("alter publication firn_shop drop table a")
	r.exec("insert into a values (2)")
	g.pass()
	r.becomes(e, "public.c", lake.Streaming)
	g.look()
	g.pass()
	g.look()
	g.pass()
	g.look()
	r.same(e, "public.a", "public.b", "public.c")
	close(g.open)
	g.pass()
	require.NoError(t, stop())
}

// TestKilledOverThePublication kills a look when it has put a table back and
// nobody knows of it: the stream goes on with that table's next changes.
func TestKilledOverThePublication(t *testing.T) {
	t.Parallel()
	r, g, e, stop := gated(t, 20*time.Millisecond, "create table a (id int primary key); insert into a values (1)")
	g.look()
	r.exec("alter publication firn_shop drop table a")
	r.exec("insert into a values (2)")
	g.pass()
	g.look() // the one that puts it back
	var in bool
	require.NoError(t, r.conn.QueryRow(t.Context(), "select exists (select from pg_publication_tables where pubname = 'firn_shop')").Scan(&in))
	require.True(t, in)
	g.kill()
	r.exec("insert into a values (3)")
	r.caughtUp(e)
	require.NoError(t, stop())
	close(g.open)
	e, stop = r.run()
	r.exec("insert into a values (4)")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

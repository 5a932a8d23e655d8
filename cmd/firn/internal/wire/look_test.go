package wire_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/wire"
	"firn/lake"
)

// gate holds every look at the catalogs, once taken, until it is let go.
type gate struct {
	t                       testing.TB
	taken, leave, die, open chan struct{}
}

func newGate(r *rig) *gate {
	g := &gate{t: r.t, taken: make(chan struct{}), leave: make(chan struct{}), die: make(chan struct{}), open: make(chan struct{})}
	r.o.Fail = func(point string) {
		if point != "after-look" {
			return
		}
		select {
		case g.taken <- struct{}{}:
			select {
			case <-g.leave:
			case <-g.die:
				runtime.Goexit()
			case <-g.t.Context().Done():
			}
		case <-g.open:
		case <-g.t.Context().Done():
		}
	}
	return g
}

// look waits until a look that began after this call is taken, and holds it;
// the next one lets it go.
func (g *gate) look() {
	select {
	case <-g.taken:
	case <-time.After(20 * time.Second):
		require.Fail(g.t, "nobody looks")
	}
}

func (g *gate) pass() { g.leave <- struct{}{} }

// kill ends the look that is held; nobody hears of it, and no other follows.
func (g *gate) kill() { g.die <- struct{}{} }

// gated mirrors table a, made by sql, and looks are let through one by one.
func gated(t *testing.T, poll time.Duration, sql string) (r *rig, g *gate, e *wire.Engine, stop func() error) {
	r = newRig(t)
	r.o.Poll = poll
	g = newGate(r)
	r.exec(sql)
	e, stop = r.run()
	g.look()
	g.pass()
	r.same(e, "public.a")
	return r, g, e, stop
}

// TestLookOlderThanTheStream: by the time a look's result is taken up, the
// stream has come past a change of the columns that the look did not see.
func TestLookOlderThanTheStream(t *testing.T) {
	t.Parallel()
	r, g, e, stop := gated(t, 20*time.Millisecond, "create table a (id int primary key); insert into a values (1)")
	g.look()
	r.exec("alter table a add v text")
	r.exec("insert into a values (2, 'x')")
	r.same(e, "public.a")
	g.pass()
	g.look() // by now the one before has been taken up
	r.exec("insert into a values (3, 'y')")
	r.same(e, "public.a")
	g.pass()
	close(g.open)
	require.NoError(t, stop())
}

// TestLookNewerThanTheStream: a look that came upon a change of the columns has
// to wait for the stream, and is not to be taken for a later one when it has
// come up.
func TestLookNewerThanTheStream(t *testing.T) {
	t.Parallel()
	// What is done between two looks has to fit in a second.
	r, g, e, stop := gated(t, time.Second, "create table a (id int primary key); insert into a values (1)")
	require.NoError(t, e.Lake.Hold(t.Context()))
	r.exec("alter table a add v text")
	g.look()
	g.pass() // it has seen v before the stream
	r.exec("insert into a values (2, 'x')")
	at, err := e.Source.CommittedLSN(t.Context())
	require.NoError(t, err)
	_, _, err = e.Lake.Cut(t.Context(), at) // the stream has it, too
	require.NoError(t, err)
	require.NoError(t, e.Lake.Hold(t.Context()))
	r.exec("insert into a values (3, 'y')")
	r.exec("alter table a add w int")
	g.look()
	g.pass() // and this one w, before the stream has row 3
	g.look()
	at, err = e.Source.CommittedLSN(t.Context())
	require.NoError(t, err)
	_, _, err = e.Lake.Cut(t.Context(), at)
	require.NoError(t, err)
	g.pass()
	close(g.open)
	r.exec("insert into a values (4, 'z', 4)")
	r.same(e, "public.a")
	require.NoError(t, stop())
}

// TestRule27OneLook: between two looks a table is truncated, which the stream
// shows, and then rewritten, which it does not.
func TestRule27OneLook(t *testing.T) {
	t.Parallel()
	r, g, e, stop := gated(t, 20*time.Millisecond, "create table a (id int primary key, n int); insert into a values (1, 1)")
	g.look()
	r.exec("truncate a")
	r.exec("insert into a values (2, 2)")
	r.exec("alter table a alter n type int using n * 2")
	r.caughtUp(e)
	g.pass()
	close(g.open)
	r.eventuallySame(e, "public.a")
	require.NoError(t, stop())
}

// TestRule27NoOtherLook: a rewrite is acted on when the stream has come to it,
// not when somebody looks again; the table counts as behind meanwhile.
func TestRule27NoOtherLook(t *testing.T) {
	t.Parallel()
	r, g, e, stop := gated(t, 20*time.Millisecond, "create table a (id int primary key, n int); insert into a values (1, 1)")
	g.look()
	require.NoError(t, e.Lake.Hold(t.Context()))
	r.exec("alter table a alter n type int using n * 2")
	r.exec("insert into a values (2, 2)")
	g.pass()
	g.look() // has seen it, and the stream has not
	g.pass()
	g.look() // and no other gets in
	require.Eventually(t, func() bool { return state(e, "public.a").State == lake.Behind }, 20*time.Second, 10*time.Millisecond)
	at, err := e.Source.CommittedLSN(t.Context())
	require.NoError(t, err)
	_, _, err = e.Lake.Cut(t.Context(), at)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Contains(state(e, "public.a").Reason, "rewritten in place") }, 20*time.Second, 10*time.Millisecond)
	g.pass()
	close(g.open)
	r.eventuallySame(e, "public.a")
	require.NoError(t, stop())
}

// TestRule27TruncatedBeforeAStart: nobody looked between the TRUNCATE and the
// end of that process; the next one still knows what explains the new file.
func TestRule27TruncatedBeforeAStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	poll := r.o.Poll
	r.o.Poll = time.Hour
	r.exec("create table a (id int primary key); insert into a values (1)")
	e, stop := r.run()
	r.same(e, "public.a")
	r.exec("truncate a; insert into a values (2)")
	r.same(e, "public.a")
	require.NoError(t, stop())
	r.o.Poll = poll
	e, stop = r.run()
	r.settled(e)
	r.exec("insert into a values (3)")
	r.same(e, "public.a")
	require.Zero(t, e.Lake.Counters().RowsLoaded.Load())
	require.NoError(t, stop())
}

// TestRule27TruncatedRoot: a TRUNCATE of a partitioned table is in the stream,
// and explains what happened to its partitions.
func TestRule27TruncatedRoot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table p (id int primary key) partition by range (id);
		create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
		insert into p values (1), (11)`)
	e, stop := r.run()
	r.same(e, "public.p")
	loads := e.Lake.Counters().RowsLoaded.Load()
	for range 3 {
		r.exec("truncate p; insert into p values (2), (12)")
		r.settled(e)
		r.exec("insert into p values (3), (13)")
		r.same(e, "public.p")
	}
	require.Equal(t, loads, e.Lake.Counters().RowsLoaded.Load())
	require.NoError(t, stop())
}

// held is a rig whose Postgres holds each commit, once it is streamed, until
// standby has it. Only those of commit are: what else the test does is local.
func held(t *testing.T, standby string) *rig {
	r := newRigWith(t, map[string]string{"synchronous_standby_names": standby, "synchronous_commit": "local"})
	r.o.Freshness, r.o.Poll = 20*time.Millisecond, time.Hour
	r.exec("create table more (id int primary key, v text); insert into more values (1, 'a')")
	r.exec("create table other (id int primary key, n int); insert into other values (1, 1)")
	return r
}

// commit does sql in a transaction that is held, on a connection of its own: pid
// is the server process, done says how it ended.
func (r *rig) commit(sql string) (pid uint32, done chan error) {
	conn, err := pgx.Connect(r.t.Context(), r.url)
	require.NoError(r.t, err)
	done = make(chan error, 1)
	go func() {
		_, err := conn.Exec(r.t.Context(), "set synchronous_commit = on")
		if err == nil {
			_, err = conn.Exec(r.t.Context(), sql)
		}
		done <- errors.Join(err, conn.Close(r.t.Context()))
	}()
	return conn.PgConn().PID(), done
}

// TestRule27StreamedBeforeItIsVisible: Postgres streams a commit as soon as its
// record is flushed, and shows it to others only after that; with a synchronous
// standby that is away, long after. A catalog from before the commit says nothing
// about the columns it brought, nor whether n is the n of before.
func TestRule27StreamedBeforeItIsVisible(t *testing.T) {
	t.Parallel()
	r := held(t, "away")
	e, stop := r.run()
	r.exec("insert into more values (2, 'b'); insert into other values (2, 2)")
	r.same(e, "public.more", "public.other")
	for _, c := range []struct {
		table, sql string
		hold       time.Duration
		mayLoad    bool
	}{
		{"public.more", "alter table more add n int; insert into more values (3, 'c', 3)", 500 * time.Millisecond, false},
		{"public.other", "alter table other drop n; alter table other add n int; insert into other values (3, 3)", 500 * time.Millisecond, true},
		// Nobody waits for that for long.
		{"public.more", "alter table more add m int; insert into more values (4, 'd', 4, 4)", 4 * time.Second, true},
		// And for nothing that can't have altered the table.
		{"public.more", "insert into more values (5, 'e', 5, 5)", 4 * time.Second, false},
	} {
		loaded := e.Lake.Counters().RowsLoaded.Load()
		pid, done := r.commit(c.sql)
		waiting := func() (yes bool) {
			err := r.conn.QueryRow(t.Context(), "select wait_event = 'SyncRep' from pg_stat_activity where pid = $1", pid).Scan(&yes)
			return err == nil && yes
		}
		for began := time.Now(); !waiting(); time.Sleep(5 * time.Millisecond) {
			require.Less(t, time.Since(began), 20*time.Second, "the commit is not held")
		}
		time.Sleep(c.hold)
		r.exec("select pg_cancel_backend($1)", pid) // the wait: it is committed
		require.NoError(t, <-done)
		r.eventuallySame(e, c.table, c.sql)
		if !c.mayLoad {
			require.Equal(t, loaded, e.Lake.Counters().RowsLoaded.Load(), "what the stream tells needs no load: %s", c.sql)
		}
	}
	require.Zero(t, e.Lake.Counters().Restarts.Load()+e.Lake.Counters().Errors.Load())
	require.NoError(t, stop())
}

// TestSynchronousStandby: where any client that streams may count as one, commits
// wait for firn, which must not wait for them.
func TestSynchronousStandby(t *testing.T) {
	t.Parallel()
	r := held(t, "*")
	e, stop := r.run()
	r.caughtUp(e)
	for _, sql := range []string{
		"insert into more values (2, 'b')",
		"alter table more add n int; insert into more values (3, 'c', 3)",
		"truncate other; insert into other values (3, 3)",
	} {
		_, done := r.commit(sql)
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(30 * time.Second):
			require.Fail(t, "the commit waits for firn, and firn for it", sql)
		}
	}
	r.eventuallySame(e, "public.more")
	r.eventuallySame(e, "public.other")
	require.NoError(t, stop())
}

package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// copier opens a table for two COPYs at a time.
func copier(t testing.TB, s *Source, sn *Snapshot, x *Table, parts int) *Copier {
	t.Helper()
	cp, err := s.Copier(t.Context(), sn, x, parts, 2)
	require.NoError(t, err)
	return cp
}

// copyInts reads the first column, an int4, of all of a table's ranges.
func copyInts(t testing.TB, s *Source, sn *Snapshot, x *Table, n int) []int {
	t.Helper()
	var out []int
	cp := copier(t, s, sn, x, n)
	defer cp.Close()
	for _, r := range cp.Ranges {
		err := cp.Copy(t.Context(), []CopyColumn{{Name: x.Columns[0].Name}}, r, func(row [][]byte) error {
			out = append(out, int(int32(binary.BigEndian.Uint32(row[0]))))
			return nil
		})
		require.NoError(t, err)
	}
	return out
}

// The boundary: while rows are inserted as fast as they go, each is either in
// the snapshot or in the slot's stream, and none in both.
func TestRule01SnapshotAndStreamMeetExactly(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	_, _, err := s.SyncPublication(t.Context(), names("public.t"))
	require.NoError(t, err)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	const writers = 3
	for w := range writers {
		wc := dial(t, url)
		wg.Go(func() {
			for i := w; ; i += writers {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := wc.Exec(context.Background(), "INSERT INTO t VALUES ($1)", i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	sn, err := s.CreateSlot(t.Context(), s.o.Slot, false, names("public.t"), LockOptions{})
	require.NoError(t, err)
	time.Sleep(200 * time.Millisecond)
	x := describe(t, s, "public.t")
	loaded := copyInts(t, s, sn, x, 4)
	sn.Close()
	defer func() { require.NoError(t, s.DropSlot(context.Background(), s.o.Slot)) }()
	close(stop)
	wg.Wait()
	end, err := s.InsertLSN(t.Context())
	require.NoError(t, err)

	f := follow(t, s, sn.ConsistentPoint, StreamOptions{})
	require.Eventually(t, func() bool { return f.st.Received() >= end }, 20*time.Second, 10*time.Millisecond)
	f.stop()
	require.GreaterOrEqual(t, f.commits[0], sn.ConsistentPoint, "a commit of the stream begins at the floor or after it")
	seen := make(map[string]int)
	for _, i := range loaded {
		seen[itoa(i)]++
	}
	for _, r := range f.rows() {
		seen[r]++
	}
	for id, n := range seen {
		require.Equal(t, 1, n, "row %s", id)
	}
	var total int
	require.NoError(t, c.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&total))
	require.Len(t, seen, total)
	require.NotEmpty(t, loaded)
	require.NotEmpty(t, f.rows())
	t.Logf("%d rows loaded, %d streamed", len(loaded), len(f.rows()))
}

func TestRule24RangesOfOneSnapshotHoldEachRowOnce(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, `CREATE TABLE t (id int PRIMARY KEY, pad text) WITH (autovacuum_enabled = false);
		ALTER TABLE t ALTER pad SET STORAGE PLAIN;
		INSERT INTO t SELECT i, repeat('x', 1800) FROM generate_series(0, 39999) i`)
	s := open(t, url)
	x := describe(t, s, "public.t")
	sn, err := s.CreateSlot(t.Context(), s.o.Slot+"_tmp", true, names("public.t"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	// Rows move between the ranges while they are read, and the table grows.
	mustExec(t, c, "UPDATE t SET pad = 'moved' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0; INSERT INTO t SELECT i, '' FROM generate_series(50000, 60000) i")
	cp := copier(t, s, sn, x, 4)
	require.Greater(t, len(cp.Ranges), 2)
	cp.Close()
	got := copyInts(t, s, sn, x, 4)
	seen := make(map[int]bool)
	for _, i := range got {
		require.False(t, seen[i], i)
		seen[i] = true
	}
	require.Len(t, got, 40000)
	cp = copier(t, s, sn, x, 1)
	require.Len(t, cp.Ranges, 1)
	cp.Close()
}

func TestCopyForms(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, `CREATE TABLE "t t" (id int PRIMARY KEY, "We""ird" text, acl aclitem, n numeric(9,2), day date);
		INSERT INTO "t t" VALUES (1, '', 'postgres=r/postgres', 12.5, '2026-02-03'), (2, NULL, NULL, NULL, NULL), (3, repeat('long', 300000), NULL, 0, 'infinity');
		CREATE TABLE empty (id int PRIMARY KEY);
		CREATE TABLE p (id int, v text) PARTITION BY LIST (id); CREATE TABLE no_leaves (id int) PARTITION BY LIST (id);
		CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 (extra int, v text, id int);
		ALTER TABLE p2 DROP COLUMN extra; ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2); INSERT INTO p VALUES (1, 'one'), (2, 'two')`)
	mustExec(t, c, "ALTER ROLE postgres IN DATABASE "+c.Config().Database+" SET datestyle = 'german'")
	s := open(t, url)
	sn, err := s.CreateSlot(t.Context(), s.o.Slot+"_tmp", true, names("public.t t", "public.p", "public.no_leaves"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	read := func(table string, cols ...CopyColumn) (out []string) {
		x := describe(t, s, table)
		cp := copier(t, s, sn, x, 2)
		defer cp.Close()
		for _, r := range append(cp.Ranges, CTIDRange{})[:max(1, len(x.Leaves))] {
			require.NoError(t, cp.Copy(t.Context(), cols, r, func(row [][]byte) error {
				line := ""
				for _, v := range row {
					switch {
					case v == nil:
						line += "|NULL"
					case len(v) > 100:
						line += fmt.Sprintf("|%d bytes", len(v))
					default:
						line += "|" + string(v)
					}
				}
				out = append(out, line)
				return nil
			}))
		}
		return out
	}
	require.Equal(t, []string{"|1||postgres=r/postgres|12.50|2026-02-03", "|2|NULL|NULL|NULL|NULL", "|3|1200000 bytes|NULL|0.00|infinity"},
		read("public.t t", CopyColumn{Name: "id", AsText: true}, CopyColumn{Name: `We"ird`}, CopyColumn{Name: "acl", AsText: true}, CopyColumn{Name: "n", AsText: true}, CopyColumn{Name: "day", AsText: true}))
	require.Equal(t, []string{"|1|2", "|2|3", "|3|4"}, read("public.t t", CopyColumn{Name: "id", AsText: true}, CopyColumn{Expr: "id + 1", AsText: true}))
	require.Equal(t, []string{"|x1", "|x2", "|x3"}, read("public.t t", CopyColumn{Expr: "'x' || id"}))
	require.Empty(t, read("public.empty", CopyColumn{Name: "id"}))
	require.Equal(t, []string{"|1|one", "|2|two"}, read("public.p", CopyColumn{Name: "id", AsText: true}, CopyColumn{Name: "v"}))
	require.Empty(t, read("public.no_leaves", CopyColumn{Name: "id"}))

	x := describe(t, s, "public.t t")
	one := func(ctx context.Context, column string, fn func([][]byte) error) error {
		cp, err := s.Copier(ctx, sn, x, 1, 1)
		if err != nil {
			return err
		}
		defer cp.Close()
		if err := cp.Copy(ctx, []CopyColumn{{Name: column}}, CTIDRange{}, fn); err != nil {
			require.ErrorContains(t, cp.Copy(t.Context(), []CopyColumn{{Name: "id"}}, CTIDRange{}, fn), "has ended")
			return err
		}
		return nil
	}
	stop := errors.New("enough")
	require.Equal(t, stop, one(t.Context(), "id", func([][]byte) error { return stop }))
	ctx, cancel := context.WithCancel(t.Context())
	err = one(ctx, "id", func([][]byte) error { cancel(); return ctx.Err() })
	require.ErrorIs(t, err, context.Canceled)
	err = one(t.Context(), "acl", func([][]byte) error { return nil })
	require.Equal(t, "42883", code(err), "aclitem has no binary form: %v", err)

	mustExec(t, c, "CREATE TABLE p3 (id int, v text); INSERT INTO p3 VALUES (3, 'attached')")
	mustExec(t, c, "ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)")
	y := describe(t, s, "public.p")
	_, err = s.Copier(t.Context(), sn, y, 1, 1)
	require.ErrorIs(t, err, ErrTableChanged)

	sn.Close()
	require.Eventually(t, func() bool { // its backend takes a moment to end
		err = one(t.Context(), "id", func([][]byte) error { return nil })
		return err != nil
	}, 10*time.Second, 10*time.Millisecond)
	require.ErrorIs(t, err, ErrSnapshotGone)
}

func TestSlotLife(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := openWith(t, Options{URL: url, SlotWait: time.Second})
	ctx := t.Context()
	st, err := s.Slot(ctx)
	require.NoError(t, err)
	require.Nil(t, st)
	_, err = s.RetainedWAL(ctx)
	require.ErrorIs(t, err, ErrSlotMissing)
	sn, err := s.CreateSlot(ctx, s.o.Slot, false, nil, LockOptions{})
	require.NoError(t, err)
	sn.Close()
	st, err = s.Slot(ctx)
	require.NoError(t, err)
	require.Equal(t, sn.ConsistentPoint, st.ConfirmedFlush)
	require.Equal(t, "pgoutput", st.Plugin)
	require.Equal(t, s.Database(), st.Database)
	require.Equal(t, "reserved", st.WALStatus)
	require.False(t, st.Active || st.Temporary || st.TwoPhase)
	r, err := s.RetainedWAL(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(-1), r.LimitBytes)
	require.Equal(t, int64(-1), r.SafeBytes)
	_, err = s.CreateSlot(ctx, s.o.Slot, false, names("public.t"), LockOptions{})
	require.ErrorIs(t, err, ErrSlotExists)
	require.NoError(t, s.DropSlot(ctx, s.o.Slot))
	require.NoError(t, s.DropSlot(ctx, s.o.Slot))
	_, err = s.CreateSlot(ctx, s.o.Slot, true, names("public.nowhere"), LockOptions{})
	require.Equal(t, "42P01", code(err))

	tmp, err := s.CreateSlot(ctx, s.o.Slot, true, nil, LockOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, s.DropSlot(ctx, s.o.Slot), ErrSlotInUse)
	tmp.Close()
	require.Eventually(t, func() bool {
		st, err := s.Slot(ctx)
		require.NoError(t, err)
		return st == nil
	}, 5*time.Second, 10*time.Millisecond, "a temporary slot goes with its snapshot")
}

// Rule 26, played out as it was seen: a transaction holds an xid; a user's ALTER
// comes to wait for our lock. Without giving way, the slot would wait for the
// transaction, the ALTER for us, and every SELECT behind the ALTER.
func TestRule26AWaitingAlterIsLetThrough(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
	s := open(t, url)
	long := dial(t, url)
	mustExec(t, long, "BEGIN; INSERT INTO other VALUES (1)")

	var mu sync.Mutex
	var obstacles []Obstacle
	type result struct {
		sn  *Snapshot
		err error
	}
	created := make(chan result, 1)
	go func() {
		sn, err := s.CreateSlot(t.Context(), s.o.Slot, true, names("public.t"), LockOptions{Limit: 20 * time.Second, Report: func(o Obstacle) {
			mu.Lock()
			obstacles = append(obstacles, o)
			mu.Unlock()
		}})
		created <- result{sn, err}
	}()
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, c.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessShareLock' AND granted").Scan(&n))
		return n > 0
	}, 10*time.Second, 10*time.Millisecond)

	user := dial(t, url)
	begin := time.Now()
	mustExec(t, user, "ALTER TABLE t ADD COLUMN x int")
	require.Less(t, time.Since(begin), 5*time.Second, "the user's ALTER waits for the lock to be given up, no longer")
	mustExec(t, user, "SELECT * FROM t")
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(obstacles) > 0 }, 5*time.Second, 10*time.Millisecond)
	mu.Lock()
	require.Len(t, obstacles[0].Waiters, 1)
	require.Contains(t, obstacles[0].Waiters[0].Query, "ALTER TABLE t")
	require.Equal(t, int32(user.PgConn().PID()), obstacles[0].Waiters[0].PID)
	require.Len(t, obstacles[0].Blockers, 1)
	// Which of the two the slot waits for first is chance: asking for its lock
	// has given the ALTER an xid too. That is the circle.
	require.Contains(t, []int32{int32(long.PgConn().PID()), int32(user.PgConn().PID())}, obstacles[0].Blockers[0].PID)
	t.Log(obstacles[0])
	mu.Unlock()

	mustExec(t, long, "COMMIT")
	r := <-created
	require.NoError(t, r.err)
	defer r.sn.Close()
	require.Len(t, describe(t, s, "public.t").Columns, 2)
}

func TestRule26TheSlotHasALimit(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
	s := open(t, url)
	long := dial(t, url)
	mustExec(t, long, "BEGIN; INSERT INTO other VALUES (1)")
	begin := time.Now()
	_, err := s.CreateSlot(t.Context(), s.o.Slot, true, names("public.t"), LockOptions{Limit: 500 * time.Millisecond, Patience: time.Second})
	require.ErrorIs(t, err, ErrBusy)
	require.Less(t, time.Since(begin), 5*time.Second)
	require.ErrorContains(t, err, fmt.Sprintf("pid %d", long.PgConn().PID()))
	t.Log(err)
	st, err := s.Slot(t.Context())
	require.NoError(t, err)
	require.Nil(t, st, "nothing is left behind")
	mustExec(t, long, "COMMIT; BEGIN; ALTER TABLE t ADD COLUMN y int")
	_, err = s.CreateSlot(t.Context(), s.o.Slot, true, names("public.t"), LockOptions{Limit: 500 * time.Millisecond, Patience: time.Second})
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, "ALTER TABLE t ADD COLUMN y", "who holds the lock we can't get is named too")
	mustExec(t, long, "ROLLBACK")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	mustExec(t, long, "BEGIN; INSERT INTO other VALUES (1)")
	_, err = s.CreateSlot(ctx, s.o.Slot, true, names("public.t"), LockOptions{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	mustExec(t, long, "COMMIT")
}

func TestRule26LocksAreReleasedTableByTable(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	var list []TableName
	sql := ""
	for i := range 250 {
		sql += fmt.Sprintf("CREATE TABLE t%d (id int);", i)
		list = append(list, TableName{Schema: "public", Name: fmt.Sprintf("t%d", i)})
	}
	mustExec(t, c, sql)
	s := open(t, url)
	sn, err := s.CreateSlot(t.Context(), s.o.Slot, true, append(list, list[3]), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	locked := func(name string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Exec(ctx, "BEGIN; LOCK TABLE "+name+" NOWAIT; ROLLBACK")
		if err != nil {
			require.Equal(t, "55P03", code(err))
			mustExec(t, c, "ROLLBACK")
		}
		return err != nil
	}
	ctx := t.Context()
	require.True(t, locked("t0"))
	require.True(t, locked("t249"))
	require.NoError(t, sn.Release(ctx, list[0]))
	require.False(t, locked("t0"))
	require.True(t, locked("t1"))
	require.NoError(t, sn.Release(ctx, list[2]))
	require.True(t, locked("t2"), "below one that is still held")
	require.NoError(t, sn.Release(ctx, list[1]))
	require.False(t, locked("t1"))
	require.False(t, locked("t2"))
	require.True(t, locked("t3"))
	require.NoError(t, sn.Release(ctx, list[1]))

	// Who waits for a lock is known by name.
	user := dial(t, url)
	altered := make(chan error, 1)
	go func() {
		altered <- user.PgConn().Exec(context.Background(), "ALTER TABLE t3 ADD COLUMN waiting int").Close()
	}()
	var w []Session
	require.Eventually(t, func() bool {
		w, err = s.Waiters(ctx)
		require.NoError(t, err)
		return len(w) == 1
	}, 5*time.Second, 20*time.Millisecond)
	require.Contains(t, w[0].String(), "ALTER TABLE t3")
	require.Contains(t, w[0].Table, "t3")
	require.NoError(t, sn.Release(ctx, list[3]))
	require.NoError(t, <-altered)
	for _, x := range list {
		require.NoError(t, sn.Release(ctx, x))
	}
	require.False(t, locked("t249"))
}

// Rule 26 again, during the load: a TRUNCATE comes to wait for the snapshot's lock.
// A COPY that begins then would wait behind it, and it for us, for ever.
func TestRule26ATruncateDuringTheLoadIsLetThrough(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, `CREATE TABLE t (id int PRIMARY KEY, pad text) WITH (autovacuum_enabled = false);
		ALTER TABLE t ALTER pad SET STORAGE PLAIN;
		INSERT INTO t SELECT i, repeat('x', 1800) FROM generate_series(0, 19999) i; CREATE TABLE last (id int)`)
	s := open(t, url)
	x := describe(t, s, "public.t")
	sn, err := s.CreateSlot(t.Context(), s.o.Slot, true, names("public.t", "public.last"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	truncate := func(table string) <-chan error {
		user, done := dial(t, url), make(chan error, 1)
		go func() { done <- user.PgConn().Exec(context.Background(), "TRUNCATE "+table).Close() }()
		require.Eventually(t, func() bool {
			var n int
			require.NoError(t, c.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted", table).Scan(&n))
			return n > 0
		}, 10*time.Second, 10*time.Millisecond)
		return done
	}

	// One that comes after the Copier waits, and every range is read.
	cp := copier(t, s, sn, x, 4)
	require.Greater(t, len(cp.Ranges), 1)
	done := truncate("t")
	rows := 0
	for _, r := range cp.Ranges {
		require.NoError(t, cp.Copy(t.Context(), []CopyColumn{{Name: "id"}}, r, func([][]byte) error { rows++; return nil }))
	}
	require.Equal(t, 20000, rows)
	cp.Close()

	// The snapshot's lock is still in its way.
	begin := time.Now()
	_, err = s.Copier(t.Context(), sn, x, 4, 2)
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, "TRUNCATE t")
	require.Less(t, time.Since(begin), 10*time.Second)
	t.Log(err)
	require.NoError(t, sn.Release(t.Context(), names("public.t")[0]))
	require.NoError(t, <-done)
	mustExec(t, c, "SELECT FROM t")
	require.Empty(t, copyInts(t, s, sn, describe(t, s, "public.last"), 1), "the snapshot is there for the other tables")
}

// What the lock is for: without it a rewrite before the COPY would empty the
// table in the snapshot.
func TestLockKeepsARewriteOut(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)")
	s := open(t, url)
	sn, err := s.CreateSlot(t.Context(), s.o.Slot, true, names("public.t"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	mustExec(t, c, "SET lock_timeout = '100ms'")
	require.Equal(t, "55P03", code(c.PgConn().Exec(t.Context(), "TRUNCATE t").Close()))
	require.Equal(t, "55P03", code(c.PgConn().Exec(t.Context(), "ALTER TABLE t ALTER id TYPE bigint").Close()))
	require.Len(t, copyInts(t, s, sn, describe(t, s, "public.t"), 1), 10)
	require.NoError(t, sn.Release(t.Context(), names("public.t")[0]))
	mustExec(t, c, "TRUNCATE t")
}

package wire_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/wire"
	"firn/lake"
	"firn/lake/audit"
)

func (r *rig) verify(e *wire.Engine, only ...string) *audit.Report {
	r.t.Helper()
	report, err := audit.Verify(r.t.Context(), r.audit(e, only...))
	require.NoError(r.t, err)
	return report
}

func (r *rig) audit(e *wire.Engine, only ...string) audit.Options {
	standing := map[string]string{}
	for _, t := range e.Lake.Status().Tables {
		if t.State != lake.Streaming {
			standing[t.Name] = t.State + ": " + t.Reason
		}
	}
	return audit.Options{Standing: standing, Source: e.Source.Source, SlotName: r.o.Slot, Log: e.Log, Store: e.Store, Mirror: e.Lake, Only: only, Logger: r.o.Logger}
}

func found(t *testing.T, r *audit.Report, table string) audit.TableReport {
	t.Helper()
	for _, x := range r.Tables {
		if x.Name == table {
			return x
		}
	}
	require.Fail(t, "the report has no "+table, "%+v", r)
	return audit.TableReport{}
}

func TestVerifyEqual(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			r := newRig(t)
			r.o.FormatVersion = func(lake.Ident) int { return version }
			r.exec(`create type mood as enum ('sad', 'happy'); create domain cents as numeric(12,2); create domain tags as text[];
				create table typed (id bigint primary key, b bool, i2 int2, i4 int4, f4 float4, f8 float8, n numeric(20,4), big numeric,
					t text, v varchar(9), c char(6), y bytea, u uuid, d date, tm time, ts timestamp, tz timestamptz, j json, jb jsonb, m mood, dom cents, ip inet, iv interval,
					ia int[], ta text[], fa float8[], na numeric(9,3)[], da date[], tza timestamptz[], ba bytea[], ua uuid[], boa bool[], dt tags, sum bigint generated always as (id * 2) stored);
				insert into typed values
				(1, true, -7, 42, 1.5, 0.1, 12.3, 1e40, 'x', 'y', 'z', '\x00ff', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1969-12-31', '23:59:59.999999', '0001-01-01', '2026-11-23 02:00:00.000001+05', '{"a": 1}', '{"b":  2}', 'sad', 1.10, '10.0.0.1/8', '1 day 02:00',
				 '{1,NULL,-3}', array['a,b', NULL, '', 'é{}"'], '{NaN,-0,Infinity}', '{1.5,NULL}', '{2020-01-01,NULL}', '{2020-01-01 00:00:00+00}', array['\x01'::bytea], '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}', '{t,f,NULL}', '{x}'),
				(2, false, 0, 0, 'NaN', '-Infinity', -0.0001, 'NaN', '', '', '', '', null, '0044-03-15 BC', '00:00', '9999-12-31 23:59:59.999999', '1900-01-01', 'null', '[]', 'happy', -0.01, '::1', '-1 mon', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
				insert into typed (id, f4, f8) values (3, '-0', '-0'), (4, null, 'Infinity');
				create table keyless (a int, b text); alter table keyless replica identity full; insert into keyless select i % 5, 'b' from generate_series(1, 500) i;
				create table "Odd name" ("Key ""1""" text primary key, "select" int); insert into "Odd name" values ('k', 1);
				create table parted (id int primary key, v text) partition by range (id);
				create table parted_1 partition of parted for values from (0) to (100); create table parted_2 partition of parted for values from (100) to (1000);
				insert into parted select i, 'p' || i from generate_series(1, 500) i;
				create table empty (id int primary key); create table nokey (id int); create table bad (id int primary key, d date); insert into bad values (1, 'infinity')`)
			e, stop := r.run()
			r.caughtUp(e)
			for i := range 5 {
				r.exec("insert into typed select i, i % 2 = 0, 1, i, i / 3.0, i / 7.0, i / 9.0, i / 11.0 from generate_series(10 + 100*$1::int, 90 + 100*$1::int) i", i)
				r.exec("update typed set t = 't' || id, ts = now(), tz = now(), ia = array[id] where id % 3 = $1", i%3)
				r.exec("delete from typed where id > 50 and id % 7 = $1", i)
				r.exec("delete from keyless where ctid in (select ctid from keyless limit 3)")
				r.exec("update parted set v = v || '!' where id % 9 = $1", i)
				r.exec("update parted set id = id + 500 where id = $1", 40+i)
			}
			report := r.verify(e)
			for _, name := range []string{"typed", "keyless", "Odd name", "parted", "empty"} {
				x := found(t, report, "public."+name)
				require.Equal(t, audit.Equal, x.Result, "%+v", x)
				require.Equal(t, x.Postgres, x.Lake)
				require.Empty(t, x.Schema)
			}
			require.Equal(t, int64(500), found(t, report, "public.parted").Lake.Rows)
			require.Zero(t, found(t, report, "public.empty").Lake.Rows)
			require.Contains(t, found(t, report, "public.nokey").Reason, "skipped")
			require.Contains(t, found(t, report, "public.bad").Reason, "quarantined")
			require.Len(t, report.Tables, 7)

			require.Len(t, r.verify(e, "typed", "public.empty").Tables, 2)
			_, err := audit.Verify(t.Context(), r.audit(e, "nothing"))
			require.ErrorIs(t, err, audit.ErrNoTable)

			require.NoError(t, stop())
		})
	}
}

// A firn that doesn't run is compared too, unless it would have something to do.
func TestVerifyStopped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, v text); insert into a select i, 'v' from generate_series(1,100) i; create table other (id int)")
	e, stop := r.run()
	r.exec("update a set v = 'w' where id < 10")
	r.caughtUp(e)

	o := r.audit(e)
	o.Mirror = nil
	_, err := audit.Verify(t.Context(), o)
	require.ErrorIs(t, err, audit.ErrBehind)
	require.ErrorContains(t, err, "--url", "a firn runs")

	require.NoError(t, stop())
	e, err = wire.Open(t.Context(), r.o)
	require.NoError(t, err)
	defer e.Close()
	r.exec("insert into other values (1)") // none of ours
	o = r.audit(e)
	o.Mirror = nil
	report, err := audit.Verify(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, audit.Equal, found(t, report, "public.a").Result)

	r.exec("delete from a where id = 1")
	_, err = audit.Verify(t.Context(), o)
	require.ErrorIs(t, err, audit.ErrBehind)
	require.ErrorContains(t, err, "Start firn")
}

// Verify stands beside a workload, and neither stops the other.
func TestVerifyWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("create table a (id int primary key, v text); create table b (id serial primary key, n int); insert into a select i, 'v' from generate_series(1,2000) i")
	e, stop := r.run()
	r.caughtUp(e)
	ctx, cancel := context.WithCancel(t.Context())
	var changes atomic.Int64
	done := make(chan error, 3)
	for w := range 3 {
		go func() {
			conn, err := pgx.Connect(t.Context(), r.url)
			if err != nil {
				done <- err
				return
			}
			defer conn.Close(context.Background())
			rng := rand.New(rand.NewPCG(7, uint64(w)))
			for ctx.Err() == nil && err == nil {
				// One transaction on both tables: they must be seen together.
				_, err = conn.Exec(t.Context(), fmt.Sprintf("begin; update a set v = v || 'x' where id = %d; insert into b (n) values (%d); delete from b where n = %d; commit",
					1+w*600+rng.IntN(600), rng.IntN(1000), rng.IntN(1000)))
				changes.Add(1)
			}
			done <- err
		}()
	}
	for range 5 {
		before := changes.Load()
		report := r.verify(e)
		for _, x := range report.Tables {
			require.Equal(t, audit.Equal, x.Result, "%+v", x)
		}
		require.Greater(t, changes.Load(), before, "the workload went on")
	}
	// A table that is emptied again and again is compared when it holds still.
	for range 3 {
		r.exec("truncate b")
		report := r.verify(e, "b")
		require.Equal(t, audit.Equal, found(t, report, "public.b").Result)
	}
	cancel()
	for range 3 {
		require.NoError(t, <-done)
	}
	var slots int
	require.Eventually(t, func() bool {
		require.NoError(t, r.conn.QueryRow(t.Context(), "select count(*) from pg_replication_slots where temporary").Scan(&slots))
		return slots == 0
	}, 10*time.Second, 50*time.Millisecond, "temporary slots are gone")
	require.NoError(t, stop())
}

// A lake that was tampered with, as Postgres would be if it had changed behind
// the stream's back: each kind of difference is found and named.
func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id int primary key, at date, v text); insert into a select i, '2020-01-01', 'v' || i from generate_series(1,3000) i;
		create table dup (x text); alter table dup replica identity full; insert into dup values ('one'), ('one'), ('two');
		create table same (id int primary key); insert into same values (1);
		create table s (id int primary key, v int)`)
	e, stop := r.run()
	r.caughtUp(e)
	require.NoError(t, stop())
	e, err := wire.Open(t.Context(), r.o)
	require.NoError(t, err)
	defer e.Close()
	// What the slot does not show: changes of a publication that lists nothing.
	r.exec("alter publication " + r.o.Publication + " set table same")
	r.exec("delete from a where id = 17; update a set v = 'other' where id in (30, 31); insert into a values (5000, null, ''); delete from dup where ctid = (select min(ctid) from dup); insert into dup values ('three')")
	r.exec("alter table s add w text, alter v type text")
	o := r.audit(e)
	o.Mirror = nil
	report, err := audit.Verify(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 3, report.Count(audit.Different))
	require.Equal(t, audit.Equal, found(t, report, "public.same").Result)

	a := found(t, report, "public.a")
	require.Equal(t, audit.Kind{Count: 1, Keys: []string{"id=5000"}}, a.Rows.OnlyPostgres)
	require.Equal(t, audit.Kind{Count: 1, Keys: []string{"id=17"}}, a.Rows.OnlyLake)
	require.Equal(t, audit.Kind{Count: 2, Keys: []string{"id=30", "id=31"}}, a.Rows.Changed)
	require.True(t, a.Rows.Complete)
	dup := found(t, report, "public.dup")
	require.Equal(t, []string{"x=three"}, dup.Rows.OnlyPostgres.Keys)
	require.Equal(t, []string{"x=one (1 in Postgres, 2 in the lake)"}, dup.Rows.Changed.Keys)
	s := strings.Join(found(t, report, "public.s").Schema, "\n")
	require.Contains(t, s, "column w is in Postgres only")
	require.Contains(t, s, "column v should be string, as Postgres' text, and is int in the lake")

	r.exec("update a set v = 'many' where id % 2 = 0")
	o.KeysMax = 3
	report, err = audit.Verify(t.Context(), o)
	require.NoError(t, err)
	require.Greater(t, found(t, report, "public.a").Rows.Changed.Count, int64(1490))
	require.Len(t, found(t, report, "public.a").Rows.Changed.Keys, 3)
}

package wire_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/wire"
	"firn/compaction"
	"firn/lake"
	"firn/lake/audit"
	"firn/lake/object"
	"firn/lake/partition"
)

// partitioned has tables partitioned by the text that by holds for their names.
func (r *rig) partitioned(by map[string]string) {
	r.o.PartitionBy = func(id lake.Ident) partition.By {
		p, err := partition.Parse(by[id.Name])
		require.NoError(r.t, err)
		return p
	}
}

// iceberg opens a table as iceberg-go's own reader sees it.
func (r *rig) iceberg(e *wire.Engine, name string) *table.Table {
	r.t.Helper()
	for _, h := range r.head(e).Tables {
		if h.Ident.Name == name {
			tab, err := table.NewFromLocation(r.t.Context(), table.Identifier{h.Ident.Namespace, name}, h.Metadata,
				func(ctx context.Context) (iceio.IO, error) { return object.FileIO(ctx, e.Store), nil }, nil)
			require.NoError(r.t, err)
			return tab
		}
	}
	require.Fail(r.t, "the lake has no table "+name)
	return nil
}

// finds compares what iceberg-go finds, by partitions and statistics, with what
// Postgres does, and returns how many data files it looked into of how many.
func (r *rig) finds(e *wire.Engine, name string, filter iceberg.BooleanExpression, where string) (files, all int) {
	r.t.Helper()
	tab := r.iceberg(e, name)
	scan := tab.Scan(table.WithRowFilter(filter))
	tasks, err := scan.PlanFiles(r.t.Context())
	require.NoError(r.t, err)
	every, err := tab.Scan().PlanFiles(r.t.Context())
	require.NoError(r.t, err)
	rows, err := scan.ToArrowTable(r.t.Context())
	require.NoError(r.t, err)
	defer rows.Release()
	var want int64
	require.NoError(r.t, r.conn.QueryRow(r.t.Context(), "select count(*) from "+name+" where "+where).Scan(&want))
	require.Equal(r.t, want, rows.NumRows(), "%s where %s", name, where)
	return len(tasks), len(every)
}

// Rows move between partitions, die, are truncated and rewritten, through
// restarts with and without the state folder, with the partitions changed in
// between, and the lake has what Postgres has, each row where readers look for it.
func TestMirrorPartitions(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.o.FormatVersion = func(lake.Ident) int { return version }
			r.o.Compaction = &compaction.Options{SpareFiles: 1, MaxDead: 0.05}
			by := map[string]string{"orders": "month(at), bucket(4, id)", "kinds": "kind, truncate(10, n)", "whole": "b", "log": "day(at)"}
			r.partitioned(by)
			r.exec(`create table orders (id bigint primary key, at timestamptz, amount numeric(12,2), note text);
				create table kinds (id int primary key, kind text, n int, u uuid, body text); alter table kinds alter kind set storage external;
				create table whole (a int, b date); alter table whole replica identity full;
				create table log (id int primary key, at timestamp, v text);
				insert into orders select i, timestamptz '1969-06-01' + i * interval '7 hours', i, 'n'||i from generate_series(1, 1500) i;
				insert into orders values (0, null, null, null);
				insert into kinds select i, case i%5 when 0 then null when 1 then '' when 2 then '<nil>' else 'k'||i%5 end, i%30-10, md5(i::text)::uuid from generate_series(1,500) i;
				insert into kinds values (10000, (select string_agg(md5(i::text), '') from generate_series(1,200) i), 1);
				insert into whole select i%5, date '1969-12-30' + i%4 from generate_series(1,100) i;
				insert into log select i, timestamp '2026-01-01' + i * interval '1 hour', 'v' from generate_series(1,200) i`)
			tables := []string{"public.orders", "public.kinds", "public.whole", "public.log"}
			rng := rand.New(rand.NewPCG(7, 0))
			for round := range 3 {
				e, stop := r.run()
				for i := range 25 {
					r.exec("update orders set at = at + $1 * interval '1 month' where id % 97 = $2", rng.IntN(5)-2, rng.IntN(97))
					r.exec("update orders set at = null where id = $1", rng.IntN(1500))
					r.exec("delete from orders where id % 211 = $1", rng.IntN(211))
					r.exec("insert into orders select i, timestamptz '2026-01-01' + i * interval '1 day', 1, 'new' from generate_series($1::int, $1::int + 5) i", 10000+round*1000+i*6)
					if round < 2 {
						r.exec("update kinds set kind = $1 where id % 53 = $2", fmt.Sprint("k", rng.IntN(7)), rng.IntN(53))
					}
					r.exec("update kinds set n = n + 1 where id = 10000 or id % 71 = $1", rng.IntN(71)) // its kind is out of line
					r.exec("update whole set b = b + 1 where ctid in (select ctid from whole where a = $1 limit 2)", rng.IntN(5))
					r.exec("delete from whole where ctid in (select ctid from whole limit 1)")
					r.exec("begin; insert into log values (100000, now(), 'x'); update log set at = '1900-01-01' where id = 100000; delete from log where id = 100000; commit")
					r.exec("insert into log select coalesce(max(id), 0) + 1, timestamp '2026-01-01' + $1 * interval '1 day', 'w' from log", rng.IntN(30))
					if i == 12 && round == 1 {
						r.exec("truncate log; insert into log values (1, '2027-01-01', 'after')")
					}
				}
				r.same(e, tables...)
				june := iceberg.GreaterThanEqual(iceberg.Reference("at"), iceberg.Timestamp(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMicro()))
				if round < 2 {
					files, all := r.finds(e, "orders", june, "at >= '2026-06-01Z'")
					require.Less(t, files, all)
				}
				files, all := r.finds(e, "orders", iceberg.EqualTo(iceberg.Reference("id"), int64(77)), "id = 77")
				require.Less(t, files, all/2)
				r.finds(e, "orders", iceberg.IsNull(iceberg.Reference("at")), "at is null")
				if round < 2 {
					r.finds(e, "kinds", iceberg.EqualTo(iceberg.Reference("kind"), "k3"), "kind = 'k3'")
					r.finds(e, "kinds", iceberg.IsNull(iceberg.Reference("kind")), "kind is null")
					r.finds(e, "kinds", iceberg.EqualTo(iceberg.Reference("kind"), "<nil>"), "kind = '<nil>'")
				}
				r.finds(e, "kinds", iceberg.LessThan(iceberg.Reference("n"), int32(0)), "n < 0")
				r.finds(e, "whole", iceberg.EqualTo(iceberg.Reference("b"), iceberg.Date(-1)), "b = '1969-12-31'")
				require.Zero(t, e.Lake.Counters().Errors.Load()+e.Lake.Counters().Restarts.Load())
				switch round {
				case 0: // with the next start these hold; whole goes without
					by["orders"], by["whole"], by["log"] = "day(at), bucket(8, id)", "", "hour(at)"
				case 1:
					// What partitions are made of changes its name and type, or goes away.
					r.exec(`alter table orders rename at to created; alter table kinds drop column kind; alter table log alter id type bigint`)
					r.exec(`insert into orders values (5000000, '2026-03-03', 1, 'renamed'); insert into kinds values (20000, 5); insert into log values (200000, '2026-03-03', 'big')`)
					r.same(e, tables...)
					r.exec(`alter table kinds alter n type bigint; insert into kinds values (20001, 5000000000)`)
					r.exec(`alter table orders rename created to at; insert into orders values (5000001, '2026-03-03', 1, 'and back')`)
					r.same(e, tables...)
				}
				if round == 2 {
					report := r.verify(e)
					for _, table := range tables {
						require.Equal(t, audit.Equal, found(t, report, table).Result, "%+v", report)
					}
				}
				require.NoError(t, stop())
				if round == 1 {
					require.NoError(t, os.RemoveAll(r.o.StateDir))
				}
			}
		})
	}
}

// A new table that can't be partitioned as the user says is left out, with the
// reason; one that is there stays as it is.
func TestPartitionByUnknownColumn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	by := map[string]string{"a": "day(nowhere)"}
	r.partitioned(by)
	r.exec("create table a (id int primary key, at date); create table b (id int primary key, at date); insert into a values (1); insert into b values (1, '2026-01-01')")
	e, stop := r.run()
	require.Eventually(t, func() bool {
		for _, x := range e.Lake.Status().Tables {
			if x.Name == "public.a" && x.State == lake.Skipped {
				require.Equal(t, "partition by day(nowhere): there is no column nowhere; change partition_by in firn.yaml and start firn again", x.Reason)
				return true
			}
		}
		return false
	}, 20*time.Second, 20*time.Millisecond)
	r.same(e, "public.b")
	time.Sleep(3 * r.o.Poll)
	require.NoError(t, stop())

	by["a"], by["b"] = "day(at)", "day(nowhere)"
	e, stop = r.run()
	r.exec("insert into b values (2, '2026-01-02'); insert into a values (2, '2026-01-02')")
	r.same(e, "public.a", "public.b")
	spec := r.iceberg(e, "a").Spec()
	require.Equal(t, 1, spec.NumFields())
	spec = r.iceberg(e, "b").Spec()
	require.Zero(t, spec.NumFields())
	require.NoError(t, stop())
}

package engines

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// slice fills tables that are partitioned by every type, one of which loses a
// column that it is partitioned by, and gets others with the names of that and
// of a partition field.
func (b *bed) slice(t *testing.T) {
	b.exec(t, "create table torture.sliced (id bigint primary key, tz timestamptz, kind text, u uuid, b bytea, d date)",
		`insert into torture.sliced select i, timestamptz '1969-01-01' + i * interval '5 days', (array['', 'a', 'ö/ =%', null])[1 + i % 4], md5((i % 7)::text)::uuid, decode(md5((i % 3)::text), 'hex'),
			date '1969-12-30' + i % 3 from generate_series(1, 300) i`,
		"insert into torture.sliced values (0)",
		"create table torture.hashed (id bigint primary key, n numeric(12,2), ts timestamp, b bytea, tz timestamptz, s text)",
		`insert into torture.hashed select i, i * 1.25 - 100, timestamp '1969-12-31 20:00' + i * interval '31 minutes', decode(md5(i::text), 'hex'), timestamptz '1969-12-31Z' + i * interval '1 hour', 'größe '||i
			from generate_series(1, 200) i`)
	b.firn.Settle(t)
	b.exec(t, "update torture.sliced set tz = tz + interval '1 year', kind = 'moved' where id % 5 = 0", "delete from torture.sliced where id % 11 = 3",
		"update torture.hashed set n = -n where id % 3 = 0", "delete from torture.hashed where id % 13 = 3")
	b.firn.Settle(t)
	b.exec(t, "alter table torture.sliced drop kind", "insert into torture.sliced values (1000, '2026-11-11Z'), (1001, '1970-01-01Z')",
		"update torture.sliced set d = d + 1 where id % 7 = 1")
	b.firn.Settle(t)
	b.exec(t, "alter table torture.sliced add kind int", "alter table torture.sliced add tz_month text",
		"insert into torture.sliced values (2000, '2026-11-11Z', null, null, null, 7, 'x')", "update torture.sliced set kind = id where id % 5 = 1")
}

// partitions has every engine look for rows by what tables are partitioned by,
// and look into some files only.
func (b *bed) partitions(t *testing.T) {
	for table, columns := range map[string]string{"torture.hashed": "*", "torture.sliced": "id, tz, u, b, d, kind, tz_month"} {
		want := laketest.PostgresRows(t, b.url, "select * from "+table)
		sql := "SELECT " + columns + " FROM lake." + table
		require.Empty(t, laketest.Diff(want.Multiset(), b.duck.Query(t, sql).Multiset()), "DuckDB")
		require.Empty(t, laketest.Diff(want.Multiset(), b.trino.Query(t, sql).Multiset()), "Trino")
		require.Empty(t, laketest.Diff(want.Multiset(), b.spark.Query(t, sql).Multiset()), "Spark")
	}
	for _, x := range []struct{ table, pg, sql, py string }{
		{"torture.sliced", "tz < '1970-01-01Z'", "tz < TIMESTAMP '1970-01-01 00:00:00 UTC'", "tz < '1970-01-01T00:00:00+00:00'"},
		{"torture.sliced", "d = '1969-12-31'", "d = DATE '1969-12-31'", "d = '1969-12-31'"},
		{"torture.sliced", "kind = 7", "kind = 7", "kind = 7"},
		{"torture.sliced", "tz is null", "tz IS NULL", "tz is null"},
		{"torture.hashed", "n = 12.5", "n = CAST(12.5 AS DECIMAL(12,2))", "n = 12.50"},
		{"torture.hashed", "n < -90", "n < -90", "n < -90"},
		{"torture.hashed", "ts < '1970-01-01'", "ts < TIMESTAMP '1970-01-01 00:00:00'", "ts < '1970-01-01T00:00:00'"},
		{"torture.hashed", "s = 'größe 77'", "s = 'größe 77'", "s = 'größe 77'"},
		{"torture.hashed", "tz = '1970-01-01Z'", "tz = TIMESTAMP '1970-01-01 00:00:00 UTC'", "tz = '1970-01-01T00:00:00+00:00'"},
	} {
		t.Run(x.table+" "+x.pg, func(t *testing.T) {
			rows := laketest.PostgresRows(t, b.url, fmt.Sprintf("select id from %s where %s", x.table, x.pg))
			want := rows.Multiset()
			sql := fmt.Sprintf("SELECT id FROM lake.%s WHERE %s", x.table, x.sql)
			require.Empty(t, laketest.Diff(want, b.duck.Query(t, sql).Multiset()), "DuckDB")
			require.Empty(t, laketest.Diff(want, b.trino.Query(t, sql).Multiset()), "Trino")
			require.Empty(t, laketest.Diff(want, b.spark.Query(t, sql).Multiset()), "Spark")
			var found struct{ Rows, Files, All int }
			b.py.Python(t, "t = load('lake', args[0]); s = t.scan(row_filter=args[1]); result = {'Rows': s.to_arrow().num_rows, 'Files': len(list(s.plan_files())), 'All': len(list(t.scan().plan_files()))}",
				[]string{x.table, x.py}, &found)
			require.Len(t, rows.Rows, found.Rows, "PyIceberg")
			require.Less(t, found.Files, found.All, "PyIceberg")
		})
	}
}

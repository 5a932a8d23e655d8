package engines

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// look fills a table of a column for each type whose values two readers may put
// in different orders, low and high ones in each file.
func (b *bed) look(t *testing.T) {
	columns := `id bigint primary key, u uuid, n numeric(38,4), m numeric(18,2), d date, ts timestamp, tz timestamptz, s text, top text, b bytea, one bool, f float8`
	b.exec(t, "create table torture.looked ("+columns+")")
	for part := range 3 {
		b.exec(t, fmt.Sprintf(`insert into torture.looked select i, md5(i::text)::uuid, (i - 30) * 12345678901234567890123456.7891, (i - 30) * 12345678901234.56, date '1969-12-01' + i,
			timestamp '1969-12-31 23:59:40.123456' + i * interval '0.7 seconds', timestamptz '1969-12-31 23:59:40.123456Z' + i * interval '0.7 seconds',
			repeat(chr((array[65, 233, 55295, 57344, 65533, 65536, 128512])[1 + i %% 7]), 20) || i, repeat(chr((array[65, 65533, 1114111])[1 + i %% 3]), 20) || i,
			decode(md5(i::text) || md5((-i)::text), 'hex'), i %% 20 = 7, (i - 30) / 8.0 from generate_series(%d, %d) i`, 20*part+1, 20*part+20))
		b.firn.CatchUp(t)
	}
}

// filters has every engine look for values of each type, one at a time and by
// range: none skips a file or row group for which another order than its own
// was meant.
func (b *bed) filters(t *testing.T) {
	forms := map[string]struct{ pg, trino, spark, duck, python string }{
		"u":   {"'%s'", "UUID '%s'", "'%s'", "'%s'::UUID", ""},
		"n":   {"%s", "CAST('%s' AS DECIMAL(38,4))", "CAST('%s' AS DECIMAL(38,4))", "CAST('%s' AS DECIMAL(38,4))", "Decimal('%s')"},
		"m":   {"%s", "CAST('%s' AS DECIMAL(18,2))", "CAST('%s' AS DECIMAL(18,2))", "CAST('%s' AS DECIMAL(18,2))", "Decimal('%s')"},
		"d":   {"'%s'", "DATE '%s'", "DATE '%s'", "DATE '%s'", "'%s'"},
		"ts":  {"'%s'", "TIMESTAMP '%s'", "TIMESTAMP_NTZ '%s'", "TIMESTAMP '%s'", "'%s'.replace(' ', 'T')"},
		"tz":  {"'%s'", "with_timezone(TIMESTAMP '%s', 'UTC')", "TIMESTAMP '%s'", "TIMESTAMPTZ '%s'", "'%s+00:00'.replace(' ', 'T')"},
		"s":   {"'%s'", "'%s'", "'%s'", "'%s'", "'%s'"},
		"top": {"'%s'", "'%s'", "'%s'", "'%s'", "'%s'"},
		"b":   {"'\\x%s'", "X'%s'", "X'%s'", "unhex('%s')", "bytes.fromhex('%s')"},
		"one": {"%s", "%s", "%s", "%s", "'%s' == 'true'"},
		"f":   {"%s", "DOUBLE '%s'", "%sD", "%s::DOUBLE", "%s"},
	}
	compare := map[string]string{"=": "EqualTo", ">=": "GreaterThanOrEqual"}
	var names, pg, trino, spark, duck, python []string
	add := func(table, column, op, value string) {
		f, i := forms[column], len(names)
		names = append(names, fmt.Sprintf("%s: %s %s %s", table, column, op, value))
		sql := func(catalog, form string) string {
			return fmt.Sprintf("SELECT %d AS i, id FROM %s%s WHERE %s %s %s", i, catalog, table, column, op, fmt.Sprintf(form, value))
		}
		pg, trino, spark, duck = append(pg, sql("", f.pg)), append(trino, sql("lake.", f.trino)), append(spark, sql("lake.", f.spark)), append(duck, sql("lake.", f.duck))
		if column != "u" { // PyIceberg finds the files, but can't compare the values in them
			python = append(python, fmt.Sprintf("%d: ('%s', %s('%s', %s))", i, table, compare[op], column, fmt.Sprintf(f.python, value)))
		}
	}
	for column := range forms {
		r := laketest.PostgresRows(t, b.url, fmt.Sprintf("select %s from torture.looked where id in (2, 31) order by id", column))
		for i, row := range r.Rows {
			value := strings.TrimSuffix(row[0], "Z")
			if i == 0 || column == "u" {
				add("torture.looked", column, "=", value)
			}
			if i == 1 {
				add("torture.looked", column, ">=", value)
			}
		}
	}
	for _, x := range []struct{ table, column string }{
		{"torture.sliced", "b"}, {"torture.sliced", "d"}, {"torture.hashed", "b"}, {"torture.hashed", "n"}, {"torture.hashed", "s"},
	} {
		for _, row := range laketest.PostgresRows(t, b.url, fmt.Sprintf("select %s from %s where id = 4", x.column, x.table)).Rows {
			add(x.table, x.column, "=", row[0])
		}
	}
	counts := func(r *laketest.Result) []string {
		found := make([]int, len(names))
		for _, row := range r.Rows {
			i, err := strconv.Atoi(row[0])
			require.NoError(t, err)
			found[i]++
		}
		out := make([]string, len(names))
		for i, n := range found {
			out[i] = fmt.Sprintf("%s: %d", names[i], n)
		}
		return out
	}
	all := func(queries []string) string { return strings.Join(queries, " UNION ALL ") }
	want := counts(laketest.PostgresRows(t, b.url, all(pg)))
	t.Run("DuckDB", func(t *testing.T) { require.Equal(t, want, counts(b.duck.Query(t, all(duck)))) })
	t.Run("Trino", func(t *testing.T) { require.Equal(t, want, counts(b.trino.Query(t, all(trino)))) })
	t.Run("Spark", func(t *testing.T) { require.Equal(t, want, counts(b.spark.Query(t, all(spark)))) })
	t.Run("PyIceberg", func(t *testing.T) {
		var found map[int]int
		b.py.Python(t, `
from decimal import Decimal
from pyiceberg.expressions import EqualTo, GreaterThanOrEqual
tables = {n: load('lake', n) for n in ('torture.looked', 'torture.sliced', 'torture.hashed')}
result = {i: tables[n].scan(row_filter=e).to_arrow().num_rows for i, (n, e) in {`+strings.Join(python, ", ")+`}.items()}`, nil, &found)
		require.Len(t, found, len(python))
		for i, n := range found {
			require.Equal(t, want[i], fmt.Sprintf("%s: %d", names[i], n))
		}
	})
}

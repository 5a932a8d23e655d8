package laketest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// makeTypes writes a table of every type through PyIceberg, in a catalog of its
// own over a folder, the values being those that typesSQL has.
const makeTypes = `
import datetime as d, decimal, uuid
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.types import *
c = load_catalog('x', type='sql', uri='sqlite:///' + args + '/cat.db', warehouse='file://' + args)
c.create_namespace('db')
s = Schema(*[NestedField(i + 1, n, t) for i, (n, t) in enumerate([
  ('b', BooleanType()), ('i', IntegerType()), ('l', LongType()), ('f', FloatType()), ('d', DoubleType()),
  ('n', DecimalType(12, 2)), ('da', DateType()), ('ti', TimeType()), ('ts', TimestampType()), ('tz', TimestamptzType()),
  ('s', StringType()), ('u', UUIDType()), ('by', BinaryType()), ('li', ListType(100, IntegerType(), False)), ('ls', ListType(101, StringType(), False))])])
t = c.create_table('db.t', schema=s)
a = s.as_arrow()
us = lambda v, t: pa.array(v, pa.int64()).cast(t)
cols = [
  pa.array([True, False, None]), pa.array([1, -2147483648, None], pa.int32()), pa.array([1, -9223372036854775808, None], pa.int64()),
  pa.array([0.1, -0.0, float('nan')], pa.float32()), pa.array([1e6, float('-inf'), 1e-7]),
  pa.array([decimal.Decimal('1.50'), decimal.Decimal('-0.05'), None], pa.decimal128(12, 2)),
  pa.array([20780, -719162, 2932896], pa.int32()).cast(pa.date32()),
  us([7200000000, 86399999999, None], pa.time64('us')),
  us([1, -62135596800000000, None], pa.timestamp('us')), us([253402300799999999, -1, None], pa.timestamp('us', tz='UTC')),
  pa.array(['', 'a"b\\\n', None]),
  pa.array([uuid.UUID('00112233-4455-6677-8899-aabbccddeeff').bytes, b'\xff' * 16, None], pa.binary(16)),
  pa.array([b'', b'\x00\xff', None], pa.large_binary()),
  pa.array([[1, None, 3], [], None], pa.list_(pa.int32())), pa.array([['a,b', 'NULL', None, '"\\'], [], None], pa.list_(pa.string()))]
names = a.names
cols[11] = pa.ExtensionArray.from_storage(pa.uuid(), cols[11]) if isinstance(a.field('u').type, pa.BaseExtensionType) else cols[11]
t.append(pa.table(dict(zip(names, [x.cast(a.field(n).type) if n != 'u' else x for n, x in zip(names, cols)]))))
result = t.metadata_location
`

const typesSQL = `SELECT b, i, l, f, d, n::numeric(12, 2), da, ti, ts, tz, s, u, by, li, ls FROM (VALUES
 (true, 1, 1::int8, 0.1::float4, 1e6::float8, 1.50::numeric(12,2), '2026-11-23'::date, '02:00'::time, '1970-01-01 00:00:00.000001'::timestamp, '9999-12-31 23:59:59.999999Z'::timestamptz,
  ''::text, '00112233-4455-6677-8899-AABBCCDDEEFF'::uuid, ''::bytea, '{1,NULL,3}'::int[], ARRAY['a,b','NULL',NULL,'"\']),
 (false, -2147483648, -9223372036854775808, '-0', '-Infinity', -0.05, '0001-01-01', '23:59:59.999999', '0001-01-01 00:00', '1969-12-31 23:59:59.999999Z',
  E'a"b\\\n', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\x00ff', '{}', '{}'),
 (NULL, NULL, NULL, 'NaN', 1e-7, NULL, '9999-12-31', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) v(b, i, l, f, d, n, da, ti, ts, tz, s, u, by, li, ls)`

func TestReadersAgree(t *testing.T) {
	pg := Postgres(t, "")
	p := PyIceberg(t)
	d := DuckDB(t)

	var metadata string
	p.Python(t, makeTypes, t.TempDir(), &metadata)
	want := PostgresRows(t, pg.URL("postgres"), typesSQL)
	require.Equal(t, []string{"b boolean", "i int", "l long", "f float", "d double", "n decimal(12, 2)", "da date", "ti time",
		"ts timestamp", "tz timestamptz", "s string", "u uuid", "by binary", "li list<int>", "ls list<string>"}, want.Schema())
	require.Equal(t, []string{"true", "1", "1", "0.1", "1e+06", "1.50", "2026-11-23", "02:00:00.000000",
		"1970-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999Z", "", "00112233-4455-6677-8899-aabbccddeeff", "",
		`["1",null,"3"]`, `["a,b","NULL",null,"\"\\"]`}, want.Rows[0])
	require.Equal(t, Null, want.Rows[2][0])

	for name, got := range map[string]*Result{
		"PyIceberg": p.Scan(t, "", metadata, ScanOptions{}),
		"DuckDB":    d.Scan(t, metadata),
	} {
		require.Equal(t, want.Schema(), got.Schema(), name)
		require.Empty(t, Diff(want.Multiset(), got.Multiset()), name)
	}

	// PyIceberg writes no date outside the years 1 to 9999; DuckDB reads them.
	require.Equal(t,
		PostgresRows(t, pg.URL("postgres"), `SELECT '0045-12-01 BC'::date AS a, '10000-01-01'::date AS b, '0002-12-31 23:59:59.999999 BC'::timestamp AS c, '12345-01-01Z'::timestamptz AS d`),
		d.Query(t, `SELECT '0045-12-01 (BC)'::date AS a, '10000-01-01'::date AS b, '0002-12-31 (BC) 23:59:59.999999'::timestamp AS c, '12345-01-01 00:00:00+00'::timestamptz AS d`))

	require.EqualValues(t, 3, p.Count(t, "", metadata, ScanOptions{}))
	require.Len(t, p.Snapshots(t, "", metadata), 1)
	require.Len(t, p.Schema(t, "", metadata), 15)
	require.Len(t, p.Scan(t, "", metadata, ScanOptions{Filter: "i > 0", Columns: []string{"i"}}).Rows, 1)
	_, err := p.TryScan(t.Context(), "", metadata, ScanOptions{Snapshot: 17})
	require.ErrorContains(t, err, "17")
	_, err = d.Try(t.Context(), "SELECT nothing")
	require.ErrorContains(t, err, "nothing")
	require.Equal(t, "42", d.Query(t, "SELECT 42").Value(), "an error ends neither engine")
}

func TestMinIO(t *testing.T) {
	s := MinIO(t)
	require.Same(t, s, MinIO(t))
	bucket := s.Bucket(t)
	d := DuckDB(t)
	d.S3(t, s)
	path := "s3://" + bucket + "/a.parquet"
	d.Query(t, "COPY (SELECT 7 AS x) TO "+Quote(path)+" (FORMAT parquet)")
	require.Equal(t, "7", d.Query(t, "SELECT x FROM "+Quote(path)).Value())
}

func TestDeadWorkerSaysWhy(t *testing.T) {
	d := DuckDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Try(ctx, "SELECT count(*) FROM range(100000000000)")
	require.ErrorContains(t, err, "context canceled")
	_, err = d.Try(t.Context(), "SELECT 1")
	require.ErrorContains(t, err, "has ended")
}

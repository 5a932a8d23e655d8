package column

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"firn/wal"
	"firn/wal/localpg"
)

// connect starts a Postgres and connects with the settings codecs need.
func connect(t *testing.T) *pgconn.PgConn {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Postgres")
	}
	bin, err := localpg.Find(t.Context(), "", os.Getenv("FIRN_TEST_PG"))
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("no Postgres: %v", err)
	}
	require.NoError(t, err)
	server, err := localpg.Start(t.Context(), localpg.Options{BinDir: bin})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	cfg, err := pgconn.ParseConfig(server.URL("postgres"))
	require.NoError(t, err)
	for k, v := range map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO", "IntervalStyle": "postgres",
		"TimeZone": "UTC", "extra_float_digits": "3", "bytea_output": "hex"} {
		cfg.RuntimeParams[k] = v
	}
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
	return conn
}

// query returns one column in text form; NULL is nil.
func query(t *testing.T, conn *pgconn.PgConn, sql string) [][]byte {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err, sql)
	var out [][]byte
	for _, row := range results[len(results)-1].Rows {
		if row[0] == nil {
			out = append(out, nil)
			continue
		}
		out = append(out, append([]byte{}, row[0]...))
	}
	return out
}

// copyOut returns one column in COPY's binary form; NULL is nil.
func copyOut(t *testing.T, conn *pgconn.PgConn, sql string) [][]byte {
	t.Helper()
	var buf bytes.Buffer
	_, err := conn.CopyTo(t.Context(), &buf, "COPY ("+sql+") TO STDOUT BINARY")
	require.NoError(t, err, sql)
	data := buf.Bytes()[19:]
	var out [][]byte
	for {
		n := int16(binary.BigEndian.Uint16(data))
		data = data[2:]
		if n == -1 {
			require.Empty(t, data)
			return out
		}
		require.EqualValues(t, 1, n)
		size := int32(binary.BigEndian.Uint32(data))
		data = data[4:]
		if size == -1 {
			out = append(out, nil)
			continue
		}
		out = append(out, data[:size])
		data = data[size:]
	}
}

// typeOf reads the type of column v of table t from the catalogs.
func typeOf(t *testing.T, conn *pgconn.PgConn) wal.TypeInfo {
	t.Helper()
	row := query(t, conn, "SELECT atttypid || ' ' || atttypmod FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'v'")[0]
	var oid uint32
	var mod int32
	_, err := fmt.Sscan(string(row), &oid, &mod)
	require.NoError(t, err)
	return readType(t, conn, oid, mod)
}

func readType(t *testing.T, conn *pgconn.PgConn, oid uint32, mod int32) wal.TypeInfo {
	t.Helper()
	row := query(t, conn, fmt.Sprintf(`SELECT concat_ws(' ', typname, typtype, typbasetype::oid::int8, typtypmod,
		CASE WHEN typcategory = 'A' THEN typelem::int8 ELSE 0 END, (typsend = 0)::int) FROM pg_type WHERE oid = %d`, oid))[0]
	var kind string
	var baseOID, elemOID uint32
	var baseMod int32
	var noSend int
	info := wal.TypeInfo{OID: oid, Mod: mod}
	_, err := fmt.Sscan(string(row), &info.Name, &kind, &baseOID, &baseMod, &elemOID, &noSend)
	require.NoError(t, err)
	info.Kind, info.NoSend = kind[0], noSend != 0
	if baseOID != 0 {
		if info.Mod == -1 {
			info.Mod = baseMod
		}
		b := readType(t, conn, baseOID, info.Mod)
		info.Base = &b
	}
	if elemOID != 0 {
		e := readType(t, conn, elemOID, -1)
		info.Elem = &e
	}
	return info
}

// refused is the expectation of a value that has no form in the lake.
type refused struct{}

// dec is a decimal's unscaled value.
func dec(s string) *big.Int {
	v, ok := new(big.Int).SetString(s, 10)
	if !ok {
		panic(s)
	}
	return v
}

type days int32

func day(year, month, d int) days {
	return days(time.Date(year, time.Month(month), d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

type micros int64

func at(year, month, d, h, m, s, us int) micros {
	return micros(time.Date(year, time.Month(month), d, h, m, s, us*1000, time.UTC).UnixMicro())
}

type binval string

// goValue is what an Arrow value is in the expectations.
func goValue(arr arrow.Array, i int) any {
	if arr.IsNull(i) {
		return nil
	}
	switch a := arr.(type) {
	case *array.Boolean:
		return a.Value(i)
	case *array.Int32:
		return int(a.Value(i))
	case *array.Int64:
		return int(a.Value(i))
	case *array.Float32:
		return math.Float32bits(a.Value(i))
	case *array.Float64:
		return math.Float64bits(a.Value(i))
	case *array.Decimal128:
		return dec(a.Value(i).BigInt().String())
	case *array.Date32:
		return days(a.Value(i))
	case *array.Time64:
		return micros(a.Value(i))
	case *array.Timestamp:
		return micros(a.Value(i))
	case *array.String:
		return strings.Clone(a.Value(i))
	case *array.Binary:
		return binval(a.Value(i))
	case *array.FixedSizeBinary:
		return binval(a.Value(i))
	case array.ExtensionArray:
		return goValue(a.Storage(), i)
	case *array.List:
		from, to := a.ValueOffsets(i)
		out := []any{}
		for j := from; j < to; j++ {
			out = append(out, goValue(a.ListValues(), int(j)))
		}
		return out
	}
	panic(fmt.Sprintf("%T", arr))
}

const setup = `
CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'so so', 'ä"x');
CREATE DOMAIN price AS numeric(8,2);
CREATE DOMAIN price2 AS price CHECK (VALUE > 0);
CREATE DOMAIN ints AS int4[];
CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION shout(pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a user''s cast is not the output function' $$;
CREATE CAST (pair AS text) WITH FUNCTION shout(pair);
`

type value struct {
	sql  string
	want any
}

// same values are strings that the lake has as they are written.
func same(texts ...string) []value {
	var out []value
	for _, s := range texts {
		out = append(out, value{"'" + strings.ReplaceAll(s, "'", "''") + "'", s})
	}
	return out
}

var f32 = math.Float32bits
var f64 = math.Float64bits

var edgeValues = []struct {
	typ    string
	values []value
}{
	{"bool", []value{{"true", true}, {"false", false}, {"NULL", nil}}},
	{"int2", []value{{"-32768", -32768}, {"32767", 32767}, {"0", 0}}},
	{"int4", []value{{"-2147483648", math.MinInt32}, {"2147483647", math.MaxInt32}, {"0", 0}, {"NULL", nil}}},
	{"int8", []value{{"-9223372036854775808", math.MinInt64}, {"9223372036854775807", math.MaxInt64}, {"1000000000000000000", 1000000000000000000}}},
	{"float4", []value{{"'NaN'", f32(float32(math.NaN()))}, {"'Infinity'", f32(float32(math.Inf(1)))}, {"'-Infinity'", f32(float32(math.Inf(-1)))},
		{"'-0'", uint32(1 << 31)}, {"'1e-45'", uint32(1)}, {"'3.4028235e38'", f32(math.MaxFloat32)}, {"'0.1'", f32(0.1)}, {"16777217", f32(16777216)}, {"1000000", f32(1e6)}}},
	{"float8", []value{{"'NaN'", uint64(0x7ff8000000000000)}, {"'Infinity'", f64(math.Inf(1))}, {"'-Infinity'", f64(math.Inf(-1))},
		{"'-0'", uint64(1 << 63)}, {"'5e-324'", uint64(1)}, {"'1.7976931348623157e308'", f64(math.MaxFloat64)}, {"0.1", f64(0.1)}, {"1e15", f64(1e15)}, {"123456789012345", f64(123456789012345)}, {"1e-5", f64(1e-5)}}},
	{"numeric(10,2)", []value{{"0", dec("0")}, {"-0.01", dec("-1")}, {"99999999.99", dec("9999999999")}, {"-12345.6", dec("-1234560")}, {"10000", dec("1000000")}, {"'NaN'", refused{}}, {"NULL", nil}}},
	{"numeric(38,0)", []value{{"99999999999999999999999999999999999999", dec("99999999999999999999999999999999999999")}, {"-99999999999999999999999999999999999999", dec("-99999999999999999999999999999999999999")}, {"18446744073709551616", dec("18446744073709551616")}, {"10000000000000000000", dec("10000000000000000000")}}},
	{"numeric(38,38)", []value{{"0.00000000000000000000000000000000000001", dec("1")}, {"-0.1", dec("-10000000000000000000000000000000000000")}}},
	{"numeric(38,19)", []value{{"1234567890123456789.1234567890123456789", dec("12345678901234567891234567890123456789")}, {"0.5", dec("5000000000000000000")}}},
	{"numeric(18,6)", []value{{"123456789012.345678", dec("123456789012345678")}, {"-0.000001", dec("-1")}, {"1000000", dec("1000000000000")}}},
	{"numeric(39,2)", same("0.00", "1234567890123456789012345678901234567.89", "-1.10", "NaN")},
	{"numeric", append(same("0", "0.00", "1.10", "0.0001", "0.00010", "10000", "100000000.0001", "-98765432109876543210987654321098765432109876543210.123456789",
		"NaN", "12345678", "123456789.123456789", "0.10000000"),
		value{"1e-20", "0.00000000000000000001"}, value{"1e20", "100000000000000000000"}, value{"repeat('9', 1000)::numeric", strings.Repeat("9", 1000)}, value{"('0.' || repeat('0', 1000) || '1')::numeric", "0." + strings.Repeat("0", 1000) + "1"})},
	{"text", same("", "abc", "ä€😀", "a,b{}\"\\ \t\n", "NULL")},
	{"varchar(5)", same("", "ab   ")},
	{"char(5)", []value{{"'ab'", "ab   "}, {"''", "     "}, {"'äöü'", "äöü  "}}},
	{"name", same("x", "a b")},
	{"citext", same("AbC", "")},
	{"mood", same("sad", "so so", "ä\"x")},
	{`"char"`, []value{{"'a'", "a"}, {"''", ""}, {`(-63)::"char"`, `\301`}}},
	{"json", same(`{"a":  1, "a":2}`, "null", `"x"`)},
	{"jsonb", []value{{`'{"b":  1, "a":[1.00,null,"ä"]}'`, `{"a": [1.00, null, "ä"], "b": 1}`}, {"'null'", "null"}, {"'\"\"'", `""`}}},
	{"xml", []value{{"'<a>ä</a>'", "<a>ä</a>"}, {`'<?xml version="1.0" encoding="UTF-8"?><a/>'`, "<a/>"}, {`'<?xml version="1.0" standalone="yes"?><a/>'`, `<?xml version="1.0" standalone="yes"?><a/>`}}},
	{"bytea", []value{{"''", binval("")}, {`'\x00ff5c'`, binval("\x00\xff\\")}, {"decode(repeat('ab', 1000), 'hex')", binval(strings.Repeat("\xab", 1000))}}},
	{"uuid", []value{{"'00112233-4455-6677-8899-aabbccddeeff'", binval("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")}}},
	{"date", []value{{"'2024-02-29'", day(2024, 2, 29)}, {"'1970-01-01'", days(0)}, {"'1969-12-31'", days(-1)}, {"'0001-01-01'", day(1, 1, 1)}, {"'0001-12-31 BC'", day(0, 12, 31)},
		{"'4714-11-24 BC'", day(-4713, 11, 24)}, {"'0045-02-28 BC'", day(-44, 2, 28)}, {"'10000-01-01'", day(10000, 1, 1)}, {"'5874897-12-31'", day(5874897, 12, 31)}, {"'infinity'", refused{}}, {"'-infinity'", refused{}}}},
	{"time", []value{{"'00:00'", micros(0)}, {"'23:59:59.999999'", micros(86399999999)}, {"'12:34:56.7'", micros(45296700000)}, {"'24:00'", refused{}}}},
	{"time(0)", []value{{"'12:34:56.7'", micros(45297000000)}}},
	{"timestamp", []value{{"'2024-02-29 12:34:56.789012'", at(2024, 2, 29, 12, 34, 56, 789012)}, {"'1970-01-01'", micros(0)}, {"'1969-12-31 23:59:59.999999'", micros(-1)},
		{"'4714-11-24 00:00:00 BC'", at(-4713, 11, 24, 0, 0, 0, 0)}, {"'0001-01-01 00:00:00.1 BC'", at(0, 1, 1, 0, 0, 0, 100000)}, {"'10000-12-31 23:59:59'", at(10000, 12, 31, 23, 59, 59, 0)},
		{"'294247-01-10 04:00:54.775807'", micros(math.MaxInt64)}, {"'294247-01-10 04:00:54.775808'", refused{}}, {"'294276-12-31 23:59:59.999999'", refused{}}, {"'infinity'", refused{}}, {"'-infinity'", refused{}}}},
	{"timestamptz", []value{{"'2024-02-29 12:34:56.789012+05:30'", at(2024, 2, 29, 7, 4, 56, 789012)}, {"'0044-03-15 12:00:00+00 BC'", at(-43, 3, 15, 12, 0, 0, 0)},
		{"'294247-01-10 04:00:54.775807+00'", micros(math.MaxInt64)}, {"'294276-12-31 23:59:59.999999+00'", refused{}}, {"'infinity'", refused{}}, {"NULL", nil}}},
	{"timestamptz(3)", []value{{"'2024-02-29 12:34:56.7894+00'", at(2024, 2, 29, 12, 34, 56, 789000)}}},
	{"inet", append(same("1.2.3.4", "1.2.3.4/0", "0.0.0.0", "255.255.255.255/31", "::", "::1", "::/0", "1::", "fe80::1/64", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4", "::1.2.3.4", "1:0:0:2::3", "1::2:0:0:3:4", "0:0:1::"),
		value{"'1:0:2:3:4:5:6:7'", "1:0:2:3:4:5:6:7"}, value{"'::2'", "::2"}, value{"'::1:2'", "::0.1.0.2"}, value{"'::ffff:0:1'", "::ffff:0.0.0.1"})},
	{"cidr", same("10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32", "::1/128", "::ffff:1.2.3.0/120")},
	{"macaddr", same("08:00:2b:01:02:ff")},
	{"macaddr8", same("08:00:2b:01:02:03:04:ff")},
	{"bit(10)", []value{{"B'0101010111'", "0101010111"}}},
	{"bit(1)", []value{{"B'1'", "1"}}},
	{"varbit", append(same("", "1", "00000000", "1111111100000001"), value{"repeat('10', 500)::varbit", strings.Repeat("10", 500)})},
	{"price", []value{{"1.5", dec("150")}, {"'NaN'", refused{}}}},
	{"price2", []value{{"999999.99", dec("99999999")}}},
	{"ints", []value{{"'{1,NULL,-3}'", []any{1, nil, -3}}, {"'{{1},{2}}'", refused{}}}},
	{"int4[]", []value{{"'{}'", []any{}}, {"'{NULL}'", []any{nil}}, {"'{1,2}'", []any{1, 2}}, {"NULL", nil}, {"'{{1,2},{3,4}}'", refused{}}, {"'[0:1]={1,2}'", refused{}}, {"'[2:2]={7}'", refused{}}, {"'[1:1][3:3]={{7}}'", refused{}}}},
	{"text[]", []value{{`ARRAY['', 'a b', 'a,b', 'NULL', 'null', NULL, '"', '\', '{', '}', 'ä', E'\n', ' x ', E'\\"']`,
		[]any{"", "a b", "a,b", "NULL", "null", nil, `"`, `\`, "{", "}", "ä", "\n", " x ", `\"`}}}},
	{"numeric(10,2)[]", []value{{"'{1.5,NULL,-0.01}'", []any{dec("150"), nil, dec("-1")}}, {"'{1,NaN}'", refused{}}}},
	{"numeric[]", []value{{"'{1.50,NaN}'", []any{"1.50", "NaN"}}}},
	{"price[]", []value{{"'{1.5}'", []any{dec("150")}}}},
	{"bool[]", []value{{"'{t,f,NULL}'", []any{true, false, nil}}}},
	{"int2[]", []value{{"'{-32768}'", []any{-32768}}}},
	{"int8[]", []value{{"'{9223372036854775807}'", []any{math.MaxInt64}}}},
	{"float4[]", []value{{"'{-0,NaN,0.1}'", []any{uint32(1 << 31), uint32(0x7fc00000), f32(0.1)}}}},
	{"float8[]", []value{{"'{-0,Infinity,0.1}'", []any{uint64(1 << 63), f64(math.Inf(1)), f64(0.1)}}}},
	{"bytea[]", []value{{`ARRAY['\x00ff'::bytea, '', NULL]`, []any{binval("\x00\xff"), binval(""), nil}}}},
	{"uuid[]", []value{{"'{00112233-4455-6677-8899-aabbccddeeff}'", []any{binval("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")}}}},
	{"date[]", []value{{"'{2024-02-29,0001-12-31 BC}'", []any{day(2024, 2, 29), day(0, 12, 31)}}, {"'{2024-01-01,infinity}'", refused{}}}},
	{"time[]", []value{{"'{12:34:56.7}'", []any{micros(45296700000)}}}},
	{"timestamp[]", []value{{"'{2024-02-29 12:34:56.789012}'", []any{at(2024, 2, 29, 12, 34, 56, 789012)}}}},
	{"timestamptz[]", []value{{"'{2024-02-29 12:34:56+00,NULL}'", []any{at(2024, 2, 29, 12, 34, 56, 0), nil}}}},
	{"char(3)[]", []value{{"'{a,bcd}'", []any{"a  ", "bcd"}}}},
	{"json[]", []value{{`ARRAY['{"a": "x\"y"}'::json]`, []any{`{"a": "x\"y"}`}}}},
	{"jsonb[]", []value{{`ARRAY['{"a":1}'::jsonb, 'null']`, []any{`{"a": 1}`, "null"}}}},
	{"mood[]", []value{{`ARRAY['so so'::mood, 'ä"x']`, []any{"so so", `ä"x`}}}},
	{"citext[]", []value{{"'{AbC}'", []any{"AbC"}}}},
	{"inet[]", []value{{"'{1.2.3.4,::1/64}'", []any{"1.2.3.4", "::1/64"}}}},
	{"cidr[]", []value{{"'{10.0.0.0/8}'", []any{"10.0.0.0/8"}}}},
	{"macaddr[]", []value{{"'{08:00:2b:01:02:ff}'", []any{"08:00:2b:01:02:ff"}}}},
	{"bit(3)[]", []value{{"'{101}'", []any{"101"}}}},
	{"varchar(4)[]", []value{{"'{abcd}'", []any{"abcd"}}}},
	// Everything else is the text form.
	{"interval", same("1 year 2 mons -3 days +04:05:06.7")},
	{"interval[]", same("{\"1 day\",NULL}")},
	{"timetz", same("12:34:56+05:30")},
	{"money", same("$1,234.50")},
	{"point", same("(1,2.5)")},
	{"box[]", same("{(1,1),(0,0);(2,2),(1,1)}")},
	{"int4range", same("[1,10)", "empty", "(,5)")},
	{"nummultirange", same("{[1.0,2.0),[3,4]}")},
	{"tsvector", same("'a':1 'b':2A")},
	{"pg_lsn", same("16/B374D848")},
	{"oid", same("4294967295")},
	{"regclass", same("pg_class")},
	{"int2vector", same("1 2 3")},
	{"xid8", same("18446744073709551615")},
	{"tid", same("(0,1)")},
	{"pair", append(same(`(1,"a b")`, "(,)"), value{"NULL", nil})},
	{"pair[]", same(`{"(1,x)"}`)},
	{"hstore", same(`"a"=>NULL, "b"=>"2"`)},
	{"aclitem", same("postgres=r/postgres")},
	{"jsonpath", same(`$."a"[*]`)},
}

// For each edge value the stream's form and COPY's give the same Arrow value,
// the same key and the same hash, and it is the expected one.
func TestPostgresEdgeValues(t *testing.T) {
	conn := connect(t)
	query(t, conn, setup+"SET lc_monetary = 'C'; SELECT 1")
	for _, e := range edgeValues {
		t.Run(e.typ, func(t *testing.T) {
			query(t, conn, "DROP TABLE IF EXISTS t; CREATE TABLE t (n serial, v "+e.typ+"); SELECT 1")
			for _, v := range e.values {
				query(t, conn, "INSERT INTO t (v) VALUES ("+v.sql+"); SELECT 1")
			}
			codec := mustFor(t, typeOf(t, conn))
			column := "v"
			if !codec.Binary() {
				column = wal.TextExpr("v")
			}
			texts := query(t, conn, "SELECT v FROM t ORDER BY n")
			bins := copyOut(t, conn, "SELECT "+column+" FROM t ORDER BY n")
			require.Len(t, texts, len(e.values))
			require.Len(t, bins, len(e.values))
			for i, v := range e.values {
				if v.want == nil {
					require.Nil(t, texts[i])
					require.Nil(t, bins[i])
					continue
				}
				agree(t, codec, texts[i], bins[i], v.want)
			}
		})
	}
}

// agree decodes both forms; want is nil where only their agreement counts.
func agree(t *testing.T, codec Codec, text, bin []byte, want any) {
	t.Helper()
	a, err := one(t, codec, textForm, text)
	b, berr := one(t, codec, binaryForm, bin)
	if _, no := want.(refused); no {
		require.ErrorIs(t, err, ErrUnrepresentable, "%s", text)
		require.ErrorIs(t, berr, ErrUnrepresentable, "%s", text)
		if !strings.HasSuffix(codec.Type(), "[]") {
			require.Equal(t, err, berr)
		}
		return
	}
	require.NoError(t, err, "%s", text)
	require.NoError(t, berr, "%s %s", text, hex.EncodeToString(bin))
	defer a.Release()
	defer b.Release()
	if want != nil {
		require.Equal(t, want, goValue(a, 0), "text %s", text)
		require.Equal(t, want, goValue(b, 0), "binary of %s", text)
	}
	require.Equal(t, goValue(a, 0), goValue(b, 0), "%s", text)
	switch {
	case codec.Type() == `"char"`: // before 16, Postgres prints the bare byte
	case strings.HasPrefix(codec.Type(), "float"):
		// Postgres doesn't always print the fewest digits.
		again, err := one(t, codec, textForm, []byte(Render(a, 0)))
		require.NoError(t, err)
		require.Equal(t, goValue(a, 0), goValue(again, 0), "%s", text)
		again.Release()
	default:
		require.Equal(t, string(text), Render(a, 0))
	}
	for _, exact := range []bool{false, true} {
		var keys [4][]byte
		var errs [4]error
		keys[0], errs[0] = codec.k.canon([]byte("p"), text, textForm, exact)
		keys[1], errs[1] = codec.k.canon([]byte("p"), bin, binaryForm, exact)
		keys[2], errs[2] = codec.k.canonArrow([]byte("p"), a, 0, exact)
		keys[3], errs[3] = codec.k.canonArrow([]byte("p"), b, 0, exact)
		for i := range keys {
			require.NoError(t, errs[i])
			require.Equal(t, keys[0], keys[i], "%d %s", i, text)
		}
		if n := codec.FixedKey(); n > 0 && !exact {
			require.Len(t, keys[0], 1+n)
		}
	}
}

// Thousands of random values of each type: both forms agree, and the Arrow
// value printed is Postgres' own text.
func TestPostgresRandomValues(t *testing.T) {
	conn := connect(t)
	const n = 3000
	for typ, expr := range map[string]string{
		"int8":           "(random() * 2^63)::numeric::int8 * sign(random() - 0.5)::int8",
		"float4":         "((random() - 0.5) * 10 ^ (random() * 70 - 35)::int)::float4",
		"float8":         "(random() - 0.5) * 10 ^ (random() * 600 - 300)::int",
		"numeric":        "round(((random() - 0.5)::numeric * 10::numeric ^ (random() * 60 - 20)::int::numeric), (random() * 40)::int)",
		"numeric(38,10)": "round((random() - 0.5)::numeric * 10::numeric ^ (random() * 28)::int::numeric, 10)",
		"numeric(12,4)":  "round((random() - 0.5)::numeric * 10::numeric ^ (random() * 8)::int::numeric, 4)",
		"date":           "'4714-11-24 BC'::date + (random() * 2147000000)::int",
		"time":           "'00:00'::time + random() * interval '86399 s'",
		"timestamp":      "'4000-01-01 BC'::timestamp + random() * interval '298000 years' + random() * interval '1 s'",
		"timestamptz":    "'2000-01-01'::timestamptz + (random() - 0.5) * interval '200 years'",
		"uuid":           "gen_random_uuid()",
		"bytea":          "decode(substr(md5(random()::text), 1, 2 * (random() * 16)::int), 'hex')",
		"inet": `(SELECT string_agg(CASE WHEN random() < 0.6 THEN '0' WHEN random() < 0.2 THEN 'ffff' ELSE to_hex((random() * 65535)::int) END, ':')
			FROM generate_series(1, 8 + g * 0))::inet`,
		"cidr":     "network(set_masklen(('1.2.3.4'::inet + (random() * 4000000000)::int8), (random() * 32)::int))",
		"varbit":   "((random() * 1e9)::int::bit(32)::varbit << (random() * 31)::int)",
		"text[]":   "ARRAY[chr(1 + (random() * 300)::int), repeat(chr(34), (random() * 3)::int), NULL, chr(92) || chr(32 + (random() * 90)::int)]",
		"float8[]": "ARRAY[random(), NULL, (random() - 0.5) * 10 ^ (random() * 300)::int]",
	} {
		t.Run(typ, func(t *testing.T) {
			query(t, conn, fmt.Sprintf("SELECT setseed(0.5); DROP TABLE IF EXISTS t; CREATE TABLE t (n serial, v %s); INSERT INTO t (v) SELECT %s FROM generate_series(1, %d) g; SELECT 1", typ, expr, n))
			codec := mustFor(t, typeOf(t, conn))
			texts := query(t, conn, "SELECT v FROM t ORDER BY n")
			bins := copyOut(t, conn, "SELECT v FROM t ORDER BY n")
			require.Len(t, texts, n)
			for i := range texts {
				agree(t, codec, texts[i], bins[i], nil)
			}
		})
	}
}

package column

import (
	"encoding/hex"
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/wal"
)

// base is a built-in type as pg_type has it.
func base(oid uint32, name string) wal.TypeInfo {
	return wal.TypeInfo{OID: oid, Mod: -1, Schema: "pg_catalog", Name: name, Kind: 'b'}
}

func numericType(p, s int) wal.TypeInfo {
	t := base(oidNumeric, "numeric")
	t.Mod = int32(p<<16|s&0x7ff) + 4
	return t
}

func arrayOf(elem wal.TypeInfo) wal.TypeInfo {
	mod := elem.Mod
	elem.Mod = -1
	return wal.TypeInfo{OID: 99999, Mod: mod, Name: "_" + elem.Name, Kind: 'b', Elem: &elem}
}

func mustFor(t testing.TB, info wal.TypeInfo) Codec {
	t.Helper()
	c, err := For(info, Options{})
	require.NoError(t, err)
	return c
}

// scalars are all types with a codec of their own.
func scalars() []wal.TypeInfo {
	return []wal.TypeInfo{
		base(oidBool, "bool"), base(oidInt2, "int2"), base(oidInt4, "int4"), base(oidInt8, "int8"),
		base(oidFloat4, "float4"), base(oidFloat8, "float8"),
		base(oidNumeric, "numeric"), numericType(5, 2), numericType(18, 0), numericType(38, 10), numericType(39, 1),
		numericType(3, -2), numericType(2, 4),
		base(oidText, "text"), base(oidVarchar, "varchar"), base(oidBpchar, "bpchar"), base(oidName, "name"),
		base(oidJSON, "json"), base(oidJSONB, "jsonb"), base(oidXML, "xml"), base(oidChar, "char"),
		base(oidBytea, "bytea"), base(oidUUID, "uuid"),
		base(oidDate, "date"), base(oidTime, "time"), base(oidTimestamp, "timestamp"), base(oidTimestamptz, "timestamptz"),
		base(oidInet, "inet"), base(oidCIDR, "cidr"), base(oidMacaddr, "macaddr"), base(oidMacaddr8, "macaddr8"),
		base(oidBit, "bit"), base(oidVarbit, "varbit"),
		{OID: 70001, Mod: -1, Name: "mood", Kind: 'e'}, {OID: 70002, Mod: -1, Name: "citext", Kind: 'b'},
	}
}

// all adds an array of each and what is kept as text.
func all() []wal.TypeInfo {
	types := scalars()
	for _, t := range scalars() {
		types = append(types, arrayOf(t))
	}
	return append(types, base(1186, "interval"), arrayOf(base(1186, "interval")))
}

func TestResolve(t *testing.T) {
	money := base(790, "money")
	dom := func(b wal.TypeInfo, mod int32) wal.TypeInfo {
		return wal.TypeInfo{OID: 80000, Mod: mod, Name: "dom", Kind: 'd', Base: &b}
	}
	for _, c := range []struct {
		info   wal.TypeInfo
		want   string
		binary bool
	}{
		{numericType(10, 2), "decimal(10, 2)", true},
		{numericType(38, 38), "decimal(38, 38)", true},
		{numericType(39, 0), "string", true},
		{numericType(3, -2), "decimal(5, 0)", true},
		{numericType(38, -1), "string", true},
		{numericType(2, 4), "decimal(4, 4)", true},
		{numericType(2, 39), "string", true},
		{base(oidNumeric, "numeric"), "string", true},
		{base(oidInt2, "int2"), "int", true},
		{base(oidTimestamp, "timestamp"), "timestamp", true},
		{base(oidTimestamptz, "timestamptz"), "timestamptz", true},
		{dom(numericType(10, 2), -1), "decimal(10, 2)", true},
		{dom(base(oidNumeric, "numeric"), numericType(7, 3).Mod), "decimal(7, 3)", true},
		{dom(dom(base(oidInt8, "int8"), -1), -1), "long", true},
		{dom(arrayOf(base(oidInt8, "int8")), -1), "list<long>", true},
		{arrayOf(dom(base(oidInt8, "int8"), -1)), "list<long>", true},
		{arrayOf(numericType(10, 2)), "list<decimal(10, 2)>", true},
		{arrayOf(money), "string", false},
		{arrayOf(dom(arrayOf(base(oidInt4, "int4")), -1)), "string", false},
		{money, "string", false},
		{wal.TypeInfo{OID: oidInt2Vector, Mod: -1, Name: "int2vector", Kind: 'b', Elem: &wal.TypeInfo{OID: oidInt2, Mod: -1, Name: "int2", Kind: 'b'}}, "string", false},
		{wal.TypeInfo{OID: 90000, Mod: -1, Name: "pair", Kind: 'c'}, "string", false},
		{wal.TypeInfo{OID: 90001, Mod: -1, Name: "int4range", Kind: 'r'}, "string", false},
		{wal.TypeInfo{OID: 90002, Mod: -1, Name: "mood", Kind: 'e'}, "string", true},
	} {
		codec := mustFor(t, c.info)
		require.Equal(t, c.want, codec.Iceberg().String(), c.info.Name)
		require.Equal(t, c.binary, codec.Binary(), c.info.Name)
	}
	_, err := For(wal.TypeInfo{Name: "lost", Kind: 'd', Mod: -1}, Options{})
	require.ErrorContains(t, err, "resolve domain lost")
	loop := wal.TypeInfo{Name: "loop", Kind: 'd', Mod: -1}
	loop.Base = &loop
	_, err = For(loop, Options{})
	require.ErrorContains(t, err, "domains deep")
}

// The Arrow type must be what a reader or writer gets from the Iceberg schema.
func TestArrowTypeIsIcebergs(t *testing.T) {
	for _, info := range all() {
		c := mustFor(t, info)
		sc := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "c", Type: c.Iceberg()})
		as, err := table.SchemaToArrowSchema(sc, nil, true, false)
		require.NoError(t, err)
		require.True(t, arrow.TypeEqual(as.Field(0).Type, c.Arrow()), "%s: %s, %s", info.Name, as.Field(0).Type, c.Arrow())
		b := array.NewRecordBuilder(memory.DefaultAllocator, as)
		c.Bind(b.Field(0)).Null()
		b.Release()
	}
}

func TestIcebergListIsACopy(t *testing.T) {
	c := mustFor(t, arrayOf(base(oidInt4, "int4")))
	c.Iceberg().(*iceberg.ListType).ElementID = 7
	require.Zero(t, c.Iceberg().(*iceberg.ListType).ElementID)
}

// one builds an array of one value; nil if it is refused.
func one(t testing.TB, c Codec, f form, data []byte) (arrow.Array, error) {
	t.Helper()
	b := array.NewBuilder(memory.DefaultAllocator, c.Arrow())
	defer b.Release()
	a := c.Bind(b)
	var err error
	if f == textForm {
		err = a.Text(data)
	} else {
		err = a.Binary(data)
	}
	if err != nil {
		require.Zero(t, b.Len(), "something was appended beside the error %v", err)
		if l, ok := b.(*array.ListBuilder); ok {
			require.Zero(t, l.ValueBuilder().Len())
		}
		return nil, err
	}
	require.Equal(t, 1, b.Len())
	return b.NewArray(), nil
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		info wal.TypeInfo
		text []string
		bin  []string // hexadecimal
	}{
		{base(oidBool, "bool"), []string{"", "x", "true", "T"}, []string{"", "02", "0100"}},
		{base(oidInt2, "int2"), []string{"", "-", "32768", "-32769", "1.0", "+1", " 1"}, []string{"", "00", "000000"}},
		{base(oidInt4, "int4"), []string{"2147483648", "-2147483649", "0x1", "1_0"}, []string{"0000"}},
		{base(oidInt8, "int8"), []string{"9223372036854775808", "-9223372036854775809", "99999999999999999999", "--1"}, []string{"00000000"}},
		{base(oidFloat8, "float8"), []string{"", "nan", "inf", "0x1p3", "1e999", "1_0", "Infinit", "-NaN", "--1"}, []string{"00000000"}},
		{base(oidFloat4, "float4"), []string{"", "1e99", "Inf"}, []string{"0000000000000000"}},
		{numericType(5, 2), []string{"", "-", ".", "1e5", "1.2.3", "nan"}, []string{"", "0001000000000000", "00010000000000002710", "0001000012340000" + "0001", "ffff000000000000"}},
		{base(oidNumeric, "numeric"), nil, []string{"", "0001000000000000", "0000000000004000"}},
		{base(oidUUID, "uuid"), []string{"", "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg", "-0112233-4455-6677-8899-aabbccddee--"}, []string{"00"}},
		{base(oidDate, "date"), []string{"", "2024-02-30", "2023-02-29", "0000-01-01", "24-01-01", "2024-1-1", "2024-01-01 ", "12345678-01-01", "2024-01-01 AD", "2024/01/01"}, []string{"0000", "7ffffffe", "80000001"}},
		{base(oidTime, "time"), []string{"", "24:00:01", "12:60:00", "12:00", "12:00:00.", "12:00:00.1234567"}, []string{"0000", "000000141dd76001", "ffffffffffffffff"}},
		{base(oidTimestamp, "timestamp"), []string{"", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00+00", "5000-01-01 00:00:00 BC"}, []string{"00"}},
		{base(oidTimestamptz, "timestamptz"), []string{"2024-01-01 00:00:00", "2024-01-01 00:00:00Z", "2024-01-01 00:00:00+0", "2024-01-01 00:00:00+00:"}, nil},
		{base(oidBytea, "bytea"), []string{"", "abc", `\x0`, `\xgg`, `\000`}, nil},
		{base(oidJSONB, "jsonb"), nil, []string{"", "027b7d"}},
		{base(oidBit, "bit"), nil, []string{"", "00000001", "0000000101ff", "ffffffff"}},
		{base(oidInet, "inet"), nil, []string{"", "02200004010203", "0221000401020304", "0320000401020304"}},
		{base(oidMacaddr, "macaddr"), nil, []string{"", "0000"}},
		{base(oidChar, "char"), []string{"ab", `\999`}, []string{"", "6162"}},
		{arrayOf(base(oidInt4, "int4")), []string{"", "{", "}", "{1,}", "{,1}", "{1,,2}", "{1,x}", "{1}{", `{"1}`, `{"1"2}`, `{1"2"}`, "{1,{2}}", "{null}", "{1} "},
			[]string{"", "000000000000000000000017ff", "ffffffff0000000000000017", "00000007" + "0000000000000017", "00000001" + "0000000000000017" + "7fffffff" + "00000001",
				"00000001" + "0000000000000017" + "00000001" + "00000001" + "fffffffe", "00000001" + "0000000000000017" + "00000001" + "00000001" + "00000004" + "000000",
				"00000001" + "0000000000000017" + "00000001" + "00000001" + "00000004" + "00000001" + "00"}},
	} {
		codec := mustFor(t, c.info)
		for _, s := range c.text {
			_, err := one(t, codec, textForm, []byte(s))
			require.ErrorIs(t, err, ErrMalformed, "%s %q", c.info.Name, s)
			_, err = codec.KeyText(nil, []byte(s))
			require.ErrorIs(t, err, ErrMalformed, "%s %q", c.info.Name, s)
		}
		for _, s := range c.bin {
			data, err := hex.DecodeString(s)
			require.NoError(t, err)
			_, err = one(t, codec, binaryForm, data)
			require.ErrorIs(t, err, ErrMalformed, "%s %s", c.info.Name, s)
		}
	}
}

func TestUnrepresentable(t *testing.T) {
	for _, c := range []struct {
		info             wal.TypeInfo
		text             string
		typ, value, says string
	}{
		{numericType(5, 2), "NaN", "numeric(5,2)", "NaN", "finite"},
		{numericType(5, 2), "1000.00", "numeric(5,2)", "1000.00", "more digits than"},
		{numericType(5, 2), "0.001", "numeric(5,2)", "0.001", "after the point"},
		{numericType(38, 0), "100000000000000000000000000000000000000", "numeric(38,0)", "100000000000000000000000000000000000000", "more digits"},
		{numericType(38, 0), "1000000000000000000000000000000000000000000000000000000000000", "numeric(38,0)", "1000000000000000000000000000000000000000000000000000000000000", "more digits"},
		{base(oidDate, "date"), "-infinity", "date", "-infinity", "infinite"},
		{base(oidTimestamp, "timestamp"), "infinity", "timestamp", "infinity", "infinite"},
		{base(oidTimestamptz, "timestamptz"), "294247-01-10 04:00:54.775808+00", "timestamptz", "294247-01-10 04:00:54.775808+00", "later"},
		{base(oidTime, "time"), "24:00:00", "time", "24:00:00", "24:00"},
		{base(oidText, "text"), "a\xffb", "text", `"a\xffb"`, "UTF-8"},
		{arrayOf(base(oidInt4, "int4")), "{{1,2},{3,4}}", "int4[]", "{{1,2},{3,4}}", "one dimension"},
		{arrayOf(base(oidInt4, "int4")), "[2:3]={1,2}", "int4[]", "[2:3]={1,2}", "lower bound"},
		{arrayOf(base(oidInt4, "int4")), "[1:1][0:1]={{1,2}}", "int4[]", "[1:1][0:1]={{1,2}}", "one dimension"},
		{arrayOf(base(oidDate, "date")), "{2024-01-01,infinity}", "date", "infinity", "infinite"},
	} {
		codec := mustFor(t, c.info)
		_, err := one(t, codec, textForm, []byte(c.text))
		require.ErrorIs(t, err, ErrUnrepresentable, c.text)
		var u *Unrepresentable
		require.ErrorAs(t, err, &u)
		require.Equal(t, c.typ, u.Type)
		require.Equal(t, c.value, u.Value)
		require.Contains(t, u.Why, c.says)
	}
}

// A NULL, then a copy of every value through From, from the codec's own type
// and from what Iceberg promotes to it.
func TestFrom(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	for _, c := range []struct {
		from, to wal.TypeInfo
		text     []string
	}{
		{base(oidBool, "bool"), base(oidBool, "bool"), []string{"t", "f"}},
		{base(oidInt2, "int2"), base(oidInt4, "int4"), []string{"-32768", "5"}},
		{base(oidInt4, "int4"), base(oidInt8, "int8"), []string{"-2147483648", "7"}},
		{base(oidInt8, "int8"), base(oidInt8, "int8"), []string{"-9223372036854775808", "9223372036854775807"}},
		{base(oidFloat4, "float4"), base(oidFloat4, "float4"), []string{"NaN", "-0", "1e-45"}},
		{base(oidFloat4, "float4"), base(oidFloat8, "float8"), []string{"NaN", "-0", "0.5"}},
		{numericType(5, 2), numericType(38, 2), []string{"-999.99", "0.00", "1.50"}},
		{numericType(38, 2), numericType(38, 2), []string{"-999999999999999999999999999999999999.99"}},
		{base(oidText, "text"), base(oidText, "text"), []string{"", "ä"}},
		{base(oidBytea, "bytea"), base(oidBytea, "bytea"), []string{`\x`, `\x00ff`}},
		{base(oidUUID, "uuid"), base(oidUUID, "uuid"), []string{"00112233-4455-6677-8899-aabbccddeeff"}},
		{base(oidDate, "date"), base(oidDate, "date"), []string{"0044-03-15 BC"}},
		{base(oidTime, "time"), base(oidTime, "time"), []string{"23:59:59.999999"}},
		{base(oidTimestamp, "timestamp"), base(oidTimestamp, "timestamp"), []string{"2024-02-29 12:00:00.5"}},
		{base(oidTimestamptz, "timestamptz"), base(oidTimestamptz, "timestamptz"), []string{"2024-02-29 12:00:00.5+00"}},
		{arrayOf(base(oidInt4, "int4")), arrayOf(base(oidInt8, "int8")), []string{"{}", "{1,NULL,-3}"}},
		{arrayOf(base(oidText, "text")), arrayOf(base(oidText, "text")), []string{`{"a,b",NULL,"NULL",""}`}},
		{arrayOf(base(oidUUID, "uuid")), arrayOf(base(oidUUID, "uuid")), []string{`{NULL,00112233-4455-6677-8899-aabbccddeeff}`}},
	} {
		from, to := mustFor(t, c.from), mustFor(t, c.to)
		b := array.NewBuilder(mem, from.Arrow())
		a := from.Bind(b)
		a.Null()
		for _, s := range c.text {
			require.NoError(t, a.Text([]byte(s)))
		}
		src := b.NewArray()
		b.Release()
		// Sliced, for offsets matter.
		cut := array.NewSlice(src, 1, int64(src.Len()))

		b = array.NewBuilder(mem, to.Arrow())
		a = to.Bind(b)
		require.NoError(t, a.From(src, 0))
		for i := range c.text {
			require.NoError(t, a.From(cut, i))
		}
		got := b.NewArray()
		b.Release()
		require.Equal(t, "NULL", Render(got, 0))
		rows := NewRowHash([]Field{{1, to}})
		for i, s := range c.text {
			require.Equal(t, s, Render(got, i+1))
			want, err := to.KeyText(nil, []byte(s))
			require.NoError(t, err)
			for arr, at := range map[arrow.Array]int{got: i + 1, cut: i} {
				key, err := to.KeyArrow(nil, arr, at)
				require.NoError(t, err)
				require.Equal(t, want, key, s)
			}
			// The hash of a row survives the promotion.
			hi, lo, err := rows.Row([]arrow.Array{got}, i+1)
			require.NoError(t, err)
			oldHi, oldLo, err := NewRowHash([]Field{{1, from}}).Row([]arrow.Array{cut}, i)
			require.NoError(t, err)
			require.Equal(t, [2]uint64{hi, lo}, [2]uint64{oldHi, oldLo}, s)
		}
		_, err := to.KeyArrow(nil, got, 0)
		require.ErrorContains(t, err, "NULL")
		cut.Release()
		src.Release()
		got.Release()
	}
	// An array of another type is refused, and nothing appended.
	ints, err := one(t, mustFor(t, base(oidBool, "bool")), textForm, []byte("t"))
	require.NoError(t, err)
	for _, info := range all() {
		c := mustFor(t, info)
		if info.OID == oidBool {
			continue
		}
		b := array.NewBuilder(mem, c.Arrow())
		require.Error(t, c.Bind(b).From(ints, 0), info.Name)
		require.Zero(t, b.Len(), info.Name)
		_, err := c.KeyArrow(nil, ints, 0)
		require.Error(t, err, info.Name)
		b.Release()
	}
}

func TestBindPanicsOnAnotherBuilder(t *testing.T) {
	for _, info := range all() {
		b := array.NewBuilder(memory.DefaultAllocator, arrow.BinaryTypes.LargeString)
		require.Panics(t, func() { mustFor(t, info).Bind(b) }, info.Name)
		b.Release()
	}
	b := array.NewBuilder(memory.DefaultAllocator, arrow.FixedWidthTypes.Timestamp_us)
	defer b.Release()
	require.Panics(t, func() { mustFor(t, base(oidTimestamp, "timestamp")).Bind(b) })
}

// Arrow's 32-bit offsets end at 2 GB, and its builders don't look.
func TestFull(t *testing.T) {
	c := mustFor(t, base(oidText, "text"))
	b := array.NewBuilder(memory.DefaultAllocator, c.Arrow()).(*array.StringBuilder)
	defer b.Release()
	a := c.Bind(b).(*bytesAppender)
	require.True(t, a.room(math.MaxInt32))
	require.False(t, a.room(math.MaxInt32+1))
	require.NoError(t, a.Text([]byte("abc")))
	require.False(t, a.room(math.MaxInt32-2))
	require.ErrorIs(t, errFull("text"), ErrFull)
}

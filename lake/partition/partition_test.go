package partition

import (
	"math"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		" day( created_at ) ":          "day(created_at)",
		"Day(a),BUCKET(16,b)":          "day(a), bucket(16, b)",
		"identity(a), truncate(4 , b)": "a, truncate(4, b)",
		`hour("odd ""name""")`:         `hour("odd ""name""")`,
		`"day"`:                        "day",
		"day":                          "day",
		"year(größe), month(x$1)":      "year(größe), month(x$1)",
	} {
		by, err := Parse(in)
		require.NoError(t, err, in)
		require.Equal(t, want, by.String(), in)
		again, err := Parse(by.String())
		require.NoError(t, err, in)
		require.Equal(t, by, again)
	}
	for in, want := range map[string]string{
		"day(a) day(b)":       `"day(b)" follows day(a) where a comma should`,
		"day(a),":             `there is no name before ""`,
		"week(a)":             "there is no transform week",
		"bucket(a)":           "bucket takes a number above zero, then the column",
		"bucket(0, a)":        "bucket takes a number above zero",
		"bucket(16 a)":        "bucket takes a number",
		"truncate(1e9, a)":    "truncate takes a number",
		"bucket(9999999999,a": "bucket takes a number",
		"day(a":               "day(a is not closed",
		`day("a)`:             "a quote is not closed",
		"day(a), day(a)":      "day(a) is there twice",
		"a + b":               "where a comma should",
	} {
		_, err := Parse(in)
		require.ErrorContains(t, err, want, in)
		require.ErrorContains(t, err, "want terms such as day(created_at)", in)
	}
}

var sample = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64},
	iceberg.NestedField{ID: 4, Name: "at", Type: iceberg.PrimitiveTypes.TimestampTz},
	iceberg.NestedField{ID: 5, Name: "at_day", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 6, Name: "f", Type: iceberg.PrimitiveTypes.Float64},
	iceberg.NestedField{ID: 7, Name: "l", Type: &iceberg.ListType{ElementID: 8, Element: iceberg.PrimitiveTypes.Int32}},
	iceberg.NestedField{ID: 9, Name: "b", Type: iceberg.PrimitiveTypes.Bool},
	iceberg.NestedField{ID: 10, Name: "u", Type: iceberg.PrimitiveTypes.UUID},
)

func TestBind(t *testing.T) {
	bind := func(text string) ([]Field, error) {
		by, err := Parse(text)
		require.NoError(t, err)
		return Bind(by, sample)
	}
	fields, err := bind("day(at), bucket(4, id), id, truncate(10, id)")
	require.NoError(t, err)
	require.Equal(t, []Field{{4, "day", "at_day"}, {1, "bucket[4]", "id_bucket_4"}, {1, "identity", "id"}, {1, "truncate[10]", "id_trunc_10"}}, fields)
	for in, want := range map[string]string{
		"day(nowhere)":       "partition by day(nowhere): there is no column nowhere",
		"day(id)":            "partition by day(id): the column is long in the lake",
		"f":                  "partition by f: the column is double",
		"bucket(2, l)":       "the column is list<int>",
		"bucket(2, b)":       "the column is boolean",
		"u":                  "apache/iceberg#14216",
		"bucket(2, u)":       "duckdb/duckdb-iceberg#1325",
		"day(at), month(at)": "partition by month(at): one partition by at is enough",
	} {
		_, err := bind(in)
		require.ErrorContains(t, err, want, in)
	}
}

// What is truncated too widely has no place in a manifest.
func TestTruncateTooWide(t *testing.T) {
	for _, c := range []struct {
		typ   iceberg.Type
		width int
		ok    bool
	}{
		{iceberg.PrimitiveTypes.Int32, 1 << 30, true}, {iceberg.PrimitiveTypes.Int32, 1<<30 + 1, false},
		{iceberg.PrimitiveTypes.Int64, math.MaxInt32, true}, {iceberg.PrimitiveTypes.String, math.MaxInt32, true},
		{iceberg.DecimalTypeOf(2, 1), 64, true}, // -9.9 is -12.8 then
		{iceberg.DecimalTypeOf(2, 1), 65, false}, {iceberg.DecimalTypeOf(2, 1), 128, true}, {iceberg.DecimalTypeOf(2, 1), 129, false},
		{iceberg.DecimalTypeOf(12, 2), 50, true}, {iceberg.DecimalTypeOf(38, 0), math.MaxInt32, true},
	} {
		sc := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "c", Type: c.typ})
		_, err := Bind(By{{iceberg.TruncateTransform{Width: c.width}, "c"}}, sc)
		if c.ok {
			require.NoError(t, err, "%s %d", c.typ, c.width)
		} else {
			require.ErrorContains(t, err, "is too much for a column", "%s %d", c.typ, c.width)
		}
	}
}

// The examples of the Iceberg specification, appendix B.
func TestBucketHashes(t *testing.T) {
	stamp := func(s string) int64 {
		at, err := time.Parse("2006-01-02T15:04:05.999999-07:00", s)
		require.NoError(t, err)
		return at.UnixMicro()
	}
	hash := func(b []byte) int32 { return bucket(b, math.MaxInt32) }
	number := func(v int64) int32 {
		return int32(transformNumber(iceberg.BucketTransform{NumBuckets: math.MaxInt32}, iceberg.PrimitiveTypes.Int64)(v))
	}
	want := func(v int32) int32 { return (v & math.MaxInt32) % math.MaxInt32 }
	require.Equal(t, want(2017239379), number(34))
	dec, err := decimal128.FromString("14.20", 9, 2)
	require.NoError(t, err)
	var buf [16]byte
	require.Equal(t, want(-500754589), hash(shortest(&buf, dec)))
	require.Equal(t, want(-653330422), number(17486))       // 2017-11-16
	require.Equal(t, want(-662762989), number(81068000000)) // 22:31:08
	require.Equal(t, want(-2047944441), number(stamp("2017-11-16T22:31:08+00:00")))
	require.Equal(t, want(-1207196810), number(stamp("2017-11-16T22:31:08.000001+00:00")))
	require.Equal(t, want(-2047944441), number(stamp("2017-11-16T14:31:08-08:00")))
	require.Equal(t, want(1210000089), hash([]byte("iceberg")))
	id := uuid.MustParse("f79c3e09-677c-4bbd-a479-3f349cb785e7")
	require.Equal(t, want(1488055340), hash(id[:]))
	require.Equal(t, want(-188683207), hash([]byte{0, 1, 2, 3}))
}

// column is a type, how its values are drawn and how iceberg-go has them.
type columnCase struct {
	typ   iceberg.Type
	arrow arrow.DataType
	draw  func(t *rapid.T, b array.Builder) iceberg.Literal
}

var columnCases = map[string]columnCase{
	"int": {iceberg.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int32, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.Int32Range(math.MinInt32/2, math.MaxInt32).Draw(t, "v")
		b.(*array.Int32Builder).Append(v)
		return iceberg.Int32Literal(v)
	}},
	"long": {iceberg.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int64, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.Int64Range(math.MinInt64/2, math.MaxInt64).Draw(t, "v")
		b.(*array.Int64Builder).Append(v)
		return iceberg.Int64Literal(v)
	}},
	"date": {iceberg.PrimitiveTypes.Date, arrow.FixedWidthTypes.Date32, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.Int32Range(-2_451_000, 2_145_031_948).Draw(t, "v")
		b.(*array.Date32Builder).Append(arrow.Date32(v))
		return iceberg.DateLiteral(v)
	}},
	"time": {iceberg.PrimitiveTypes.Time, arrow.FixedWidthTypes.Time64us, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.Int64Range(0, dayMicros-1).Draw(t, "v")
		b.(*array.Time64Builder).Append(arrow.Time64(v))
		return iceberg.TimeLiteral(v)
	}},
	"timestamp": {iceberg.PrimitiveTypes.Timestamp, &arrow.TimestampType{Unit: arrow.Microsecond}, drawTimestamp},
	"timestamptz": {iceberg.PrimitiveTypes.TimestampTz, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
		drawTimestamp},
	"decimal": {iceberg.DecimalTypeOf(38, 2), &arrow.Decimal128Type{Precision: 38, Scale: 2}, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := decimal128.FromI64(rapid.Int64().Draw(t, "v"))
		if rapid.Bool().Draw(t, "wide") {
			v = v.Mul(decimal128.FromI64(rapid.Int64Range(1, 1e18).Draw(t, "times")))
		}
		b.(*array.Decimal128Builder).Append(v)
		return iceberg.DecimalLiteral{Val: v, Scale: 2}
	}},
	"string": {iceberg.PrimitiveTypes.String, arrow.BinaryTypes.String, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.StringN(0, 12, -1).Draw(t, "v")
		b.(*array.StringBuilder).Append(v)
		return iceberg.StringLiteral(v)
	}},
	"binary": {iceberg.PrimitiveTypes.Binary, arrow.BinaryTypes.Binary, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "v")
		b.(*array.BinaryBuilder).Append(v)
		return iceberg.BinaryLiteral(v)
	}},
	"uuid": {iceberg.PrimitiveTypes.UUID, extensions.NewUUIDType(), func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v"))
		b.(*extensions.UUIDBuilder).Append(v)
		return iceberg.UUIDLiteral(v)
	}},
	"boolean": {iceberg.PrimitiveTypes.Bool, arrow.FixedWidthTypes.Boolean, func(t *rapid.T, b array.Builder) iceberg.Literal {
		v := rapid.Bool().Draw(t, "v")
		b.(*array.BooleanBuilder).Append(v)
		return iceberg.BoolLiteral(v)
	}},
}

func drawTimestamp(t *rapid.T, b array.Builder) iceberg.Literal {
	v := rapid.Int64Range(-211_813_488_000_000_000, 7_700_000_000_000_000_000).Draw(t, "v") // 4714 BC to where hours end
	b.(*array.TimestampBuilder).Append(arrow.Timestamp(v))
	return iceberg.TimestampLiteral(v)
}

// Every transform gives what iceberg-go's gives, NULLs included; rows are where
// their partition is, all of them once, in order.
func TestSplitIsIcebergs(t *testing.T) {
	transforms := []iceberg.Transform{iceberg.IdentityTransform{}, iceberg.YearTransform{}, iceberg.MonthTransform{}, iceberg.DayTransform{},
		iceberg.HourTransform{}, iceberg.BucketTransform{NumBuckets: 7}, iceberg.TruncateTransform{Width: 3}, iceberg.TruncateTransform{Width: 1000}}
	for name, c := range columnCases {
		for _, tr := range transforms {
			if !suits(tr, c.typ) {
				continue
			}
			t.Run(name+" "+tr.String(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					b := array.NewBuilder(memory.DefaultAllocator, c.arrow)
					defer b.Release()
					rows := rapid.IntRange(1, 20).Draw(t, "rows")
					want := make([]any, rows)
					skipped := make([]bool, rows)
					for i := range rows {
						skipped[i] = rapid.IntRange(0, 4).Draw(t, "skip") == 0
						if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
							b.AppendNull()
							continue
						}
						lit := c.draw(t, b)
						want[i] = tr.Apply(iceberg.Optional[iceberg.Literal]{Valid: true, Val: lit}).Val.Any()
					}
					a := b.NewArray()
					defer a.Release()
					sc := iceberg.NewSchema(0, iceberg.NestedField{ID: 3, Name: "c", Type: c.typ})
					s, err := NewSplitter(iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{3}, FieldID: 1000, Name: "p", Transform: tr}), sc)
					if err != nil {
						t.Fatal(err)
					}
					parts, err := s.Split([]arrow.Array{a}, rows, func(row uint32) bool { return skipped[row] })
					if err != nil {
						t.Fatal(err)
					}
					seen := map[int32]bool{}
					keys := map[string]bool{}
					for _, p := range parts {
						if keys[p.Key] || len(p.Rows) == 0 {
							t.Fatalf("part %q is there twice, or empty", p.Key)
						}
						keys[p.Key] = true
						for i, row := range p.Rows {
							if i > 0 && p.Rows[i-1] >= row || seen[row] || skipped[row] {
								t.Fatalf("rows %v", p.Rows)
							}
							seen[row] = true
							require.Equal(t, same(want[row]), same(p.Values[1000]), "row %d", row)
						}
					}
					for row := range rows {
						if !skipped[row] && !seen[int32(row)] {
							t.Fatalf("row %d is in no part", row)
						}
					}
				})
			})
		}
	}
}

// same has the kinds of values alike that iceberg-go takes for one another.
func same(v any) any {
	switch v := v.(type) {
	case iceberg.Date:
		return int32(v)
	case iceberg.Decimal:
		return v.Val.BigInt().String()
	case []byte:
		return string(v)
	}
	return v
}

// Hours beyond 32 bits are all the last one, which keeps their order.
func TestFarHours(t *testing.T) {
	hour := transformNumber(iceberg.HourTransform{}, iceberg.PrimitiveTypes.TimestampTz)
	require.EqualValues(t, math.MaxInt32, hour(math.MaxInt64))
	require.EqualValues(t, -1, hour(-1))
	year := transformNumber(iceberg.YearTransform{}, iceberg.PrimitiveTypes.Date)
	require.EqualValues(t, -1, year(-1))
	require.EqualValues(t, 0, year(0))
}

// Rows cost no allocations, however many partitions there are within a few.
func TestSplitDoesNotAllocateByRow(t *testing.T) {
	ids, names := array.NewInt64Builder(memory.DefaultAllocator), array.NewStringBuilder(memory.DefaultAllocator)
	const rows = 50_000
	for i := range rows {
		ids.Append(int64(i))
		names.Append("name")
	}
	cols := []arrow.Array{ids.NewArray(), names.NewArray()}
	sc := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64},
		iceberg.NestedField{ID: 2, Name: "name", Type: iceberg.PrimitiveTypes.String})
	s, err := NewSplitter(iceberg.NewPartitionSpec(
		iceberg.PartitionField{SourceIDs: []int{1}, FieldID: 1000, Name: "b", Transform: iceberg.BucketTransform{NumBuckets: 16}},
		iceberg.PartitionField{SourceIDs: []int{2}, FieldID: 1001, Name: "name", Transform: iceberg.IdentityTransform{}}), sc)
	require.NoError(t, err)
	n := testing.AllocsPerRun(2, func() {
		parts, err := s.Split(cols, rows, func(uint32) bool { return false })
		require.NoError(t, err)
		require.Len(t, parts, 16)
	})
	require.Less(t, n, 500.0)
}

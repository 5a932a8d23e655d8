package snapshot

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// boundsOf writes a file of one column, so many rows to a row group, and returns the
// bounds of its manifest entry; nil: it has none.
func boundsOf(t *testing.T, typ iceberg.Type, group int64, rows int, fill func(b array.Builder, i int)) (lower, upper iceberg.Literal, n *lake.NewFile) {
	h := newHarness(t, 2, 1)
	h.tab.o.RowGroupRows = group
	w, err := h.tab.NewFile(iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "c", Type: typ}), nil)
	require.NoError(t, err)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, w.(*fileWriter).arrow)
	defer rb.Release()
	for i := range rows {
		fill(rb.Field(0), i)
	}
	rec := rb.NewRecordBatch()
	defer rec.Release()
	require.NoError(t, w.Write(rec))
	n, err = w.Close(h.ctx)
	require.NoError(t, err)
	literal := func(of map[int][]byte) iceberg.Literal {
		b, ok := of[1]
		if !ok {
			return nil
		}
		l, err := iceberg.LiteralFromBytes(typ, b)
		require.NoError(t, err)
		return l
	}
	return literal(n.Entry.LowerBoundValues()), literal(n.Entry.UpperBoundValues()), n
}

// Bounds over several row groups, of every type, are the least and the greatest
// value that isn't NaN, and NULLs are counted. Of uuids there is neither, nor in
// the file: readers don't agree on their order.
func TestBoundsOfEveryType(t *testing.T) {
	for i, o := range everyOrder {
		single := func(rank int) string {
			lower, _, _ := boundsOf(t, o.typ, 4, 1, func(b array.Builder, _ int) { o.append(b, rank) })
			return fmt.Sprint(lower)
		}
		lower, upper, n := boundsOf(t, o.typ, 4, 2*o.n+1, func(b array.Builder, i int) {
			if i%2 == 0 {
				b.AppendNull()
			} else {
				o.append(b, (i/2+o.n/2)%o.n)
			}
		})
		if o.typ.Equals(iceberg.PrimitiveTypes.UUID) {
			require.Nil(t, lower)
			require.Nil(t, upper)
			require.NotContains(t, n.Entry.NullValueCounts(), 1)
			require.NotContains(t, n.Entry.ValueCounts(), 1)
			continue
		}
		last := o.n - 1
		if i == 3 || i == 4 {
			last-- // NaN
		}
		require.Equal(t, single(0), fmt.Sprint(lower), "%s", o.typ)
		require.Equal(t, single(last), fmt.Sprint(upper), "%s", o.typ)
		require.EqualValues(t, 2*o.n+1, n.Entry.ValueCounts()[1], "%s", o.typ)
		require.EqualValues(t, o.n+1, n.Entry.NullValueCounts()[1], "%s", o.typ)
	}
}

// Long texts are cut to 16 characters, the upper bound being raised; where that
// can't be, and where a row group's are too long to be noted, there is no bound:
// one that leaves a row group out would hide its rows.
func TestBoundsOfTexts(t *testing.T) {
	none := "<nil>"
	long := strings.Repeat("z", 5000)
	for name, c := range map[string]struct {
		values       []string
		lower, upper string
	}{
		"short":                           {[]string{"b", "a", "é"}, "a", "é"},
		"cut":                             {[]string{strings.Repeat("a", 17), strings.Repeat("b", 17)}, strings.Repeat("a", 16), strings.Repeat("b", 15) + "c"},
		"just fits":                       {[]string{strings.Repeat("é", 16)}, strings.Repeat("é", 16), strings.Repeat("é", 16)},
		"cut between runes":               {[]string{strings.Repeat("é", 17)}, strings.Repeat("é", 16), strings.Repeat("é", 15) + "ê"},
		"before the surrogates":           {[]string{strings.Repeat("a", 15) + "\ud7ff!"}, strings.Repeat("a", 15) + "\ud7ff", strings.Repeat("a", 15) + "\ue000"},
		"the last rune":                   {[]string{"a" + strings.Repeat("\U0010ffff", 20)}, "a" + strings.Repeat("\U0010ffff", 15), "b"},
		"nothing above":                   {[]string{strings.Repeat("\U0010ffff", 20), "a"}, "a", none},
		"a long one in another row group": {[]string{"a", "b", "c", long}, none, none},
		"a long one in the first":         {[]string{"a", long, "a", "b"}, none, none},
		"long ones only":                  {[]string{long + "a", long + "b"}, none, none},
		"a short one and a long one":      {[]string{"a", long}, none, none},
		"empty ones only":                 {[]string{"", ""}, none, none},
		"an empty one and a long one":     {[]string{"", long, "a", "b"}, none, none},
		"an empty one":                    {[]string{"", "a"}, none, "a"},
		"empty ones in a row group":       {[]string{"", "", "a", "b"}, none, none},
		"NULLs in a row group":            {[]string{"NULL", "NULL", "a", "b"}, "a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			lower, upper, n := boundsOf(t, iceberg.PrimitiveTypes.String, 2, len(c.values), func(b array.Builder, i int) {
				if c.values[i] == "NULL" {
					b.AppendNull()
				} else {
					b.(*array.StringBuilder).Append(c.values[i])
				}
			})
			require.EqualValues(t, len(c.values), n.Entry.ValueCounts()[1])
			require.Equal(t, c.lower == none, lower == nil, "%v", lower)
			require.Equal(t, c.upper == none, upper == nil, "%v", upper)
			if c.lower != none {
				require.Equal(t, c.lower, lower.(iceberg.StringLiteral).Value())
			}
			if c.upper != none {
				require.Equal(t, c.upper, upper.(iceberg.StringLiteral).Value())
			}
		})
	}
	binary := func(values ...[]byte) (lower, upper iceberg.Literal) {
		lower, upper, _ = boundsOf(t, iceberg.PrimitiveTypes.Binary, 2, len(values), func(b array.Builder, i int) { b.(*array.BinaryBuilder).Append(values[i]) })
		return lower, upper
	}
	lower, upper := binary([]byte(strings.Repeat("\xff", 20)), []byte("a"))
	require.Equal(t, "a", string(lower.(iceberg.BinaryLiteral).Value()))
	require.Nil(t, upper)
	lower, upper = binary([]byte("a"), []byte("b"), []byte("c"), []byte(long))
	require.Nil(t, lower)
	require.Nil(t, upper)
}

// NaN is in no bound, and a file or row group of nothing else has none; a zero is
// bounded by both zeros.
func TestBoundsOfFloats(t *testing.T) {
	nan, zero := math.NaN(), math.Copysign(0, -1)
	for name, c := range map[string]struct {
		values       []float64
		lower, upper any
	}{
		"some NaN":           {[]float64{nan, 2, 1, nan}, 1.0, 2.0},
		"a row group of NaN": {[]float64{nan, nan, 1, 2}, 1.0, 2.0},
		"NaN only":           {[]float64{nan, nan, nan}, nil, nil},
		"zeros":              {[]float64{0, 0}, zero, 0.0},
		"negative zeros":     {[]float64{zero, zero}, zero, 0.0},
	} {
		t.Run(name, func(t *testing.T) {
			lower, upper, _ := boundsOf(t, iceberg.PrimitiveTypes.Float64, 2, len(c.values), func(b array.Builder, i int) { b.(*array.Float64Builder).Append(c.values[i]) })
			if c.lower == nil {
				require.Nil(t, lower)
				require.Nil(t, upper)
				return
			}
			require.Equal(t, math.Float64bits(c.lower.(float64)), math.Float64bits(lower.(iceberg.Float64Literal).Value()))
			require.Equal(t, math.Float64bits(c.upper.(float64)), math.Float64bits(upper.(iceberg.Float64Literal).Value()))
		})
	}
}

package column

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
)

func TestSumIsOfAMultiset(t *testing.T) {
	a, b := xxh3.HashString128("a"), xxh3.HashString128("b")
	var x, y Sum
	for _, h := range []xxh3.Uint128{a, b, b} {
		x.Add(h)
	}
	for _, h := range []xxh3.Uint128{b, a, b} {
		y.Add(h)
	}
	require.Equal(t, x, y)
	y.Add(a)
	y.Add(a)
	require.NotEqual(t, x.Hi, y.Hi, "an even number of equal rows counts")
	for _, h := range []xxh3.Uint128{a, a, b, b, a} {
		y.Take(h)
	}
	require.Equal(t, Sum{}, y)
}

// What the lake holds of each sample, hashed by the batch, is what RowHash makes
// of the value, whose type it is found by.
func TestRowSumsAgreeWithRowHash(t *testing.T) {
	for _, s := range samples {
		codec := mustFor(t, s.info)
		b := array.NewBuilder(memory.DefaultAllocator, codec.Arrow())
		a := codec.Bind(b)
		require.NoError(t, a.Text([]byte(s.text)))
		a.Null()
		arr := b.NewArray()
		rec := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "c", Type: codec.Arrow(), Nullable: true}}, nil), []arrow.Array{arr}, 2)
		sums, err := NewRowSums([]iceberg.NestedField{{ID: 7, Name: "c", Type: codec.Iceberg()}})
		require.NoError(t, err, s.name(t))
		got, err := sums.Hashes(rec)
		require.NoError(t, err, s.name(t))
		rows := NewRowHash([]Field{{7, codec}})
		for i := range 2 {
			hi, lo, err := rows.Row([]arrow.Array{arr}, i)
			require.NoError(t, err)
			require.Equal(t, mixed(xxh3.Uint128{Hi: hi, Lo: lo}), got[i], s.name(t))
		}
		rec.Release()
		arr.Release()
		b.Release()
	}
}

// Two rows that exchange values change the sum, other orders of rows, and
// columns that are NULL, do not.
func TestRowSumsTellRowsApart(t *testing.T) {
	field := func(id int) iceberg.NestedField {
		return iceberg.NestedField{ID: id, Name: "c", Type: iceberg.PrimitiveTypes.Int64}
	}
	sum := func(fields []iceberg.NestedField, rows ...[]int64) (s Sum) {
		sums, err := NewRowSums(fields)
		require.NoError(t, err)
		cols := make([]arrow.Array, len(fields))
		var of []arrow.Field
		for c := range fields {
			b := array.NewInt64Builder(memory.DefaultAllocator)
			for _, r := range rows {
				if c < len(r) {
					b.Append(r[c])
				} else {
					b.AppendNull()
				}
			}
			cols[c] = b.NewArray()
			of = append(of, arrow.Field{Name: "c", Type: arrow.PrimitiveTypes.Int64, Nullable: true})
		}
		hashes, err := sums.Hashes(array.NewRecordBatch(arrow.NewSchema(of, nil), cols, int64(len(rows))))
		require.NoError(t, err)
		for _, h := range hashes {
			s.Add(h)
		}
		return s
	}
	two := []iceberg.NestedField{field(1), field(2)}
	want := sum(two, []int64{1, 2}, []int64{3, 4})
	require.Equal(t, want, sum(two, []int64{3, 4}, []int64{1, 2}))
	require.Equal(t, want, sum(append(two, field(3)), []int64{1, 2}, []int64{3, 4}))
	require.NotEqual(t, want, sum(two, []int64{1, 4}, []int64{3, 2}))
	require.NotEqual(t, want, sum([]iceberg.NestedField{field(2), field(1)}, []int64{1, 2}, []int64{3, 4}))
}

func TestRowSumsRefuseUnknownTypes(t *testing.T) {
	_, err := NewRowSums([]iceberg.NestedField{{ID: 1, Name: "f", Type: iceberg.FixedTypeOf(4)}})
	require.ErrorContains(t, err, "hash column f")
}

package audit

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
)

func TestPlainForms(t *testing.T) {
	for _, c := range []struct {
		v     int64
		scale int
		want  string
	}{{0, 0, "0"}, {0, 2, "0.00"}, {-5, 2, "-0.05"}, {123, 2, "1.23"}, {-12300, 0, "-12300"}, {7, 5, "0.00007"}} {
		require.Equal(t, c.want, string(appendDecimal(nil, big.NewInt(c.v), c.scale)))
	}

	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	b := array.NewListBuilder(mem, arrow.BinaryTypes.String)
	defer b.Release()
	values := b.ValueBuilder().(*array.StringBuilder)
	b.Append(true)
	values.AppendValues([]string{"é,", ""}, nil)
	values.AppendNull()
	b.Append(true)
	list := b.NewListArray()
	defer list.Release()
	for i, want := range []string{"2:é,,0:,N,", ""} {
		got, err := appendPlain(nil, list, i)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}

	f := array.NewFloat64Builder(mem)
	defer f.Release()
	f.AppendValues([]float64{math.Float64frombits(0x7ff8000000000001), math.Copysign(0, -1)}, nil)
	floats := f.NewFloat64Array()
	defer floats.Release()
	for i, want := range []string{"7ff8000000000000", "8000000000000000"} {
		got, err := appendPlain(nil, floats, i)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}

	n := array.NewNull(1)
	defer n.Release()
	_, err := appendPlain(nil, n, 0)
	require.ErrorContains(t, err, "no plain form")
	_, err = expression("c", iceberg.PrimitiveTypes.TimestampNs)
	require.ErrorContains(t, err, "no plain form")

	require.Equal(t, "2026-11-23", show([]byte("20780"), iceberg.PrimitiveTypes.Date))
	require.Equal(t, "1969-12-31 23:59:59.999999", show([]byte("-1"), iceberg.PrimitiveTypes.Timestamp))
	require.Equal(t, "-0", show([]byte("8000000000000000"), iceberg.PrimitiveTypes.Float64))
	require.Equal(t, `\x00ff`, show([]byte("00ff"), iceberg.PrimitiveTypes.Binary))
}

func TestHashTellsCellsApart(t *testing.T) {
	var h hasher
	seen := map[xxh3.Uint128][][]byte{}
	for _, row := range [][][]byte{
		{nil, nil}, {[]byte(""), nil}, {nil, []byte("")}, {[]byte(""), []byte("")},
		{[]byte("ab"), []byte("c")}, {[]byte("a"), []byte("bc")}, {[]byte("abc"), nil}, {nil, []byte("abc")},
	} {
		all, _ := h.hash(row)
		require.NotContains(t, seen, all, "%q", row)
		seen[all] = row
	}
}

// A search keeps few rows in memory, whatever the table's size, and says when
// it has not seen all.
func TestSearchIsBounded(t *testing.T) {
	const rows = 3 * searchRowsMax
	side := func(value func(i int) string) reader {
		return func(_ context.Context, fn func([][]byte) error) error {
			for i := range rows {
				if v := value(i); v != "" {
					if err := fn([][]byte{fmt.Append(nil, i), []byte(v)}); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	columns := []column{{"id", iceberg.PrimitiveTypes.Int64}, {"v", iceberg.PrimitiveTypes.String}}
	few := search{key: []int{0}, columns: columns,
		postgres: side(func(i int) string {
			return map[int]string{5: "", 9: "other"}[i] + map[bool]string{true: "", false: "same"}[i == 5]
		}),
		lake: side(func(i int) string { return map[bool]string{true: "", false: "same"}[i == 8] })}
	b := newBuckets()
	x, y, err := few.checksums(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, x.Rows, y.Rows)
	require.NotEqual(t, x, y)
	found, err := few.rows(t.Context(), b, 20)
	require.NoError(t, err)
	require.Equal(t, &Rows{Complete: true, OnlyPostgres: Kind{1, []string{"id=8"}}, OnlyLake: Kind{1, []string{"id=5"}}, Changed: Kind{1, []string{"id=9"}}}, found)

	all := search{key: []int{0}, columns: columns, postgres: side(func(int) string { return "a" }), lake: side(func(int) string { return "b" })}
	_, _, err = all.checksums(t.Context(), b)
	require.NoError(t, err)
	found, err = all.rows(t.Context(), b, 20)
	require.NoError(t, err)
	require.False(t, found.Complete)
	require.LessOrEqual(t, found.Changed.Count, int64(searchRowsMax))
	require.Len(t, found.Changed.Keys, 20)
}

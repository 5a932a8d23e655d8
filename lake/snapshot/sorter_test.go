package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// everyOrder has a column of each type that can be sorted by, and values in
// ascending order.
var everyOrder = []struct {
	typ    iceberg.Type
	append func(b array.Builder, i int)
	n      int
}{
	{iceberg.PrimitiveTypes.Bool, func(b array.Builder, i int) { b.(*array.BooleanBuilder).Append(i == 1) }, 2},
	{iceberg.PrimitiveTypes.Int32, func(b array.Builder, i int) {
		b.(*array.Int32Builder).Append([]int32{math.MinInt32, -256, -1, 0, 255, 256, math.MaxInt32}[i])
	}, 7},
	{iceberg.PrimitiveTypes.Int64, func(b array.Builder, i int) {
		b.(*array.Int64Builder).Append([]int64{math.MinInt64, -256, -255, 0, 255, 256, 257, math.MaxInt64}[i])
	}, 8},
	{iceberg.PrimitiveTypes.Float32, func(b array.Builder, i int) {
		b.(*array.Float32Builder).Append([]float32{float32(math.Inf(-1)), -2, -1e-40, float32(math.Copysign(0, -1)), 0, 1e-40, 3, float32(math.Inf(1)), float32(math.NaN())}[i])
	}, 9},
	{iceberg.PrimitiveTypes.Float64, func(b array.Builder, i int) {
		b.(*array.Float64Builder).Append([]float64{math.Inf(-1), -2, -1.5, math.Copysign(0, -1), 0, 5e-324, 3, math.Inf(1), math.NaN()}[i])
	}, 9},
	{iceberg.DecimalTypeOf(38, 3), func(b array.Builder, i int) {
		b.(*array.Decimal128Builder).Append([]decimal128.Num{decimal128.New(-5, 7), decimal128.FromI64(-2), decimal128.FromI64(-1), decimal128.FromI64(0), decimal128.FromI64(9), decimal128.New(0, math.MaxUint64), decimal128.New(1, 0)}[i])
	}, 7},
	{iceberg.PrimitiveTypes.Date, func(b array.Builder, i int) { b.(*array.Date32Builder).Append([]arrow.Date32{-9, 0, 20000}[i]) }, 3},
	{iceberg.PrimitiveTypes.Time, func(b array.Builder, i int) { b.(*array.Time64Builder).Append(arrow.Time64(i * 1e6)) }, 5},
	{iceberg.PrimitiveTypes.Timestamp, func(b array.Builder, i int) {
		b.(*array.TimestampBuilder).Append(arrow.Timestamp([]int64{-1e15, -1, 0, 1e15, 1e15 + 1}[i]))
	}, 5},
	{iceberg.PrimitiveTypes.TimestampTz, func(b array.Builder, i int) { b.(*array.TimestampBuilder).Append(arrow.Timestamp(i - 2)) }, 5},
	{iceberg.PrimitiveTypes.String, func(b array.Builder, i int) {
		b.(*array.StringBuilder).Append([]string{"", "\x00", "\x00\x00", "\x00\x01", "A", "a", "a\x00", "a\x00b", "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab", "ab", "é", "\U0010ffff"}[i])
	}, 13},
	{iceberg.PrimitiveTypes.Binary, func(b array.Builder, i int) {
		b.(*array.BinaryBuilder).Append([][]byte{{}, {0}, {0, 0}, {0, 255}, {1}, {255}, {255, 0}, {255, 255}}[i])
	}, 8},
	{iceberg.FixedTypeOf(2), func(b array.Builder, i int) {
		b.(*array.FixedSizeBinaryBuilder).Append([][]byte{{0, 0}, {0, 255}, {128, 0}}[i])
	}, 3},
	{iceberg.PrimitiveTypes.UUID, func(b array.Builder, i int) {
		b.(*extensions.UUIDBuilder).Append([]uuid.UUID{{15: 1}, {0: 127}, {0: 128}, {0: 255, 15: 9}}[i])
	}, 4},
}

// rowsOf makes random rows of those columns and of a last one with the row's
// number, in batches, and the ranks of their values: -1 for NULL.
func rowsOf(t *testing.T, rng *rand.Rand, rows int) (batches []arrow.RecordBatch, ranks [][]int, fields []int) {
	var cols []iceberg.NestedField
	for i, o := range everyOrder {
		require.True(t, orderable(o.typ))
		cols = append(cols, iceberg.NestedField{ID: i + 1, Name: fmt.Sprint("c", i+1), Type: o.typ})
	}
	cols = append(cols, iceberg.NestedField{ID: 50, Name: "l", Type: &iceberg.ListType{ElementID: 51, Element: iceberg.PrimitiveTypes.String}},
		iceberg.NestedField{ID: 99, Name: "n", Type: iceberg.PrimitiveTypes.Int32})
	sc := iceberg.NewSchema(0, cols...)
	as, err := table.SchemaToArrowSchema(sc, nil, true, false)
	require.NoError(t, err)
	for _, c := range cols {
		fields = append(fields, c.ID)
	}
	rb := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer rb.Release()
	for n := range rows {
		of := make([]int, len(everyOrder))
		for i, o := range everyOrder {
			if of[i] = rng.IntN(o.n+1) - 1; of[i] < 0 {
				rb.Field(i).AppendNull()
			} else {
				o.append(rb.Field(i), of[i])
			}
		}
		l := rb.Field(len(everyOrder)).(*array.ListBuilder)
		l.Append(true)
		for i := range n % 3 {
			l.ValueBuilder().(*array.StringBuilder).Append(fmt.Sprint(n, i))
		}
		rb.Field(len(everyOrder) + 1).(*array.Int32Builder).Append(int32(n))
		ranks = append(ranks, of)
		if rng.IntN(60) == 0 || n == rows-1 {
			batches = append(batches, rb.NewRecordBatch())
		}
	}
	return batches, ranks, fields
}

// Random rows in random orders come out as a stable sort of their values' ranks
// has them, and the places are told, from memory and through any number of runs.
func TestSorter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 24 {
		batches, ranks, fields := rowsOf(t, rng, []int{1, 300, 3000}[round%3])
		var by []table.SortField
		if round < len(everyOrder) {
			by = append(by, table.SortField{SourceIDs: []int{round + 1}})
		}
		for range rng.IntN(4) {
			by = append(by, table.SortField{SourceIDs: []int{1 + rng.IntN(len(everyOrder))}})
		}
		for i := range by {
			by[i].Direction = []table.SortDirection{table.SortASC, table.SortDESC}[rng.IntN(2)]
			by[i].NullOrder = []table.NullOrder{table.NullsFirst, table.NullsLast}[rng.IntN(2)]
		}
		want := make([]int, len(ranks))
		for i := range want {
			want[i] = i
		}
		slices.SortStableFunc(want, func(a, b int) int {
			for _, f := range by {
				x, y := ranks[a][f.SourceID()-1], ranks[b][f.SourceID()-1]
				if x == y {
					continue
				}
				if x < 0 || y < 0 {
					if (x < 0) == (f.NullOrder == table.NullsFirst) {
						return -1
					}
					return 1
				}
				if f.Direction == table.SortDESC {
					x, y = y, x
				}
				return cmp.Compare(x, y)
			}
			return 0
		})
		for _, limit := range []int64{1 << 30, 20 << 10, 1} { // 1: a run for each batch
			dir := t.TempDir()
			s, err := newSorter(dir, limit, by, fields)
			require.NoError(t, err)
			for _, rec := range batches {
				require.NoError(t, s.add(t.Context(), rec))
			}
			runs := len(s.runs)
			var got []int
			require.NoError(t, s.finish(t.Context(), func(rec arrow.RecordBatch) error {
				for i := range int(rec.NumRows()) {
					n := rec.Column(len(fields) - 1).(*array.Int32).Value(i)
					got = append(got, int(n))
					l := rec.Column(len(fields) - 2).(*array.List)
					from, to := l.ValueOffsets(i)
					require.EqualValues(t, n%3, to-from)
					if to > from {
						require.Equal(t, fmt.Sprint(n, 0), l.ListValues().(*array.String).Value(int(from)))
					}
				}
				return nil
			}))
			require.Equal(t, want, got, "by %v, limit %d", by, limit)
			require.Len(t, s.order, len(want))
			for place, n := range got {
				require.EqualValues(t, place, s.order[n])
			}
			if limit == 1 {
				require.Equal(t, len(batches), runs)
			}
			s.close()
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		}
		for _, rec := range batches {
			rec.Release()
		}
	}
}

// A sort that is broken off leaves nothing, and a folder that can't be written
// to is an error.
func TestSorterEnds(t *testing.T) {
	batches, _, fields := rowsOf(t, rand.New(rand.NewPCG(3, 3)), 500)
	by := []table.SortField{{SourceIDs: []int{3}, Direction: table.SortASC, NullOrder: table.NullsLast}}
	s, err := newSorter(t.TempDir(), 1, by, fields)
	require.NoError(t, err)
	for _, rec := range batches {
		require.NoError(t, s.add(t.Context(), rec))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.finish(ctx, func(arrow.RecordBatch) error { return nil }), context.Canceled)
	s.close()
	_, err = newSorter(t.TempDir(), 1, []table.SortField{{SourceIDs: []int{1000}}}, fields)
	require.ErrorContains(t, err, "sort by field 1000")
	s, err = newSorter(t.TempDir()+"/no-such", 1, by, fields)
	require.NoError(t, err)
	require.ErrorIs(t, s.add(t.Context(), batches[0]), os.ErrNotExist)
	s.close()
}

func TestAppendText(t *testing.T) {
	values := []string{"", "\x00", "\x00\x00", "\x00\x00\x01", "\x00\x01", "\x01", "a", "a\x00", "a\x00\x00", "a\x00a", "a\x01", "aa"}
	for i, a := range values {
		for j, b := range values {
			x, y := appendText(nil, a), appendText(nil, []byte(b))
			require.Equal(t, cmp.Compare(i, j), bytes.Compare(x, y), "%q %q", a, b)
			require.True(t, i == j || !bytes.HasPrefix(x, y))
		}
	}
}

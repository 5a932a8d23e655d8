package snapshot

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// Single rows of strings are the same whatever way the column is encoded, alone
// and beside a column that is read in order.
func TestReadScattered(t *testing.T) {
	const rows = 20_000
	rng := rand.New(rand.NewPCG(5, 6))
	p := iceberg.PrimitiveTypes
	sc := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "required", Type: p.String, Required: true},
		iceberg.NestedField{ID: 2, Name: "repeated", Type: p.String},
		iceberg.NestedField{ID: 3, Name: "wide", Type: p.Binary},
		iceberg.NestedField{ID: 4, Name: "n", Type: p.Int64},
		iceberg.NestedField{ID: 5, Name: "absent", Type: p.String},
		iceberg.NestedField{ID: 6, Name: "wide and repeated", Type: p.String})
	as, err := table.SchemaToArrowSchema(sc, nil, true, false)
	require.NoError(t, err)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer rb.Release()
	for i := range rows {
		rb.Field(0).(*array.StringBuilder).Append(fmt.Sprint("row ", i))
		if rng.IntN(3) == 0 {
			rb.Field(1).AppendNull()
			rb.Field(2).AppendNull()
		} else {
			rb.Field(1).(*array.StringBuilder).Append(fmt.Sprint("kind ", i%300))
			rb.Field(2).(*array.BinaryBuilder).Append([]byte(strings.Repeat(fmt.Sprint("wide ", i), rng.IntN(400))))
		}
		rb.Field(3).(*array.Int64Builder).Append(int64(i))
		rb.Field(4).AppendNull()
		rb.Field(5).(*array.StringBuilder).Append(strings.Repeat(fmt.Sprint("kind ", i%7), 300))
	}
	rec := rb.NewRecordBatch()
	defer rec.Release()
	h := newHarness(t, 2, 7)
	h.tab.o.RowGroupRows = 9_000
	w, err := h.tab.NewFile(sc, nil)
	require.NoError(t, err)
	require.NoError(t, w.Write(rec))
	f, err := w.Close(h.ctx)
	require.NoError(t, err)
	<-f.Uploaded
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{f}, Schema: sc})
	for range 40 {
		fields := []int{1, 2, 3, 4, 5, 6}
		rng.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
		fields = fields[:1+rng.IntN(len(fields))]
		var positions []uint32
		for _, i := range rng.Perm(rows)[:1+rng.IntN(1<<rng.IntN(14))] {
			positions = append(positions, uint32(i))
		}
		slices.Sort(positions)
		next := 0
		require.NoError(t, h.tab.Read(h.ctx, f.Path, fields, positions, func(first int64, got arrow.RecordBatch) error {
			require.EqualValues(t, next, first)
			for i := range int(got.NumRows()) {
				for c, id := range fields {
					require.Equal(t, rec.Column(id-1).ValueStr(int(positions[next])), got.Column(c).ValueStr(i), "field %d of row %d", id, positions[next])
				}
				next++
			}
			return nil
		}))
		require.Equal(t, len(positions), next)
	}
}

package snapshot

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
)

func stringArray(t *testing.T, n int, value func(i int) (string, bool)) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	for i := range n {
		if v, ok := value(i); ok {
			b.Append(v)
		} else {
			b.AppendNull()
		}
	}
	a := b.NewArray()
	t.Cleanup(a.Release)
	return a
}

func TestRepeats(t *testing.T) {
	for name, c := range map[string]struct {
		a    arrow.Array
		want bool
	}{
		"few values":    {stringArray(t, 5000, func(i int) (string, bool) { return fmt.Sprint(i % 100), true }), true},
		"all different": {stringArray(t, 5000, func(i int) (string, bool) { return fmt.Sprint(i), true }), false},
		"only NULLs":    {stringArray(t, 5000, func(i int) (string, bool) { return "", false }), true},
		"one":           {stringArray(t, 1, func(i int) (string, bool) { return "a", true }), false},
		"none":          {stringArray(t, 0, nil), true},
	} {
		require.Equal(t, c.want, repeats(c.a), name)
	}
}

// TestDictionaryFile writes strings through every path (indexes, new values in
// a later batch, too many values, NULLs, slices, several row groups) and reads
// them back.
func TestDictionaryFile(t *testing.T) {
	sc := iceberg.NewSchema(0, iceberg.NestedField{ID: 2, Name: "name", Type: iceberg.PrimitiveTypes.String})
	for name, value := range map[string]func(batch, i int) (string, bool){
		"few":               func(batch, i int) (string, bool) { return fmt.Sprint("v", i%7), true },
		"NULLs":             func(batch, i int) (string, bool) { return fmt.Sprint("v", i%7), i%3 != 0 },
		"only NULLs":        func(batch, i int) (string, bool) { return "", false },
		"NULLs, then not":   func(batch, i int) (string, bool) { return fmt.Sprint(i % 5), batch > 0 },
		"new in each batch": func(batch, i int) (string, bool) { return fmt.Sprint(batch, "-", i%11), true },
		"different, later":  func(batch, i int) (string, bool) { return fmt.Sprint(i % (1 + 9000*batch)), i%13 != 0 },
		"all different":     func(batch, i int) (string, bool) { return fmt.Sprint(batch, i), true },
		"too many":          func(batch, i int) (string, bool) { return fmt.Sprint(i * 7 / 16 % 20000), true },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 2, 1)
			h.tab.o.RowGroupRows = 50_000
			w, err := h.tab.NewFile(sc, nil)
			require.NoError(t, err)
			var want []string
			for batch := range 4 {
				const rows, skip = 45_001, 3
				a := stringArray(t, rows, func(i int) (string, bool) { return value(batch, i) })
				rec := array.NewRecordBatch(w.(*fileWriter).arrow, []arrow.Array{a}, rows)
				part := rec.NewSlice(skip, rows)
				require.NoError(t, w.Write(part))
				part.Release()
				rec.Release()
				for i := skip; i < rows; i++ {
					want = append(want, a.ValueStr(i))
				}
			}
			f, err := w.Close(h.ctx)
			require.NoError(t, err)
			<-f.Uploaded
			require.NoError(t, f.UploadErr())
			var got []string
			require.NoError(t, h.tab.Read(h.ctx, f.Path, []int{2}, nil, func(_ int64, rec arrow.RecordBatch) error {
				for i := range int(rec.NumRows()) {
					got = append(got, rec.Column(0).ValueStr(i))
				}
				return nil
			}))
			require.Equal(t, want, got)
		})
	}
}

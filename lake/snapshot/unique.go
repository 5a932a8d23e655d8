package snapshot

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// unique is the Arrow library's function of that name, with a way of its own for
// bytes without NULLs. The Parquet encoder asks for the indexes that a page of a
// dictionary column uses, and the library's hash table made that a twentieth of
// a load.
type unique struct{ compute.Function }

func init() {
	r := compute.GetFunctionRegistry()
	if f, ok := r.GetFunction("unique"); ok {
		r.AddFunction(unique{f}, true)
	}
}

// Execute returns the different values of an array in the order in which they
// come first.
func (u unique) Execute(ctx context.Context, o compute.FunctionOptions, args ...compute.Datum) (compute.Datum, error) {
	if len(args) == 1 {
		if a, ok := args[0].(*compute.ArrayDatum); ok && a.Value.DataType().ID() == arrow.UINT8 && a.Value.NullN() == 0 {
			data := a.Value.Buffers()[1].Bytes()[a.Value.Offset():][:a.Value.Len()]
			return &compute.ArrayDatum{Value: uniqueBytes(data)}, nil
		}
	}
	return u.Function.Execute(ctx, o, args...)
}

func uniqueBytes(data []byte) arrow.ArrayData {
	var seen [256]bool
	found := make([]byte, 0, 256)
	for _, b := range data {
		if !seen[b] {
			seen[b] = true
			found = append(found, b)
		}
	}
	return array.NewData(arrow.PrimitiveTypes.Uint8, len(found), []*memory.Buffer{nil, memory.NewBufferBytes(found)}, nil, 0, 0)
}

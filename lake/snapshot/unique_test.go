package snapshot

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

func TestUnique(t *testing.T) {
	b := array.NewUint8Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues([]byte{9, 7, 7, 0, 9, 255, 0}, nil)
	whole := b.NewUint8Array()
	defer whole.Release()
	part := array.NewSlice(whole, 2, 6)
	defer part.Release()
	none := array.NewSlice(whole, 2, 2)
	defer none.Release()
	b.AppendValues([]byte{3, 3, 4}, []bool{true, false, true})
	nulls := b.NewUint8Array()
	defer nulls.Release()
	words := array.NewStringBuilder(memory.DefaultAllocator)
	defer words.Release()
	words.AppendValues([]string{"b", "a", "b"}, nil)
	strings := words.NewStringArray()
	defer strings.Release()
	for _, x := range []struct {
		of   arrow.Array
		want string
	}{{whole, "[9 7 0 255]"}, {part, "[7 0 9 255]"}, {none, "[]"}, {nulls, "[3 (null) 4]"}, {strings, `["b" "a"]`}} {
		got, err := compute.UniqueArray(context.Background(), x.of)
		require.NoError(t, err)
		require.Equal(t, x.want, got.String())
		got.Release()
	}
}

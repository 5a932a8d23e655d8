package column

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"firn/wal"
)

// A column of strings is what Arrow's own builder makes of the same values,
// wherever NULLs begin.
func TestStrings(t *testing.T) {
	text, err := For(wal.TypeInfo{OID: oidText, Schema: "pg_catalog", Name: "text"}, Options{})
	require.NoError(t, err)
	bytea, err := For(wal.TypeInfo{OID: oidBytea, Schema: "pg_catalog", Name: "bytea"}, Options{})
	require.NoError(t, err)
	number, err := For(wal.TypeInfo{OID: oidInt4, Schema: "pg_catalog", Name: "int4"}, Options{})
	require.NoError(t, err)
	require.Nil(t, number.Strings())
	for _, c := range []Codec{text, bytea} {
		s := c.Strings()
		for _, nullsFrom := range []int{0, 1, 7, 8, 9, 16, 100, 1000} {
			rng := rand.New(rand.NewPCG(1, uint64(nullsFrom)))
			b := array.NewBuilder(memory.DefaultAllocator, c.Arrow())
			want, got := c.Bind(b), c.BindStrings(s)
			n := rng.IntN(300)
			s.Reserve(rng.IntN(100), rng.IntN(1000))
			var values []string
			for i := range n {
				if i >= nullsFrom && rng.IntN(4) == 0 {
					want.Null()
					got.Null()
					values = append(values, "NULL")
					continue
				}
				v := strings.Repeat(fmt.Sprint(i), rng.IntN(5))
				require.NoError(t, want.Binary([]byte(v)))
				require.NoError(t, got.Binary([]byte(v)))
				values = append(values, v)
			}
			require.Equal(t, n, s.Len())
			for i, v := range values {
				require.Equal(t, v == "NULL", s.IsNull(i))
				if v != "NULL" {
					require.Equal(t, v, string(s.Value(i)))
				}
			}
			wantArray, gotArray := b.NewArray(), s.NewArray()
			require.True(t, array.Equal(wantArray, gotArray), "%v, %v", wantArray, gotArray)
			require.Equal(t, wantArray.NullN(), gotArray.NullN())
			require.True(t, arrow.TypeEqual(wantArray.DataType(), gotArray.DataType()))
			require.Zero(t, s.Len()+s.DataLen())
			wantArray.Release()
			gotArray.Release()
			b.Release()
		}
	}
}

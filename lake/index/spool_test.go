package index

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSpool gives back what it was given, blocks and what lies open alike, in
// the order of the first bits of the hash.
func TestSpool(t *testing.T) {
	for _, words := range []int{2, 3} {
		s, err := newSpool(t.TempDir(), words)
		require.NoError(t, err)
		const rows = 2_000_000
		for i := range uint64(rows) {
			k := Key{Lo: mix(i)}
			if words == 3 {
				k.Hi = i
			}
			require.NoError(t, s.add(k.Lo, k, i))
		}
		require.EqualValues(t, rows, s.rows)
		require.NotEmpty(t, s.parts[0].blocks)
		seen, part := make([]bool, rows), uint64(0)
		require.NoError(t, s.each(func(k Key, w uint64) error {
			if k.Lo>>56 < part || k.Lo != mix(w) || seen[w] || words == 3 && k.Hi != w {
				t.Fatalf("row %d as %v in part %d", w, k, part)
			}
			seen[w], part = true, k.Lo>>56
			return nil
		}))
		require.NotContains(t, seen, false)
		s.close()
	}
}

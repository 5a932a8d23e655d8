package lake

import (
	"math/rand/v2"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"
)

// Positions of moved rows against a list of the rows that lived, over more than
// one of a bitmap's containers.
func TestMovedPositions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, share := range []float64{0, 0.001, 0.3, 0.999, 1} {
		m := Moved{From: "a", To: "b", Rows: 200_000, Base: 1000, Dead: roaring.New()}
		some := roaring.New()
		var of, want []uint32
		next := m.Base
		for row := range uint32(m.Rows) {
			asked := rng.IntN(3) == 0
			if asked {
				some.Add(row)
			}
			if rng.Float64() < share {
				m.Dead.Add(row)
				_, ok := m.Position(row)
				require.False(t, ok)
				continue
			}
			if asked {
				of, want = append(of, row), append(want, next)
			}
			next++
		}
		require.EqualValues(t, next-m.Base, m.Live())
		for i := 0; i < len(of); i += 1 + len(of)/2000 {
			pos, ok := m.Position(of[i])
			require.True(t, ok)
			require.Equal(t, want[i], pos)
		}
		require.True(t, roaring.BitmapOf(want...).Equals(m.Positions(some)))
		all := roaring.New()
		all.AddRange(0, uint64(m.Rows))
		require.True(t, m.All().Equals(m.Positions(all)))
		_, ok := m.Position(uint32(m.Rows))
		require.False(t, ok)
		if m.Dead.IsEmpty() {
			m.Dead = nil
			require.EqualValues(t, m.Rows, m.Live())
			require.True(t, m.All().Equals(m.Positions(all)))
			pos, ok := m.Position(7)
			require.True(t, ok)
			require.EqualValues(t, 1007, pos)
		}
	}
}

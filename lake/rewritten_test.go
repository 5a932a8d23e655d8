package lake

import (
	"math/rand/v2"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"
)

// Positions of moved rows against a list of the rows that lived, over more than
// one of a bitmap's containers.
func TestMovedPositions(t *testing.T) { movedPositions(t, nil) }

// The same of sorted rows, of which all were put in another place.
func TestMovedPositionsSorted(t *testing.T) {
	order := make([]uint32, 201_000)
	for i, pos := range rand.New(rand.NewPCG(2, 2)).Perm(len(order)) {
		order[i] = uint32(pos)
	}
	movedPositions(t, order)
}

func movedPositions(t *testing.T, order []uint32) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, share := range []float64{0, 0.001, 0.3, 0.999, 1} {
		m := Moved{From: "a", To: "b", Rows: 200_000, Base: 1000, Dead: roaring.New(), Order: order}
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
				place := next
				if order != nil {
					place = order[next]
				}
				of, want = append(of, row), append(want, place)
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
			if order == nil {
				require.EqualValues(t, 1007, pos)
			} else {
				require.Equal(t, order[1007], pos)
			}
		}
	}
}

// A relocation looks for each row of an output where the rewrite took it from.
func TestRelocatorOrigins(t *testing.T) {
	for _, sorted := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(3, 3))
		var from []origin
		next := uint32(0)
		for no := range uint32(5) {
			m := Moved{Rows: int64(rng.IntN(3) * 1000), Base: next}
			if no > 1 {
				m.Dead = roaring.New()
				for row := range uint32(m.Rows) {
					if rng.IntN(3) == 0 {
						m.Dead.Add(row)
					}
				}
			}
			next += uint32(m.Live())
			from = append(from, origin{m, no + 1})
		}
		if sorted {
			order := make([]uint32, next)
			for i, pos := range rng.Perm(len(order)) {
				order[i] = uint32(pos)
			}
			for i := range from {
				from[i].Order = order
			}
		}
		r := &relocator{from: append([]origin(nil), from...)}
		r.sort()
		for pos := range next {
			was := r.origin(pos)
			got, ok := from[was.File-1].Position(was.Pos)
			require.True(t, ok)
			require.Equal(t, pos, got)
		}
	}
}

package lake

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A batch's live rows have the places that a filter leaves them in.
func TestBatchPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &batch{rows: rapid.IntRange(0, 300).Draw(t, "rows")}
		dead := map[uint32]bool{}
		for _, row := range rapid.SliceOf(rapid.Uint32Range(0, 299)).Draw(t, "dead") {
			if int(row) >= b.rows {
				continue
			}
			if b.kill(row) == dead[row] {
				t.Fatalf("row %d: kill says it was dead: %v", row, !dead[row])
			}
			dead[row] = true
		}
		start := rapid.Uint32Range(0, 1000).Draw(t, "start")
		live := b.flushed(&dataFile{}, start)
		next := start
		for row := range uint32(b.rows) {
			if b.isDead(row) != dead[row] {
				t.Fatalf("row %d: dead is %v", row, b.isDead(row))
			}
			if dead[row] {
				continue
			}
			if got := b.position(row) + start; got != next {
				t.Fatalf("row %d is at %d, want %d", row, got, next)
			}
			next++
		}
		if next-start != live {
			t.Fatalf("flushed says %d rows, there are %d", live, next-start)
		}
	})
}

func TestBatchKillsOnce(t *testing.T) {
	b := &batch{rows: 200}
	require.True(t, b.kill(130))
	require.False(t, b.kill(130))
	require.True(t, b.isDead(130))
	require.False(t, b.isDead(131))
}

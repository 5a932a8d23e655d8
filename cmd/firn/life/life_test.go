package life_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/cmd/firn/life"
	"firn/compaction"
)

func TestLife(t *testing.T) {
	dir := t.TempDir()
	ledger := life.NewLedger(5_000, 1)
	l, err := life.Start(t.Context(), life.Options{Warehouse: filepath.Join(dir, "lake"), StateDir: filepath.Join(dir, "state"), Ledger: ledger,
		Compaction: &compaction.Options{TargetBytes: 1 << 20}})
	require.NoError(t, err)
	require.EqualValues(t, 5_000, l.Table().Rows)
	from := l.Now()
	for range 60 {
		_, err := l.Epoch(t.Context(), 100)
		require.NoError(t, err)
	}
	require.Equal(t, time.Minute, l.Now().Sub(from))
	require.EqualValues(t, 5_000+60*(75-5), ledger.Rows())
	require.Equal(t, ledger.Rows(), l.Table().Rows)
	require.NoError(t, l.Stop())
	c := l.Engine.Lake.Counters()
	require.EqualValues(t, 60*20, c.Updates.Load())
	require.Positive(t, c.Rewrites.Load())
	require.Equal(t, l.Now(), l.Engine.Log.Head().CommitTime)
	_, err = l.Epoch(t.Context(), 100)
	require.ErrorContains(t, err, "the mirror ended")
}

// The sum is of every value of every row.
func TestSum(t *testing.T) {
	rows, sum := life.NewLedger(10, 1).Sum()
	require.Equal(t, "10", rows)
	_, other := life.NewLedger(11, 1).Sum()
	require.NotEqual(t, sum, other)
}

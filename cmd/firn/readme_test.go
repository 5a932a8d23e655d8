package main

import (
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// TestReadme runs README's commands as they are printed, against the firn that
// README starts; Spark's and Trino's are run in lake/laketest/engines.
func TestReadme(t *testing.T) {
	r := laketest.StartReadme(t)
	out := r.Shell(t, r.Block(t, "ask"))
	require.Contains(t, out, "public.orders  equal")
	require.Contains(t, out, "1 equal, 0 different")

	duck := laketest.DuckDB(t)
	duck.Installable(t)
	rows := duck.Query(t, r.Block(t, "duckdb")).Rows
	total := 0
	for i, status := range []string{"paid", "placed", "shipped"} {
		require.Equal(t, status, rows[i][0])
		n, err := strconv.Atoi(rows[i][1])
		require.NoError(t, err)
		total += n
	}
	require.Equal(t, 3000-3000/7, total)

	said, err := exec.CommandContext(t.Context(), laketest.ReadersPython(t), "-c", r.Block(t, "pyiceberg")).CombinedOutput()
	require.NoError(t, err, string(said))
	require.Regexp(t, `^\d+\n[0-9A-F]+/[0-9A-F]+ \d{4}-\d\d-\d\dT`, string(said))
}

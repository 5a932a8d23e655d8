package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
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

	require.Contains(t, r.Shell(t, r.Block(t, "tag")), `readers attach it as warehouse "shop@before-upgrade"`)
	do(t, strings.TrimSpace(r.Shell(t, "echo $FIRN_POSTGRES")), "INSERT INTO orders VALUES (4001, 'placed', 1); UPDATE orders SET total = 0 WHERE id = 3; DELETE FROM orders WHERE id = 4")
	r.Shell(t, "firn wait")
	duck = laketest.DuckDB(t) // it remembers the tables that it has loaded
	duck.Installable(t)
	duck.Query(t, r.Block(t, "duckdb"))
	changed := duck.Query(t, r.Block(t, "duckdb-pinned")).Rows
	require.ElementsMatch(t, []string{"3", "4001"}, []string{changed[0][0], changed[1][0]})
	said, err = exec.CommandContext(t.Context(), laketest.ReadersPython(t), "-c", r.Block(t, "pyiceberg-pinned")).CombinedOutput()
	require.NoError(t, err, string(said))
	require.Regexp(t, fmt.Sprintf(`^[0-9A-F]+/[0-9A-F]+ %d\n$`, total), string(said))
	out = r.Shell(t, r.Block(t, "diff"))
	require.Contains(t, out, "1 inserted, 1 updated, 1 deleted")
	require.Regexp(t, `\n~ id=3: total [0-9.]+ → 0`, out)
	require.Contains(t, r.Shell(t, r.Block(t, "compact")), "rewrite")
}

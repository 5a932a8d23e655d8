package engines

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// TestReadme runs README's commands for Spark and Trino as they are printed.
func TestReadme(t *testing.T) {
	r := laketest.StartReadme(t)
	want := laketest.DuckDB(t)
	want.Installable(t)
	rows := want.Query(t, r.Block(t, "duckdb")).Rows
	require.Len(t, rows, 3)

	spark := laketest.Spark(t)
	spark.Catalog(t, "shop", properties(r.Block(t, "spark-conf"), "spark.sql.catalog.shop."))
	require.Equal(t, rows, spark.Query(t, r.Block(t, "spark")).Rows)

	trino := laketest.Trino(t)
	conf := properties(r.Block(t, "trino-conf"), "")
	require.Equal(t, "iceberg", conf["connector.name"])
	delete(conf, "connector.name") // CREATE CATALOG … USING iceberg
	trino.Catalog(t, "shop", nil, conf)
	require.Equal(t, rows, trino.Query(t, r.Block(t, "trino")).Rows)
}

// properties reads key=value lines, those with the prefix, which is cut off.
func properties(block, prefix string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(block) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if key, cut := strings.CutPrefix(key, prefix); ok && cut {
			out[key] = value
		}
	}
	return out
}

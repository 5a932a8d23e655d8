package engines

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// TestEnginesAgree has every engine read, through a REST catalog on S3, what
// Spark wrote, deletes included.
func TestEnginesAgree(t *testing.T) {
	s3 := laketest.MinIO(t)
	uri := laketest.IcebergREST(t, s3, s3.Bucket(t))
	spark := laketest.Spark(t)
	trino := laketest.Trino(t)
	duck := laketest.DuckDB(t)
	py := laketest.PyIceberg(t)

	rest := map[string]string{"uri": uri}
	spark.Catalog(t, "smoke", rest, s3.Properties())
	trino.Catalog(t, "smoke", s3, map[string]string{"iceberg.rest-catalog.uri": uri})
	duck.S3(t, s3)
	duck.Attach(t, "smoke", uri, "", "")
	py.Catalog(t, "smoke", rest, s3.Properties())

	spark.Query(t, "CREATE NAMESPACE smoke.db")
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			table := fmt.Sprintf("smoke.db.t%d", version)
			spark.Query(t, fmt.Sprintf(`CREATE TABLE %s (b boolean, i int, l bigint, f float, d double, n decimal(20,8), da date,
				ts timestamp_ntz, tz timestamp, s string, by binary, li array<int>, ls array<string>, lt array<timestamp>, m map<string,int>, st struct<x: int, y: date>)
				USING iceberg TBLPROPERTIES ('format-version'='%d', 'write.delete.mode'='merge-on-read')`, table, version))
			spark.Query(t, `INSERT INTO `+table+` VALUES
				(true, 1, 2, float(0.1), 1e20, 0.00000001, date'2026-11-23', timestamp_ntz'2026-11-23 02:00:00', timestamp'2026-11-23 02:00:00.5Z',
				 'a"b', X'00ff', array(1,null), array('x','NULL',null), array(timestamp'1969-12-31 23:59:59.999999Z'), map('k',1), struct(1, date'2026-11-23')),
				(false, -1, -2, float('-0'), double('NaN'), -1.5, date'0001-01-01', timestamp_ntz'9999-12-31 23:59:59.999999', timestamp'0001-01-01 00:00:00Z',
				 '', X'', array(), array(), array(), map(), struct(null, null)),
				(null, 7, null, null, double('-Infinity'), null, null, null, null, null, null, null, null, null, null, null),
				(null, 8, null, null, null, null, null, null, null, null, null, null, null, null, null, null)`)
			spark.Query(t, "DELETE FROM "+table+" WHERE i = 8")

			want := spark.Query(t, "SELECT * FROM "+table)
			require.Len(t, want.Rows, 3)
			require.Equal(t, []string{"true", "1", "2", "0.1", "1e+20", "0.00000001", "2026-11-23", "2026-11-23 02:00:00.000000", "2026-11-23 02:00:00.500000Z",
				`a"b`, "00ff", `["1",null]`, `["x","NULL",null]`, `["1969-12-31 23:59:59.999999Z"]`, `[["k","1"]]`, `{"x":"1","y":"2026-11-23"}`},
				spark.Query(t, "SELECT * FROM "+table+" WHERE i = 1").Rows[0])
			for name, got := range map[string]*laketest.Result{
				"Trino":     trino.Query(t, "SELECT * FROM "+table),
				"DuckDB":    duck.Query(t, "SELECT * FROM "+table),
				"PyIceberg": py.Scan(t, "smoke", fmt.Sprintf("db.t%d", version), laketest.ScanOptions{}),
			} {
				require.Equal(t, want.Schema(), got.Schema(), name)
				require.Empty(t, laketest.Diff(want.Multiset(), got.Multiset()), name)
			}
		})
	}
	require.Equal(t, "4", trino.Query(t, `SELECT count(*) FROM smoke.db.t3 FOR VERSION AS OF `+
		trino.Query(t, `SELECT snapshot_id FROM smoke.db."t3$snapshots" ORDER BY committed_at LIMIT 1`).Value()).Value())
	_, err := spark.Try(t.Context(), "SELECT nothing FROM smoke.db.t2")
	require.ErrorContains(t, err, "nothing")
	_, err = trino.Try(t.Context(), "SELECT nothing FROM smoke.db.t2")
	require.ErrorContains(t, err, "nothing")
}

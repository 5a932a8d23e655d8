package demo

import (
	"fmt"
	"strings"
	"time"
)

// Lake says where the demo's tables can be read.
type Lake struct {
	Catalog   string    // URL of the REST catalog
	Warehouse string    // its name there
	Orders    string    // folder of table orders
	Moment    time.Time // some moment that the lake can be asked for
	Postgres  string    // URL
}

// Snippets are commands to paste, by engine.
func (l Lake) Snippets() string {
	return strings.Join([]string{l.DuckDB(), l.PyIceberg(), l.Spark()}, "\n")
}

// moment is rounded up, for engines compare milliseconds.
func (l Lake) moment() string {
	return l.Moment.UTC().Add(time.Millisecond - 1).Truncate(time.Millisecond).Format("2006-01-02 15:04:05.000")
}

// DuckDB is SQL: by the catalog, back in time, and by path.
func (l Lake) DuckDB() string {
	return fmt.Sprintf(`-- DuckDB (duckdb 1.5 or later)
INSTALL iceberg; LOAD iceberg; SET TimeZone = 'UTC';
ATTACH '%[1]s' AS shop (TYPE iceberg, ENDPOINT '%[2]s', AUTHORIZATION_TYPE 'none');
SELECT status, count(*), sum(total) FROM shop.public.orders GROUP BY status ORDER BY status;
-- the same table as Postgres had it then
SELECT count(*), sum(total) FROM shop.public.orders AT (TIMESTAMP => TIMESTAMP '%[3]s');
-- without a catalog
SELECT count(*) FROM iceberg_scan('%[4]s');
`, quoted(l.Warehouse), quoted(l.Catalog), l.moment(), quoted(l.Orders))
}

// PyIceberg is Python.
func (l Lake) PyIceberg() string {
	return fmt.Sprintf(`# Python (pip install 'pyiceberg[pyarrow]')
from pyiceberg.catalog import load_catalog
shop = load_catalog("shop", type="rest", uri=%[1]q, warehouse=%[2]q)
orders = shop.load_table("public.orders")
print(orders.scan(row_filter="status = 'paid'").to_arrow().num_rows)
# as Postgres had it then
then = orders.snapshot_as_of_timestamp(%[3]d)
print(orders.scan(snapshot_id=then.snapshot_id).count(), then.summary["firn.lsn"])
`, l.Catalog, l.Warehouse, l.Moment.Add(time.Millisecond-1).UnixMilli())
}

// Spark is a shell command.
func (l Lake) Spark() string {
	return fmt.Sprintf(`# Spark 4.1 (Java 17 or later)
spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0 \
  --conf spark.sql.catalog.shop=org.apache.iceberg.spark.SparkCatalog --conf spark.sql.catalog.shop.type=rest \
  --conf spark.sql.catalog.shop.uri=%[1]s --conf spark.sql.catalog.shop.warehouse=%[2]s \
  --conf spark.sql.session.timeZone=UTC \
  -e "SELECT country, count(*) FROM shop.public.customers GROUP BY country;
      SELECT count(*), sum(total) FROM shop.public.orders TIMESTAMP AS OF '%[3]s'"
`, l.Catalog, l.Warehouse, l.moment())
}

func quoted(s string) string { return strings.ReplaceAll(s, "'", "''") }

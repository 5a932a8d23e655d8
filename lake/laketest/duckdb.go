package laketest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// readersTool holds DuckDB with its extensions and PyIceberg.
var readersTool = pythonTool("readers", "readers")

// queryLimit bounds one request to an engine: beyond it something hangs.
const queryLimit = 5 * time.Minute

// DuckDBEngine is a DuckDB process with an in-memory database and the iceberg,
// avro, httpfs and postgres_scanner extensions loaded; its time zone is UTC.
type DuckDBEngine struct{ w *worker }

// DuckDB starts a DuckDB for one test (about a second) and ends it after.
func DuckDB(t testing.TB) *DuckDBEngine {
	t.Helper()
	Short(t, "no DuckDB")
	need(t, readersTool)
	d, err := StartDuckDB(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	return d
}

// StartDuckDB starts a DuckDB outside a test; it dies with this process, or by
// Stop.
func StartDuckDB(ctx context.Context) (*DuckDBEngine, error) {
	dir, err := readersTool.Ensure(ctx, nil)
	if err != nil {
		return nil, err
	}
	w, err := startWorker(python(dir), "duckdb_worker.py", nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	extensions := []string{"avro", "httpfs", "iceberg", "postgres_scanner"}
	if err := w.call(ctx, "load", map[string]any{"extensions": extensions}, nil); err != nil {
		w.stop()
		return nil, fmt.Errorf("load DuckDB's extensions: %w", err)
	}
	d := &DuckDBEngine{w}
	// Its cache of remote and local files gives one deletion vector of a Puffin
	// file for another (1.5.5; with the cache off 0 of 50 snapshots differ where 17
	// did), so README tells users of v3 tables to do the same.
	if _, err := d.Try(ctx, "SET enable_external_file_cache = false"); err != nil {
		w.stop()
		return nil, fmt.Errorf("turn DuckDB's file cache off: %w", err)
	}
	return d, nil
}

// Stop ends a DuckDB of StartDuckDB.
func (d *DuckDBEngine) Stop() { d.w.stop() }

// Try runs SQL (of several statements the last one answers) and gives DuckDB's
// error as it is.
func (d *DuckDBEngine) Try(ctx context.Context, sql string) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	var r Result
	if err := d.w.call(ctx, "sql", map[string]any{"sql": sql}, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// Query is Try for SQL that must work.
func (d *DuckDBEngine) Query(t testing.TB, sql string) *Result {
	t.Helper()
	r, err := d.Try(context.Background(), sql)
	if err != nil {
		t.Fatalf("DuckDB: %s: %v", sql, err)
	}
	return r
}

// S3 makes a secret for a MinIO's buckets.
func (d *DuckDBEngine) S3(t testing.TB, s *MinIOServer) {
	t.Helper()
	d.Query(t, fmt.Sprintf("CREATE OR REPLACE SECRET minio (TYPE s3, KEY_ID %s, SECRET %s, ENDPOINT %s, URL_STYLE 'path', USE_SSL false, REGION %s)",
		Quote(s.AccessKey), Quote(s.SecretKey), Quote(s.Host), Quote(s.Region)))
}

// Attach attaches a warehouse of a REST catalog as the database name. token ""
// means a catalog that asks for none.
func (d *DuckDBEngine) Attach(t testing.TB, name, uri, warehouse, token string) {
	t.Helper()
	authorization := "AUTHORIZATION_TYPE 'none'"
	if token != "" {
		d.Query(t, fmt.Sprintf("CREATE OR REPLACE SECRET %s (TYPE iceberg, TOKEN %s)", QuoteName("token_"+name), Quote(token)))
		authorization = "SECRET " + QuoteName("token_"+name)
	}
	d.Query(t, fmt.Sprintf("ATTACH %s AS %s (TYPE iceberg, ENDPOINT %s, %s)",
		Quote(warehouse), QuoteName(name), Quote(uri), authorization))
}

// Detach lets go of a warehouse, and of all that DuckDB remembers of its tables.
func (d *DuckDBEngine) Detach(t testing.TB, name string) {
	t.Helper()
	d.Query(t, "DETACH "+QuoteName(name))
}

// Scan reads a table by path: its folder (with a version hint) or one of its
// metadata files.
func (d *DuckDBEngine) Scan(t testing.TB, path string) *Result {
	t.Helper()
	return d.Query(t, "SELECT * FROM iceberg_scan("+Quote(path)+")")
}

// Quote makes an SQL string literal.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// QuoteName makes an SQL identifier in double quotes.
func QuoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

package laketest

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// PyIcebergEngine is a Python process with PyIceberg.
type PyIcebergEngine struct{ w *worker }

// PyIceberg starts a PyIceberg for one test (some seconds) and ends it after.
func PyIceberg(t testing.TB) *PyIcebergEngine {
	t.Helper()
	Short(t, "no PyIceberg")
	need(t, readersTool)
	p, err := StartPyIceberg(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// StartPyIceberg starts a PyIceberg outside a test; it dies with this process, or
// by Stop.
func StartPyIceberg(ctx context.Context) (*PyIcebergEngine, error) {
	dir, err := readersTool.Ensure(ctx, nil)
	if err != nil {
		return nil, err
	}
	w, err := startWorker(python(dir), "pyiceberg_worker.py", nil)
	if err != nil {
		return nil, err
	}
	return &PyIcebergEngine{w}, nil
}

// Stop ends a PyIceberg of StartPyIceberg.
func (p *PyIcebergEngine) Stop() { p.w.stop() }

// ScanOptions narrows a scan; at most one of Snapshot, Ref and AsOf is set.
type ScanOptions struct {
	Snapshot int64
	Ref      string    // a tag or branch
	AsOf     time.Time // the snapshot that was current then
	Columns  []string  // nil: all
	Filter   string    // as PyIceberg parses it: "id > 5"
	// Properties are the store's, of a table that no catalog gives.
	Properties map[string]string
}

func (o ScanOptions) args(catalog, table string) map[string]any {
	args := map[string]any{"catalog": catalog, "table": table}
	if o.Snapshot != 0 {
		args["snapshot"] = o.Snapshot
	}
	if o.Ref != "" {
		args["ref"] = o.Ref
	}
	if !o.AsOf.IsZero() {
		args["as_of_ms"] = o.AsOf.UnixMilli()
	}
	if o.Columns != nil {
		args["columns"] = o.Columns
	}
	if o.Filter != "" {
		args["filter"] = o.Filter
	}
	if o.Properties != nil {
		args["properties"] = o.Properties
	}
	return args
}

func (p *PyIcebergEngine) call(t testing.TB, op string, args map[string]any, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	if err := p.w.call(ctx, op, args, into); err != nil {
		t.Fatalf("PyIceberg: %s %v: %v", op, args["table"], err)
	}
}

// Catalog makes a catalog known by a name for the calls below. properties are
// PyIceberg's: uri, warehouse, token, s3.endpoint …; type rest is the default.
func (p *PyIcebergEngine) Catalog(t testing.TB, name string, properties ...map[string]string) {
	t.Helper()
	if err := p.TryCatalog(context.Background(), name, properties...); err != nil {
		t.Fatal(err)
	}
}

// TryCatalog is Catalog, with PyIceberg's error.
func (p *PyIcebergEngine) TryCatalog(ctx context.Context, name string, properties ...map[string]string) error {
	all := map[string]string{"type": "rest"}
	for _, m := range properties {
		for k, v := range m {
			all[k] = v
		}
	}
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	if err := p.w.call(ctx, "catalog", map[string]any{"name": name, "properties": all}, nil); err != nil {
		return fmt.Errorf("open catalog %s in PyIceberg: %w", name, err)
	}
	return nil
}

// TryScan reads a table's rows and gives PyIceberg's error as it is. With
// catalog "" the table is the URI of a metadata file.
func (p *PyIcebergEngine) TryScan(ctx context.Context, catalog, table string, o ScanOptions) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	var r Result
	if err := p.w.call(ctx, "scan", o.args(catalog, table), &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// Scan is TryScan for a table that must be there.
func (p *PyIcebergEngine) Scan(t testing.TB, catalog, table string, o ScanOptions) *Result {
	t.Helper()
	r, err := p.TryScan(context.Background(), catalog, table, o)
	if err != nil {
		t.Fatalf("PyIceberg: scan %s: %v", table, err)
	}
	return r
}

// Count is the scan's row count as PyIceberg works it out (from metadata where
// that suffices).
func (p *PyIcebergEngine) Count(t testing.TB, catalog, table string, o ScanOptions) int64 {
	t.Helper()
	var n int64
	p.call(t, "count", o.args(catalog, table), &n)
	return n
}

// Field is a column of a table's current schema.
type Field struct {
	ID       int
	Name     string
	Type     string // as Result's Column has it
	Required bool
	Key      bool // one of the identifier fields
}

// Schema is a table's current schema.
func (p *PyIcebergEngine) Schema(t testing.TB, catalog, table string) []Field {
	t.Helper()
	var fields []Field
	p.call(t, "schema", map[string]any{"catalog": catalog, "table": table}, &fields)
	return fields
}

// SnapshotInfo is a snapshot as PyIceberg read it from a table's metadata.
type SnapshotInfo struct {
	ID          int64
	Parent      int64 // 0: none
	Sequence    int64
	TimestampMS int64 `json:"timestamp_ms"`
	Operation   string
	Summary     map[string]string // without the operation
}

// Snapshots lists what a table's metadata keeps.
func (p *PyIcebergEngine) Snapshots(t testing.TB, catalog, table string) []SnapshotInfo {
	t.Helper()
	var s []SnapshotInfo
	p.call(t, "snapshots", map[string]any{"catalog": catalog, "table": table}, &s)
	return s
}

// TryAppend commits rows to a table as a foreign writer does. Values are such
// as JSON carries; those of other types need TryPython.
func (p *PyIcebergEngine) TryAppend(ctx context.Context, catalog, table string, rows []map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	return p.w.call(ctx, "append", map[string]any{"catalog": catalog, "table": table, "rows": rows}, nil)
}

// TryPython runs Python with catalog(name), load(catalog, table), pa (pyarrow)
// and args in scope, for what has no call of its own: creating tables, deleting,
// replacing. What it leaves in result is decoded into into, unless that is nil.
func (p *PyIcebergEngine) TryPython(ctx context.Context, code string, args, into any) error {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	return p.w.call(ctx, "python", map[string]any{"code": code, "args": args}, into)
}

// Python is TryPython for code that must work.
func (p *PyIcebergEngine) Python(t testing.TB, code string, args, into any) {
	t.Helper()
	if err := p.TryPython(context.Background(), code, args, into); err != nil {
		t.Fatalf("PyIceberg: %s: %v", code, err)
	}
}

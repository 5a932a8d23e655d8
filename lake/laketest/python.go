package laketest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ReadersPython is the interpreter that has DuckDB and PyIceberg, for code to be
// run as a program.
func ReadersPython(t testing.TB) string {
	t.Helper()
	Short(t, "no Python readers")
	return python(need(t, readersTool))
}

// Installable makes INSTALL and LOAD of the iceberg extension work without a
// network, so that SQL for people can be run as it is printed.
func (d *DuckDBEngine) Installable(t testing.TB) {
	t.Helper()
	tool, err := readersTool.Ensure(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(tool, "lib", "python3*", "site-packages", "duckdb_extension_*", "extensions", "v*", "*.duckdb_extension"))
	if err != nil || len(found) == 0 {
		t.Fatalf("find DuckDB's extensions in %s: %v", tool, err)
	}
	home := t.TempDir()
	platform := strings.TrimSpace(d.Query(t, "PRAGMA platform").Value())
	for _, path := range found {
		dir := filepath.Join(home, filepath.Base(filepath.Dir(path)), platform)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
	}
	d.Query(t, "SET extension_directory = "+Quote(home))
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/audit"
	"firn/lake/laketest"
)

// TestVerify compares beside a running firn, with it stopped, and after
// somebody else has changed the lake's rows.
func TestVerify(t *testing.T) {
	pg := laketest.Postgres(t, "")
	url := shop(t, pg, "shop", `create table orders (id int primary key, v text, at date); create table nokey (id int); create table parts (id int primary key); create table journal (line text);
		insert into orders select i, 'v'||i, '2026-11-23' from generate_series(1,5000) i; insert into parts values (1)`)
	dir := t.TempDir()
	settings := filepath.Join(dir, "firn.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("table_settings:\n  public.orders:\n    allow_writes: true\n  public.journal:\n    mode: append\n"), 0o600))
	env := []string{"FIRN_POSTGRES=" + url, "FIRN_WAREHOUSE=" + filepath.Join(dir, "lake"), "FIRN_STATE=" + filepath.Join(dir, "state"), "FIRN_CONFIG=" + settings, "FIRN_FRESHNESS=1h"}
	verify := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, said := firn(t, env, append([]string{"verify"}, args...)...)
		require.Equal(t, want, code, "%s%s", out, said)
		return out, said
	}
	_, said := verify(exitPreflight)
	require.Contains(t, said, "There is no lake at")

	p := launch(t, env, "run")
	p.ready()
	do(t, url, "update orders set v = 'x' where id % 2 = 0; delete from orders where id > 4900")
	out, _ := verify(exitOK, "--url", p.url)
	require.Regexp(t, `public\.orders +equal +4,900 +4,900 +[0-9a-f]{32}`, out)
	require.Regexp(t, `public\.nokey +unchecked +skipped: `, out)
	require.Contains(t, out, "3 equal, 0 different, 1 not compared")
	do(t, url, "insert into journal values ('kept'); delete from journal")
	out, _ = verify(exitOK, "--url", p.url)
	require.Regexp(t, `public\.journal +unchecked +0 +1 .* append: only inserts are mirrored`, out)
	out, _ = verify(exitOK, "--url", p.url, "--json", "orders")
	var report audit.Report
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Equal(t, 1, len(report.Tables))
	require.Equal(t, audit.Equal, report.Tables[0].Result)
	_, said = verify(exitFailure, "--url", p.url, "nokey")
	require.Contains(t, said, "1 table could not be compared")
	_, said = verify(exitUsage, "--url", p.url, "nothing")
	require.Contains(t, said, "nothing is neither among the tables to mirror nor in the lake")
	_, said = verify(exitFailure, "--url", "http://127.0.0.1:1")
	require.Contains(t, said, "give its address by --url")
	other := shop(t, pg, "other", "create table x (id int primary key)")
	_, said = verify(exitDiverged, "--url", p.url, "--postgres", other)
	require.Contains(t, said, "the lake is not of this database")

	// Somebody with the right to do so changes rows.
	code := fmt.Sprintf(`
import pyarrow as pa
from pyiceberg.catalog import load_catalog
orders = load_catalog("shop", type="rest", uri=%q, warehouse="shop").load_table("public.orders")
orders.delete("id = 17 or id = 30")
rows = [{"id": 30, "v": "changed", "at": None}, {"id": 7000, "v": "new", "at": None}]
orders.append(pa.Table.from_pylist(rows, schema=orders.schema().as_arrow()))`, p.url)
	text, err := exec.CommandContext(t.Context(), laketest.ReadersPython(t), "-c", code).CombinedOutput()
	require.NoError(t, err, string(text))
	for _, running := range []bool{true, false} {
		if !running {
			require.Zero(t, p.stop())
		}
		out, said = verify(exitDiffers, "--url", p.url)
		require.Contains(t, out, "public.orders differs:\n  1 only in Postgres:\n    id=17\n  1 only in the lake:\n    id=7000\n  1 different:\n    id=30\n")
		require.Contains(t, out, "1 equal, 1 different, 2 not compared")
		require.Contains(t, said, "begin a new lake")
	}
	do(t, url, "insert into journal values ('new')")
	_, said = verify(exitFailure)
	require.Contains(t, said, "Start firn and verify beside it")
}

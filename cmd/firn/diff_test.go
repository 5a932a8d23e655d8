package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

// TestDiff asks what became of tables between epochs of a running firn, in
// every format, over DDL, TRUNCATE and tables that came and went.
func TestDiff(t *testing.T) {
	pg := laketest.Postgres(t, "")
	url := shop(t, pg, "shop", `create table orders (id int primary key, v text, total numeric(10,2), gone int); create table journal (line text); alter table journal replica identity full;
		insert into orders select i, 'v'||i, i, 7 from generate_series(1,1000) i; insert into journal values ('a'), ('a'), ('b')`)
	dir := t.TempDir()
	env := []string{"FIRN_POSTGRES=" + url, "FIRN_WAREHOUSE=" + filepath.Join(dir, "lake"), "FIRN_STATE=" + filepath.Join(dir, "state"), "FIRN_FRESHNESS=1h"}
	diff := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, said := firn(t, env, append([]string{"diff"}, args...)...)
		require.Equal(t, want, code, "%s%s", out, said)
		return out, said
	}
	p := launch(t, env, "run")
	p.ready()
	at := func() string {
		t.Helper()
		p.wait()
		code, out, said := firn(t, env, "snapshots", "--json")
		require.Zero(t, code, said)
		var epochs []struct{ LSN string }
		require.NoError(t, json.Unmarshal([]byte(out), &epochs))
		return epochs[len(epochs)-1].LSN
	}
	start := at()
	do(t, url, "update orders set v = 'x<y', total = 12.5 where id = 2; delete from orders where id = 3; insert into orders values (1001, null, -1, 7)")
	do(t, url, "delete from journal where line = 'b'; insert into journal values ('a'), ('c')")
	changed := at()

	out, _ := diff(exitOK, "public.orders", "--from", start)
	require.Regexp(t, `^public\.orders from epoch \d+ \(`+start+`, .*\) to epoch \d+ \(`+changed, out)
	require.Contains(t, out, "\n1 inserted, 1 updated, 1 deleted\n\n")
	require.Contains(t, out, `~ id=2: v "v2" → "x<y", total 2.00 → 12.50`+"\n")
	require.Contains(t, out, `+ id=1001, v=NULL, total=-1.00, gone=7`+"\n")
	require.Contains(t, out, `- id=3, v="v3", total=3.00, gone=7`+"\n")
	out, _ = diff(exitOK, "public.journal", "--from", start, "--to", changed)
	require.Contains(t, out, "note: the table has no key")
	require.Contains(t, out, "2 inserted, 0 updated, 1 deleted")
	out, _ = diff(exitOK, "public.orders", "--from", "latest")
	require.Contains(t, out, "0 inserted, 0 updated, 0 deleted")
	out, _ = diff(exitOK, "public.orders", "--from", start, "--limit", "2")
	require.True(t, strings.HasSuffix(out, "and 1 more; --limit 0 shows all\n"), out)

	// Columns come and go; the rest is compared.
	do(t, url, "alter table orders drop column gone, add column note text")
	do(t, url, "update orders set note = 'n' where id = 5; create table late (id int primary key); insert into late values (1), (2)")
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(p.status().Tables, func(x lake.TableStatus) bool { return x.Name == "public.late" && x.State == lake.Streaming })
	}, time.Minute, 100*time.Millisecond)
	do(t, url, "insert into late values (3)")
	at()
	out, _ = diff(exitOK, "public.orders", "--from", changed, "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, lines[0], "column gone is in epoch")
	require.Contains(t, lines[0], `"key":["id"]`)
	require.JSONEq(t, `{"change":"updated","old":{"id":5,"v":"v5","total":"5.00","note":null},"new":{"id":5,"v":"v5","total":"5.00","note":"n"}}`, lines[1])
	require.JSONEq(t, `{"inserted":0,"updated":1,"deleted":0}`, lines[2])
	out, _ = diff(exitOK, "public.late", "--from", start)
	require.Contains(t, out, "all its rows are inserted")
	require.Contains(t, out, "3 inserted, 0 updated, 0 deleted")

	// A truncated table has lost all but what came back.
	do(t, url, "truncate orders; insert into orders select i, 'v'||i, i from generate_series(1,10) i")
	at()
	file := filepath.Join(dir, "changes.parquet")
	out, _ = diff(exitOK, "public.orders", "--from", start, "--format", "parquet", "--output", file)
	require.Contains(t, out, "0 inserted, 0 updated, 990 deleted, written to "+file)
	require.NoFileExists(t, file+".part")
	rows := laketest.DuckDB(t).Query(t, fmt.Sprintf(`select "_change_type", count(*), min(id), max(total) from read_parquet('%s') group by 1`, file)).Rows
	require.Equal(t, [][]string{{"DELETE", "990", "11", "1000.00"}}, rows)
	file = filepath.Join(dir, "changes.json")
	diff(exitOK, "public.orders", "--from", start, "--json", "--output", file)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 992, strings.Count(string(written), "\n"))
	require.Zero(t, p.stop())

	for _, c := range []struct {
		want string
		args []string
	}{
		{"want the first moment", []string{"public.orders"}},
		{"there is no table public.none", []string{"public.none", "--from", start}},
		{"gestern is no moment", []string{"public.orders", "--from", "gestern"}},
		{"swap them", []string{"public.orders", "--from", "latest", "--to", start}},
		{"wants a file", []string{"public.orders", "--from", start, "--format", "parquet"}},
		{"want text, json or parquet", []string{"public.orders", "--from", start, "--format", "csv"}},
		{"can't go together", []string{"public.orders", "--from", start, "--format", "parquet", "--json"}},
		{"--limit is for text", []string{"public.orders", "--from", start, "--json", "--limit", "5"}},
		{"--output: open", []string{"public.orders", "--from", start, "--output", "/nowhere/at/all"}},
	} {
		_, said := diff(exitUsage, c.args...)
		require.Contains(t, said, c.want)
	}
	_, said := diff(exitFailure, "public.orders", "--from", "2001-01-01T00:00:00Z")
	require.Contains(t, said, "no kept epoch shows that moment")
}

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

func TestCompactUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--url", "http://127.0.0.1:1"}, exitFailure, "no firn answers at http://127.0.0.1:1"},
		{[]string{"--url", "http://127.0.0.1:1", "--warehouse", missing}, exitFailure, "no firn answers"},
		{[]string{"--warehouse", "ftp://x/y"}, exitUsage, "want s3://bucket/prefix or a folder"},
		{[]string{"--warehouse", missing}, exitPreflight, "There is no lake at"},
	} {
		t.Setenv("FIRN_URL", "http://127.0.0.1:1")
		code, out, err := inProcess(append([]string{"compact"}, c.args...)...)
		require.Equal(t, c.code, code, "%v: %s", c.args, err)
		require.Contains(t, err, c.want)
		require.Empty(t, out)
	}
	require.NoDirExists(t, missing, "looking makes nothing")
}

// TestCompact merges files through a running firn, which would not have by
// itself, and without one.
func TestCompact(t *testing.T) {
	pg := laketest.Postgres(t, "")
	source := shop(t, pg, "shop", "create table orders (id int primary key); create table items (id int primary key)")
	dir := t.TempDir()
	settings := filepath.Join(dir, "firn.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("compaction: false\n"), 0o600))
	env := []string{"FIRN_POSTGRES=" + source, "FIRN_WAREHOUSE=" + filepath.Join(dir, "lake"), "FIRN_STATE=" + filepath.Join(dir, "state"),
		"FIRN_FRESHNESS=100ms", "FIRN_CONFIG=" + settings}
	p := launch(t, env, "run")
	p.ready()
	grow := func(from int) {
		for i := from; i < from+4; i++ {
			do(t, source, fmt.Sprintf("insert into orders values (%d); insert into items values (%d)", i, i))
			p.wait()
		}
	}
	grow(0)
	env = append(env, "FIRN_URL="+p.url)
	compact := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, said := firn(t, env, append([]string{"compact"}, args...)...)
		require.Equal(t, want, code, "%v: %s%s", args, out, said)
		return out, said
	}
	planned := func() (b lake.Backlog) {
		t.Helper()
		out, _ := compact(exitOK, "--dry-run", "--json")
		require.NoError(t, json.Unmarshal([]byte(out), &b))
		return b
	}
	out, _ := compact(exitOK, "--dry-run")
	require.Regexp(t, `TABLE +STATE +FILES +SIZE +WHY\npublic.items +planned +4 .*\npublic.orders +planned +4 `, out)
	require.Equal(t, 4, p.table("public.orders").DataFiles)
	_, said := compact(exitUsage, "public.none")
	require.Contains(t, said, "public.none: there is no such table")
	out, _ = compact(exitOK, "public.orders")
	require.Contains(t, out, "done: 1 rewrite")
	require.Equal(t, "public.items", planned().Rewrites[0].Table)
	p.wait()
	require.EqualValues(t, 4, p.table("public.orders").Compaction.RewrittenRows)
	code, out, said := firn(t, nil, "status", "--url", p.url)
	require.Zero(t, code, said)
	require.Contains(t, out, "rewrote 4 rows, ")

	_, said = compact(exitUsage, "--url", p.url, "--warehouse", filepath.Join(dir, "other"))
	require.Contains(t, said, "does not mirror into")
	require.Zero(t, p.stop())

	require.Len(t, planned().Rewrites, 1)
	out, _ = compact(exitOK, "--json", "public.items")
	require.Contains(t, out, `"rows": 4`)
	require.Contains(t, out, `"state": "done"`)
	out, _ = compact(exitOK)
	require.Equal(t, "there is nothing to rewrite\n", out)
	_, said = compact(exitUsage, "public.none")
	require.Contains(t, said, "public.none: there is no such table")
	p = launch(t, env, "run")
	p.ready()
	grow(4)
	require.EqualValues(t, 8, p.table("public.items").Rows)
	code, out, said = firn(t, env, "verify", "--url", p.url)
	require.Zero(t, code, out+said)
	require.Zero(t, p.stop())
}

// What a firn gave up is asked for again before it is called done.
func TestCompactAsksAgain(t *testing.T) {
	var posts atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := lake.Backlog{Rewrites: []lake.PlannedRewrite{{Table: "public.a", State: "asked", Files: 2, Asked: true}}}
		switch {
		case r.URL.Path == "/status":
			fmt.Fprint(w, `{"database": "shop"}`)
			return
		case r.Method == "POST" && posts.Add(1) == 2:
			b.Dropped = 1
		case r.Method == "GET": // gone with the session, and then done
			b.Rewrites, b.Dropped = nil, 1
		}
		if err := json.NewEncoder(w).Encode(b); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	code, out, said := inProcess("compact", "--url", server.URL)
	require.Equal(t, exitOK, code, said)
	require.Contains(t, out, "done: 1 rewrite")
	require.EqualValues(t, 2, posts.Load())
}

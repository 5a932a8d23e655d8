package main

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

func TestTagUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"latest"}, exitUsage, `"latest" has a meaning of its own`},
		{[]string{"16/B374D848"}, exitUsage, "is an LSN or a time"},
		{[]string{"2026-11-23T02:00:00Z"}, exitUsage, "is an LSN or a time"},
		{[]string{"shop@x"}, exitUsage, "use letters, digits and . _ -"},
		{[]string{"two words"}, exitUsage, "use letters, digits and . _ -"},
		{[]string{"a", "b"}, exitUsage, "accepts at most 1 arg"},
		{[]string{"--delete"}, exitUsage, "want the name of a tag"},
		{[]string{"--at", "16/B374D848"}, exitUsage, "want the name of a tag"},
		{[]string{"a", "--at", ""}, exitUsage, "--at: parse moment: it is empty"},
		{[]string{"a", "--delete", "--at", "16/B374D848"}, exitUsage, "can't go together"},
		{[]string{"a"}, exitPreflight, "There is no lake at"},
		{nil, exitPreflight, "There is no lake at"},
	} {
		code, out, err := inProcess(append([]string{"tag", "--warehouse", missing}, c.args...)...)
		require.Equal(t, c.code, code, "%v: %s", c.args, err)
		require.Contains(t, err, c.want)
		require.Empty(t, out)
	}
	require.NoDirExists(t, missing, "looking makes nothing")
}

// TestTag names epochs beside a running firn, which goes on and serves them,
// and without one.
func TestTag(t *testing.T) {
	pg := laketest.Postgres(t, "")
	source := shop(t, pg, "shop", "create table orders (id int primary key); insert into orders values (1)")
	dir := t.TempDir()
	env := []string{"FIRN_POSTGRES=" + source, "FIRN_WAREHOUSE=" + filepath.Join(dir, "lake"), "FIRN_STATE=" + filepath.Join(dir, "state"), "FIRN_FRESHNESS=100ms"}
	tag := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, said := firn(t, env, append([]string{"tag"}, args...)...)
		require.Equal(t, want, code, "%v: %s%s", args, out, said)
		return out, said
	}
	made := func(args ...string) (x namedEpoch) {
		t.Helper()
		out, _ := tag(exitOK, append(args, "--json")...)
		require.NoError(t, json.Unmarshal([]byte(out), &x))
		return x
	}
	p := launch(t, env, "run")
	p.ready()
	// pinned is the LSN that a warehouse is served at.
	pinned := func(moment string) string {
		t.Helper()
		var answer struct{ Overrides map[string]string }
		require.NoError(t, json.Unmarshal([]byte(get(t, p.url+"/v1/config?warehouse="+url.QueryEscape("shop@"+moment))), &answer))
		return answer.Overrides["firn.lsn"]
	}
	do(t, source, "insert into orders values (2)")
	p.wait()
	first := made("first")
	require.Equal(t, "shop@first", first.Warehouse)
	require.WithinDuration(t, time.Now(), first.Created, time.Minute)
	do(t, source, "insert into orders values (3)")
	p.wait()
	out, _ := tag(exitOK, "second")
	require.Regexp(t, `^second is epoch \d+ at \S+, committed \S+ \S+; readers attach it as warehouse "shop@second"\n$`, out)
	require.Equal(t, first.LSN.String(), pinned("first"), "a running firn learns of it by being asked")
	require.Equal(t, pinned("latest"), pinned("second"))
	require.NotEqual(t, pinned("first"), pinned("second"))

	past := made("past", "--at", first.LSN.String())
	require.Equal(t, first.Epoch, past.Epoch)
	require.Equal(t, first.Epoch, made("past", "--at", "first").Epoch, "the same again")
	require.Equal(t, first.Epoch, made("by-time", "--at", first.Time.Format(time.RFC3339Nano)).Epoch)
	_, said := tag(exitUsage, "past")
	require.Contains(t, said, "past names epoch")
	require.Contains(t, said, "A tag does not move")
	_, said = tag(exitUsage, "none", "--at", "yesterday")
	require.Contains(t, said, "or a tag that `firn tag` lists")
	_, said = tag(exitUsage, "none", "--at", "2001-01-01T00:00:00Z")
	require.Contains(t, said, "`firn snapshots` lists the epochs that can be named")
	_, said = tag(exitFailure, "none", "--at", "FFFF/0")
	require.Contains(t, said, "`firn wait --lsn FFFF/0` returns when it has")
	future := time.Now().Add(time.Hour).Format(time.RFC3339)
	for _, args := range [][]string{{"none", "--at", future}, {"none", "--at", future, "--nearest"}} {
		_, said = tag(exitUsage, args...)
		require.Contains(t, said, "lies in the future")
	}
	_, said = tag(exitUsage, "none", "--at", time.Now().Format(time.RFC3339Nano))
	require.Contains(t, said, "the lake's newest commit is of")
	second := made("nearest", "--at", time.Now().Format(time.RFC3339Nano), "--nearest")
	require.Greater(t, second.Epoch, first.Epoch)
	tag(exitOK, "nearest", "--delete")
	code, text, _ := firn(t, env, "asof", first.LSN.String())
	require.Zero(t, code)
	require.NotContains(t, text, "note:")
	code, text, _ = firn(t, env, "asof", future)
	require.Zero(t, code)
	require.Contains(t, text, "note: that is the newest commit that the lake has seen")
	code, text, _ = firn(t, env, "snapshots")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^\d+ .* by-time first past$`, text)
	_, said = tag(exitUsage, "none", "--delete")
	require.Contains(t, said, `there is no such tag: "none"`)

	// The stream takes the entries of others in its stride, and makes refs of them.
	do(t, source, "insert into orders values (4)")
	p.wait()
	var loaded struct {
		Metadata struct {
			Refs map[string]struct {
				Type     string `json:"type"`
				Snapshot int64  `json:"snapshot-id"`
			} `json:"refs"`
		} `json:"metadata"`
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, p.url+"/v1/namespaces/public/tables/orders")), &loaded))
	require.Equal(t, "tag", loaded.Metadata.Refs["second"].Type)
	require.NotEqual(t, loaded.Metadata.Refs["first"].Snapshot, loaded.Metadata.Refs["second"].Snapshot)
	require.NotContains(t, loaded.Metadata.Refs, "nearest")
	require.EqualValues(t, 4, p.table("public.orders").Rows)
	require.Zero(t, p.stop())

	out, _ = tag(exitOK)
	require.Regexp(t, `(?m)^by-time +\d+ .*\nfirst +\d+ .* shop@first\npast .*\nsecond `, out)
	out, _ = tag(exitOK, "past", "--delete")
	require.Contains(t, out, "deleted tag past, which was epoch")
	var list []namedEpoch
	out, _ = tag(exitOK, "--json")
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Equal(t, []string{"by-time", "first", "second"}, []string{list[0].Name, list[1].Name, list[2].Name})
	require.Equal(t, first, list[1])
	out, _ = tag(exitOK, "last")
	require.Contains(t, out, "last is epoch")
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/listen"
	"firn/lake/laketest"
)

// TestExpire has a running firn remove what its retention no longer keeps; without
// one nothing is removed, and what there is to go can be told.
func TestExpire(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	t.Setenv("FIRN_URL", "http://127.0.0.1:1")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitFailure, "no firn answers at http://127.0.0.1:1"},
		{[]string{"--warehouse", missing}, exitPreflight, "only that one may remove its files. Start `firn run`"},
		{[]string{"--warehouse", missing, "--dry-run"}, exitPreflight, "There is no lake at"},
	} {
		code, out, err := inProcess(append([]string{"expire"}, c.args...)...)
		require.Equal(t, c.code, code, "%v: %s", c.args, err)
		require.Contains(t, err, c.want)
		require.Empty(t, out)
	}
	require.NoDirExists(t, missing, "looking makes nothing")
	if testing.Short() {
		t.Skip("starts Postgres and firn")
	}

	pg := laketest.Postgres(t, "")
	source := shop(t, pg, "shop", "create table orders (id int primary key, v text); insert into orders select i, 'x' from generate_series(1, 100) i")
	dir := t.TempDir()
	settings := filepath.Join(dir, "firn.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("grace: 1s\nretention:\n  newest: 3\n  every_minute: 0s\n  every_hour: 0s\n  every_day: 0s\n"), 0o600))
	env := []string{"FIRN_POSTGRES=" + source, "FIRN_WAREHOUSE=" + filepath.Join(dir, "lake"), "FIRN_STATE=" + filepath.Join(dir, "state"),
		"FIRN_FRESHNESS=100ms", "FIRN_CONFIG=" + settings}
	p := launch(t, env, "run")
	p.ready()
	for i := range 8 {
		do(t, source, fmt.Sprintf("update orders set v = 'round %d'", i))
		p.wait()
	}
	env = append(env, "FIRN_URL="+p.url)
	expire := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, said := firn(t, env, append([]string{"expire"}, args...)...)
		require.Equal(t, want, code, "%v: %s%s", args, out, said)
		return out, said
	}
	asked := func(args ...string) (x listen.Expired) {
		t.Helper()
		out, _ := expire(exitOK, append(args, "--json")...)
		require.NoError(t, json.Unmarshal([]byte(out), &x))
		return x
	}
	x := asked("--dry-run")
	require.True(t, x.DryRun)
	require.Equal(t, 3, x.Epochs)
	require.Equal(t, "the newest 3 epochs, and tagged ones", x.Retention)
	require.Equal(t, "1s", x.Grace)
	require.Positive(t, x.Needed)
	removed := 0
	require.Eventually(t, func() bool {
		x = asked()
		removed += x.Removed
		time.Sleep(300 * time.Millisecond)
		return x.Removed+x.Waiting == 0
	}, 30*time.Second, time.Millisecond)
	require.False(t, x.DryRun)
	out, _ := expire(exitOK)
	require.Contains(t, out, "kept: 3 epochs and 0 tags, by the rule: the newest 3 epochs, and tagged ones\nremoved: 0 objects, 0 B\nwaiting until nothing has needed them for 1s: ")
	p.wait()
	code, _, said := firn(t, env, "verify", "--url", p.url)
	require.Zero(t, code, said)
	require.Zero(t, p.stop())

	_, said = expire(exitFailure, "--url", p.url)
	require.Contains(t, said, "no firn answers")
	_, said = expire(exitPreflight)
	require.Contains(t, said, "only that one may remove its files")
	out, said = expire(exitOK, "--dry-run")
	require.Contains(t, said, "looking at the warehouse alone")
	require.Regexp(t, `needed by nothing: \d+ objects?, `, out)
}

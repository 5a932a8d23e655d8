package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// demoFolder is one that Postgres' user may enter, unlike the test's own.
func demoFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "firn-demo-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return filepath.Join(dir, "firn-demo")
}

// begin starts firn demo and waits until it has printed how to read.
func beginDemo(t *testing.T, args ...string) (*process, *safeBuffer) {
	t.Helper()
	p := &process{t: t, cmd: command(t, nil, append([]string{"demo"}, args...)...), log: &safeBuffer{}, done: make(chan struct{})}
	out := &safeBuffer{}
	p.cmd.Stderr, p.cmd.Stdout = p.log, out
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // its code is looked at by code
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("firn demo said:\n%s", p.log)
		}
	})
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "# Spark") || p.ended() }, time.Minute, 20*time.Millisecond)
	require.False(t, p.ended(), "it ended: %s", p.log)
	return p, out
}

func requireNoPostgres(t *testing.T, dir string) {
	t.Helper()
	require.Eventually(t, func() bool {
		found, err := filepath.Glob("/proc/[0-9]*/cwd")
		require.NoError(t, err)
		for _, link := range found {
			if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir) {
				return false
			}
		}
		return true
	}, 15*time.Second, 50*time.Millisecond, "processes are left in %s", dir)
}

func TestDemo(t *testing.T) {
	laketest.Short(t, "no demo")
	dir := demoFolder(t)
	code, out, said := firn(t, nil, "demo", "--dir", dir, "--for", "6s")
	require.Zero(t, code, said)
	require.Equal(t, 5, strings.Count(out, "  equal\n"), out)
	require.Contains(t, out, "-- DuckDB")
	require.Contains(t, said, "changes/s")
	requireNoPostgres(t, dir)

	// Ctrl-C, a kill, and a start after each: it goes on.
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		p, _ := beginDemo(t, "--dir", dir)
		require.Contains(t, p.log.String(), "going on with the demo in "+dir)
		code, _, said = firn(t, nil, "demo", "--dir", dir)
		require.Equal(t, exitFenced, code, said)
		require.Contains(t, said, "a demo is running there")
		require.NoError(t, p.cmd.Process.Signal(signal))
		if code := p.code(); signal == syscall.SIGINT {
			require.Zero(t, code)
			require.Contains(t, p.log.String(), "`firn demo` goes on from here")
		}
		requireNoPostgres(t, dir)
	}
	code, out, said = firn(t, nil, "demo", "--dir", dir, "--for", "5s")
	require.Zero(t, code, said)
	require.Equal(t, 5, strings.Count(out, "  equal\n"), out)

	// A proof that proves nothing is none.
	code, _, said = firn(t, nil, "demo", "--dir", dir, "--fresh", "--for", "1ms")
	require.Equal(t, exitDiffers, code, said)
	require.Contains(t, said, "saw no update or no delete")
	require.NotContains(t, said, "going on")

	code, _, said = firn(t, nil, "demo", "--dir", t.TempDir()+"/..")
	require.Equal(t, exitUsage, code, said)
	require.Contains(t, said, "holds something that is not a demo's")
}

// TestDemoSnippets pastes what the demo prints into the engines.
func TestDemoSnippets(t *testing.T) {
	duck, python := laketest.DuckDB(t), laketest.ReadersPython(t)
	dir := demoFolder(t)
	p, out := beginDemo(t, "--dir", dir, "--listen", "127.0.0.1:0")
	text := out.String()
	between := func(from, to string) string {
		_, rest, ok := strings.Cut(text, from)
		require.True(t, ok, text)
		s, _, ok := strings.Cut(rest, to)
		require.True(t, ok, text)
		return s
	}
	duck.Installable(t)
	require.NotEqual(t, "0", duck.Query(t, "--"+between("-- DuckDB", "# Python")).Value(), "by path")
	require.Len(t, duck.Query(t, between("AUTHORIZATION_TYPE 'none');", "-- the same table")).Rows, 3)
	require.NotEqual(t, "0", duck.Query(t, between("had it then\n", "-- without")).Rows[0][0], "back in time")
	said, err := exec.CommandContext(t.Context(), python, "-c", "#"+between("# Python", "# Spark")).CombinedOutput()
	require.NoError(t, err, string(said))
	require.Regexp(t, `^\d+\n\d+ [0-9A-F]+/[0-9A-F]+\n$`, string(said))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.code())
}

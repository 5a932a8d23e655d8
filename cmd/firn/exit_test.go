package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/lake"
	"firn/lake/object"
	"firn/wal/slot"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errors.New("plain"), 1, "plain"},
		{&lake.Refusal{Code: 5, Text: "Gone", Fix: "Begin anew."}, 5, "Gone. Begin anew."},
		{fmt.Errorf("run: %w", &lake.Refusal{Code: 4, Text: "Two", Fix: "Stop one."}), 4, "Two. Stop one."},
		{&config.Error{Text: "bad"}, 2, "bad"},
		{&usageError{"bad"}, 2, "bad"},
		{&saidError{6}, 6, ""},
		{&preflightError{[]slot.Problem{{Check: "a", Text: "One", Fix: "Do this"}, {Check: "b", Text: "Two", Fix: "Do that"}}}, 3, "One. Do this.\nfirn: Two. Do that."},
		{slot.ErrAuth, 3, "~/.pgpass"},
		{slot.ErrNoDatabase, 3, "database's name"},
		{slot.ErrUnreachable, 1, "host and port"},
		{slot.ErrSlotInUse, 4, "stop it first"},
		{slot.ErrSlotLost, 5, "teardown"},
		{slot.ErrSlotMissing, 5, "teardown"},
		{catalog.ErrFenced, 4, "Stop one"},
		{catalog.ErrForeignWarehouse, 3, "empty folder"},
		{catalog.ErrRewound, 5, "older copy"},
		{object.ErrNoBucket, 3, "bucket"},
		{object.ErrUnconditional, 3, "another store"},
		{fmt.Errorf("open: %w", fs.ErrPermission), 3, "permission"},
		{errors.New("a:\n\tb\n\tb\n\tc"), 1, "a: b; c"},
	} {
		code, text := explain(c.err)
		require.Equal(t, c.code, code, c.err)
		require.Contains(t, text, c.text)
	}
}

func TestCommandLinesThatCannotRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "firn.yaml")
	require.NoError(t, os.WriteFile(file, []byte("listen: 127.0.0.1:0\nwarehose: x\n"), 0o600))
	const pg = "postgres://u@127.0.0.1:1/d"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown flag", []string{"run", "--frehsness", "1s"}, "unknown flag: --frehsness\nSee `firn run --help`."},
		{"unknown command", []string{"rn"}, `unknown command "rn"`},
		{"argument", []string{"run", "x"}, `unknown command "x" for "firn run"`},
		{"bad value", []string{"run", "--freshness", "soon"}, "want a duration"},
		{"no database", []string{"run", "--warehouse", "x"}, "which database?"},
		{"no warehouse", []string{"run", "--postgres", pg}, "which warehouse?"},
		{"bad key", []string{"run", "--config", file}, "firn.yaml: line 2: warehose: there is no such setting"},
		{"outside catalog", []string{"run", "--postgres", pg, "--warehouse", "x", "--catalog", "http://h"}, "comes in a later version"},
		{"open to others", []string{"run", "--postgres", pg, "--warehouse", "x", "--listen", "0.0.0.0:1"}, "give --token-file"},
		{"serve open to others", []string{"serve", "x", "--listen", "0.0.0.0:1"}, "give --token-file"},
		{"no token file", []string{"serve", "x", "--listen", "0.0.0.0:1", "--token-file", "/nowhere"}, "--token-file: read token file"},
		{"bad LSN", []string{"wait", "--lsn", "5"}, "--lsn: parse LSN"},
		{"bad URL", []string{"status", "--url", "localhost"}, "--url localhost: want a URL"},
		{"no moment", []string{"asof", "--warehouse", "x"}, "requires at least 1 arg"},
		{"doctor of nothing", []string{"doctor"}, "which database?"},
		{"teardown of nothing", []string{"teardown"}, "which database?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, err := inProcess(c.args...)
			require.Equal(t, exitUsage, code, err)
			require.Contains(t, err, c.want)
			require.Empty(t, out)
		})
	}
	t.Setenv("FIRN_FAILPOINT", "nowhere")
	code, _, err := inProcess("run", "--postgres", pg, "--warehouse", filepath.Join(t.TempDir(), "x"))
	require.Equal(t, exitUsage, code)
	require.Contains(t, err, "FIRN_FAILPOINT: want one of before-upload")
}

func TestNothingRuns(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"wait"}, {"status", "--json"}} {
		code, out, err := inProcess(append(args, "--url", "http://127.0.0.1:1")...)
		require.Equal(t, exitFailure, code)
		require.Contains(t, err, "no firn answers at http://127.0.0.1:1")
		require.Empty(t, out)
	}
	missing := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{{"snapshots"}, {"asof", "latest"}, {"serve"}} {
		code, _, err := inProcess(append(args, "--warehouse", missing)...)
		require.Equal(t, exitPreflight, code)
		require.Contains(t, err, "There is no lake at")
		require.NoDirExists(t, missing, "looking makes nothing")
	}
}

func TestHelpAndVersion(t *testing.T) {
	code, out, _ := inProcess("--version")
	require.Zero(t, code)
	require.Regexp(t, `^firn \S+\n$`, out)
	code, out, _ = inProcess("--help")
	require.Zero(t, code)
	for _, make := range commands {
		cmd := make(&app{})
		require.Contains(t, out, cmd.Name())
		require.NotEmpty(t, cmd.Short)
		require.NotEmpty(t, cmd.Example, "%s: help teaches by examples", cmd.Name())
	}
	_, out, _ = inProcess("run", "--help")
	require.NotContains(t, out, "--catalog", "help shows what works")
	require.NotContains(t, out, "FAILPOINT")
}

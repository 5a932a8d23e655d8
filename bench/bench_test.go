package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// A kind of which each case takes an hour is not begun by its name alone.
func TestOnlyBigCasesAreNamed(t *testing.T) {
	root := command()
	root.SetArgs([]string{"life"})
	require.ErrorContains(t, root.Execute(), "name one of hours, hours-v3, day")
}

// TestShort runs every case at its small size: what the lake holds must be
// right; how long it took is not looked at.
func TestShort(t *testing.T) {
	laketest.Short(t, "no workloads")
	laketest.ReadersPython(t) // or the skip that says how to get it
	var out bytes.Buffer
	all := map[string]*Result{}
	var results []*Result
	for _, w := range workloads {
		t.Run(w.title(), func(t *testing.T) {
			out.Reset()
			result, err := runCase(t.Context(), &options{short: true, seed: 1, out: &out}, w)
			require.NoError(t, err, out.String())
			require.NotEmpty(t, result.Figures)
			all[w.title()], results = result, append(results, result)
		})
	}
	if t.Failed() {
		return
	}
	t.Run("targets", func(t *testing.T) {
		for _, target := range targets {
			for _, c := range target.cases {
				require.Contains(t, all, c, target.what)
				_, ok := all[c].figure(target.figure)
				require.True(t, ok, "%s has no figure %q", c, target.figure)
			}
		}
		require.Empty(t, judge(results), "-short measures nothing")
	})
	t.Run("report", func(t *testing.T) {
		dir := t.TempDir()
		for _, r := range results {
			r.Short = false
		}
		require.NoError(t, keep(dir, results))
		require.NoError(t, writeReport(dir))
		text, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
		require.NoError(t, err)
		for _, target := range targets {
			require.Contains(t, string(text), target.what)
		}
		for name := range plotTitle {
			require.FileExists(t, filepath.Join(dir, "plots", name+".svg"))
		}
	})
}

// TestWrongLakeHasNoFigures changes Postgres behind firn's back, in one column
// of one row: the comparison must see it.
func TestWrongLakeHasNoFigures(t *testing.T) {
	laketest.Short(t, "no servers")
	laketest.ReadersPython(t)
	ctx := t.Context()
	r, err := newRig(ctx, &options{short: true, seed: 1, out: &bytes.Buffer{}})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.close()) }()
	require.NoError(t, makeEvents(ctx, r, "events", 1000))
	require.NoError(t, r.exec(ctx, "insert into events (id) values (0)")) // NULLs
	m := r.firn("wrong", "--freshness", "1h")
	require.NoError(t, m.start(ctx))
	require.NoError(t, r.caughtUp(ctx, m))
	require.NoError(t, m.check(ctx, "events"))
	for _, change := range []string{"f1 = f1 + 0.5", "note = note || ' '", "ok = null", "created_at = created_at + interval '1 us'", "amount = -amount"} {
		require.NoError(t, r.exec(ctx, "begin", "update events set "+change+" where id = 500"))
		require.ErrorContains(t, m.check(ctx, "events"), "the lake is wrong", change)
		require.NoError(t, r.exec(ctx, "rollback"))
	}
	require.NoError(t, m.stop(ctx))
}

func TestCommandLine(t *testing.T) {
	root := command()
	require.Equal(t, []string{"drain", "inserts", "--short", "--seed=3", "--json", "x", "-h"},
		longFlags(root, []string{"drain", "inserts", "-short", "-seed=3", "--json", "x", "-h"}))
	var out bytes.Buffer
	require.NoError(t, list(&out))
	for _, w := range workloads {
		require.Contains(t, out.String(), w.title())
		require.Contains(t, kindAbout, w.kind)
	}
	names := map[string]bool{}
	for _, w := range workloads {
		require.False(t, names[w.title()] || strings.Contains(w.name, " "), w.title())
		names[w.title()] = true
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 12: "12", 1234567: "1,234,567", 0.1234: "0.123", 1.2345: "1.23", 45.67: "45.7", 123.4: "123", 1234.5: "1,235", -1500: "-1,500"} {
		require.Equal(t, want, number(v))
	}
	text := "# HELP a b\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3.5\na_total_more{} 7\na 9\n"
	require.Equal(t, 5.5, sumMetric(text, "a_total"))
	require.Equal(t, 9.0, sumMetric(text, "a"))
	require.Equal(t, 0.5, median([]float64{3, 0.5, 0.1}, func(v float64) float64 { return v }))
}

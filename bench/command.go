package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// options are what the command line says of a run.
type options struct {
	short      bool
	json       string
	seed       int64
	cpuprofile string
	trace      string
	peer       string
	out        io.Writer
}

// command is the whole command line: one command for each kind of workload,
// and all, big and report.
func command() *cobra.Command {
	o := &options{out: os.Stdout}
	root := &cobra.Command{
		Use:   "bench",
		Short: "Measure firn, each figure beside its floor of the same run",
		Long: `Measures firn, each figure beside its floor of the same run. A case starts its
own Postgres and MinIO, runs firn with its defaults, and prints figures only if
every row of the lake, as DuckDB reads it, equals Postgres.`,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              func(*cobra.Command, []string) error { return list(o.out) },
	}
	f := root.PersistentFlags()
	f.BoolVar(&o.short, "short", false, "small sizes, which check results and are no measurement")
	f.StringVar(&o.json, "json", "", "write the results to this file")
	f.Int64Var(&o.seed, "seed", 1, "of all that is random in the workloads")
	f.StringVar(&o.cpuprofile, "cpuprofile", "", "write the CPU profile of the last firn that was measured to this file")
	f.StringVar(&o.trace, "trace", "", "write its execution trace to this file")
	f.StringVar(&o.peer, "peer", "", "measure another tool by load and drain; bench load --help says how")
	for _, kind := range kinds() {
		root.AddCommand(kindCommand(o, kind))
	}
	root.AddCommand(
		&cobra.Command{Use: "all", Short: "Every case but the big ones (40 minutes), and the report", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return runAndKeep(cmd.Context(), o, func(c workload) bool { return !c.big })
			}},
		&cobra.Command{Use: "big", Short: "The cases that need the most disk or time: 100M keys, a 10M-row transaction, a table's hours and its day, 20 minutes of ingest (three hours); and the report", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return runAndKeep(cmd.Context(), o, func(c workload) bool { return c.big })
			}},
		&cobra.Command{Use: "report", Short: "Write bench/RESULTS.md and its plots anew from the results kept in bench/results", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return writeReport("bench") }},
	)
	return root
}

func kindCommand(o *options, kind string) *cobra.Command {
	var long strings.Builder
	fmt.Fprintf(&long, "The cases of %s (without a name all but the big ones are run):\n\n", kind)
	var names []string
	for _, c := range workloads {
		if c.kind == kind {
			names = append(names, c.name)
			fmt.Fprintf(&long, "  %-16s %s\n", c.name, c.about)
		}
	}
	if kind == "load" || kind == "drain" {
		long.WriteString("\n" + peerHelp)
	}
	return &cobra.Command{
		Use: kind + " [CASE]", Short: kindAbout[kind], Long: long.String(), Args: cobra.MaximumNArgs(1), ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !slices.ContainsFunc(workloads, func(c workload) bool { return c.kind == kind && !c.big }) {
				return fmt.Errorf("each case of %s takes long: name one of %s", kind, strings.Join(names, ", "))
			}
			results, err := runCases(cmd.Context(), o, func(c workload) bool {
				return c.kind == kind && (len(args) == 0 && !c.big || len(args) == 1 && c.name == args[0])
			})
			return errors.Join(err, writeJSON(o.json, results))
		},
	}
}

// longFlags lets -short stand for --short, as Go's own tools have it.
func longFlags(root *cobra.Command, args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "-"), "=")
		if len(name) > 1 && root.PersistentFlags().Lookup(name) != nil {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// list prints what there is.
func list(out io.Writer) error {
	fmt.Fprintln(out, "go run ./bench KIND [CASE] [-short] [-json FILE]; `all` runs every case that is not big, `big` the others")
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CASE\tDISK\tWHAT")
	for _, c := range workloads {
		about := c.about
		if c.big {
			about += " (big)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.title(), gigabytes(c.disk), about)
	}
	return t.Flush()
}

// runCases runs the chosen cases, prints each result, and goes on after one
// that failed; the error joins what failed.
func runCases(ctx context.Context, o *options, chosen func(workload) bool) ([]*Result, error) {
	var results []*Result
	var failed []error
	ran := false
	for _, c := range workloads {
		if !chosen(c) || ctx.Err() != nil {
			continue
		}
		ran = true
		began := time.Now()
		result, err := runCase(ctx, o, c)
		if err != nil {
			err = fmt.Errorf("%s: %w", c.title(), err)
			fmt.Fprintf(o.out, "%s: no figures: %v\n\n", c.title(), err)
			failed = append(failed, err)
			continue
		}
		result.Seconds = time.Since(began).Seconds()
		result.print(o.out)
		results = append(results, result)
	}
	if !ran {
		failed = append(failed, errors.New("there is no such case; `go run ./bench` lists them"))
	}
	printTargets(o.out, results)
	return results, errors.Join(append(failed, ctx.Err())...)
}

// runAndKeep is runCases for what goes into the report.
func runAndKeep(ctx context.Context, o *options, chosen func(workload) bool) error {
	if o.peer != "" {
		return errors.New("--peer is for load and drain")
	}
	results, err := runCases(ctx, o, chosen)
	err = errors.Join(err, writeJSON(o.json, results))
	if o.short {
		return err // no measurement
	}
	return errors.Join(err, keep("bench", results), writeReport("bench"))
}

// Command bench measures firn: it runs reproducible workloads against servers
// of its own and prints each figure beside its floor of the same run.
//
//	go run ./bench                    # what there is
//	go run ./bench drain inserts      # one case; `drain` runs all of its kind
//	go run ./bench all -json FILE     # what fits 45 minutes
//
// A case starts a Postgres (fsync on) and a MinIO in temporary folders, runs
// the firn binary of this checkout with its defaults, and ends by comparing
// every row of the lake, as DuckDB reads it, with Postgres: a case whose lake
// differs prints no figure, and bench exits with 1. The cases of life run firn's
// own parts on a generator of changes instead, faster than the clock, and
// compare with what that has kept count of; a rewrite proves itself.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command()
	root.SetArgs(longFlags(root, os.Args[1:]))
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

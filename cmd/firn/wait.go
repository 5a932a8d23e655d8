package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/listen"
	"firn/wal"
)

func waitCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Return once all commits up to an LSN are in the lake",
		Long: `Returns once the lake has every commit up to an LSN, by default up to now: what
you committed before you called it. Waiting cuts the open epoch, so it takes
about as long as one commit and not as long as --freshness.`,
		Example: `  psql shop -c 'insert into orders values (1)' && firn wait && duckdb -c '…'
  firn wait --lsn 16/B374D848 --timeout 2m`,
		Args: cobra.NoArgs,
	}
	firn := runningFlags(cmd)
	lsn := cmd.Flags().String("lsn", "", "LSN to wait for (default: where Postgres' WAL ends now)")
	timeout := cmd.Flags().Duration("timeout", 30*time.Second, "give up after this long, with exit code 1")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q := url.Values{"timeout": {timeout.String()}}
		if *lsn != "" {
			if _, err := wal.ParseLSN(*lsn); err != nil {
				return &usageError{text: "--lsn: " + err.Error()}
			}
			q.Set("lsn", *lsn)
		}
		if *timeout <= 0 {
			return &usageError{text: "--timeout: want more than nothing"}
		}
		// The server gives up first, and knows more.
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout+5*time.Second)
		defer cancel()
		var at listen.Position
		if err := firn.ask(ctx, "GET", "/wait", q, &at); err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(at)
		}
		fmt.Fprintf(a.out, "the lake is at %s\n", at.LSN)
		return nil
	}
	return cmd
}

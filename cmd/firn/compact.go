package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
)

func compactCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compact [TABLE...]",
		Short: "Merge small data files and rewrite worn ones, now",
		Long: `Merges small data files and rewrites those with many dead rows, of the named
tables or of all, as if no more files came: each rewrite is read back and proven
row by row before it takes its inputs' place. No dead row is left, so readers
open no deletes. --dry-run only says what there is to do.

A running firn (--url) does it beside its stream. If none runs, it is done from
the warehouse alone (--warehouse): Postgres is not asked, LSN and epoch stay,
and a table that is not up to date is left alone.
A firn that starts meanwhile goes first, and the next one follows what it finds.`,
		Example: `  firn compact --dry-run
  firn compact public.orders public.items
  firn compact --warehouse s3://lake/shop --json`,
	}
	f := upkeepFlags(cmd, "only print what would be rewritten")
	cmd.RunE = func(cmd *cobra.Command, tables []string) error {
		c, online, err := f.read(cmd.Context())
		if err != nil {
			return err
		}
		if online {
			err = a.compactThrough(cmd.Context(), f.firn, tables, f.dry, f.asJSON)
		} else {
			err = a.compactAlone(cmd.Context(), c, tables, f.dry, f.asJSON)
		}
		if errors.Is(err, lake.ErrNoTable) {
			return &usageError{text: err.Error() + "; `firn asof latest` lists them, as schema.table"}
		}
		return err
	}
	return cmd
}

const (
	compactEvery = 300 * time.Millisecond
	// unfollowedMax is how long a table may be in another state before it is not
	// waited for any more.
	unfollowedMax = time.Minute
)

// compactThrough asks a running firn.
func (a *app) compactThrough(ctx context.Context, firn *running, tables []string, dry, asJSON bool) error {
	query := url.Values{"table": tables}
	method := "POST"
	if dry {
		method = "GET"
	}
	var asked lake.Backlog
	if err := firn.ask(ctx, method, "/compact", query, &asked); err != nil {
		return err
	}
	if !asJSON {
		printBacklog(a.out, asked)
	} else if dry {
		return a.printJSON(asked)
	}
	if dry {
		return nil
	}
	s := newScreen(a.err)
	defer s.clear()
	if len(asked.Rewrites) > 0 { // of these from here on, whatever becomes of them
		query = url.Values{}
		for _, r := range asked.Rewrites {
			if !slices.Contains(query["table"], r.Table) {
				query.Add("table", r.Table)
			}
		}
	}
	dropped, followed, method := asked.Dropped, time.Now(), "GET"
	for {
		var now lake.Backlog
		err := firn.ask(ctx, method, "/compact", query, &now)
		switch {
		case err != nil && ctx.Err() != nil:
			return errors.New("stopped waiting; that firn goes on with what was asked for")
		case errors.Is(err, lake.ErrNoTable) && time.Since(followed) < unfollowedMax:
			s.show("waiting for " + err.Error())
			wait(ctx, compactEvery)
			continue
		case errors.Is(err, lake.ErrNoTable):
			// Not wrapped: the names were right.
			return fmt.Errorf("not all that was asked for has been rewritten, for a table turned to another state meanwhile (see `firn status`): %v", err)
		case err != nil:
			return err
		}
		followed = time.Now()
		// What was given up, for the lake started again from the head, say, is asked
		// for again.
		method = "GET"
		if now.Dropped != dropped {
			dropped, method = now.Dropped, "POST"
			continue
		}
		var left int
		var bytes int64
		var running string
		for _, r := range now.Rewrites {
			if r.Asked {
				left, bytes = left+1, bytes+r.Bytes
			}
			if r.Asked && r.State == "running" {
				running = fmt.Sprintf(" · %s: %s, %s", r.Table, count(r.Files, "file"), listen.Size(r.Bytes))
			}
		}
		switch {
		case len(now.Failures) > 0:
			return fmt.Errorf("rewrite data files: %s", now.Failures[0])
		case left == 0 && asJSON:
			for i := range asked.Rewrites {
				asked.Rewrites[i].State = "done"
			}
			return a.printJSON(asked)
		case left == 0:
			s.clear()
			if len(asked.Rewrites) > 0 {
				fmt.Fprintf(a.out, "done: %s\n", count(len(asked.Rewrites), "rewrite"))
			}
			return nil
		}
		s.show(fmt.Sprintf("%s of %d to go, %s%s", count(left, "rewrite"), len(asked.Rewrites), listen.Size(bytes), running))
		wait(ctx, compactEvery)
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// compactAlone rewrites from the warehouse.
func (a *app) compactAlone(ctx context.Context, c *config.Config, tables []string, dry, asJSON bool) (err error) {
	w, err := openLake(ctx, c, a.warnings())
	if err != nil {
		return err
	}
	compactor, err := wire.OpenCompactor(w.store, w.log, time.Duration(c.Grace), a.warnings())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, compactor.Close()) }()
	if dry {
		backlog, err := compactor.Backlog(ctx, tables)
		switch {
		case err != nil:
			return err
		case asJSON:
			return a.printJSON(backlog)
		}
		printBacklog(a.out, backlog)
		return nil
	}
	s := newScreen(a.err)
	defer s.clear()
	out := struct {
		Rewrites []wire.OfflineRewrite `json:"rewrites"`
	}{[]wire.OfflineRewrite{}}
	err = compactor.Run(ctx, tables, func(p lake.PlannedRewrite) {
		s.show(fmt.Sprintf("%s: %s, %s: %s", p.Table, count(p.Files, "file"), listen.Size(p.Bytes), p.Reason))
	}, func(r wire.OfflineRewrite) {
		s.clear()
		r.State = "done"
		out.Rewrites = append(out.Rewrites, r)
		if !asJSON {
			fmt.Fprintf(a.out, "%s: %s, %s, made one of %s rows in %.1f s: %s\n", r.Table, count(r.Files, "file"), listen.Size(r.Bytes), listen.Count(r.Rows), r.Seconds, r.Reason)
		}
	})
	s.clear()
	switch {
	case err != nil:
		return err
	case asJSON:
		return a.printJSON(out)
	case len(out.Rewrites) == 0:
		fmt.Fprintln(a.out, "there is nothing to rewrite")
	}
	return nil
}

func printBacklog(out io.Writer, b lake.Backlog) {
	if len(b.Rewrites) == 0 {
		fmt.Fprintln(out, "there is nothing to rewrite")
		return
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tSTATE\tFILES\tSIZE\tWHY")
	for _, r := range b.Rewrites {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", r.Table, r.State, r.Files, listen.Size(r.Bytes), r.Reason)
	}
	_ = t.Flush() // to out, as above
}

package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/lake"
	"firn/wal"
)

// view is the lake at one epoch.
type view struct {
	Asked string    `json:"asked"`
	Epoch uint64    `json:"epoch"`
	LSN   wal.LSN   `json:"lsn"`
	Time  time.Time `json:"time"`
	Entry uint64    `json:"entry"`
	// Exact: the moment lies in that epoch. Else it lies in one of Thinned epochs
	// that are no longer kept, or after the newest commit that the lake has seen.
	Exact   bool        `json:"exact"`
	Thinned uint64      `json:"thinned_epochs,omitempty"`
	Tables  []viewTable `json:"tables"`
	// Stale are those of Tables that show less than the epoch's LSN.
	Stale []staleTable `json:"stale_tables,omitempty"`
}

type viewTable struct {
	Name       string `json:"name"`
	SnapshotID int64  `json:"snapshot_id"`
	Metadata   string `json:"metadata"`
}

func asofCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "asof MOMENT [TABLE]…",
		Short: "Tell every table's snapshot at an LSN, a time or a tag",
		Long: `Tells which snapshot of each table shows Postgres as it stood at a moment: an
LSN (16/B374D848), a time (RFC 3339, Postgres' commit time), a tag (firn tag) or
latest. All tables are of one epoch, the newest kept one that is not after the
moment; where the moment's own epoch has been thinned out, that is said, and so
are the tables that were not up to date in it, with the LSN that they show.`,
		Example: `  firn asof 2026-11-23T02:00:00Z --warehouse ./lake
  firn asof 16/B374D848 public.orders --warehouse ./lake --json`,
		Args: cobra.MinimumNArgs(1),
	}
	flags := config.NewFlags(cmd.Flags(), "warehouse", "s3-endpoint")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := catalog.ParseMoment(args[0])
		if err != nil {
			return &usageError{text: err.Error()}
		}
		w, err := a.readLake(cmd.Context(), flags)
		if err != nil {
			return err
		}
		s, err := w.log.AsOf(cmd.Context(), m)
		switch {
		case m.Tag != "" && errors.Is(err, catalog.ErrNotKept):
			return &usageError{text: fmt.Sprintf("%s is no moment, and there is no such tag: want an LSN such as 16/B374D848, a time such as 2026-11-23T02:00:00Z, a tag (firn tag lists them) or latest", args[0])}
		case err != nil:
			return fmt.Errorf("find the lake as of %s: %w", args[0], err)
		}
		v, err := viewOf(s, args[0], args[1:])
		if err != nil {
			return err
		}
		answer, err := w.log.Head().Answer(m)
		if err != nil {
			return fmt.Errorf("find the lake as of %s: %w", args[0], err)
		}
		v.Exact, v.Thinned = answer.Exact(), answer.Thinned
		if *asJSON {
			return a.printJSON(v)
		}
		fmt.Fprintf(a.out, "epoch %d at %s, committed %s\n", v.Epoch, v.LSN, moment(v.Time))
		switch {
		case answer.Thinned > 0:
			fmt.Fprintf(a.out, "note: the %s after it are no longer kept, and %s may lie in one of them\n", count(int(answer.Thinned), "epoch"), args[0])
		case answer.Ahead:
			fmt.Fprintln(a.out, "note: that is the newest commit that the lake has seen; later ones before the moment would not be in it")
		}
		noteStale(a.out, v.Stale)
		fmt.Fprintln(a.out)
		t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "TABLE\tSNAPSHOT\tMETADATA")
		for _, x := range v.Tables {
			fmt.Fprintf(t, "%s\t%d\t%s\n", x.Name, x.SnapshotID, x.Metadata)
		}
		return t.Flush()
	}
	return cmd
}

func viewOf(s *catalog.State, asked string, names []string) (*view, error) {
	v := &view{Asked: asked, Epoch: s.Epoch, LSN: s.LSN, Time: s.CommitTime, Entry: s.Number, Tables: []viewTable{}, Stale: staleTables(s, names...)}
	if len(names) == 0 {
		for id, t := range s.Tables() {
			v.Tables = append(v.Tables, viewTable{id.String(), t.SnapshotID, t.Metadata})
		}
		return v, nil
	}
	for _, name := range names {
		id, t, err := find(s, name)
		if err != nil {
			return nil, &lake.Refusal{Code: exitUsage, Text: fmt.Sprintf("There was no table %s in the lake at %s", name, s.LSN), Fix: "Names are schema.table, as `firn asof` lists them."}
		}
		v.Tables = append(v.Tables, viewTable{id.String(), t.SnapshotID, t.Metadata})
	}
	return v, nil
}

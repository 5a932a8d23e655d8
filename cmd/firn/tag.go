package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/wal"
)

// namedEpoch is a tag as it is printed.
type namedEpoch struct {
	Name      string    `json:"name"`
	Warehouse string    `json:"warehouse"` // what readers attach
	Epoch     uint64    `json:"epoch"`
	LSN       wal.LSN   `json:"lsn"`
	Time      time.Time `json:"time"` // of the last Postgres commit in it
	Entry     uint64    `json:"entry"`
	Created   time.Time `json:"created"`
	// Stale tables show less than the epoch's LSN. Told of a tag that is made.
	Stale []staleTable `json:"stale_tables,omitempty"`
}

func tagCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag [NAME]",
		Short: "Keep an epoch by name, for as long as the name is there",
		Long: `Names the epoch of a moment, by default the newest: all tables as Postgres stood at
one commit (a table that was not up to date then is named, with the LSN that it
shows instead). Old epochs are thinned out by age (by default, after an hour one an
hour is left, after two days one a day), so tag a moment that matters soon after
it; a named epoch stays until its tag is deleted. A moment whose epoch is gone already is
refused, unless --nearest takes the one before it. A tag never moves. Without
NAME, all tags are listed.

Readers attach a tagged epoch, read-only, as warehouse "shop@NAME". A moment is
an LSN (16/B374D848), a time (RFC 3339, Postgres' commit time), another tag, or
latest. It works beside a running firn, and without one. With the next epoch the
tag is an Iceberg tag of each mirrored table, too.`,
		Example: `  firn tag before-upgrade --warehouse ./lake
  firn tag close-of-day --at 2026-11-23T22:00:00Z --warehouse s3://lake/shop
  firn tag --json --warehouse ./lake
  firn tag before-upgrade --delete --warehouse ./lake`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := config.NewFlags(cmd.Flags(), "warehouse", "s3-endpoint")
	at := cmd.Flags().String("at", "latest", "the moment to name: an LSN, a time, a tag or latest")
	nearest := cmd.Flags().Bool("nearest", false, "where the moment's epoch is no longer kept, or is not over yet: name the one before it")
	remove := cmd.Flags().Bool("delete", false, "delete the tag; its epoch is then thinned out like any other")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		moved := cmd.Flags().Changed("at") || *nearest
		switch {
		case len(args) == 0 && (moved || *remove):
			return &usageError{text: "--at, --nearest and --delete want the name of a tag: firn tag NAME"}
		case moved && *remove:
			return &usageError{text: "--at and --delete can't go together: a tag is deleted by its name"}
		}
		m, err := catalog.ParseMoment(*at)
		if err != nil {
			return &usageError{text: "--at: " + err.Error()}
		}
		if len(args) == 1 && !*remove {
			if err := catalog.CheckTagName(args[0]); err != nil {
				return &usageError{text: err.Error()}
			}
		}
		w, err := a.readLake(cmd.Context(), flags)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return a.listTags(w, *asJSON)
		}
		if *remove {
			return a.untag(cmd.Context(), w, args[0], *asJSON)
		}
		return a.tag(cmd.Context(), w, args[0], m, *nearest, *asJSON)
	}
	return cmd
}

func (a *app) tag(ctx context.Context, w *warehouse, name string, m catalog.Moment, nearest, asJSON bool) error {
	make := w.log.Tag
	if nearest {
		make = w.log.TagNearest
	}
	t, err := make(ctx, name, m)
	switch {
	case errors.Is(err, catalog.ErrThinned):
		return &usageError{text: err.Error() + ". --nearest names it; `firn snapshots` lists the epochs that are kept"}
	case errors.Is(err, catalog.ErrNotYet) && m.LSN == 0:
		return &usageError{text: err.Error() + ". Without --at the newest epoch is named"}
	case errors.Is(err, catalog.ErrTagTaken):
		return &usageError{text: err.Error() + ". A tag does not move: choose another name, or delete it first with --delete"}
	case errors.Is(err, catalog.ErrNotKept) && m.Tag != "":
		return &usageError{text: fmt.Sprintf("--at %s: want an LSN such as 16/B374D848, a time such as 2026-11-23T02:00:00Z, latest, or a tag that `firn tag` lists", m)}
	case errors.Is(err, catalog.ErrNotKept):
		return &usageError{text: err.Error() + ". `firn snapshots` lists the epochs that can be named"}
	case errors.Is(err, catalog.ErrNotYet):
		return fmt.Errorf("%w; `firn wait --lsn %s` returns when it has", err, m)
	case err != nil:
		return fmt.Errorf("tag %s: %w", name, err)
	}
	s, err := w.log.Entry(ctx, t.Number)
	if err != nil {
		return fmt.Errorf("read the epoch that %s names now: %w", name, err)
	}
	x := w.named(name, t)
	x.Stale = staleTables(s)
	if asJSON {
		return a.printJSON(x)
	}
	fmt.Fprintf(a.out, "%s is epoch %d at %s, committed %s; readers attach it as warehouse %q\n", name, x.Epoch, x.LSN, moment(x.Time), x.Warehouse)
	noteStale(a.out, x.Stale)
	return nil
}

func (a *app) untag(ctx context.Context, w *warehouse, name string, asJSON bool) error {
	t, err := w.log.Untag(ctx, name)
	switch {
	case errors.Is(err, catalog.ErrNoTag):
		return &usageError{text: err.Error() + "; `firn tag` lists them"}
	case err != nil:
		return fmt.Errorf("delete tag %s: %w", name, err)
	}
	x := w.named(name, t)
	if asJSON {
		return a.printJSON(x)
	}
	fmt.Fprintf(a.out, "deleted tag %s, which was epoch %d at %s, committed %s\n", name, x.Epoch, x.LSN, moment(x.Time))
	return nil
}

func (a *app) listTags(w *warehouse, asJSON bool) error {
	list := []namedEpoch{}
	for name, t := range w.log.Head().Tags() {
		list = append(list, w.named(name, t))
	}
	if asJSON {
		return a.printJSON(list)
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TAG\tEPOCH\tLSN\tCOMMITTED\tWAREHOUSE")
	for _, x := range list {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", x.Name, x.Epoch, x.LSN, moment(x.Time), x.Warehouse)
	}
	return t.Flush()
}

func (w *warehouse) named(name string, t catalog.Tag) namedEpoch {
	return namedEpoch{Name: name, Warehouse: w.name() + "@" + name, Epoch: t.Epoch, LSN: t.LSN, Time: t.Time, Entry: t.Number, Created: t.Created}
}

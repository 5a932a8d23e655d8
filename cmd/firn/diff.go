package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/lake/audit"
)

func diffCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff TABLE --from MOMENT [--to MOMENT]",
		Short: "List the rows that were inserted, updated and deleted between two epochs",
		Long: `Lists what became of one table's rows between two epochs, from the lake's files
alone: neither Postgres nor an engine is asked, and files that did not change are
not read. A moment is, as for firn asof, an LSN (16/B374D848), a time (RFC 3339,
Postgres' commit time), a tag or latest; it stands for the newest kept epoch at
or before it, and the answer says which that is.

Rows are matched by the table's key: on both sides with other values is updated.
Without a key an update is a row deleted and one inserted. Columns are those at
--to; one that was added since counts as NULL before, and one that was dropped is
left out, as a note says.

Formats, whose rows come in no order that means anything:
  text     for people, + inserted, - deleted, ~ updated, long values cut
  json     an object a line: the two epochs, then {"change":"inserted|updated|
           deleted","old":{…},"new":{…}} for each row, and last the counts.
           Decimals are strings, times ISO 8601, binary hexadecimal
  parquet  the table's columns after _change_type: INSERT, DELETE, UPDATE_BEFORE
           and UPDATE_AFTER (two rows of one key)

Memory is bounded: where many rows differ they pass through unnamed files in the
folder for temporary files (TMPDIR). The exit code is 0 whether rows differ or not.`,
		Example: `  firn diff public.orders --from 2026-11-22T00:00:00Z --to 2026-11-23T00:00:00Z --warehouse ./lake
  firn diff public.orders --from before-upgrade --json --warehouse s3://lake/shop
  firn diff public.orders --from 16/B374D848 --format parquet --output changes.parquet --warehouse ./lake`,
		Args: cobra.ExactArgs(1),
	}
	flags := config.NewFlags(cmd.Flags(), "warehouse", "s3-endpoint")
	var o diffOutput
	from := cmd.Flags().String("from", "", "the first moment")
	to := cmd.Flags().String("to", "latest", "the second moment")
	cmd.Flags().StringVar(&o.format, "format", "text", "text, json or parquet")
	asJSON := cmd.Flags().Bool("json", false, "print JSON: --format json")
	cmd.Flags().StringVar(&o.file, "output", "", "write to this file, which it replaces; needed for parquet")
	cmd.Flags().Int64Var(&o.limit, "limit", 100, "list this many rows as text; 0: all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *asJSON {
			if cmd.Flags().Changed("format") && o.format != "json" {
				return &usageError{text: "--json and --format " + o.format + " can't go together"}
			}
			o.format = "json"
		}
		if err := o.check(cmd.Flags().Changed("limit")); err != nil {
			return err
		}
		if *from == "" {
			return &usageError{text: "--from: want the first moment, an LSN, a time or a tag"}
		}
		w, err := a.readLake(cmd.Context(), flags)
		if err != nil {
			return err
		}
		d, err := w.diff(cmd.Context(), a, args[0], *from, *to)
		if err != nil {
			return err
		}
		return o.write(cmd.Context(), a, d)
	}
	return cmd
}

// diff opens the difference of a table between two moments.
func (w *warehouse) diff(ctx context.Context, a *app, name, from, to string) (*audit.Diff, error) {
	o := audit.DiffOptions{Store: w.store, Logger: a.warnings()}
	found := false
	point := func(flag, text string) (audit.Point, error) {
		m, err := catalog.ParseMoment(text)
		if err != nil {
			return audit.Point{}, &usageError{text: flag + ": " + err.Error()}
		}
		s, err := w.log.AsOf(ctx, m)
		switch {
		case m.Tag != "" && errors.Is(err, catalog.ErrNotKept):
			return audit.Point{}, &usageError{text: fmt.Sprintf("%s: %s is no moment: want an LSN such as 16/B374D848, a time such as 2026-11-23T02:00:00Z, a tag, or latest", flag, text)}
		case err != nil:
			return audit.Point{}, fmt.Errorf("find the lake as of %s: %w", text, err)
		}
		p := audit.Point{Epoch: s.Epoch, LSN: s.LSN, Time: s.CommitTime}
		if id, t, err := find(s, name); err == nil {
			o.Table, p.Table, found = id, &t, true
		}
		return p, nil
	}
	var err error
	if o.From, err = point("--from", from); err != nil {
		return nil, err
	}
	if o.To, err = point("--to", to); err != nil {
		return nil, err
	}
	if !found {
		return nil, &usageError{text: fmt.Sprintf("there is no table %s in the lake, neither at %s nor at %s; `firn asof latest` lists them, as schema.table", name, from, to)}
	}
	d, err := audit.OpenDiff(ctx, o)
	if errors.Is(err, audit.ErrBackwards) {
		return nil, &usageError{text: fmt.Sprintf("--from %s is after --to %s; swap them", from, to)}
	}
	return d, err
}

// diffOutput says where differences go, and how.
type diffOutput struct {
	format, file string
	limit        int64
}

func (o *diffOutput) check(limited bool) error {
	switch {
	case o.format != "text" && o.format != "json" && o.format != "parquet":
		return &usageError{text: "--format: want text, json or parquet"}
	case o.format == "parquet" && o.file == "":
		return &usageError{text: "--format parquet wants a file: --output FILE"}
	case o.limit < 0:
		return &usageError{text: "--limit: want a number of rows, 0 for all"}
	case limited && o.format != "text":
		return &usageError{text: "--limit is for text; the other formats have every row"}
	}
	return nil
}

func (o *diffOutput) write(ctx context.Context, a *app, d *audit.Diff) error {
	if o.file == "" {
		out := bufio.NewWriter(a.out)
		_, err := o.rows(ctx, d, out)
		return errors.Join(err, out.Flush())
	}
	// Under a name of its own until it is whole.
	f, err := os.Create(o.file + ".part")
	if err != nil {
		return &usageError{text: "--output: " + err.Error()}
	}
	counts, err := o.rows(ctx, d, f)
	// The Parquet writer closes it; of closing it twice nothing is to be told.
	if cerr := f.Close(); cerr != nil && !errors.Is(cerr, os.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	if err == nil {
		err = os.Rename(f.Name(), o.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	for _, note := range d.Notes {
		a.say("note: %s", note)
	}
	_, err = fmt.Fprintf(a.out, "%s from %s to %s\n%s, written to %s\n", d.Table, d.From, d.To, counts, o.file)
	return err
}

func (o *diffOutput) rows(ctx context.Context, d *audit.Diff, out io.Writer) (audit.Counts, error) {
	switch o.format {
	case "json":
		return d.WriteJSON(ctx, out)
	case "parquet":
		return d.WriteParquet(ctx, out)
	}
	return d.WriteText(ctx, out, o.limit)
}

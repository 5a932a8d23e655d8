package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/lake/audit"
	"firn/wal"
	"firn/wal/slot"
)

func verifyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [TABLE]…",
		Short: "Compare the lake with Postgres, row by row, at one LSN",
		Long: `Compares every table (or those named) with Postgres at one LSN: columns, number
of rows, and a checksum of all rows. Neither Postgres nor firn is stopped: a
temporary replication slot exports a snapshot of Postgres, and the running firn
cuts an epoch at just that LSN. Postgres turns its values into text itself, and
iceberg-go reads the lake, so nothing that wrote the lake judges it.

Where rows differ their keys are listed. Exit code 6 says that something
differs, 1 that a named table, or every table, could not be compared.`,
		Example: `  firn verify --postgres postgres://firn@127.0.0.1/shop --warehouse ./lake
  firn verify public.orders --json --config firn.yaml`,
	}
	flags := config.NewFlags(cmd.Flags(), "postgres", "warehouse", "s3-endpoint", "tables")
	firn := runningFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	keys := cmd.Flags().Int("keys", 20, "list this many differing rows of each kind")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := flags.Read()
		if err != nil {
			return err
		}
		if *keys < 1 {
			return &usageError{text: "--keys: want a number from 1 on"}
		}
		if flags.ShowsPassword() {
			a.say("warning: the password in --postgres is visible to every user of this machine (ps); use FIRN_POSTGRES, PGPASSWORD or ~/.pgpass")
		}
		report, err := a.verify(cmd.Context(), c, firn, args, *keys)
		if err != nil {
			return err
		}
		if *asJSON {
			err = a.printJSON(report)
		} else {
			err = a.printReport(report)
		}
		if err != nil {
			return err
		}
		return a.verdict(report, len(args) > 0)
	}
	return cmd
}

// verify compares, beside the firn that runs, if one does.
func (a *app) verify(ctx context.Context, c *config.Config, firn *running, tables []string, keys int) (*audit.Report, error) {
	for _, check := range []func() error{c.NeedPostgres, c.NeedWarehouse} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	logger := a.warnings()
	w, err := openLake(ctx, c, logger)
	if err != nil {
		return nil, err
	}
	name, publication, err := w.names()
	if err != nil {
		return nil, err
	}
	src, err := slot.Open(ctx, slot.Options{URL: c.Postgres, Slot: name, Publication: publication, Logger: logger, ApplicationName: "firn verify",
		Append: func(t wal.TableName) bool { return c.Settings(t.Schema, t.Name).Mode == config.Append }})
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer src.Close()
	o := audit.Options{Source: src, SlotName: name, Log: w.log, Store: w.store, Patterns: c.Tables, Only: tables, KeysMax: keys, Logger: logger}
	if err := findMirror(ctx, firn, name, &o); err != nil {
		return nil, err
	}
	if o.Mirror == nil {
		a.say("no firn of this lake answers at %s: comparing what there is", firn.url)
	}
	report, err := audit.Verify(ctx, o)
	switch {
	case errors.Is(err, audit.ErrNoTable):
		return nil, &usageError{text: err.Error()}
	case errors.Is(err, audit.ErrOtherSource):
		return nil, &lake.Refusal{Code: exitDiverged, Text: err.Error(), Fix: "Check --postgres and --warehouse."}
	}
	return report, err
}

// findMirror asks whether the firn of this lake runs: the one whose slot has
// its name.
func findMirror(ctx context.Context, firn *running, slotName string, o *audit.Options) error {
	var st listen.Status
	if err := firn.ask(ctx, "GET", "/status", nil, &st); err != nil {
		var usage *usageError
		if errors.As(err, &usage) || ctx.Err() != nil {
			return err
		}
		return nil // the slot tells whether one runs elsewhere
	}
	if st.Database == "" || st.Slot != slotName {
		return nil
	}
	o.Mirror = firn
	o.Standing = standings(st.Tables)
	return nil
}

// standings says why tables can't be compared.
func standings(tables []lake.TableStatus) map[string]string {
	out := map[string]string{}
	for _, t := range tables {
		if t.State != lake.Streaming {
			out[t.Name] = t.State
			if t.Reason != "" {
				out[t.Name] += ": " + t.Reason
			}
		}
	}
	return out
}

// Hold asks the running firn to hold its stream.
func (r *running) Hold(ctx context.Context) error {
	var at listen.Position
	return r.ask(ctx, "POST", "/hold", nil, &at)
}

// Cut asks the running firn for an epoch at an LSN.
func (r *running) Cut(ctx context.Context, lsn wal.LSN) (wal.LSN, uint64, error) {
	var at listen.Position
	err := r.ask(ctx, "POST", "/cut", url.Values{"lsn": {lsn.String()}}, &at)
	return at.LSN, at.Epoch, err
}

// verdict is the end that a report means.
func (a *app) verdict(r *audit.Report, named bool) error {
	switch {
	case r.Count(audit.Different) > 0:
		a.say("the lake differs from Postgres. Columns that differ come right with the table's next change of a row. Rows that differ mean that somebody else changed the lake, or a fault of firn: keep this report, and begin a new lake by `firn teardown --lake` or in another --warehouse")
		return &saidError{code: exitDiffers}
	case r.Count(audit.Failed) > 0:
		return fmt.Errorf("%s could not be read", count(r.Count(audit.Failed), "table"))
	case named && r.Count(audit.Unchecked) > 0, r.Count(audit.Equal) == 0:
		return fmt.Errorf("%s could not be compared; the report says why", count(r.Count(audit.Unchecked), "table"))
	}
	return nil
}

func (a *app) printReport(r *audit.Report) error {
	fmt.Fprintf(a.out, "Postgres and the lake (epoch %d) at %s\n\n", r.Epoch, r.LSN)
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tRESULT\tROWS IN POSTGRES\tROWS IN THE LAKE\tCHECKSUM\tREASON")
	for _, x := range r.Tables {
		sums := x.Postgres.Checksum
		switch {
		case x.Postgres.Checksum == "":
			fmt.Fprintf(t, "%s\t%s\t\t\t\t%s\n", x.Name, x.Result, x.Reason)
			continue
		case sums != x.Lake.Checksum:
			sums += " ≠ " + x.Lake.Checksum
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.Name, x.Result, listen.Count(x.Postgres.Rows), listen.Count(x.Lake.Rows), sums, x.Reason)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	for _, x := range r.Tables {
		if x.Result == audit.Different {
			a.printDifferences(x)
		}
	}
	text := fmt.Sprintf("\n%d equal, %d different", r.Count(audit.Equal), r.Count(audit.Different))
	if n := r.Count(audit.Unchecked) + r.Count(audit.Failed); n > 0 {
		text += fmt.Sprintf(", %d not compared", n)
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}

func (a *app) printDifferences(x audit.TableReport) {
	fmt.Fprintf(a.out, "\n%s differs:\n", x.Name)
	for _, line := range x.Schema {
		fmt.Fprintf(a.out, "  %s\n", line)
	}
	if x.Rows == nil {
		return
	}
	atLeast := ""
	if !x.Rows.Complete {
		atLeast = "at least "
	}
	for _, k := range []struct {
		what string
		audit.Kind
	}{{"only in Postgres", x.Rows.OnlyPostgres}, {"only in the lake", x.Rows.OnlyLake}, {"different", x.Rows.Changed}} {
		if k.Count == 0 {
			continue
		}
		fmt.Fprintf(a.out, "  %s%d %s:\n", atLeast, k.Count, k.what)
		for _, key := range k.Keys {
			fmt.Fprintf(a.out, "    %s\n", key)
		}
		if more := k.Count - int64(len(k.Keys)); more > 0 {
			fmt.Fprintf(a.out, "    and %d more\n", more)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/listen"
	"firn/lake"
)

func statusCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how a running firn is: lag, epoch, and each table's state",
		Long: `Says how a running firn is: how far the lake is behind Postgres (lag), its newest
epoch (all tables at one commit), what there is to compact, and each table's
state:
  loading      its rows are being copied; readers see it once that is done
  streaming    it follows the changes
  behind       it is older than the others for a moment, while firn reads what
               another engine has committed to it
  skipped      it can't be mirrored, for the reason beside it
  quarantined  it has stopped, for the reason beside it, while the others go on`,
		Example: `  firn status
  firn status --json | jq '.tables[] | select(.state == "quarantined")'`,
		Args: cobra.NoArgs,
	}
	firn := runningFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON, as /status has it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *asJSON {
			var raw json.RawMessage
			if err := firn.ask(cmd.Context(), "GET", "/status", nil, &raw); err != nil {
				return err
			}
			return a.printJSON(raw)
		}
		var st listen.Status
		if err := firn.ask(cmd.Context(), "GET", "/status", nil, &st); err != nil {
			return err
		}
		a.printStatus(st)
		return nil
	}
	return cmd
}

func (a *app) printStatus(st listen.Status) {
	if st.Database != "" {
		fmt.Fprintf(a.out, "%s → %s (warehouse %q)\n", st.Database, st.Location, st.Warehouse)
	} else {
		fmt.Fprintf(a.out, "catalog of %s (warehouse %q)\n", st.Location, st.Warehouse)
	}
	switch {
	case st.Outage != "":
		fmt.Fprintf(a.out, "interrupted: %s\n", st.Outage)
	case st.Database == "":
	case st.Ready:
		fmt.Fprintln(a.out, "streaming")
	case st.Running:
		fmt.Fprintln(a.out, "streaming, but not every table yet")
	default:
		fmt.Fprintln(a.out, "starting")
	}
	fmt.Fprintf(a.out, "epoch %d at %s", st.Epoch, st.DurableLSN)
	if st.Database != "" {
		fmt.Fprintf(a.out, "; lag %s, oldest waiting commit %.1f s", listen.Size(st.LagBytes), st.Freshness)
	}
	fmt.Fprintln(a.out)
	if st.RetainedWALBytes >= 0 {
		limit := "no limit"
		if st.RetainedWALLimitBytes >= 0 {
			limit = "limit " + listen.Size(st.RetainedWALLimitBytes)
		}
		fmt.Fprintf(a.out, "slot %s keeps %s of WAL (%s)\n", st.Slot, listen.Size(st.RetainedWALBytes), limit)
	}
	for _, w := range st.Waiters {
		fmt.Fprintf(a.out, "waits for us: %s\n", w)
	}
	if line := rewriteLine(st); line != "" {
		fmt.Fprintln(a.out, line)
	}
	fmt.Fprintln(a.out)
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tSTATE\tROWS\tSIZE\tDATA\tDELETES\tREWRITES\tLSN\tREASON")
	for _, x := range st.Tables {
		rows := x.Rows
		if x.LoadRows > 0 && x.State != "streaming" {
			rows = x.LoadRows
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", x.Name, x.State, listen.Count(rows), listen.Size(x.Bytes), x.DataFiles, x.DeleteFiles, rewritesOf(x.Compaction), x.LSN, x.Reason)
	}
	_ = t.Flush() // to out: as with every Fprint above, a pipe that is closed reads nothing
}

// rewritesOf says what is rewritten of a table, and is to be.
func rewritesOf(c lake.Compaction) string {
	var parts []string
	if c.RunningFiles > 0 {
		parts = append(parts, fmt.Sprintf("%s running", count(c.RunningFiles, "file")))
	}
	if c.PlannedFiles > 0 {
		parts = append(parts, fmt.Sprintf("%s (%s) planned", count(c.PlannedFiles, "file"), listen.Size(c.PlannedBytes)))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// rewriteLine says how rewrites fare beside the stream; empty: there were none.
func rewriteLine(st listen.Status) string {
	var all lake.Compaction
	for _, t := range st.Tables {
		all.WrittenBytes += t.Compaction.WrittenBytes
		all.RewrittenBytes += t.Compaction.RewrittenBytes
		all.RewrittenRows += t.Compaction.RewrittenRows
	}
	if st.Rewrites == 0 && all.RewrittenRows == 0 {
		return ""
	}
	line := fmt.Sprintf("rewrote %s rows", listen.Count(all.RewrittenRows))
	if a := all.WriteAmplification(); a > 0 {
		line += fmt.Sprintf(", %.1f bytes written for each that landed", a)
	}
	if st.Rewrites > 0 {
		line += fmt.Sprintf("; %s with %d %% of a processor", count(st.Rewrites, "rewrite"), st.RewriteShare)
		if st.RewriteShare <= lake.ShareBehind {
			line += ", for the stream goes first"
		}
	}
	return line
}

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/spf13/cobra"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
)

func snapshotsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshots [TABLE]",
		Short: "List the epochs that the lake still shows, or one table's snapshots",
		Long: `Lists the epochs that the lake still shows. An epoch is every table at one commit
of Postgres: its LSN, and when that was committed. Old ones are thinned out by
age (retention in firn.yaml); those with a tag stay. Readers attach any of them,
read-only, as warehouse "shop@LSN", "shop@TIME" or "shop@TAG".

With TABLE, lists that table's Iceberg snapshots instead, which engines know by
their id.`,
		Example: `  firn snapshots --warehouse ./lake
  firn snapshots public.orders --warehouse s3://lake/shop --json`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := config.NewFlags(cmd.Flags(), "warehouse", "s3-endpoint")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w, err := a.readLake(cmd.Context(), flags)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			list, err := w.snapshots(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return a.printJSON(list)
			}
			printSnapshots(a.out, list)
			return nil
		}
		epochs := keptEpochs(w.log.Head())
		if *asJSON {
			if err := w.addStale(cmd.Context(), epochs); err != nil {
				return err
			}
			return a.printJSON(epochs)
		}
		t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "EPOCH\tLSN\tCOMMITTED\tENTRY\tTAGS")
		for _, k := range epochs {
			fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\n", k.Epoch, k.LSN, moment(k.Time), k.Number, strings.Join(k.Tags, " "))
		}
		return t.Flush()
	}
	return cmd
}

// keptEpoch is an epoch that the lake answers for, with the tags that keep it.
type keptEpoch struct {
	catalog.Kept
	Tags  []string     `json:"tags,omitempty"`
	Stale []staleTable `json:"stale_tables,omitempty"` // which show less than its LSN
}

func keptEpochs(s *catalog.State) []keptEpoch {
	tags := map[uint64][]string{}
	for name, t := range s.Tags() {
		tags[t.Number] = append(tags[t.Number], name)
	}
	out := []keptEpoch{}
	for _, k := range s.Epochs() {
		out = append(out, keptEpoch{Kept: k, Tags: tags[k.Number]})
	}
	return out
}

// readLake opens the lake of a command that only reads.
func (a *app) readLake(ctx context.Context, flags *config.Flags) (*warehouse, error) {
	c, err := flags.Read()
	if err != nil {
		return nil, err
	}
	if err := c.NeedWarehouse(); err != nil {
		return nil, err
	}
	return openLake(ctx, c, a.warnings())
}

// warnings is the logger of commands whose answer is what they print.
func (a *app) warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000Z")
}

// find returns a table by its name as status prints it.
func find(s *catalog.State, name string) (catalog.Ident, catalog.Table, error) {
	for id, t := range s.Tables() {
		if id.String() == name {
			return id, t, nil
		}
	}
	return catalog.Ident{}, catalog.Table{}, &usageError{text: fmt.Sprintf("there is no table %s in this lake; `firn asof latest` lists them, as schema.table", name)}
}

// tableSnapshot is one snapshot in a table's metadata.
type tableSnapshot struct {
	SnapshotID int64     `json:"snapshot_id"`
	Time       time.Time `json:"time"` // of the last Postgres commit in it
	LSN        string    `json:"lsn,omitempty"`
	Epoch      string    `json:"epoch,omitempty"`
	Kind       string    `json:"kind,omitempty"`
	Operation  string    `json:"operation"`
	Rows       int64     `json:"rows"` // live
	Files      int64     `json:"data_files"`
	Current    bool      `json:"current"`
}

func (w *warehouse) snapshots(ctx context.Context, name string) ([]tableSnapshot, error) {
	_, t, err := find(w.log.Head(), name)
	if err != nil {
		return nil, err
	}
	key, ok := w.store.Key(t.Metadata)
	if !ok {
		return nil, fmt.Errorf("read metadata of %s: %s lies outside the warehouse", name, t.Metadata)
	}
	data, err := w.store.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read metadata of %s: %w", name, err)
	}
	meta, err := table.ParseMetadataBytes(data)
	if err != nil {
		return nil, fmt.Errorf("read metadata of %s: %w", name, err)
	}
	out := []tableSnapshot{}
	for _, s := range meta.Snapshots() {
		x := tableSnapshot{SnapshotID: s.SnapshotID, Time: time.UnixMilli(s.TimestampMs).UTC(), Current: s.SnapshotID == t.SnapshotID}
		if s.Summary != nil {
			p := s.Summary.Properties
			x.Operation, x.LSN, x.Epoch, x.Kind = string(s.Summary.Operation), p["firn.lsn"], p["firn.epoch"], p["firn.kind"]
			x.Rows = number(p["total-records"]) - number(p["total-position-deletes"])
			x.Files = number(p["total-data-files"])
		}
		out = append(out, x)
	}
	return out, nil
}

// number reads a summary's number; a missing one is 0.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func printSnapshots(out io.Writer, list []tableSnapshot) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SNAPSHOT\tCOMMITTED\tLSN\tEPOCH\tKIND\tOPERATION\tROWS\tDATA FILES")
	for _, s := range list {
		mark := ""
		if s.Current {
			mark = " (current)"
		}
		fmt.Fprintf(t, "%d%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", s.SnapshotID, mark, moment(s.Time), s.LSN, s.Epoch, s.Kind, s.Operation, listen.Count(s.Rows), s.Files)
	}
	_ = t.Flush() // to out, as above
}

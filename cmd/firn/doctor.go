package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/lake/object"
	"firn/lake/snapshot"
	"firn/wal"
	"firn/wal/slot"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, note, warning or problem
	Text   string `json:"text"`
	Fix    string `json:"fix,omitempty"`
}

func doctorCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at database and warehouse, and say what would stop firn",
		Long: `Looks at the database, the warehouse or both for all that would stop firn or
surprise later, and says what to do. Nothing is changed in the database; in the
warehouse a few objects are written and removed, to prove that it keeps its
promises. The exit code is 3 if there is a problem.`,
		Example: `  firn doctor --postgres postgres://firn@127.0.0.1/shop --warehouse ./lake`,
		Args:    cobra.NoArgs,
	}
	flags := config.NewFlags(cmd.Flags(), "postgres", "warehouse", "s3-endpoint", "tables")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.Read()
		if err != nil {
			return err
		}
		if c.Postgres == "" && c.Warehouse == "" {
			return errors.Join(c.NeedPostgres(), c.NeedWarehouse())
		}
		d := &doctor{c: c, findings: []finding{}}
		if err := d.examine(cmd.Context(), a); err != nil {
			return err
		}
		if *asJSON {
			if err := a.printJSON(d.findings); err != nil {
				return err
			}
		} else {
			for _, f := range d.findings {
				fmt.Fprintf(a.out, "%-8s %s\n", f.Result, f.Text)
				if f.Fix != "" {
					fmt.Fprintf(a.out, "%-8s → %s\n", "", f.Fix)
				}
			}
		}
		if slices.ContainsFunc(d.findings, func(f finding) bool { return f.Result == resultProblem }) {
			return &saidError{code: exitPreflight}
		}
		return nil
	}
	return cmd
}

// Results of a finding.
const (
	resultOK      = "ok"
	resultNote    = "note"
	resultWarning = "warning"
	resultProblem = "problem"
)

type doctor struct {
	c        *config.Config
	findings []finding
}

func (d *doctor) add(check, result, fix, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, Result: result, Text: fmt.Sprintf(format, args...), Fix: fix})
}

// failed turns an error into a problem, with its own fix where it has one.
func (d *doctor) failed(check string, err error) {
	_, text := explain(err)
	d.add(check, resultProblem, "", "%s", text)
}

func (d *doctor) examine(ctx context.Context, a *app) error {
	var w *warehouse
	if d.c.Warehouse != "" {
		if err := d.c.NeedWarehouse(); err != nil {
			return err
		}
		w = d.warehouse(ctx, a)
	}
	if d.c.Postgres != "" {
		if err := d.c.NeedPostgres(); err != nil {
			return err
		}
		d.database(ctx, a, w)
	}
	return ctx.Err()
}

func (d *doctor) warehouse(ctx context.Context, a *app) *warehouse {
	folder, err := d.c.Folder()
	if err == nil && folder != "" {
		if _, serr := os.Stat(folder); errors.Is(serr, fs.ErrNotExist) {
			d.add("warehouse", resultNote, "", "Folder %s does not exist yet; firn run makes it", folder)
			return nil
		}
	}
	w, err := openWarehouse(ctx, d.c, a.warnings())
	if err != nil {
		d.failed("warehouse", err)
		return nil
	}
	if err := object.Probe(ctx, w.store); err != nil {
		d.failed("store", err)
	} else {
		d.add("store", resultOK, "", "The store at %s refuses a taken name and lists what was written, in order", d.c.Warehouse)
	}
	if head := w.log.Head(); head.CommitID == "" {
		d.add("lake", resultNote, "", "There is no lake yet")
	} else {
		d.add("lake", resultOK, "", "The lake is at epoch %d, %s, and has %s", head.Epoch, head.LSN, count(head.TableCount(), "table"))
	}
	return w
}

func (d *doctor) database(ctx context.Context, a *app, w *warehouse) {
	slotName, publication := d.c.Slot, d.c.Publication
	var err error
	if w != nil {
		if slotName, publication, err = w.names(); err != nil {
			d.failed("names", err)
			return
		}
	}
	slotName, publication = first(slotName, "firn"), first(publication, "firn")
	src, err := slot.Open(ctx, slot.Options{URL: d.c.Postgres, Slot: slotName, Publication: publication, Logger: a.warnings()})
	if err != nil {
		d.failed("connection", fmt.Errorf("connect to Postgres: %w", err))
		return
	}
	defer src.Close()
	v, err := src.Version(ctx)
	if err != nil {
		d.failed("connection", err)
		return
	}
	d.add("connection", resultOK, "", "Connected to %s, Postgres %d.%d", d.c.Address(), v/10000, v%10000)
	d.tables(ctx, src)
	if w != nil {
		d.slot(ctx, src, w, slotName)
	}
	d.keepSize(ctx)
}

func (d *doctor) tables(ctx context.Context, src *slot.Source) {
	tables, err := src.Tables(ctx, d.c.Tables)
	if err != nil {
		d.failed("tables", fmt.Errorf("list tables: %w", err))
		return
	}
	problems, err := src.Preflight(ctx, tables)
	if err != nil {
		d.failed("preflight", err)
	}
	for _, p := range problems {
		d.add(p.Check, resultProblem, p.Fix+".", "%s.", p.Text)
	}
	if err == nil && len(problems) == 0 {
		d.add("preflight", resultOK, "", "Settings and rights are as logical replication needs them")
	}
	usable := 0
	for i, t := range tables {
		name := t.Schema + "." + t.Name
		switch {
		case !t.Usable:
			d.add("table", resultWarning, "", "%s will be skipped: %s", name, t.Reason)
			continue
		case folds(t.Schema) || folds(t.Name):
			d.add("table", resultNote, "", "%s has capital letters in its name; engines that fold names may not find it", name)
		}
		if err := d.settings(&tables[i]); err != nil {
			d.add("settings", resultWarning, "Correct firn.yaml.", "What firn.yaml says of %s is not in force: %v", name, err)
		}
		usable++
	}
	if usable == 0 {
		d.add("tables", resultProblem, "Check --tables, and the database's name.", "No table can be mirrored (of %s that match)", count(len(tables), "table"))
		return
	}
	d.add("tables", resultOK, "", "%s can be mirrored", count(usable, "table"))
}

// settings checks what firn.yaml says of a table's columns.
func (d *doctor) settings(t *wal.Table) error {
	of := d.c.Settings(t.Schema, t.Name)
	if len(of.SortBy)+len(of.BloomFilters) == 0 {
		return nil
	}
	l, err := lake.NewLayout(t, nil, 0)
	if err != nil {
		return err
	}
	return errors.Join(of.SortBy.Check(l.Schema()), snapshot.BloomFilters(of.BloomFilters).Check(l.Schema()))
}

// slot compares slot and lake, as a start would.
func (d *doctor) slot(ctx context.Context, src *slot.Source, w *warehouse, name string) {
	head := w.log.Head()
	st, err := src.Slot(ctx)
	const anew = "Begin a new lake: `firn teardown`, or another --warehouse."
	var id slot.Identity
	if err == nil {
		id, err = src.Identify(ctx)
	}
	switch {
	case err != nil:
		d.failed("slot", err)
		return
	case head.Source == nil && st == nil:
		d.add("slot", resultOK, "", "Slot %s does not exist yet, and the lake is new", name)
		return
	case head.Source == nil || st == nil && head.Source.Phase == "creating":
		d.add("slot", resultWarning, "If no other lake uses it, drop it: `firn teardown`.", "Slot %s exists and the lake is new", name)
		return
	case head.Source.SystemID != id.SystemID || head.Source.Database != id.Database:
		d.add("slot", resultProblem, "Connect to that database, or choose another --warehouse.",
			"The lake mirrors database %s of cluster %s, and this is %s of %s", head.Source.Database, head.Source.SystemID, id.Database, id.SystemID)
		return
	case st == nil:
		d.add("slot", resultProblem, anew, "Slot %s is gone, and with it the changes since %s", name, head.LSN)
		return
	}
	if why, lost := st.Lost(); lost {
		d.add("slot", resultProblem, anew, "Slot %s is lost: %s", name, why)
		return
	}
	if st.ConfirmedFlush > head.LSN && !st.Active {
		d.add("slot", resultProblem, anew, "Slot %s stands at %s and the lake at %s: the changes between are lost", name, st.ConfirmedFlush, head.LSN)
		return
	}
	use := "nobody streams from it"
	if st.Active {
		use = fmt.Sprintf("in use by process %d", st.ActivePID)
	}
	d.add("slot", resultOK, "", "Slot %s is at %s (%s)", name, st.ConfirmedFlush, use)
	if r, err := src.RetainedWAL(ctx); err != nil {
		d.failed("retained_wal", err)
	} else if r.Bytes >= warnAt(r) {
		d.add("retained_wal", resultWarning, "Start firn, or `firn teardown` if it is not to run any more.", "Postgres keeps %s of WAL for slot %s", listen.Size(r.Bytes), name)
	}
}

// keepSize recommends a limit for the WAL that a slot may hold back: without
// one a firn that is down for long fills Postgres' disk.
func (d *doctor) keepSize(ctx context.Context) {
	conn, err := pgx.Connect(ctx, d.c.Postgres)
	if err != nil {
		d.failed("max_slot_wal_keep_size", fmt.Errorf("connect to Postgres: %w", err))
		return
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(end) // the answer is in
	}()
	var keep, largest int64
	err = conn.QueryRow(ctx, `
		SELECT CASE WHEN current_setting('max_slot_wal_keep_size') = '-1' THEN -1 ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END,
		       pg_size_bytes(current_setting('max_wal_size'))`).Scan(&keep, &largest)
	if err != nil {
		d.failed("max_slot_wal_keep_size", fmt.Errorf("read settings: %w", err))
		return
	}
	fix := fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dGB' and reload, if the disk of pg_wal has that much free: firn may then be down for that much WAL, and Postgres never stops for it.", recommendKeep(largest)>>30)
	switch {
	case keep < 0:
		d.add("max_slot_wal_keep_size", resultWarning, fix, "max_slot_wal_keep_size is not set: while firn is down, Postgres keeps WAL without a limit")
	case keep < largest:
		d.add("max_slot_wal_keep_size", resultWarning, fix, "max_slot_wal_keep_size is %s, less than max_wal_size (%s): a short outage of firn loses the slot", listen.Size(keep), listen.Size(largest))
	default:
		d.add("max_slot_wal_keep_size", resultOK, "", "max_slot_wal_keep_size is %s", listen.Size(keep))
	}
}

// recommendKeep is ten times what Postgres writes between two checkpoints at
// its busiest (max_wal_size), and 10 GB at least.
func recommendKeep(maxWALSize int64) int64 {
	const gb = 1 << 30
	return (max(10*gb, 10*maxWALSize) + gb - 1) / gb * gb
}

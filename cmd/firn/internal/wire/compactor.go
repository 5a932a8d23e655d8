package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"firn/catalog"
	"firn/lake"
	"firn/lake/object"
)

// Compactor rewrites the tables of a lake that no firn mirrors into at present,
// from the warehouse alone. To the log it is what another engine's optimizer
// would be: each rewrite is an entry that keeps LSN and epoch, and moves a table
// from the metadata that the rewrite was made of, or is not written. So a firn
// that is running all the same loses nothing by it, and brings its index up to
// what it finds; and once one has claimed the lake, nothing more is written.
type Compactor struct {
	log    *catalog.Log
	tables *Tables
	temp   string
	grace  time.Duration
	source catalog.Source // as it was at the start
	plan   func([]lake.LiveFile) []lake.RewritePlan
}

// OfflineRewrite is one that a Compactor has done.
type OfflineRewrite struct {
	lake.PlannedRewrite
	Rows    int64   `json:"rows"`
	Seconds float64 `json:"seconds"`
}

// OpenCompactor makes a Compactor of an open lake. grace is how long whoever
// removes unneeded files leaves them, 0: for ever.
func OpenCompactor(store object.Store, log *catalog.Log, grace time.Duration, logger *slog.Logger) (*Compactor, error) {
	head := log.Head()
	if head.Source == nil || head.Source.Phase != catalog.PhaseReady {
		return nil, &lake.Refusal{Code: lake.CodePreflight, Text: "The lake has not been born yet", Fix: "`firn run` goes on with it."}
	}
	temp, err := os.MkdirTemp("", "firn-compact-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	tables := NewTables(store, temp, logger, nil)
	tables.History = newHistory(log, logger).now
	return &Compactor{log: log, tables: tables, temp: temp, grace: grace, source: *head.Source, plan: planner(nil)}, nil
}

// Close removes what is temporary.
func (c *Compactor) Close() error {
	if err := os.RemoveAll(c.temp); err != nil {
		return fmt.Errorf("remove temporary folder: %w", err)
	}
	return nil
}

// Backlog tells what there is to rewrite of these tables, none: of all. What
// comes of it may be rewritten again. lake.ErrNoTable.
func (c *Compactor) Backlog(ctx context.Context, names []string) (lake.Backlog, error) {
	out := lake.Backlog{Rewrites: []lake.PlannedRewrite{}}
	err := c.each(ctx, names, func(id lake.Ident, t lake.TableStore) error {
		for _, p := range c.planned(t) {
			out.Rewrites = append(out.Rewrites, planned(id, p))
		}
		return nil
	})
	return out, err
}

func planned(id lake.Ident, p lake.RewritePlan) lake.PlannedRewrite {
	return lake.PlannedRewrite{Table: id.String(), State: "planned", Files: len(p.Inputs), Bytes: p.Bytes, Reason: p.Reason}
}

// roundsMax bounds how often what rewrites made is rewritten again.
const roundsMax = 20

// Run rewrites until there is nothing left to, and tells of each rewrite before
// and after it. What is done is done, if it ends early.
func (c *Compactor) Run(ctx context.Context, names []string, begin func(lake.PlannedRewrite), done func(OfflineRewrite)) error {
	return c.each(ctx, names, func(id lake.Ident, t lake.TableStore) error {
		for range roundsMax {
			for _, p := range c.planned(t) {
				began := time.Now()
				begin(planned(id, p))
				rows, err := c.rewrite(ctx, t, p)
				if err != nil {
					return err
				}
				done(OfflineRewrite{planned(id, p), rows, time.Since(began).Seconds()})
			}
		}
		return nil
	})
}

// each opens the mirrored tables of these names, one after the other. One that is
// not where the head is has its rewrites from the firn that brings it there: a
// snapshot says which LSN it shows, and here that would be the head's.
func (c *Compactor) each(ctx context.Context, names []string, fn func(lake.Ident, lake.TableStore) error) error {
	left := slices.Clone(names)
	head := headState(c.log.Head())
	slices.SortFunc(head.Tables, func(a, b lake.HeadTable) int { return strings.Compare(a.Ident.String(), b.Ident.String()) })
	for _, h := range head.Tables {
		name := h.Ident.String()
		if len(names) > 0 && !slices.Contains(names, name) || h.Metadata == "" {
			continue
		}
		left = slices.DeleteFunc(left, func(n string) bool { return n == name })
		if h.Resync || h.State != lake.Streaming {
			c.tables.Logger.Warn("table left alone: it is not up to date, and the firn that brings it there rewrites it", "table", name, "state", h.State, "reason", h.Reason)
			continue
		}
		t, err := c.tables.Open(ctx, h.Ident, h.Metadata)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		if err := fn(h.Ident, t); err != nil {
			return fmt.Errorf("compact %s: %w", name, err)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%s: %w", left[0], lake.ErrNoTable)
	}
	return nil
}

func (c *Compactor) planned(t lake.TableStore) []lake.RewritePlan {
	var files []lake.LiveFile
	for _, f := range t.Files() {
		l := lake.LiveFile{Path: f.Path, Bytes: f.Bytes, Rows: f.Rows, Partition: f.Partition, Asked: true, Unsorted: f.Unsorted}
		if f.Dead != nil {
			l.Dead = int64(f.Dead.GetCardinality())
		}
		files = append(files, l)
	}
	return c.plan(files)
}

// rewrite does one, and publishes it.
func (c *Compactor) rewrite(ctx context.Context, t lake.TableStore, p lake.RewritePlan) (rows int64, err error) {
	began := time.Now()
	var inputs []lake.RewriteInput
	for _, f := range t.Files() { // in the order in which they came: rows keep it
		if slices.Contains(p.Inputs, f.Path) {
			in := lake.RewriteInput{Path: f.Path}
			if f.Dead != nil {
				in.Dead = f.Dead.Clone()
			}
			inputs = append(inputs, in)
		}
	}
	out, err := t.Rewrite(ctx, inputs)
	if err != nil {
		return 0, err
	}
	head := c.log.Head()
	next, err := t.Prepare(ctx, &lake.Change{Rewrites: []*lake.Rewritten{out}, Stamp: lake.Stamp{
		Epoch: head.Epoch, LSN: head.LSN, CommitTime: head.CommitTime, XID: head.XID, Kind: "rewrite",
		Source: fmt.Sprintf("%s/%d/%s", c.source.SystemID, c.source.Timeline, c.source.Database)}})
	if err != nil {
		return 0, err
	}
	if err := next.Upload(ctx); err != nil {
		return 0, err
	}
	if err := c.publish(ctx, next.Move(), began); err != nil {
		return 0, err
	}
	t.Adopt(next)
	if err := t.WriteHint(ctx); err != nil { // for readers by path; the next commit writes it again
		c.tables.Logger.Warn("write version-hint.text", "err", err)
	}
	if out.Output != nil {
		rows = out.Output.Rows
	}
	return rows, nil
}

// publish moves a table, if no firn has claimed the lake meanwhile and the table
// is where it was. A firn that runs removes what no entry names after the grace
// time: what is published is younger than half of that.
func (c *Compactor) publish(ctx context.Context, m lake.Move, began time.Time) error {
	const goOn = "What has been rewritten so far is in the lake; through that firn (--url) `firn compact` does the rest."
	_, err := c.log.Commit(ctx, func(next *catalog.State) error {
		if s := next.Source; s == nil || s.Incarnation != c.source.Incarnation || s.Writer != c.source.Writer {
			return &lake.Refusal{Code: lake.CodeFenced, Text: "A firn has started on this lake meanwhile", Fix: goOn}
		}
		// By the clock on the wall: the other one stands still in a machine's sleep.
		if took := time.Now().Round(0).Sub(began.Round(0)); c.grace > 0 && took > c.grace/2 {
			return fmt.Errorf("the rewrite took %s, more than half of the grace time of %s after which unneeded files may be removed", took.Round(time.Second), c.grace)
		}
		if !put(next, m) {
			return &lake.MovedError{Tables: []lake.Ident{m.Table}}
		}
		return nil
	})
	if errors.Is(err, lake.ErrMoved) {
		return &lake.Refusal{Code: lake.CodeFenced, Text: "The table was committed to meanwhile: a firn is running on this lake", Fix: goOn}
	}
	return err
}

// Package audit compares the lake with Postgres, and with what it was (Diff).
//
// Verify takes both at one LSN without stopping either: a temporary slot
// exports a snapshot of Postgres as it stood at its consistent point L, and the
// running mirror cuts an epoch of exactly the commits before L. Each table then
// has on both sides a number of rows and a checksum that no order of rows
// changes.
//
// The two sides meet nowhere before the comparison, and neither goes through
// what wrote the lake. Postgres' values are turned into a plain text form by
// Postgres itself, in SQL (its calendar makes microseconds of a timestamp, its
// output functions the text), and come by COPY; lake/column's decoding of wire
// forms is not used. The lake is read by iceberg-go's own scan of the epoch's
// metadata, and the same plain form is made of Arrow's values with the standard
// library; neither lake/snapshot nor the mirror's memory is used. What both
// sides share is the hash over that form, and the table of which Iceberg type a
// Postgres type becomes (column.For), by which the schemas are compared.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"firn/catalog"
	"firn/lake/object"
	"firn/wal"
	"firn/wal/slot"
)

// Errors of Verify, to be told apart with errors.Is.
var (
	// ErrOtherSource: the lake mirrors another server or database.
	ErrOtherSource = errors.New("the lake is not of this database")
	// ErrBehind: no mirror runs, and Postgres has changes that the lake lacks.
	ErrBehind = errors.New("the lake is behind Postgres")
	// ErrNoTable: a table that was asked for is not there.
	ErrNoTable = errors.New("no such table")
	// ErrNoMoment: no LSN could be found at which both sides stand.
	ErrNoMoment = errors.New("the two sides could not be brought to one LSN")
)

// Mirror is the firn that runs (lake.Lake, or one asked over HTTP).
type Mirror interface {
	// Hold stops the reading of the stream until Cut, for some seconds.
	Hold(ctx context.Context) error
	// Cut makes an epoch of exactly the commits whose record starts before
	// lsn, and says its number. An lsn that has passed is an error, which ends
	// a Hold too.
	Cut(ctx context.Context, lsn wal.LSN) (wal.LSN, uint64, error)
}

// Options of Verify. All but the last group are required.
type Options struct {
	Source   *slot.Source
	SlotName string       // of the mirror; the temporary slot's name is made of it
	Log      *catalog.Log // may be read only
	Store    object.Store
	Mirror   Mirror // nil: no firn runs, see ErrBehind

	Patterns []string          // of the tables that are mirrored, as slot.Source.Tables has them
	Only     []string          // schema.table, or table alone in public; empty: all
	Standing map[string]string // what the mirror says of tables that it doesn't stream, by schema.table
	KeysMax  int               // differing rows named per table and kind; 20
	Logger   *slog.Logger
	// Progress is told when a table has been compared, by Verify's goroutine.
	Progress func(TableReport)
}

// rounds bounds how often tables that were altered in the middle are compared
// again, at a later LSN.
const rounds = 3

// Verify compares the tables. The error says that no comparison was possible;
// what one found is in the Report.
func Verify(ctx context.Context, o Options) (*Report, error) {
	if o.KeysMax == 0 {
		o.KeysMax = 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(TableReport) {}
	}
	o.Only = slices.Clone(o.Only)
	v := &verifier{Options: o, buckets: newBuckets()}
	if err := v.checkSource(ctx); err != nil {
		return nil, err
	}
	report := &Report{}
	var again []string
	for round := 1; ; round++ {
		names, err := v.round(ctx, report, again, round == rounds)
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		if len(names) == 0 {
			break
		}
		o.Logger.Info("tables were altered while they were read; comparing them again", "tables", names)
		again = names
	}
	slices.SortFunc(report.Tables, func(a, b TableReport) int { return compareNames(a.Name, b.Name) })
	return report, nil
}

type verifier struct {
	Options
	buckets *buckets
}

// checkSource makes sure that this is the database that the lake mirrors.
func (v *verifier) checkSource(ctx context.Context) error {
	head, err := v.Log.Refresh(ctx)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if head.Source == nil {
		return fmt.Errorf("verify: %w: nothing has been mirrored into it", ErrOtherSource)
	}
	id, err := v.Source.Identify(ctx)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if id.SystemID != head.Source.SystemID || id.Database != head.Source.Database {
		return fmt.Errorf("verify: %w: it mirrors database %s of system %s, and this is %s of %s",
			ErrOtherSource, head.Source.Database, head.Source.SystemID, id.Database, id.SystemID)
	}
	return nil
}

// round compares tables at one LSN: the named ones, with none all. It returns
// those that have to be compared again.
func (v *verifier) round(ctx context.Context, report *Report, names []string, last bool) (again []string, err error) {
	// Before the snapshot, so that a change in between is seen as one.
	tables, err := v.tables(ctx, names)
	if err != nil {
		return nil, err
	}
	m, err := v.moment(ctx)
	if err != nil {
		return nil, err
	}
	defer m.snapshot.Close()
	report.LSN, report.Epoch = m.snapshot.ConsistentPoint, m.epoch
	for _, p := range v.pairs(tables, m.state, names) {
		began := time.Now()
		r := TableReport{Name: p.name, LSN: m.snapshot.ConsistentPoint, Result: Unchecked, Reason: p.why}
		if p.why == "" {
			changed, err := v.compare(ctx, m, p, &r)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			switch {
			case changed && !last:
				again = append(again, p.name)
				continue
			case changed:
				r = TableReport{Name: p.name, LSN: r.LSN, Result: Unchecked, Reason: "it is being altered or truncated all the time; verify it again"}
			case err != nil:
				r.Result, r.Reason = Failed, err.Error()
			}
		}
		r.Seconds = time.Since(began).Seconds()
		report.Tables = append(report.Tables, r)
		v.Progress(r)
	}
	return again, nil
}

// tables describes what Postgres has now.
func (v *verifier) tables(ctx context.Context, names []string) (map[string]*wal.Table, error) {
	all, err := v.Source.Tables(ctx, v.Patterns)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*wal.Table, len(all))
	for i := range all {
		name := all[i].Schema + "." + all[i].Name
		if len(names) == 0 || slices.Contains(names, name) {
			out[name] = &all[i]
		}
	}
	if len(names) > 0 {
		return out, nil
	}
	return out, v.checkOnly(out)
}

// checkOnly makes full names of those that were asked for, and refuses unknown
// ones.
func (v *verifier) checkOnly(tables map[string]*wal.Table) error {
	known := map[string]bool{}
	for name := range tables {
		known[name] = true
	}
	for id, t := range v.Log.Head().Tables() {
		if t.Mirror != nil {
			known[id.String()] = true
		}
	}
	for i, name := range v.Only {
		switch {
		case known[name]:
		case known["public."+name]:
			v.Only[i] = "public." + name
		default:
			return fmt.Errorf("%w: %s is neither among the tables to mirror nor in the lake", ErrNoTable, name)
		}
	}
	return nil
}

// pair is one table on its two sides.
type pair struct {
	name     string
	postgres *wal.Table
	metadata string // URI of the lake's
	why      string // not to be compared; why
}

// pairs joins Postgres' tables and the lake's by name.
func (v *verifier) pairs(tables map[string]*wal.Table, s *catalog.State, names []string) []pair {
	wanted := func(name string) bool {
		return (len(names) == 0 || slices.Contains(names, name)) && (len(v.Only) == 0 || slices.Contains(v.Only, name))
	}
	var out []pair
	seen := map[string]bool{}
	for id, t := range s.Tables() {
		name := id.String()
		if t.Mirror == nil || !wanted(name) {
			continue // somebody else's table
		}
		seen[name] = true
		p := pair{name: name, postgres: tables[name], metadata: t.Metadata}
		switch {
		case t.Mirror.State != catalog.Streaming:
			p.why = standing(t.Mirror.State, t.Mirror.Reason)
		case p.postgres == nil:
			p.why = "dropped: Postgres has no such table to mirror any more"
		case p.postgres.OID != t.Mirror.OID:
			p.why = "behind: it was dropped and created again in Postgres, and is to be loaded anew"
		}
		out = append(out, p)
	}
	for name, t := range tables {
		if seen[name] || !wanted(name) {
			continue
		}
		p := pair{name: name, postgres: t, why: v.Standing[name]}
		switch {
		case p.why != "":
		case !t.Usable:
			p.why = standing(catalog.Skipped, t.Reason)
		default:
			p.why = "loading: it is not in the lake yet"
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b pair) int { return compareNames(a.name, b.name) })
	return out
}

func standing(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"firn/catalog"
	"firn/compaction"
	"firn/lake"
	"firn/lake/object"
	"firn/lake/partition"
	"firn/lake/snapshot"
	"firn/wal"
	"firn/wal/slot"
)

// Options is all that a mirror is made of, parsed and defaulted.
type Options struct {
	Postgres    string // connection string
	Slot        string
	Publication string
	Patterns    []string
	Warehouse   string // s3://bucket/prefix or a folder
	Name        string // of the warehouse, for clients
	Object      object.Options
	StateDir    string

	Freshness     time.Duration
	Poll          time.Duration
	SpillBytes    int64
	CatchUpRows   int64
	AdvanceBytes  wal.LSN // this and the next: see lake.Options
	AdvanceAfter  time.Duration
	FormatVersion func(lake.Ident) int
	PartitionBy   func(lake.Ident) partition.By
	Append        func(wal.TableName) bool // tables of which only inserts and truncates are mirrored
	Compaction    *compaction.Options      // nil: data files stay as they land until somebody asks
	Grace         time.Duration            // before what no kept epoch needs is removed; 0: nothing is
	Retention     catalog.Retention        // which epochs are kept; zero: the default
	LogNumbers    uint64                   // see catalog.LogOptions.Numbers; zero but in tests

	// SortBy is the order of a table's rows, BloomFilters are of which columns;
	// nil: what each has.
	SortBy       func(lake.Ident) snapshot.SortBy
	BloomFilters func(lake.Ident) snapshot.BloomFilters

	Now    func() time.Time // see lake.Options
	Logger *slog.Logger
	Fail   func(point string)
}

// leftoverAge is how old a half-written object must be to be nobody's any more.
const leftoverAge = 24 * time.Hour

// Engine is a mirror put together: source, store, log and lake.
type Engine struct {
	Source *Source
	Store  object.Store
	Log    *catalog.Log
	Lake   *lake.Lake

	expirer *expirer
}

// OpenStore opens the warehouse and its log, for those who only read it.
func OpenStore(ctx context.Context, o Options) (object.Store, *catalog.Log, error) {
	store, err := object.Open(ctx, o.Warehouse, o.Object)
	if err != nil {
		return nil, nil, fmt.Errorf("open warehouse %s: %w", o.Warehouse, err)
	}
	object.RegisterFileIO(o.Object)
	log, err := catalog.OpenLog(ctx, store, catalog.LogOptions{Logger: o.Logger, Retention: o.Retention, Numbers: o.LogNumbers})
	if err != nil {
		return nil, nil, fmt.Errorf("open warehouse %s: %w", o.Warehouse, err)
	}
	return store, log, nil
}

// Open connects to both sides and puts a mirror together. Nothing is changed
// on either, but for the proof of a new store.
func Open(ctx context.Context, o Options) (*Engine, error) {
	store, log, err := OpenStore(ctx, o)
	if err != nil {
		return nil, err
	}
	return Connect(ctx, o, store, log)
}

// Connect is Open on a store and log that are open already.
func Connect(ctx context.Context, o Options, store object.Store, log *catalog.Log) (e *Engine, err error) {
	// The store is proved while Postgres is asked.
	proved := make(chan error, 1)
	go func() {
		if log.Head().CommitID != "" {
			proved <- nil
			return
		}
		proved <- object.Probe(ctx, store)
	}()
	src, err := slot.Open(ctx, slot.Options{URL: o.Postgres, Slot: o.Slot, Publication: o.Publication, Append: o.Append, Logger: o.Logger})
	unproved := <-proved
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() {
		if err != nil {
			src.Close()
		}
	}()
	if unproved != nil {
		return nil, fmt.Errorf("prove that the store at %s keeps its promises: %w", o.Warehouse, unproved)
	}
	source := &Source{Source: src, SlotName: o.Slot, Patterns: o.Patterns, Parts: 8, Logger: o.Logger}
	if e, err = Mirror(o, source, store, log); err != nil {
		return nil, err
	}
	e.Source = source
	return e, nil
}

// Mirror is Connect for any source, whose Engine has no Source of its own: what o
// says of Postgres is not looked at.
func Mirror(o Options, source lake.Source, store object.Store, log *catalog.Log) (*Engine, error) {
	temp := filepath.Join(o.StateDir, "tmp")
	if err := errors.Join(os.RemoveAll(temp), os.MkdirAll(temp, 0o700)); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	e := &Engine{Store: store, Log: log}
	tables := NewTables(store, temp, o.Logger, o.FormatVersion)
	tables.SortBy, tables.BloomFilters = o.SortBy, o.BloomFilters
	if o.Now != nil {
		tables.Pacer = nil // a share of a processor says nothing where seconds are shorter
	}
	tables.History = newHistory(log, o.Logger).now
	e.expirer = &expirer{log: log, sweeper: newSweeper(log, store, tables.pending, o.Grace), logger: o.Logger, asked: make(chan expiryRequest)}
	e.Lake = lake.New(lake.Options{
		Source:   source,
		Head:     &Head{Log: log, Warehouse: o.Name, Slot: o.Slot, Publication: o.Publication},
		Tables:   tables,
		StateDir: o.StateDir, Freshness: o.Freshness, Poll: o.Poll, SpillBytes: o.SpillBytes, CatchUpRows: o.CatchUpRows,
		AdvanceBytes: o.AdvanceBytes, AdvanceAfter: o.AdvanceAfter, Plan: planner(o.Compaction), Compact: o.Compaction != nil, Pacer: tables.Pacer, PartitionBy: o.PartitionBy,
		Now: o.Now, Logger: o.Logger, Fail: o.Fail,
		Claimed: func(ctx context.Context) error {
			n, err := object.RemoveLeftovers(ctx, store, leftoverAge)
			if n > 0 {
				o.Logger.Info("removed what killed writers left half-written", "objects", n)
			}
			if err != nil && ctx.Err() == nil {
				o.Logger.Warn("remove what killed writers left half-written", "err", err)
			}
			return e.expirer.run(ctx)
		},
	})
	e.expirer.removed = &e.Lake.Counters().Removed
	return e, nil
}

// Close ends the connections.
func (e *Engine) Close() { e.Source.Close() }

// Package life lives a mirror's days in minutes: its source is a generator of
// pgoutput messages whose commits are a second apart by a clock of its own. All
// else is what firn runs: decoder, owner, row index, snapshots, epoch log,
// compaction and the sweep of what nobody needs, wired as for Postgres. It is
// for measurements.
package life

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/compaction"
	"firn/lake"
	"firn/lake/object"
	"firn/wal"
)

// Options of a Life. Warehouse, StateDir and Ledger are required.
type Options struct {
	Warehouse string // s3://bucket/prefix or a folder
	Object    object.Options
	StateDir  string
	Ledger    *Ledger // what the table holds at first
	// FormatVersion of the table, 2 or 3; 0 is 2.
	FormatVersion int
	// Compaction nil: files stay as they land.
	Compaction *compaction.Options
	// Grace is how long what no kept epoch needs is left, in real time; 0: for ever.
	Grace  time.Duration
	Logger *slog.Logger
}

// Life is a mirror of a generated table. One goroutine at a time may use it.
type Life struct {
	Engine *wire.Engine
	source *source
	clock  atomic.Int64 // Unix nanoseconds
	last   time.Time    // when the last epoch began, in real time

	stop  context.CancelFunc
	ended chan struct{}
	err   error // valid once ended

	mu     sync.Mutex
	phases map[string]time.Duration
}

// rewriteSpeed is how much faster than the clock a life may be while data files
// are rewritten, by all of a processor: beside a stream they have less of one.
// Without it a rewrite would take hundreds of epochs.
const rewriteSpeed = 100 / lake.ShareBeside

// begin is when lives begin.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Start loads the ledger's rows into an empty warehouse and returns once they
// are there. Stop ends what it started.
func Start(ctx context.Context, o Options) (*Life, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Life{source: newSource(o.Ledger), ended: make(chan struct{}), phases: map[string]time.Duration{}}
	l.clock.Store(begin.UnixNano())
	w := wire.Options{
		Warehouse: o.Warehouse, Name: "life", Object: o.Object, StateDir: o.StateDir,
		// Epochs are asked for, one for each transaction. The owner looks whether
		// there is something to rewrite four times in a Freshness.
		Freshness: 40 * time.Millisecond, Poll: time.Hour,
		FormatVersion: func(lake.Ident) int { return cmp.Or(o.FormatVersion, 2) },
		Compaction:    o.Compaction, Grace: o.Grace, Now: l.Now, Logger: o.Logger,
	}
	store, log, err := wire.OpenStore(ctx, w)
	if err != nil {
		return nil, err
	}
	if l.Engine, err = wire.Mirror(w, l.source, store, log); err != nil {
		return nil, err
	}
	l.Engine.Lake.Counters().Phase = func(phase string, took time.Duration) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.phases[phase] += took
	}
	var run context.Context
	run, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(l.ended)
		l.err = l.Engine.Lake.Run(run)
	}()
	// Durable: also the table's own, which is not there before it is loaded.
	if err := l.wait(ctx, l.source.point); err != nil {
		return nil, errors.Join(err, l.Stop())
	}
	return l, nil
}

// Now is the time of the last commit.
func (l *Life) Now() time.Time { return time.Unix(0, l.clock.Load()).UTC() }

// Epoch commits a transaction of so many changes, a second after the last one, and
// returns how long it took until readers see it: one epoch.
func (l *Life) Epoch(ctx context.Context, changes int) (time.Duration, error) {
	for l.Engine.Lake.Status().Rewrites > 0 && time.Since(l.last) < time.Second/rewriteSpeed && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	l.last = time.Now()
	l.clock.Add(int64(time.Second))
	messages, end := l.source.transaction(changes, l.Now())
	began := time.Now()
	select {
	case l.source.stream.batches <- wal.NewBatch(messages, nil):
	case <-l.ended:
		return 0, l.died()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	err := l.wait(ctx, end)
	return time.Since(began), err
}

// Rest lets time pass in which nothing comes, and returns once the owner has
// nothing left to do.
func (l *Life) Rest(ctx context.Context, d time.Duration) error {
	l.clock.Add(int64(d))
	// An owner at rest has a look each second.
	for turns := 0; turns < 30; {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-l.ended:
			return l.died()
		case <-ctx.Done():
			return ctx.Err()
		}
		turns++
		if l.Engine.Lake.Status().Rewrites > 0 || l.Table().Compaction.PlannedRewrites > 0 {
			turns = 0
		}
	}
	return nil
}

// wait returns once the lake has all up to lsn.
func (l *Life) wait(ctx context.Context, lsn wal.LSN) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := l.Engine.Lake.Wait(ctx, lsn)
	select {
	case <-l.ended:
		return l.died()
	default:
		return err
	}
}

func (l *Life) died() error { return fmt.Errorf("the mirror ended: %w", l.err) }

// Phases are how long the phases of all commits took until now, by name.
func (l *Life) Phases() map[string]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]time.Duration, len(l.phases))
	for k, v := range l.phases {
		out[k] = v
	}
	return out
}

// Table is what the mirror last said of its table.
func (l *Life) Table() lake.TableStatus {
	if t := l.Engine.Lake.Status().Tables; len(t) == 1 {
		return t[0]
	}
	return lake.TableStatus{}
}

// Catalog is the log that readers' catalog is served from, and the store it lies in.
func (l *Life) Catalog() (*catalog.Log, object.Store) { return l.Engine.Log, l.Engine.Store }

// Stop ends the mirror in good order. What it wrote stays.
func (l *Life) Stop() error {
	l.stop()
	<-l.ended
	return l.err
}

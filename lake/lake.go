// Package lake is Firn's core: it takes the changes of a Postgres database as
// they come out of the WAL, keeps for each mirrored table what is live and
// where, and cuts what happened into epochs, every table at one LSN, each
// published by one step of the head.
//
// One goroutine, the owner, holds all table state (session). Encoding, uploads
// and fetches run beside it; at most one epoch is committing while the next
// fills. It is crash-only: any failure ends the session, and the next one
// starts from the head, as after a kill. What it needs of Postgres, of the
// head and of a table's files it names as small interfaces (ports.go,
// publish.go).
package lake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"firn/lake/partition"
	"firn/wal"
	"firn/wal/spool"
)

// Options of a Lake. Source, Head, Tables and StateDir are required.
type Options struct {
	Source   Source
	Head     Head
	Tables   Tables
	StateDir string // local folder for indexes and spools; may be lost at any time

	// Freshness is how long a commit may wait before its epoch is cut.
	Freshness time.Duration // 10 s
	// Poll is how often the source's catalogs are looked at for new tables,
	// rewrites and partitions.
	Poll time.Duration // 10 s
	// SpillBytes bounds the local disk that parked changes may take.
	SpillBytes int64 // 20 GB
	// AdvanceBytes and AdvanceAfter say when an idle lake writes an entry for
	// WAL that held nothing for it, so that the slot can let go of it.
	AdvanceBytes wal.LSN       // 16 MB
	AdvanceAfter time.Duration // 5 min
	// CatchUpRows is how many rows a start reads for a table's index before it
	// lets the table follow at a distance, so that the others go on (PROTOCOL
	// §23).
	CatchUpRows int64 // 500,000
	// LoadWorkers is the number of COPYs at the same time.
	LoadWorkers int // 2

	// PartitionBy, if not nil, says what a table is to be partitioned by. A table
	// that is otherwise takes new rows by it from the next session on.
	PartitionBy func(Ident) partition.By

	// Plan, if not nil, says what to rewrite of a table, the most urgent first.
	// It does no I/O: the owner calls it.
	Plan func(files []LiveFile) []RewritePlan
	// Compact says that what is planned is also done, beside the stream; else it
	// is when somebody asks for it.
	Compact bool

	// Pacer is what the tables' rewrites pause by; the owner sets their share.
	Pacer *Pacer

	// Claimed, if not nil, is called beside the stream once the lake is ours:
	// only the running owner may delete. Its error is logged.
	Claimed func(ctx context.Context) error

	// Now is the clock that data files age by, and that dates a load before the
	// first commit; for simulations.
	Now func() time.Time // time.Now

	Logger *slog.Logger
	// Fail is called at named points, for tests that kill the process there.
	Fail func(point string)
}

func (o *Options) setDefaults() {
	if o.Freshness == 0 {
		o.Freshness = 10 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = 10 * time.Second
	}
	if o.SpillBytes == 0 {
		o.SpillBytes = 20 << 30
	}
	if o.AdvanceBytes == 0 {
		o.AdvanceBytes = 16 << 20
	}
	if o.AdvanceAfter == 0 {
		o.AdvanceAfter = 5 * time.Minute
	}
	if o.CatchUpRows == 0 {
		o.CatchUpRows = 500_000
	}
	if o.LoadWorkers == 0 {
		o.LoadWorkers = 2
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Pacer == nil {
		o.Pacer = &Pacer{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fail == nil {
		o.Fail = func(string) {}
	}
}

// FailPoints are the names that Options.Fail is called with.
var FailPoints = []string{
	"before-upload", "after-upload", "before-publish", "after-publish", "before-ack",
	"in-merge", "after-merge", "before-load-join", "in-load", "before-slot", "after-slot",
	"after-look", "in-rewrite", "after-rewrite", "after-install", "in-relocate",
}

// Lake mirrors one database.
type Lake struct {
	o        Options
	status   atomic.Pointer[Status]
	requests chan request
	counters Counters
	dropped  atomic.Int64 // rewrites that were asked for and given up

	// What earlier sessions of this process learned.
	distrust   map[Ident]*doubt // tables whose index contradicted the stream
	unstreamed bool             // read large transactions only once they have committed
	spill      *spool.Budget
	written    map[Ident]*Compaction // since the process began
	lag        lag
}

// doubt is where the stream contradicted an index, which is rebuilt then: once
// for one place, and doubtsMax times for all.
type doubt struct {
	at      wal.LSN
	times   int
	rebuilt bool
}

const doubtsMax = 5

// New returns a Lake; Run does the work.
func New(o Options) *Lake {
	o.setDefaults()
	l := &Lake{o: o, requests: make(chan request), distrust: map[Ident]*doubt{}, spill: spool.NewBudget(o.SpillBytes), written: map[Ident]*Compaction{}}
	l.status.Store(&Status{})
	return l
}

// Refusal is an end that a restart does not cure: Code is the process' exit
// code (DESIGN.md), Fix says what to do.
type Refusal struct {
	Code int
	Text string
	Fix  string
}

func (r *Refusal) Error() string { return r.Text + ". " + r.Fix }

// Exit codes of refusals.
const (
	CodePreflight = 3
	CodeFenced    = 4
	CodeDiverged  = 5
)

// errRestart ends a session that should be followed by another at once.
var errRestart = errors.New("start again from the head")

// Run mirrors until ctx ends (then it commits what is open and returns nil) or
// something happens that needs a hand (*Refusal) or a restart (any other
// error).
func (l *Lake) Run(ctx context.Context) error {
	for {
		err := l.session(ctx)
		var wrong *Contradiction
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			return nil
		case errors.As(err, &wrong):
			l.o.Logger.Warn("the row index contradicts the stream: rebuilding it", "table", wrong.Table.String(), "err", err)
			l.counters.Restarts.Add(1)
		case errors.Is(err, ErrFenced):
			return &Refusal{Code: CodeFenced, Text: "Another firn has taken over this lake", Fix: "Stop one of the two; only one may mirror into a warehouse."}
		case errors.Is(err, ErrMoved), errors.Is(err, ErrVanished), errors.Is(err, errRestart):
			l.o.Logger.Info("starting again from the head", "cause", err)
			l.counters.Restarts.Add(1)
		default:
			return err
		}
	}
}

// request is a question to the owner, answered at a commit boundary.
type request struct {
	kind  requestKind
	lsn   wal.LSN
	reply chan reply

	tables []string // of requestBacklog and requestCompact
}

type requestKind int

const (
	// requestDurable: answer when all commits up to lsn are in the lake.
	requestDurable requestKind = iota
	// requestCut: cut an epoch that has exactly the commits whose record
	// starts before lsn, and answer when it is published.
	requestCut
	// requestHold: stop reading for a moment, for a cut that follows.
	requestHold
	// requestBacklog: answer what there is to rewrite.
	requestBacklog
	// requestCompact: the same, and do it.
	requestCompact
)

// holdMax is how long the stream waits for the cut that it was held for.
const holdMax = 20 * time.Second

// ErrLate answers a Cut whose moment has passed.
var ErrLate = errors.New("the lake is past that LSN already")

type reply struct {
	lsn     wal.LSN
	epoch   uint64
	backlog Backlog
	err     error
}

// ask puts a question to the owner; a session that ends without an answer
// leaves it to the next one.
func (l *Lake) ask(ctx context.Context, r request) (reply, error) {
	for {
		r.reply = make(chan reply, 1)
		select {
		case l.requests <- r:
		case <-ctx.Done():
			return reply{}, ctx.Err()
		}
		select {
		case a := <-r.reply:
			if errors.Is(a.err, errRestart) {
				continue
			}
			return a, a.err
		case <-ctx.Done():
			return reply{}, ctx.Err()
		}
	}
}

// Wait returns once every commit up to lsn is in the lake.
func (l *Lake) Wait(ctx context.Context, lsn wal.LSN) (wal.LSN, error) {
	at, _, err := l.reach(ctx, requestDurable, lsn)
	return at, err
}

// Hold stops the reading of the stream until Cut, at most for 20 s, so that the
// moment to cut at can be chosen. What has been read goes on to the lake.
func (l *Lake) Hold(ctx context.Context) error {
	_, _, err := l.reach(ctx, requestHold, 0)
	return err
}

// Cut makes an epoch that holds exactly the commits whose record starts before
// lsn, as a slot's snapshot with that consistent point shows them, and returns
// its LSN and number once it is published.
func (l *Lake) Cut(ctx context.Context, lsn wal.LSN) (wal.LSN, uint64, error) {
	return l.reach(ctx, requestCut, lsn)
}

// reach asks about a position.
func (l *Lake) reach(ctx context.Context, kind requestKind, lsn wal.LSN) (wal.LSN, uint64, error) {
	a, err := l.ask(ctx, request{kind: kind, lsn: lsn})
	if err != nil && errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("wait for %s: %w", lsn, err)
	}
	return a.lsn, a.epoch, err
}

// Backlog tells what would be rewritten of these tables (none: of all) if nothing
// more came.
func (l *Lake) Backlog(ctx context.Context, tables []string) (Backlog, error) {
	a, err := l.ask(ctx, request{kind: requestBacklog, tables: tables})
	return a.backlog, err
}

// Compact has that done, one after the other and at full speed, and returns at
// once. ErrNoTable.
func (l *Lake) Compact(ctx context.Context, tables []string) (Backlog, error) {
	a, err := l.ask(ctx, request{kind: requestCompact, tables: tables})
	return a.backlog, err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/cmd/firn/internal/wire"
	"firn/compaction"
	"firn/lake"
	"firn/lake/partition"
	"firn/lake/snapshot"
	"firn/wal"
	"firn/wal/slot"
)

// mirror is one running lake with its listener: openMirror looks at everything
// and changes nothing but an empty warehouse's proof, run does the work.
type mirror struct {
	c        *config.Config
	log      *slog.Logger
	lock     *flock.Flock
	place    *warehouse
	engine   *wire.Engine
	listener *listen.Listener
	slot     string
	tables   []wal.Table // as found at the start
	server   int         // Postgres' version number

	mu       sync.Mutex // of what follows
	retained slot.Retained
	waiters  []string
	outage   error
	since    time.Time // of outage
}

// openMirror connects to both sides, makes the first look, and takes the
// listener's address.
func openMirror(ctx context.Context, c *config.Config, logger *slog.Logger) (_ *mirror, err error) {
	for _, check := range []func() error{c.NeedPostgres, c.NeedWarehouse, c.NeedListen} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	secret, err := token(c)
	if err != nil {
		return nil, err
	}
	fail, err := failpoint(os.Getenv("FIRN_FAILPOINT"))
	if err != nil {
		return nil, err
	}
	paceGC()
	m := &mirror{c: c, log: logger, retained: slot.Retained{Bytes: -1, LimitBytes: -1}}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	state, err := c.StateDir()
	if err != nil {
		return nil, err
	}
	if m.lock, err = lockState(state); err != nil {
		return nil, err
	}
	if m.place, err = openWarehouse(ctx, c, logger); err != nil {
		return nil, err
	}
	var publication string
	if m.slot, publication, err = m.place.names(); err != nil {
		return nil, err
	}
	var compact *compaction.Options
	if c.Compaction {
		compact = &compaction.Options{}
	}
	m.engine, err = wire.Connect(ctx, wire.Options{
		Postgres: c.Postgres, Slot: m.slot, Publication: publication, Patterns: c.Tables,
		Warehouse: c.Warehouse, Name: m.place.name(), Object: objectOptions(c), StateDir: state,
		Freshness: time.Duration(c.Freshness), SpillBytes: int64(c.Spill),
		FormatVersion: func(id lake.Ident) int { return int(c.Settings(id.Namespace, id.Name).FormatVersion) },
		SortBy:        func(id lake.Ident) snapshot.SortBy { return c.Settings(id.Namespace, id.Name).SortBy },
		BloomFilters:  func(id lake.Ident) snapshot.BloomFilters { return c.Settings(id.Namespace, id.Name).BloomFilters },
		PartitionBy:   func(id lake.Ident) partition.By { return partition.By(c.Settings(id.Namespace, id.Name).PartitionBy) },
		Append:        func(t wal.TableName) bool { return c.Settings(t.Schema, t.Name).Mode == config.Append },
		Compaction:    compact,
		Grace:         time.Duration(c.Grace),
		Logger:        logger, Fail: fail,
	}, m.place.store, m.place.log)
	if err != nil {
		return nil, err
	}
	if err = m.look(ctx); err != nil {
		return nil, err
	}
	m.listener, err = listen.Open(ctx, listen.Options{
		Address: c.Listen, Token: secret, Catalog: m.place.handler(secret, logger), Status: m.status,
		Mirror: asked{m.engine}, Expire: m.expire, Counters: m.engine.Lake.Counters(), Version: version(), Logger: logger,
	})
	if err != nil {
		return nil, fmt.Errorf("%w (is another firn running? Choose another --listen)", err)
	}
	m.engine.Lake.Counters().Phase = m.listener.Phase
	return m, nil
}

// look finds the tables and all that would stop their mirroring.
func (m *mirror) look(ctx context.Context) error {
	var err error
	if m.server, err = m.engine.Source.Version(ctx); err != nil {
		return err
	}
	if m.tables, err = m.engine.Source.Tables(ctx); err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	problems, err := m.engine.Source.Preflight(ctx, m.tables)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return &preflightError{problems}
	}
	var folded []string
	for _, t := range m.tables {
		if !t.Usable {
			m.log.Warn("table is skipped", "table", t.Schema+"."+t.Name, "cause", t.Reason)
		} else if folds(t.Schema) || folds(t.Name) {
			folded = append(folded, t.Schema+"."+t.Name)
		}
	}
	if len(folded) > 0 {
		m.log.Warn("some engines read names in lower case only and may not find these tables", "tables", strings.Join(folded, ", "))
	}
	return nil
}

func folds(name string) bool { return strings.ContainsFunc(name, unicode.IsUpper) }

// banner is one line about what is going to happen.
func (m *mirror) banner() string {
	usable := 0
	for _, t := range m.tables {
		if t.Usable {
			usable++
		}
	}
	what := count(usable, "table")
	if skipped := len(m.tables) - usable; skipped > 0 {
		what += fmt.Sprintf(" (%d skipped)", skipped)
	}
	return fmt.Sprintf("firn: %s of %s (Postgres %d.%d) → %s, fresh to %s; catalog %s, warehouse %q",
		what, m.c.Address(), m.server/10000, m.server%10000, m.c.Warehouse, m.c.Freshness, m.listener.URL(), m.place.name())
}

// count prints a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// run mirrors until ctx ends; then it commits what is open. The listener
// answers as long as that takes.
func (m *mirror) run(ctx context.Context, beside ...func(context.Context) error) error {
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(rest)
	working, halt := context.WithCancel(ctx)
	defer halt()
	context.AfterFunc(gctx, halt) // the listener failed
	g.Go(func() error {
		defer stop()
		return m.follow(working)
	})
	g.Go(func() error { return m.listener.Run(gctx) })
	g.Go(func() error { return m.watch(gctx) })
	for _, fn := range beside {
		g.Go(func() error { return fn(gctx) })
	}
	return g.Wait()
}

// Pauses between two sessions when the source can't be read.
const (
	pauseMin = 250 * time.Millisecond
	pauseMax = 5 * time.Second
	// zombieMax is how long our own slot may stay in use, after a connection
	// was lost, by the walsender that doesn't know yet (wal_sender_timeout is
	// 60 s by default).
	zombieMax = 2 * time.Minute
)

// follow runs the lake, and runs it again after an outage: Postgres restarts,
// a network or store that is away. A session always begins at the head, as a
// new process would, so nothing is risked by not ending; and the catalog goes
// on answering.
func (m *mirror) follow(ctx context.Context) error {
	pause := pauseMin
	for {
		err := m.engine.Lake.Run(ctx)
		if err == nil || ctx.Err() != nil || !m.passes(ctx, err) {
			return err
		}
		if m.began(err) {
			pause = pauseMin
		}
		c := m.engine.Lake.Counters()
		c.Errors.Add(1)
		c.Restarts.Add(1)
		m.log.Warn("the stream is interrupted; trying again", "err", oneLine(err), "pause", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, pauseMax)
	}
}

// began notes an outage and says whether it is a new one.
func (m *mirror) began(err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := m.outage == nil
	if fresh {
		m.since = time.Now()
	}
	m.outage = err
	return fresh
}

// passes says whether an error is an outage that passes by itself.
func (m *mirror) passes(ctx context.Context, err error) bool {
	var refusal *lake.Refusal
	if errors.As(err, &refusal) {
		// After a lost connection the server may go on streaming to nobody.
		m.mu.Lock()
		lost, since := m.outage != nil, m.since
		m.mu.Unlock()
		if !lost || refusal.Code != exitFenced || time.Since(since) > zombieMax {
			return false
		}
		st, err := m.engine.Source.Source.Slot(ctx)
		return err == nil && st != nil && st.Active
	}
	return wire.Outage(err)
}

// status is the lake's, and what is known around it.
func (m *mirror) status() listen.Status {
	st := listen.Status{Status: *m.engine.Lake.Status(), Version: version(), Warehouse: m.place.name(), Location: m.c.Warehouse, Database: m.c.Address()}
	st.Slot = m.slot
	st.Ready = st.Status.Ready()
	m.mu.Lock()
	defer m.mu.Unlock()
	st.RetainedWALBytes, st.RetainedWALLimitBytes = m.retained.Bytes, m.retained.LimitBytes
	st.Waiters = m.waiters
	switch {
	case m.outage == nil:
	case st.Running:
		m.log.Info("the stream goes on", "interrupted", time.Since(m.since).Round(time.Millisecond))
		m.outage = nil
	default:
		since := m.since
		st.Outage, st.OutageSince = oneLine(m.outage), &since
	}
	return st
}

func (m *mirror) close() {
	if m.listener != nil {
		_ = m.listener.Close() // closed already, if it has run
	}
	if m.engine != nil {
		m.engine.Close()
	}
	if m.lock != nil {
		if err := m.lock.Unlock(); err != nil {
			m.log.Warn("unlock state folder", "err", err)
		}
	}
}

// asked answers the listener's questions.
type asked struct{ *wire.Engine }

func (e asked) Wait(ctx context.Context, lsn wal.LSN) (wal.LSN, error) { return e.Lake.Wait(ctx, lsn) }
func (e asked) Hold(ctx context.Context) error                         { return e.Lake.Hold(ctx) }
func (e asked) Cut(ctx context.Context, lsn wal.LSN) (wal.LSN, uint64, error) {
	return e.Lake.Cut(ctx, lsn)
}
func (e asked) Backlog(ctx context.Context, tables []string) (lake.Backlog, error) {
	return e.Lake.Backlog(ctx, tables)
}
func (e asked) Compact(ctx context.Context, tables []string) (lake.Backlog, error) {
	return e.Lake.Compact(ctx, tables)
}
func (e asked) CommittedLSN(ctx context.Context) (wal.LSN, error) { return e.Source.CommittedLSN(ctx) }

// lockState makes the state folder ours: two processes in it would take each
// other's index and spools away.
func lockState(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	l := flock.New(filepath.Join(dir, "lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock state folder %s: %w", dir, err)
	}
	if !ok {
		return nil, &lake.Refusal{Code: exitFenced, Text: "Another firn is using the state folder " + dir,
			Fix: "If it mirrors into this warehouse, stop it first; else give this one its own --state."}
	}
	return l, nil
}

// Package catalog keeps what the warehouse's tables are: an epoch log in the
// object store, and the Iceberg REST server over it.
//
// The log is one small immutable object per entry, made by put-if-absent under
// the next number. That one put moves any number of tables together; who made
// it is decided by the store, and reading the number back decides it again
// after a lost answer. An entry is full, with the whole state, or a delta: all
// changes since one full entry, so that any entry is read by two GETs.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Errors of a Log, to be told apart with errors.Is.
var (
	// ErrForeignWarehouse: the prefix or folder holds something, and it is no
	// lake.
	ErrForeignWarehouse = errors.New("the warehouse holds something else than a lake")
	// ErrFenced: a newer run mirrors the same source; this one must stop.
	ErrFenced = errors.New("another firn has taken over this lake")
	// ErrCorrupt: an entry isn't what firn writes.
	ErrCorrupt = errors.New("the log entry is damaged")
	// ErrRewound: the store shows an older log than it has shown before.
	ErrRewound = errors.New("the epoch log went back")
	// ErrUnknown: the store would not say whether the entry was written. The
	// next run finds out.
	ErrUnknown = errors.New("the commit's outcome is unknown")
	// ErrNotKept: the lake does not answer for that moment (any more).
	ErrNotKept = errors.New("no kept epoch shows that moment")
	// ErrThinned: that moment's epoch is no longer kept.
	ErrThinned = errors.New("that moment's epoch has been thinned out")
	// ErrNotYet: the moment asked for lies after the head.
	ErrNotYet = errors.New("the lake has not reached that moment")
	// ErrUnchanged ends a Commit from its callback without an entry.
	ErrUnchanged = errors.New("nothing to commit")
)

// Store is what a Log needs of an object store. Get's error is fs.ErrNotExist
// for a missing key and PutIfAbsent's fs.ErrExist for a taken one; any other
// error of PutIfAbsent leaves open whether the object was written.
type Store interface {
	PutIfAbsent(ctx context.Context, key string, body []byte) error
	Get(ctx context.Context, key string) ([]byte, error)
	// Keys lists keys in lexical order, after startAfter, at most limit.
	Keys(ctx context.Context, prefix, startAfter string, limit int) ([]string, error)
}

// LogOptions of OpenLog. The zero value is usable.
type LogOptions struct {
	Logger *slog.Logger
	// WriterID names this process in its entries; by default a new UUID. No
	// two processes may share one.
	WriterID string
	Clock    Clock
	// Retention thins the kept epochs; zero means DefaultRetention.
	Retention Retention
	// Numbers is how many of the newest entries stay whatever names them; zero
	// means 10,000, and only tests have less.
	Numbers uint64
}

// Log is the epoch log of one warehouse. Its methods may be called from any
// goroutine.
type Log struct {
	store     Store
	log       *slog.Logger
	id        string
	clock     Clock
	retention Retention
	numbers   uint64

	turn        turn          // one Commit at a time
	incarnation atomic.Uint64 // claimed; 0: not the source's writer
	unsure      bool          // a commit's outcome stayed unknown; the turn's holder owns it

	mu      sync.Mutex
	head    *State
	changed chan struct{}
	listed  time.Duration // Boot time before the newest listing was asked for
	bases   []*State      // full entries read lately, the newest last
}

// OpenLog reads the head of the log. A warehouse without anything in it is an
// empty log, whose head has no commit id; nothing is written.
func OpenLog(ctx context.Context, store Store, o LogOptions) (*Log, error) {
	l := &Log{
		store: store, log: o.Logger, id: o.WriterID, clock: o.Clock, retention: o.Retention, numbers: o.Numbers,
		head: &State{}, changed: make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.id == "" {
		l.id = uuid.NewString()
	}
	system := SystemClock()
	if l.clock.Boot == nil {
		l.clock.Boot = system.Boot
	}
	if l.clock.Now == nil {
		l.clock.Now = system.Now
	}
	if l.clock.Sleep == nil {
		l.clock.Sleep = system.Sleep
	}
	if l.retention == (Retention{}) {
		l.retention = DefaultRetention()
	}
	if l.numbers == 0 {
		l.numbers = keptNumbers
	}
	head, err := l.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	if head.CommitID == "" {
		if err := l.checkEmpty(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// checkEmpty refuses a prefix in use by others. Hidden files, and what firn
// leaves beside its log while it proves the store, are nothing.
func (l *Log) checkEmpty(ctx context.Context) error {
	after := ""
	for {
		const page = 1000
		keys, err := l.store.Keys(ctx, "", after, page)
		if err != nil {
			return fmt.Errorf("list warehouse: %w", err)
		}
		for _, k := range keys {
			if strings.HasPrefix(k, LogPrefix) {
				// Another run has just begun it.
				return nil
			}
			if !strings.HasPrefix(k, "_firn/") && !strings.HasPrefix(k, ".") {
				return fmt.Errorf("%w: found %q and no %s; give an empty place", ErrForeignWarehouse, k, LogPrefix)
			}
		}
		if len(keys) < page {
			return nil
		}
		after = keys[len(keys)-1]
	}
}

// WriterID is the id that this Log's entries carry.
func (l *Log) WriterID() string { return l.id }

// Head is the newest state known here. It never blocks.
func (l *Log) Head() *State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Changed returns a channel that is closed when the head changes next.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Refresh looks for entries of other writers: one listing of one key, and one
// or two GETs if there is anything new.
func (l *Log) Refresh(ctx context.Context) (*State, error) {
	asked := l.clock.Boot()
	keys, err := l.store.Keys(ctx, LogPrefix, "", 1)
	if err != nil {
		return nil, fmt.Errorf("list epoch log: %w", err)
	}
	head := l.Head()
	if len(keys) == 0 {
		if head.CommitID != "" {
			return nil, fmt.Errorf("%w: entry %d and all others are gone", ErrRewound, head.Number)
		}
		l.noteListing(asked)
		return head, nil
	}
	number, err := entryNumber(keys[0])
	if err != nil {
		return nil, err
	}
	if head.CommitID != "" && number <= head.Number {
		// A commit that ended while we listed may have moved the head past it.
		if number < head.Number {
			return head, l.checkRewound(ctx, number, head)
		}
		l.noteListing(asked)
		return head, nil
	}
	s, err := l.read(ctx, number)
	if err != nil {
		return nil, err
	}
	l.noteListing(asked)
	return l.adopt(s), nil
}

// checkRewound tells a listing that is merely older than our own commit from a
// store that lost entries.
func (l *Log) checkRewound(ctx context.Context, listed uint64, head *State) error {
	_, err := l.store.Get(ctx, entryKey(head.Number))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: its newest entry is %d and was %d", ErrRewound, listed, head.Number)
	case err != nil:
		return fmt.Errorf("read log entry %d: %w", head.Number, err)
	}
	return nil
}

func (l *Log) noteListing(asked time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listed = max(l.listed, asked)
}

// adopt makes s the head if it is newer, and returns the head.
func (l *Log) adopt(s *State) *State {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head.CommitID != "" && s.Number <= l.head.Number {
		return l.head
	}
	l.head = s
	l.remember(s.onBase())
	close(l.changed)
	l.changed = make(chan struct{})
	return s
}

// read returns the state as an entry left it.
func (l *Log) read(ctx context.Context, number uint64) (*State, error) {
	data, err := l.store.Get(ctx, entryKey(number))
	if err != nil {
		return nil, fmt.Errorf("read log entry %d: %w", number, err)
	}
	e, err := decodeEntry(number, data)
	if err != nil {
		return nil, err
	}
	if e.Kind == kindFull {
		return e.state(nil, len(data)), nil
	}
	base, err := l.fullEntry(ctx, *e.Base)
	if err != nil {
		return nil, fmt.Errorf("read log entry %d: %w", number, err)
	}
	return e.state(base, len(data)), nil
}

// fullEntry returns a full entry's state, with nothing but its layers' bases
// being of use.
func (l *Log) fullEntry(ctx context.Context, ref baseRef) (*State, error) {
	l.mu.Lock()
	i := slices.IndexFunc(l.bases, func(s *State) bool { return s.base.same(ref) })
	if i >= 0 {
		s := l.bases[i]
		l.mu.Unlock()
		return s, nil
	}
	l.mu.Unlock()
	data, err := l.store.Get(ctx, entryKey(ref.Number))
	if err != nil {
		return nil, fmt.Errorf("read full entry %d: %w", ref.Number, err)
	}
	e, err := decodeEntry(ref.Number, data)
	if err != nil {
		return nil, err
	}
	if e.Kind != kindFull || e.CommitID != ref.CommitID {
		return nil, fmt.Errorf("read full entry %d: it is a %s entry with commit id %s, want %s: %w", ref.Number, e.Kind, e.CommitID, ref.CommitID, ErrCorrupt)
	}
	s := e.state(nil, len(data)).onBase()
	l.mu.Lock()
	l.remember(s)
	l.mu.Unlock()
	return s, nil
}

// basesMax bounds the full entries in memory; with a thousand tables one takes
// about a megabyte.
const basesMax = 4

// remember needs mu.
func (l *Log) remember(full *State) {
	for i, s := range l.bases {
		if s.base.same(full.base) {
			l.bases = append(slices.Delete(l.bases, i, i+1), s)
			return
		}
	}
	l.bases = append(l.bases, full)
	if len(l.bases) > basesMax {
		l.bases = slices.Delete(l.bases, 0, 1)
	}
}

package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/lake/snapshot"
)

// shortLog is a lake without tables' files: its log, the run that owns it, and
// what each epoch was when it was made.
type shortLog struct {
	t     *testing.T
	store object.Store
	log   *catalog.Log
	x     *expirer
	was   map[uint64]string
}

const (
	shortGrace   = 30 * time.Millisecond
	shortNumbers = 40
)

func (l *shortLog) options() catalog.LogOptions {
	return catalog.LogOptions{Numbers: shortNumbers, Retention: catalog.Retention{Newest: 5, Minutes: 20 * time.Minute}}
}

func newShortLog(t *testing.T) *shortLog {
	l := &shortLog{t: t, store: laketest.NewMemoryStore(), was: map[uint64]string{}}
	l.log = l.open(l.options())
	_, err := l.log.Commit(t.Context(), func(n *catalog.State) error {
		n.Source = &catalog.Source{SystemID: "1", Timeline: 1, Database: "shop", Slot: "s", Phase: catalog.PhaseReady, ConsistentPoint: 100}
		n.LSN = 100
		return nil
	})
	require.NoError(t, err)
	l.x = l.claim(l.log)
	return l
}

func (l *shortLog) open(o catalog.LogOptions) *catalog.Log {
	l.t.Helper()
	log, err := catalog.OpenLog(l.t.Context(), l.store, o)
	require.NoError(l.t, err)
	return log
}

func (l *shortLog) claim(log *catalog.Log) *expirer {
	l.t.Helper()
	_, err := log.Claim(l.t.Context())
	require.NoError(l.t, err)
	return &expirer{log: log, sweeper: newSweeper(log, l.store, snapshot.NewPending(), shortGrace), removed: new(atomic.Int64), logger: slog.New(slog.DiscardHandler)}
}

var firstCommit = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func shape(s *catalog.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d at %s:", s.Epoch, s.LSN)
	for id, t := range s.Tables() {
		fmt.Fprintf(&b, " %s=%d", id, t.SnapshotID)
	}
	return b.String()
}

// epoch commits one, ten seconds after the last.
func (l *shortLog) epoch(log *catalog.Log) {
	l.t.Helper()
	s, err := log.CommitPriority(l.t.Context(), func(n *catalog.State) error {
		n.PutNamespace([]string{"public"}, nil)
		n.Epoch++
		n.LSN += 100
		n.CommitTime = firstCommit.Add(time.Duration(n.Epoch) * 10 * time.Second)
		id := catalog.Ident{Namespace: []string{"public"}, Name: fmt.Sprint("t", n.Epoch%7)}
		n.PutTable(id, catalog.Table{UUID: id.Name, Location: "memory://" + id.Name, SnapshotID: int64(n.Epoch)})
		return nil
	})
	require.NoError(l.t, err)
	l.was[s.Epoch] = shape(s)
}

// expired expires until nothing more goes.
func (l *shortLog) expired() {
	l.t.Helper()
	require.Eventually(l.t, func() bool {
		did, err := l.x.expire(l.t.Context())
		require.NoError(l.t, err)
		time.Sleep(shortGrace)
		return did.Removed+did.Waiting+len(did.Expiry.Epochs) == 0
	}, 10*time.Second, time.Millisecond)
}

func (l *shortLog) entries() int {
	l.t.Helper()
	keys, err := l.store.Keys(l.t.Context(), catalog.LogPrefix, "", 0)
	require.NoError(l.t, err)
	return len(keys)
}

// has says whether an entry's object is there.
func (l *shortLog) has(number uint64) bool {
	l.t.Helper()
	keys, err := l.store.Keys(l.t.Context(), catalog.LogPrefix, "", 0)
	require.NoError(l.t, err)
	return slices.ContainsFunc(keys, func(k string) bool { return strings.HasSuffix(k, fmt.Sprintf("/%020d.json", math.MaxUint64-number)) })
}

// answers sees that every kept and tagged epoch is what it was, to a reader that
// knows nothing but the store.
func (l *shortLog) answers() {
	l.t.Helper()
	log := l.open(l.options())
	kept := log.Head().Epochs()
	for _, t := range log.Head().Tags() {
		kept = append(kept, t.Kept)
	}
	require.Greater(l.t, len(kept), 5)
	for _, k := range kept {
		s, err := log.AsOf(l.t.Context(), catalog.Moment{LSN: k.LSN})
		require.NoError(l.t, err)
		require.Equal(l.t, l.was[k.Epoch], shape(s))
	}
}

// Of the log go the entries that no kept epoch is read from: an entry says so
// first, and the newest ones stay. Every kept epoch answers on.
func TestRule14LogEntriesGo(t *testing.T) {
	l := newShortLog(t)
	other := l.open(l.options())
	for i := range 600 {
		l.epoch(l.log)
		switch i {
		case 3:
			_, err := other.Tag(t.Context(), "early", catalog.Moment{})
			require.NoError(t, err)
		case 300:
			slept := l.open(l.options())
			defer func() { // a server that looks again only now
				var answered, gone int
				for _, k := range slept.Head().Epochs() {
					s, err := slept.AsOf(t.Context(), catalog.Moment{LSN: k.LSN})
					if errors.Is(err, catalog.ErrNotKept) {
						gone++
						continue
					}
					require.NoError(t, err)
					require.Equal(t, l.was[k.Epoch], shape(s))
					answered++
				}
				require.NotZero(t, answered)
				require.NotZero(t, gone)
				head, err := slept.Refresh(t.Context())
				require.NoError(t, err)
				require.Equal(t, l.log.Head().Number, head.Number)
			}()
		}
	}
	number := l.log.Head().Number
	would, err := l.x.look(t.Context())
	require.NoError(t, err)
	require.Greater(t, would.Trimmed, uint64(500))
	require.Zero(t, l.log.Head().Trimmed)
	require.Equal(t, number, l.log.Head().Number, "a look writes nothing")
	before := l.entries()
	did, err := l.x.expire(t.Context())
	require.NoError(t, err)
	require.Zero(t, did.Removed, "first the entry")
	require.Equal(t, before+1, l.entries())
	require.Equal(t, would.Trimmed, l.open(l.options()).Head().Trimmed)
	l.expired()
	kept := len(l.log.Head().Epochs())
	require.Less(t, l.entries(), shortNumbers+shortNumbers/10+2*kept+5)
	require.Less(t, l.entries(), before/3)
	for n := l.log.Head().Trimmed; n <= l.log.Head().Number; n++ { // pinned, or walked
		_, err := l.log.Entry(t.Context(), n)
		require.NoError(t, err)
	}
	l.answers()
	entries := l.entries()
	_, err = l.log.Untag(t.Context(), "early")
	require.NoError(t, err)
	l.epoch(l.log)
	l.expired()
	require.LessOrEqual(t, l.entries(), entries+1, "what a tag kept goes with it")
	require.NotContains(t, l.log.Head().Epochs()[0].Time.String(), firstCommit.Add(40*time.Second).String())
	l.answers()
}

// A writer is held up between its look at the head and its put, for so long that
// the number is free again: the put succeeds, far below the head, and is no
// commit. It is made again above the head, and what lies below is removed.
func TestRule09PutIntoTheTrimmedLog(t *testing.T) {
	l := newShortLog(t)
	for range 10 {
		l.epoch(l.log)
	}
	var slept atomic.Int64
	held := &heldStore{Store: l.store, until: make(chan struct{}), at: make(chan struct{})}
	o := l.options()
	o.Clock = catalog.SystemClock()
	boot := o.Clock.Boot
	o.Clock.Boot = func() time.Duration { return boot() + time.Duration(slept.Load()) }
	log, err := catalog.OpenLog(t.Context(), held, o)
	require.NoError(t, err)
	held.hold.Store(true)
	number := log.Head().Number + 1
	done := make(chan error, 1)
	go func() {
		_, err := log.Commit(context.WithoutCancel(t.Context()), func(n *catalog.State) error {
			n.PutNamespace([]string{"late"}, nil)
			return nil
		})
		done <- err
	}()
	<-held.at
	for range 200 {
		l.epoch(l.log)
	}
	l.expired()
	require.False(t, l.has(number), "the number is free again")
	slept.Store(int64(3 * time.Hour))
	held.hold.Store(false)
	close(held.until)
	require.NoError(t, <-done)
	require.True(t, l.has(number), "its first put is there")
	head, err := l.log.Refresh(t.Context())
	require.NoError(t, err)
	_, there := head.Namespace([]string{"late"})
	require.True(t, there, "and made again above the head")
	require.Equal(t, log.WriterID(), head.Writer.ID)
	l.expired()
	require.False(t, l.has(number), "what lies below is nobody's")
	l.answers()
}

// heldStore holds a put back.
type heldStore struct {
	object.Store
	hold      atomic.Bool
	at, until chan struct{}
}

func (s *heldStore) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	if s.hold.Load() {
		close(s.at)
		<-s.until
	}
	return s.Store.PutIfAbsent(ctx, key, body)
}

// A run that has been fenced says nothing and removes nothing any more, in the
// middle of an expiry too.
func TestRule13FencedRunRemovesNothing(t *testing.T) {
	l := newShortLog(t)
	for range 200 {
		l.epoch(l.log)
	}
	_, err := l.x.expire(t.Context())
	require.NoError(t, err)
	time.Sleep(shortGrace)
	would, err := l.x.look(t.Context())
	require.NoError(t, err)
	require.NotZero(t, would.Removed)
	next := l.claim(l.open(l.options()))
	entries := l.entries()
	_, err = l.x.expire(t.Context())
	require.ErrorIs(t, err, catalog.ErrFenced)
	_, err = l.x.sweeper.Sweep(t.Context())
	require.ErrorIs(t, err, catalog.ErrFenced)
	require.Equal(t, entries, l.entries())
	_, err = l.open(l.options()).Expire(t.Context())
	require.ErrorIs(t, err, catalog.ErrFenced, "one that never claimed it neither")
	l.x, l.log = next, next.log // what the first one left the next one finds
	l.expired()
	require.Less(t, l.entries(), entries)
	l.answers()
}

// Sessions that are shorter than the time between two looks, each begun by
// somebody else's rewrite, say, still come to look.
func TestExpiryOutlivesSessions(t *testing.T) {
	l := newShortLog(t)
	for range 200 {
		l.epoch(l.log)
	}
	l.x.sweeper.Grace = 200 * time.Millisecond
	require.Eventually(t, func() bool {
		ctx, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer end()
		require.NoError(t, l.x.run(ctx))
		return l.x.removed.Load() > 0
	}, 10*time.Second, time.Millisecond)
	l.answers()
}

// Tags come and go from another process while epochs are thinned and the log is
// trimmed: one that was made is kept, whatever was on its way meanwhile.
func TestRule14TagsRaceExpiry(t *testing.T) {
	l := newShortLog(t)
	for range 30 {
		l.epoch(l.log)
	}
	others := l.open(l.options())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		made := 0
		for i := 0; ctx.Err() == nil; i++ {
			// By an old look at the epochs: the oldest are thinned just now.
			kept := others.Head().Epochs()
			k := kept[rand.N(len(kept))]
			_, err := others.Tag(ctx, fmt.Sprint("t", i), catalog.Moment{LSN: k.LSN})
			switch {
			case err == nil:
				made++
			case !errors.Is(err, catalog.ErrThinned) && !errors.Is(err, catalog.ErrNotKept) && ctx.Err() == nil:
				t.Errorf("tag: %v", err)
			}
			if i%3 == 0 && i > 0 {
				if _, err := others.Untag(ctx, fmt.Sprint("t", rand.N(i))); err != nil && !errors.Is(err, catalog.ErrNoTag) && ctx.Err() == nil {
					t.Errorf("untag: %v", err)
				}
			}
		}
		ended <- made
	}()
	for range 400 {
		l.epoch(l.log)
		if rand.N(10) == 0 {
			_, err := l.x.expire(t.Context())
			require.NoError(t, err)
			time.Sleep(shortGrace / 3)
		}
	}
	stop()
	made := <-ended
	require.NotZero(t, made)
	l.expired()
	l.answers()
	t.Logf("%d tags made, %d entries left of %d", made, l.entries(), l.log.Head().Number)
}

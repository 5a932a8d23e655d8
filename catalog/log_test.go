package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/wal"
)

// day is when the lakes of these tests begin.
var day = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

// clock is a Clock that only moves when told to, or when somebody sleeps.
type clock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

func (c *clock) boot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) options(id string) catalog.LogOptions {
	return catalog.LogOptions{WriterID: id, Clock: catalog.Clock{
		Boot: c.boot,
		Now:  func() time.Time { return day.Add(c.boot()) },
		Sleep: func(ctx context.Context, d time.Duration) error {
			c.pass(d)
			return ctx.Err()
		},
	}}
}

func open(t testing.TB, s catalog.Store, o catalog.LogOptions) *catalog.Log {
	t.Helper()
	l, err := catalog.OpenLog(t.Context(), s, o)
	require.NoError(t, err)
	return l
}

func commit(t testing.TB, l *catalog.Log, fn func(*catalog.State)) *catalog.State {
	t.Helper()
	s, err := l.Commit(t.Context(), func(next *catalog.State) error { fn(next); return nil })
	require.NoError(t, err)
	return s
}

var source = catalog.Source{
	SystemID: "7300000000000000001", Timeline: 1, Database: "shop", Slot: "firn_shop", Publication: "firn_shop",
	Phase: catalog.PhaseCreating,
}

// born opens a log as a first run does: entry 0, the slot, entry 1, the claim.
func born(t testing.TB, s catalog.Store, o catalog.LogOptions) *catalog.Log {
	t.Helper()
	l := open(t, s, o)
	commit(t, l, func(n *catalog.State) {
		src := source
		n.Source, n.Warehouse = &src, "shop"
		n.PutNamespace([]string{"public"}, nil)
	})
	commit(t, l, func(n *catalog.State) {
		n.Source.Phase, n.Source.ConsistentPoint = catalog.PhaseReady, 1000
		n.LSN, n.CommitTime = 1000, day
	})
	_, err := l.Claim(t.Context())
	require.NoError(t, err)
	return l
}

func ident(name string) catalog.Ident {
	return catalog.Ident{Namespace: []string{"public"}, Name: name}
}

// epoch moves the table to the next LSN.
func epoch(n *catalog.State, table string) {
	n.Epoch++
	n.LSN += 100
	n.CommitTime = n.CommitTime.Add(time.Second)
	n.PutTable(ident(table), catalog.Table{
		UUID: table, Metadata: fmt.Sprintf("memory://%s/%d.json", table, n.Epoch), SnapshotID: int64(n.Epoch) << 40,
		Mirror: &catalog.Mirror{OID: 16384, LSN: n.LSN, State: catalog.Streaming},
	})
}

func TestRule03Birth(t *testing.T) {
	s := laketest.NewMemoryStore()
	l := open(t, s, catalog.LogOptions{})
	require.Zero(t, l.Head().Number)
	require.Empty(t, l.Head().CommitID)
	keys, err := s.Keys(t.Context(), "", "", 0)
	require.NoError(t, err)
	require.Empty(t, keys, "opening writes nothing")

	commit(t, l, func(n *catalog.State) { src := source; n.Source = &src })
	// A run that died here left entry 0 alone: the next one sees that the slot
	// was only about to be created.
	next := open(t, s, catalog.LogOptions{})
	require.Zero(t, next.Head().Number)
	require.NotEmpty(t, next.Head().CommitID)
	require.Equal(t, catalog.PhaseCreating, next.Head().Source.Phase)
	_, err = next.Claim(t.Context())
	require.ErrorContains(t, err, "not ready")
	commit(t, next, func(n *catalog.State) {
		n.Source.Phase, n.Source.ConsistentPoint, n.LSN = catalog.PhaseReady, 1000, 1000
	})
	last := open(t, s, catalog.LogOptions{}).Head()
	require.Equal(t, uint64(1), last.Number)
	require.Equal(t, wal.LSN(1000), last.Source.ConsistentPoint)
	require.Equal(t, "7300000000000000001", last.Source.SystemID)
}

func TestRule03TwoBirths(t *testing.T) {
	s := laketest.NewMemoryStore()
	a, b := open(t, s, catalog.LogOptions{}), open(t, s, catalog.LogOptions{})
	commit(t, a, func(n *catalog.State) { src := source; n.Source = &src })
	other := errors.New("another firn begins this lake")
	_, err := b.Commit(t.Context(), func(n *catalog.State) error {
		if n.Source != nil {
			return other
		}
		src := source
		n.Source = &src
		return nil
	})
	require.ErrorIs(t, err, other)
}

// An advance entry moves the LSN and no table, and is no epoch (rule 2).
func TestRule02Advance(t *testing.T) {
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{})
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	kept := l.Head().Epochs()
	advanced := commit(t, l, func(n *catalog.State) { n.LSN += 16 << 20 })
	require.Equal(t, kept, advanced.Epochs())
	require.Equal(t, wal.LSN(1100+16<<20), open(t, s, catalog.LogOptions{}).Head().LSN)
}

func TestLSNNeverGoesBack(t *testing.T) {
	l := born(t, laketest.NewMemoryStore(), catalog.LogOptions{})
	_, err := l.Commit(t.Context(), func(n *catalog.State) error { n.LSN--; return nil })
	require.ErrorContains(t, err, "LSN 0/3E7 is behind the head's 0/3E8")
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	_, err = l.Commit(t.Context(), func(n *catalog.State) error { n.Epoch--; return nil })
	require.ErrorContains(t, err, "epoch")
}

func TestOpenForeignWarehouse(t *testing.T) {
	ctx := t.Context()
	s := laketest.NewMemoryStore()
	require.NoError(t, s.PutIfAbsent(ctx, ".DS_Store", nil))
	require.NoError(t, s.PutIfAbsent(ctx, "_firn/probe/x", nil))
	open(t, s, catalog.LogOptions{})
	require.NoError(t, s.PutIfAbsent(ctx, "photos/1.jpg", nil))
	_, err := catalog.OpenLog(ctx, s, catalog.LogOptions{})
	require.ErrorIs(t, err, catalog.ErrForeignWarehouse)
	require.ErrorContains(t, err, "photos/1.jpg")
}

func TestCommitErrorsOfTheCallback(t *testing.T) {
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{})
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	before := l.Head()
	mine := errors.New("mine")
	_, err := l.Commit(t.Context(), func(n *catalog.State) error {
		n.PutTable(ident("x"), catalog.Table{UUID: "x"})
		n.Source.Phase = "changed"
		return mine
	})
	require.Equal(t, mine, err, "unchanged")
	same, err := l.Commit(t.Context(), func(*catalog.State) error { return catalog.ErrUnchanged })
	require.NoError(t, err)
	require.Same(t, before, same)
	_, there := l.Head().Table(ident("x"))
	require.False(t, there)
	require.Equal(t, catalog.PhaseReady, l.Head().Source.Phase)

	for text, fn := range map[string]func(*catalog.State){
		"namespace nowhere, which does not exist": func(n *catalog.State) {
			n.PutTable(catalog.Ident{Namespace: []string{"nowhere"}, Name: "x"}, catalog.Table{})
		},
		"dropped while public.orders is in it": func(n *catalog.State) { n.DropNamespace([]string{"public"}) },
		"is no kept epoch":                     func(n *catalog.State) { n.PutTag("t", catalog.Tag{Kept: catalog.Kept{Number: 99}}) },
		"can't be taken away":                  func(n *catalog.State) { n.Source = nil },
	} {
		_, err := l.Commit(t.Context(), func(n *catalog.State) error { fn(n); return nil })
		require.ErrorContains(t, err, text)
	}
	require.Same(t, before, l.Head())
}

// A catalog server that does nothing sees what others write, by one listing
// and at most two GETs; and by one listing alone if there is nothing.
func TestRefresh(t *testing.T) {
	ctx := t.Context()
	s := laketest.NewMemoryStore()
	writer := born(t, s, catalog.LogOptions{})
	counted := laketest.NewFaultStore(s)
	idle := open(t, counted, catalog.LogOptions{})
	counted.Clear()
	head, err := idle.Refresh(ctx)
	require.NoError(t, err)
	require.Equal(t, writer.Head().CommitID, head.CommitID)
	require.Len(t, counted.Calls(), 1)

	changed := idle.Changed()
	for range 40 {
		commit(t, writer, func(n *catalog.State) { epoch(n, "orders") })
	}
	select {
	case <-changed:
		t.Fatal("nothing was refreshed yet")
	default:
	}
	counted.Clear()
	head, err = idle.Refresh(ctx)
	require.NoError(t, err)
	require.LessOrEqual(t, len(counted.Calls()), 3)
	require.Equal(t, catalog.Dump(writer.Head()), catalog.Dump(head))
	<-changed

	require.NoError(t, s.Delete(ctx, catalog.EntryKey(head.Number)))
	_, err = idle.Refresh(ctx)
	require.ErrorIs(t, err, catalog.ErrRewound)
}

func TestAsOf(t *testing.T) {
	ctx := t.Context()
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{})
	for range 10 { // LSN 1100 … 2000, a second apart
		commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
		commit(t, l, func(n *catalog.State) {
			n.PutNamespace([]string{"other"}, map[string]string{"n": fmt.Sprint(n.Number)})
		})
	}
	commit(t, l, func(n *catalog.State) {
		n.PutTag("third", catalog.Tag{Kept: n.Epochs()[2], Created: day})
	})
	metadata := func(m catalog.Moment) string {
		t.Helper()
		st, err := open(t, s, catalog.LogOptions{}).AsOf(ctx, m)
		require.NoError(t, err)
		table, ok := st.Table(ident("orders"))
		require.True(t, ok)
		return table.Metadata
	}
	require.Equal(t, "memory://orders/1.json", metadata(catalog.Moment{LSN: 1100}))
	require.Equal(t, "memory://orders/1.json", metadata(catalog.Moment{LSN: 1199}))
	require.Equal(t, "memory://orders/2.json", metadata(catalog.Moment{LSN: 1200}))
	require.Equal(t, "memory://orders/4.json", metadata(catalog.Moment{Time: day.Add(4900 * time.Millisecond)}))
	require.Equal(t, "memory://orders/10.json", metadata(catalog.Moment{Time: day.Add(time.Hour)}))
	require.Equal(t, "memory://orders/3.json", metadata(catalog.Moment{Tag: "third"}))
	require.Equal(t, "memory://orders/10.json", metadata(catalog.Moment{}))

	for m, want := range map[catalog.Moment]error{
		{LSN: 2001}:                 catalog.ErrNotYet,
		{LSN: 1099}:                 catalog.ErrNotKept,
		{Time: day.Add(-time.Hour)}: catalog.ErrNotKept,
		{Tag: "nothing"}:            catalog.ErrNotKept,
	} {
		_, err := l.AsOf(ctx, m)
		require.ErrorIs(t, err, want, m.String())
	}
	// A server that has slept learns of a moment after its head.
	idle := open(t, s, catalog.LogOptions{})
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	st, err := idle.AsOf(ctx, catalog.Moment{LSN: 2100})
	require.NoError(t, err)
	require.Equal(t, uint64(11), st.Epoch)

	for _, text := range []string{"16/B374D848", "2026-11-23T02:00:00Z", "before-upgrade", "latest"} {
		m, err := catalog.ParseMoment(text)
		require.NoError(t, err)
		require.Equal(t, text, m.String())
	}
	_, err = catalog.ParseMoment("")
	require.Error(t, err)
}

// The stream's commit goes before others that have waited longer.
func TestCommitPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := born(t, laketest.NewMemoryStore(), catalog.LogOptions{})
		var order []string
		inside, leave := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		run := func(name string, do func(context.Context, func(*catalog.State) error) (*catalog.State, error)) {
			all.Go(func() {
				_, err := do(t.Context(), func(*catalog.State) error { order = append(order, name); return nil })
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		all.Go(func() {
			_, err := l.Commit(t.Context(), func(*catalog.State) error { close(inside); <-leave; return nil })
			require.NoError(t, err)
		})
		<-inside
		run("server 1", l.Commit)
		run("server 2", l.Commit)
		ended, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			_, err := l.Commit(ended, func(*catalog.State) error { return errors.New("must not run") })
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		cancel()
		run("stream", l.CommitPriority)
		close(leave)
		all.Wait()
		require.Equal(t, []string{"stream", "server 1", "server 2"}, order)
	})
}

// Eight writers that never saw each other want the same numbers: each number
// has one winner, and in the end everyone's change is there.
func TestRace(t *testing.T) {
	stores := map[string]func(t *testing.T) func() catalog.Store{
		"memory": func(*testing.T) func() catalog.Store {
			s := laketest.NewMemoryStore()
			return func() catalog.Store { return s }
		},
		"folder": func(t *testing.T) func() catalog.Store {
			dir := filepath.Join(t.TempDir(), "lake")
			return func() catalog.Store {
				s, err := object.Open(t.Context(), dir, object.Options{})
				require.NoError(t, err)
				return s
			}
		},
		"MinIO": func(t *testing.T) func() catalog.Store {
			m := laketest.MinIO(t)
			url := "s3://" + m.Bucket(t) + "/shop"
			return func() catalog.Store {
				s, err := object.Open(t.Context(), url, object.Options{
					Endpoint: m.Endpoint, Region: m.Region, AccessKeyID: m.AccessKey, SecretAccessKey: m.SecretKey,
				})
				require.NoError(t, err)
				return s
			}
		},
	}
	for name, start := range stores {
		t.Run(name, func(t *testing.T) { race(t, start(t)) })
	}
}

func race(t *testing.T, open1 func() catalog.Store) {
	const writers, rounds = 8, 3
	commit(t, open(t, open1(), catalog.LogOptions{}), func(n *catalog.State) { n.PutNamespace([]string{"public"}, nil) })
	var mu sync.Mutex
	numbers := map[uint64]string{}
	var all sync.WaitGroup
	for w := range writers {
		l := open(t, open1(), catalog.LogOptions{WriterID: fmt.Sprint("writer ", w)})
		all.Go(func() {
			for r := range rounds {
				name := fmt.Sprintf("t%d_%d", w, r)
				s, err := l.Commit(t.Context(), func(n *catalog.State) error {
					n.PutTable(ident(name), catalog.Table{UUID: name})
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, taken := numbers[s.Number]; taken {
					t.Errorf("entry %d was won by %s and %s", s.Number, other, name)
				}
				numbers[s.Number] = name
				mu.Unlock()
			}
		})
	}
	all.Wait()
	last := open(t, open1(), catalog.LogOptions{}).Head()
	require.Equal(t, uint64(writers*rounds), last.Number)
	require.Equal(t, writers*rounds, last.TableCount())
	require.Len(t, numbers, writers*rounds)
	// The chain is whole.
	store := open1()
	previous := ""
	for n := range last.Number + 1 {
		data, err := store.Get(t.Context(), catalog.EntryKey(n))
		require.NoError(t, err)
		var e struct{ Previous, CommitID string }
		require.NoError(t, json.Unmarshal(data, &struct {
			Previous *string `json:"previous"`
			CommitID *string `json:"commit_id"`
		}{&e.Previous, &e.CommitID}))
		require.Equal(t, previous, e.Previous, "entry %d", n)
		previous = e.CommitID
	}
}

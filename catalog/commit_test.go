package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/wal"
)

func TestRule07Claim(t *testing.T) {
	ctx := t.Context()
	s := laketest.NewMemoryStore()
	first := born(t, s, catalog.LogOptions{WriterID: "first"})
	require.Equal(t, uint64(1), first.Incarnation())
	require.Equal(t, uint64(2), first.Head().Number, "an entry of its own")
	require.Equal(t, catalog.Writer{ID: "first", Incarnation: 1}, first.Head().Writer)
	commit(t, first, func(n *catalog.State) { epoch(n, "orders") })

	// Opening, and waiting for the slot, disturbs nobody.
	second := open(t, s, catalog.LogOptions{WriterID: "second"})
	commit(t, first, func(n *catalog.State) { epoch(n, "orders") })
	// Before its claim it may not move what the stream moves.
	_, err := second.Commit(ctx, func(n *catalog.State) error { epoch(n, "orders"); return nil })
	require.ErrorContains(t, err, "only the run that has claimed")

	claimed, err := second.Claim(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(2), claimed.Source.Incarnation)
	require.Equal(t, "second", claimed.Source.Writer)
	require.Equal(t, wal.LSN(1200), claimed.LSN, "what the first run did last is in it")

	before := claimed.Number
	_, err = first.CommitPriority(ctx, func(n *catalog.State) error { epoch(n, "orders"); return nil })
	require.ErrorIs(t, err, catalog.ErrFenced)
	_, err = first.Commit(ctx, func(n *catalog.State) error { n.PutNamespace([]string{"x"}, nil); return nil })
	require.ErrorIs(t, err, catalog.ErrFenced)
	head, err := second.Refresh(ctx)
	require.NoError(t, err)
	require.Equal(t, before, head.Number, "the fenced run wrote nothing")

	// A callback can't hand the claim to anyone, nor lose it.
	commit(t, second, func(n *catalog.State) { src := source; src.Phase = catalog.PhaseReady; n.Source = &src })
	commit(t, second, func(n *catalog.State) { epoch(n, "orders") })
	// A run that starts again in its process takes a new incarnation.
	_, err = second.Claim(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(3), second.Incarnation())
	commit(t, second, func(n *catalog.State) { epoch(n, "orders") })
}

func TestRule07ClaimRace(t *testing.T) {
	s := laketest.NewMemoryStore()
	born(t, s, catalog.LogOptions{})
	a, b := open(t, s, catalog.LogOptions{}), open(t, s, catalog.LogOptions{})
	_, err := a.Claim(t.Context())
	require.NoError(t, err)
	_, err = b.Claim(t.Context()) // from the same head
	require.NoError(t, err)
	require.Equal(t, uint64(2), a.Incarnation())
	require.Equal(t, uint64(3), b.Incarnation())
	_, err = a.Commit(t.Context(), func(n *catalog.State) error { epoch(n, "x"); return nil })
	require.ErrorIs(t, err, catalog.ErrFenced)
	commit(t, b, func(n *catalog.State) { epoch(n, "x") })
}

// rule08 is a claimed log over a store with faults, with one epoch in it.
func rule08(t *testing.T) (*laketest.FaultStore, *catalog.Log, *clock) {
	t.Helper()
	f := laketest.NewFaultStore(laketest.NewMemoryStore())
	c := &clock{}
	l := born(t, f, c.options("stream"))
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	f.Clear()
	return f, l, c
}

func reopened(t *testing.T, s catalog.Store) *catalog.State {
	t.Helper()
	return open(t, s, catalog.LogOptions{}).Head()
}

func TestRule08AnswerLostOurs(t *testing.T) {
	f, l, _ := rule08(t)
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Times: 1, After: laketest.ErrLost})
	calls := 0
	s := commit(t, l, func(n *catalog.State) { calls++; epoch(n, "orders") })
	require.Equal(t, 1, calls)
	require.Equal(t, wal.LSN(1200), s.LSN)
	require.Equal(t, s.CommitID, reopened(t, f).CommitID)
	require.Equal(t, s.Number, reopened(t, f).Number)
}

func TestRule08AnswerLostAbsent(t *testing.T) {
	f, l, _ := rule08(t)
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Times: 3, Before: laketest.ErrSlowDown})
	// Reading it back fails too, once.
	f.Inject(laketest.Fault{Op: laketest.OpGet, Times: 1, Before: laketest.ErrSlowDown})
	calls := 0
	s := commit(t, l, func(n *catalog.State) { calls++; epoch(n, "orders") })
	require.Equal(t, 1, calls, "the same bytes go again")
	require.Equal(t, s.CommitID, reopened(t, f).CommitID)
}

// The first request arrives after the second one was sent.
func TestRule08AnswerLostLate(t *testing.T) {
	f, l, _ := rule08(t)
	number := l.Head().Number + 1
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Times: 1, Before: laketest.ErrLost})
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Times: 1, After: fs.ErrExist})
	s := commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	require.Equal(t, number, s.Number)
	require.Equal(t, s.CommitID, reopened(t, f).CommitID)
}

func TestRule08NewerIncarnationFences(t *testing.T) {
	for name, fault := range map[string]laketest.Fault{
		"taken":       {},
		"answer lost": {Op: laketest.OpPutIfAbsent, Times: 1, Before: laketest.ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			f, l, _ := rule08(t)
			newer := open(t, f, catalog.LogOptions{})
			_, err := newer.Claim(t.Context())
			require.NoError(t, err)
			commit(t, newer, func(n *catalog.State) { epoch(n, "orders") })
			// A catalog server's entry on top doesn't hide the claim.
			commit(t, open(t, f, catalog.LogOptions{}), func(n *catalog.State) { n.PutNamespace([]string{"x"}, nil) })
			want := reopened(t, f).CommitID
			f.Inject(fault)
			_, err = l.Commit(t.Context(), func(n *catalog.State) error { epoch(n, "orders"); return nil })
			require.ErrorIs(t, err, catalog.ErrFenced)
			require.ErrorContains(t, err, "this run is incarnation 1, entry 6 names incarnation 2")
			require.Equal(t, want, reopened(t, f).CommitID)
		})
	}
}

func TestRule08ForeignRebased(t *testing.T) {
	for name, fault := range map[string]laketest.Fault{
		"taken":       {},
		"answer lost": {Op: laketest.OpPutIfAbsent, Times: 1, Before: laketest.ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			f, l, _ := rule08(t)
			server := open(t, f, catalog.LogOptions{WriterID: "server"})
			foreign := commit(t, server, func(n *catalog.State) {
				n.PutTable(ident("theirs"), catalog.Table{UUID: "theirs", Metadata: "memory://theirs/1.json"})
			})
			require.Equal(t, wal.LSN(1100), foreign.LSN)
			data, err := f.Get(t.Context(), catalog.EntryKey(foreign.Number))
			require.NoError(t, err)
			require.Contains(t, string(data), `"lsn":"0/44C"`, "the LSN is in foreign entries too (rule 6)")

			f.Inject(fault)
			var heads []uint64
			s := commit(t, l, func(n *catalog.State) { heads = append(heads, n.Number); epoch(n, "orders") })
			require.Equal(t, []uint64{foreign.Number - 1, foreign.Number}, heads)
			require.Equal(t, foreign.Number+1, s.Number)
			require.Equal(t, foreign.CommitID, s.Previous)
			require.Equal(t, wal.LSN(1200), s.LSN)
			head := reopened(t, f)
			require.Equal(t, catalog.Dump(s), catalog.Dump(head))
			_, theirs := head.Table(ident("theirs"))
			require.True(t, theirs)

			// And the server's next commit is built on the stream's.
			s = commit(t, server, func(n *catalog.State) { n.DropTable(ident("theirs")) })
			require.Equal(t, wal.LSN(1200), s.LSN)
			require.Equal(t, uint64(2), s.Epoch)
		})
	}
}

// An error hid a commit that happened, or that happens later: the next one is
// built on it.
func TestRule08OwnGhost(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) {
			f, l, _ := rule08(t)
			number := l.Head().Number + 1
			dead := laketest.Fault{Op: laketest.OpPutIfAbsent, After: laketest.ErrLost}
			f.Inject(laketest.Fault{Op: laketest.OpGet, Before: laketest.ErrSlowDown})
			f.Inject(dead)
			_, err := l.Commit(t.Context(), func(n *catalog.State) error { epoch(n, "orders"); return nil })
			require.ErrorIs(t, err, catalog.ErrUnknown)
			f.Clear()
			if late { // the entry becomes visible after the next commit has looked
				body, err := f.Get(t.Context(), catalog.EntryKey(number))
				require.NoError(t, err)
				require.NoError(t, f.Delete(t.Context(), catalog.EntryKey(number)))
				f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Times: 1, Hook: func(ctx context.Context, c laketest.Call) error {
					return f.PutIfAbsent(ctx, c.Key, body)
				}})
			}
			var seen []wal.LSN
			s := commit(t, l, func(n *catalog.State) { seen = append(seen, n.LSN); epoch(n, "orders") })
			require.Equal(t, number+1, s.Number)
			require.Equal(t, wal.LSN(1200), seen[len(seen)-1], "the ghost's LSN is carried forward")
			require.Equal(t, wal.LSN(1300), reopened(t, f).LSN)
		})
	}
}

func TestRule08PermissionIsFinal(t *testing.T) {
	f, l, c := rule08(t)
	f.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Before: fmt.Errorf("put: %w", fs.ErrPermission)})
	began := c.boot()
	_, err := l.Commit(t.Context(), func(n *catalog.State) error { epoch(n, "orders"); return nil })
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Equal(t, began, c.boot(), "no waiting for a right that won't come")
}

// A process may die before or after any call to the store: the next one finds
// the commit whole or not at all, and goes on.
func TestRule08CrashAtEveryCall(t *testing.T) {
	outcomes := map[bool]int{}
	for n := 1; ; n++ {
		for _, after := range []bool{false, true} {
			f, l, c := rule08(t)
			server := open(t, f, c.options("server"))
			commit(t, server, func(n *catalog.State) { n.PutNamespace([]string{"x"}, nil) })
			f.Clear()
			f.Crash(n, after)
			_, err := l.Commit(t.Context(), func(n *catalog.State) error { epoch(n, "orders"); return nil })
			if err == nil {
				require.Greater(t, n, 4, "the commit took the crash for an answer")
				require.Equal(t, map[bool]int{false: 2 * (n - 1), true: 0}[false], outcomes[false]+outcomes[true])
				require.Positive(t, outcomes[true])
				return
			}
			require.ErrorIs(t, err, laketest.ErrCrashed)
			f.Clear()
			next := open(t, f, c.options("next"))
			outcomes[next.Head().LSN == 1200]++
			_, err = next.Claim(t.Context())
			require.NoError(t, err)
			s := commit(t, next, func(n *catalog.State) { epoch(n, "orders") })
			require.Contains(t, []wal.LSN{1200, 1300}, s.LSN)
			require.Equal(t, catalog.Dump(s), catalog.Dump(reopened(t, f)))
		}
	}
}

func listings(f *laketest.FaultStore) (n int) {
	for _, c := range f.Calls() {
		if c.Op == laketest.OpKeys {
			n++
		}
	}
	return n
}

func TestRule09ListsAfterAMinute(t *testing.T) {
	f, l, c := rule08(t)
	commit(t, l, func(n *catalog.State) { c.pass(time.Minute); epoch(n, "orders") })
	require.Zero(t, listings(f))
	commit(t, l, func(n *catalog.State) { c.pass(time.Second); epoch(n, "orders") })
	require.Equal(t, 1, listings(f))
	commit(t, l, func(n *catalog.State) { c.pass(time.Minute); epoch(n, "orders") })
	require.Equal(t, 1, listings(f), "the listing's age starts anew")
	// A listing that fails is asked again, not believed.
	c.pass(time.Hour)
	f.Inject(laketest.Fault{Op: laketest.OpKeys, Times: 2, Before: laketest.ErrSlowDown})
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	require.Equal(t, 4, listings(f))
}

// The machine sleeps while the answer is under way, and others go on from our
// entry: it chains, so it is a commit.
func TestRule09ChainAboveOurs(t *testing.T) {
	f, l, c := rule08(t)
	asleep := func(ctx context.Context, call laketest.Call) error {
		server := open(t, f, c.options("server"))
		for i := range 3 {
			commit(t, server, func(n *catalog.State) { n.PutNamespace([]string{fmt.Sprint("x", i)}, nil) })
		}
		c.pass(time.Hour)
		return nil
	}
	// The put succeeds, then the hook runs before the listing that checks it.
	f.Inject(laketest.Fault{Op: laketest.OpKeys, Times: 1, Hook: asleep})
	calls := 0
	s := commit(t, l, func(n *catalog.State) { calls++; c.pass(time.Hour); epoch(n, "orders") })
	require.Equal(t, 1, calls)
	require.Equal(t, wal.LSN(1200), reopened(t, f).LSN)
	require.Equal(t, s.Number+3, reopened(t, f).Number)
}

// The machine slept before the put, the log went on without us, and our number
// has been deleted since: the store says yes to an entry far behind the head.
func TestRule09NumberFreedMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		claim bool // by a newer run meanwhile
		left  uint64
	}{
		"rebased":                      {left: 3},
		"only the head is left":        {left: 1},
		"fenced":                       {claim: true, left: 3},
		"all above ours, chain broken": {left: 9},
	} {
		t.Run(name, func(t *testing.T) {
			f, l, c := rule08(t)
			ours := l.Head().Number + 1
			others := func() {
				c.pass(time.Hour)
				other := open(t, f, c.options("other"))
				if test.claim {
					_, err := other.Claim(t.Context())
					require.NoError(t, err)
				}
				for other.Head().Number < ours+9 {
					commit(t, other, func(n *catalog.State) {
						n.PutTable(ident(fmt.Sprint("theirs", n.Number)), catalog.Table{UUID: "x"})
					})
				}
				head := other.Head().Number
				full := baseOf(t, f, head) // lives while the head names it
				require.NotEqual(t, ours, full)
				for n := ours; n+test.left <= head; n++ {
					if n != full {
						require.NoError(t, f.Delete(t.Context(), catalog.EntryKey(n)))
					}
				}
			}
			var seen []uint64
			_, err := l.Commit(t.Context(), func(n *catalog.State) error {
				if len(seen) == 0 {
					others()
				}
				seen = append(seen, n.Number)
				epoch(n, "orders")
				return nil
			})
			head := reopened(t, f)
			if test.claim {
				require.ErrorIs(t, err, catalog.ErrFenced)
				require.Equal(t, wal.LSN(1100), head.LSN)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []uint64{ours - 1, ours + 9}, seen)
			require.Equal(t, ours+10, head.Number)
			require.Equal(t, wal.LSN(1200), head.LSN)
			_, there := head.Table(ident(fmt.Sprint("theirs", ours+8)))
			require.True(t, there)
		})
	}
}

// baseOf is the number of the full entry that an entry builds on.
func baseOf(t *testing.T, s catalog.Store, number uint64) uint64 {
	t.Helper()
	data, err := s.Get(t.Context(), catalog.EntryKey(number))
	require.NoError(t, err)
	e := struct {
		Base struct {
			Number uint64 `json:"number"`
		} `json:"base"`
	}{}
	e.Base.Number = number
	require.NoError(t, json.Unmarshal(data, &e))
	return e.Base.Number
}

// An empty head can only come from another program than firn, which never
// shows a name without its content.
func TestRule11EmptyHead(t *testing.T) {
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{})
	require.NoError(t, s.PutIfAbsent(t.Context(), catalog.EntryKey(l.Head().Number+1), nil))
	_, err := catalog.OpenLog(t.Context(), s, catalog.LogOptions{})
	require.ErrorIs(t, err, catalog.ErrCorrupt)
	require.ErrorContains(t, err, "entry 3")
	_, err = l.Commit(t.Context(), func(n *catalog.State) error { epoch(n, "x"); return nil })
	require.ErrorIs(t, err, catalog.ErrCorrupt, "it stops loudly, and doesn't write above the hole")
}

const rule11Folder = "FIRN_TEST_RULE11_FOLDER"

// A writer is killed at moments of its own choosing, again and again, on a
// folder: every entry is whole, and the chain goes on.
func TestRule11KilledWhileWriting(t *testing.T) {
	if dir := os.Getenv(rule11Folder); dir != "" {
		writeForEver(dir)
	}
	rounds := 12
	if testing.Short() {
		rounds = 2
	}
	dir := filepath.Join(t.TempDir(), "lake")
	for round := range rounds {
		child := exec.Command(os.Args[0], "-test.run=^TestRule11KilledWhileWriting$")
		child.Env = append(os.Environ(), rule11Folder+"="+dir)
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(t, child.Start())
		s := mustFolder(dir)
		before, err := s.Keys(t.Context(), "", "", 0)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			now, err := s.Keys(t.Context(), "", "", 0)
			return err == nil && len(now) > len(before)+round
		}, 20*time.Second, time.Millisecond)
		time.Sleep(rand.N(20 * time.Millisecond))
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait(), "it writes until it is killed")

		l := open(t, s, catalog.LogOptions{})
		keys, err := s.Keys(t.Context(), "", "", 0)
		require.NoError(t, err)
		require.Len(t, keys, int(l.Head().Number)+1, "entries only, without a hole")
		for n := range l.Head().Number + 1 {
			_, err := l.Entry(t.Context(), n)
			require.NoError(t, err)
		}
		commit(t, l, func(n *catalog.State) { n.PutNamespace([]string{"survivor"}, nil) })
	}
}

func mustFolder(dir string) object.Store {
	s, err := object.Open(context.Background(), dir, object.Options{})
	if err != nil {
		panic(err)
	}
	return s
}

func writeForEver(dir string) {
	ctx := context.Background()
	l, err := catalog.OpenLog(ctx, mustFolder(dir), catalog.LogOptions{})
	for i := 0; err == nil; i++ {
		_, err = l.Commit(ctx, func(n *catalog.State) error {
			n.PutNamespace([]string{"public"}, nil)
			n.PutTable(ident(fmt.Sprint("t", i%50)), catalog.Table{UUID: fmt.Sprint(os.Getpid(), i)})
			return nil
		})
	}
	fmt.Fprintln(os.Stderr, errors.Join(errors.New("the writer ended"), err))
	os.Exit(3)
}

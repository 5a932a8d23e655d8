package index

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// history is a table's life as a function of commit numbers alone, so that a
// child process and the test that kills it agree without talking.
type history struct {
	o    Options
	keys []Key
	n    uint64
	rows rowsOf
}

const historyKeys = 4000

func newHistory(o Options) *history {
	h := &history{o: small(o), rows: rowsOf{}}
	for i := range uint64(historyKeys) {
		h.keys = append(h.keys, keyFor(o, i))
	}
	return h
}

func (h *history) clone() *history {
	c := *h
	c.rows = h.rows.clone()
	return &c
}

// files of commit n: one file per commit, and a truncation forgets all before.
func (h *history) files(n uint64) []FileName {
	from := n / 16 * 16
	var out []FileName
	for i := max(1, from); i <= n; i++ {
		out = append(out, FileName{No: uint32(i), Path: fmt.Sprintf("file %d", i)})
	}
	return out
}

type putter interface {
	Put(Key, Loc) error
	Remove(Key, Loc) error
	Truncate()
}

// next makes commit n+1 in the model and in to, whose rows get virtual
// locations if virtual is set.
func (h *history) next(to putter, virtual bool) error {
	h.n++
	rng := rand.New(rand.NewPCG(h.n, 1))
	if h.n%16 == 0 {
		h.rows = rowsOf{}
		to.Truncate()
	}
	for i := range uint32(2000) {
		// Keys come in waves, so that segments grow and fall empty again.
		k := h.keys[(h.n*700+rng.Uint64N(2000))%historyKeys]
		l, ok := h.rows.lowest(k)
		if ok && rng.IntN(3) > 0 {
			h.rows.remove(k, l)
			if virtual && l.File == uint32(h.n) {
				l.File = VirtualFile
			}
			if err := to.Remove(k, l); err != nil {
				return err
			}
			continue
		}
		if ok && h.o.Multi && len(h.rows[k]) > 30 {
			continue
		}
		l = Loc{uint32(h.n), i}
		h.rows.put(k, l, h.o.Multi)
		if virtual {
			l.File = VirtualFile
		}
		if err := to.Put(k, l); err != nil {
			return err
		}
	}
	return nil
}

// resolve makes the virtual locations of commit h.n real.
func (h *history) resolve(l Loc) (Loc, bool) { return Loc{uint32(h.n), l.Pos}, true }

func (h *history) merge(x *Index, resolve func(Loc) (Loc, bool)) error {
	if err := x.Seal(); err != nil {
		return err
	}
	return x.Merge(h.n, int64(h.n), h.files(h.n), resolve)
}

type nowhere struct{}

func (nowhere) Put(Key, Loc) error    { return nil }
func (nowhere) Remove(Key, Loc) error { return nil }
func (nowhere) Truncate()             {}

// TestKillChild is not a test but the process that TestRule18Kill kills: it
// brings an index forward, commit by commit, until it dies.
func TestKillChild(t *testing.T) {
	dir := os.Getenv("FIRN_INDEX_DIR")
	if dir == "" {
		t.Skip("runs as the child of TestRule18Kill")
	}
	dieAt, err := strconv.Atoi(os.Getenv("FIRN_INDEX_DIE_AT")) // locations resolved; 0: the parent kills
	require.NoError(t, err)
	h := newHistory(kinds[os.Getenv("FIRN_INDEX_KIND")])
	x, err := Open(dir, h.o)
	require.NoError(t, err)
	for h.n < x.State().Base {
		require.NoError(t, h.next(nowhere{}, false))
	}
	fmt.Println("ready")
	for {
		require.NoError(t, h.next(x, true))
		require.NoError(t, h.merge(x, func(l Loc) (Loc, bool) {
			if dieAt--; dieAt == 0 {
				require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
			}
			return h.resolve(l)
		}))
	}
}

// TestRule18Kill kills a process that changes an index, at random and in the
// middle of a merge, and looks at what it left: a complete commit, or the
// mixture of two that a second application turns into the later one.
func TestRule18Kill(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 4
	}
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			dir := t.TempDir()
			h := newHistory(o)
			x, err := Open(dir, h.o)
			require.NoError(t, err)
			require.NoError(t, x.CommitLoad(0, 0, nil))
			crash(x)
			var interrupted int
			for range rounds {
				dieAt := 0
				if rng.IntN(3) > 0 {
					dieAt = 1 + rng.IntN(10000)
				}
				killChild(t, dir, name, dieAt, time.Duration(rng.IntN(30_000))*time.Microsecond)
				if h.look(t, dir, rng.IntN(2) == 0) == Applying {
					interrupted++
				}
			}
			t.Logf("%d kills, %d of them within a merge, %d commits", rounds, interrupted, h.n)
			require.Positive(t, interrupted)
		})
	}
}

// killChild runs TestKillChild until it has killed itself, or kills it some
// time after it began.
func killChild(t *testing.T, dir, kind string, dieAt int, after time.Duration) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKillChild$")
	cmd.Env = append(os.Environ(), "FIRN_INDEX_DIR="+dir, "FIRN_INDEX_KIND="+kind, fmt.Sprintf("FIRN_INDEX_DIE_AT=%d", dieAt))
	cmd.SysProcAttr = dieWithParent()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	if lines.Scan() && lines.Text() == "ready" && dieAt == 0 {
		time.Sleep(after)
		require.NoError(t, cmd.Process.Kill())
	}
	var rest string
	for lines.Scan() {
		rest += lines.Text() + "\n"
	}
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit, rest)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), rest)
}

// look opens what a killed process left and compares it with the history, which
// it brings forward to it; with finish it applies an interrupted commit again.
func (h *history) look(t *testing.T, dir string, finish bool) Phase {
	x, err := Open(dir, h.o)
	require.NoError(t, err)
	defer crash(x)
	st := x.State()
	require.Contains(t, []Phase{At, Applying}, st.Phase, st.Reason)
	for h.n < st.Base {
		require.NoError(t, h.next(nowhere{}, false))
	}
	require.Equal(t, h.n, st.Base)
	require.EqualValues(t, st.Base, st.Snapshot)
	requireFiles(t, h.files(h.n), x)
	if st.Phase == At {
		requireRows(t, h.rows, x, h.keys)
		require.Equal(t, h.rows.count(), x.Len())
		return At
	}
	require.Equal(t, h.n+1, st.N)
	after := h.clone()
	require.NoError(t, after.next(nowhere{}, false))
	for _, k := range h.keys {
		got := rowsIn(x, k)
		for l := range got {
			require.True(t, h.rows[k][l] || after.rows[k][l], "key %v has %v", k, l)
		}
		for l := range h.rows[k] {
			require.True(t, got[l] || !after.rows[k][l], "key %v has lost %v", k, l)
		}
	}
	require.GreaterOrEqual(t, x.NextFile(), uint32(st.N)+1, "rule 20: the interrupted merge's number is taken")
	if finish {
		require.NoError(t, h.next(x, true))
		require.NoError(t, h.merge(x, h.resolve))
		requireRows(t, h.rows, x, h.keys)
		requireFiles(t, h.files(h.n), x)
		require.Equal(t, h.rows.count(), x.Len())
	}
	return Applying
}

package compaction

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// life is a table, of sizes only, that a stream commits to once a second while
// it is compacted as the owner does it: one rewrite after the other, and a small
// one beside a long one.
type life struct {
	o        Options
	rand     *rand.Rand
	rowBytes int64
	perEpoch int64 // bytes that rewrites write, together
	hot      bool  // what changes is young

	epoch int
	names int
	data  []*lifeFile // oldest first

	working []*lifeRewrite

	landed, rewritten, rewrites int64
	overBound, planned, smalls  int // the most there were
	deadShares                  float64
}

type lifeFile struct {
	DataFile
	born, worn int // epochs: when it landed, and when a row of it died last
}

// lifeRewrite is a rewrite under way.
type lifeRewrite struct {
	Rewrite
	inputs []*lifeFile
	dead   int64 // rows of inputs when it began: those that die later are carried over
	left   int64 // bytes to write
}

const (
	footerBytes = 4 << 10 // of a data file with ten columns
	youngEpochs = 600
	restEpochs  = 3600
)

func newLife(o Options, rows int64) *life {
	l := &life{o: o.withDefaults(), rand: rand.New(rand.NewPCG(1, 1)), rowBytes: 64, perEpoch: 20 << 20,
		epoch: youngEpochs, overBound: math.MinInt}
	for full := l.o.TargetBytes / l.rowBytes; rows > 0; rows -= full {
		l.land(min(rows, full), 0)
	}
	return l
}

func (l *life) name() string {
	l.names++
	return fmt.Sprintf("%08d", l.names)
}

func (l *life) land(rows int64, born int) *lifeFile {
	f := &lifeFile{born: born, worn: l.epoch, DataFile: DataFile{Path: l.name(), Rows: rows, Bytes: footerBytes + rows*l.rowBytes}}
	l.data = append(l.data, f)
	return f
}

// commit is an epoch: 20 % of its changes update a row, 5 % delete one.
func (l *life) commit(changes int64) {
	l.epoch++
	var live int64
	for _, f := range l.data {
		live += f.Rows - f.Dead
	}
	if l.hot {
		live = min(live, 100*changes)
	}
	left := changes * 25 / 100
	var touched []*lifeFile
	for i := len(l.data) - 1; i >= 0 && live > 0; i-- {
		f := l.data[i]
		n := min(f.Rows-f.Dead, live)
		if hit := min(int64(float64(left)*float64(n)/float64(live)+l.rand.Float64()), n, left); hit > 0 {
			touched = append(touched, f)
			f.Dead, f.worn = f.Dead+hit, l.epoch
			left -= hit
		}
		live -= n
	}
	l.landed += l.land(changes*95/100, l.epoch).Bytes
	for _, f := range touched {
		if f.Dead == f.Rows {
			l.remove(f)
		}
	}
}

// remove takes a data file out.
func (l *life) remove(gone *lifeFile) {
	l.data = slices.DeleteFunc(l.data, func(f *lifeFile) bool { return f == gone })
}

func (l *life) table() Table {
	var t Table
	for _, f := range l.data {
		f.Young = l.epoch-f.born < youngEpochs
		f.Resting = l.epoch-f.worn >= restEpochs
		t.Data = append(t.Data, f.DataFile)
	}
	return t
}

// compact lets rewrites work for an epoch. It returns false if there was nothing
// to do.
func (l *life) compact() bool {
	for budget := l.perEpoch; budget > 0; {
		for len(l.working) < 2 && l.begin() {
		}
		if len(l.working) == 0 {
			return budget < l.perEpoch
		}
		share := max(1, budget/int64(len(l.working)))
		for _, w := range slices.Clone(l.working) {
			n := min(share, w.left)
			budget -= n
			if w.left -= n; w.left == 0 {
				l.install(w)
			}
		}
	}
	return true
}

func (l *life) begin() bool {
	const small = 16 << 20
	plan := Plan(l.table(), l.o)
	l.planned = max(l.planned, len(plan))
	if slices.ContainsFunc(l.working, func(w *lifeRewrite) bool { return w.InBytes > small }) {
		plan = slices.DeleteFunc(plan, func(w Rewrite) bool { return w.InBytes > small })
	}
	if len(plan) == 0 {
		return false
	}
	w := &lifeRewrite{Rewrite: plan[0], left: plan[0].OutBytes + footerBytes}
	for _, f := range l.data {
		for _, path := range w.Inputs {
			if f.Path == path {
				w.inputs = append(w.inputs, f)
				w.dead += f.Dead
				f.Busy = true
			}
		}
	}
	l.working = append(l.working, w)
	return true
}

func (l *life) install(w *lifeRewrite) {
	l.working = slices.DeleteFunc(l.working, func(x *lifeRewrite) bool { return x == w })
	l.rewrites++
	dead, born := -w.dead, 0
	for _, f := range w.inputs {
		dead, born = dead+f.Dead, max(born, f.born)
		l.remove(f)
	}
	if dead == w.OutRows {
		return
	}
	out := l.land(w.OutRows, born)
	l.rewritten += out.Bytes
	out.Dead = dead
}

// look notes what a reader would find.
func (l *life) look() {
	var bytes, rows, dead int64
	smalls := 0
	for _, f := range l.data {
		bytes, rows, dead = bytes+f.Bytes, rows+f.Rows, dead+f.Dead
		if 2*f.Bytes < l.o.TargetBytes {
			smalls++
		}
	}
	l.smalls = max(l.smalls, smalls)
	l.overBound = max(l.overBound, len(l.data)-int(2*bytes/l.o.TargetBytes)-16)
	l.deadShares += float64(dead) / float64(rows)
}

func (l *life) live(epochs int) {
	for range epochs {
		l.commit(1000)
		l.compact()
		l.look()
	}
}

// amplification is what is written to data files, against what commits write.
func (l *life) amplification() float64 { return float64(l.landed+l.rewritten) / float64(l.landed) }

func (l *life) String() string {
	epochs := int64(l.epoch - youngEpochs)
	return fmt.Sprintf("write amplification %.2f in %d rewrites, %d files at the end, of the bound at least %d left, ≤ %d small ones, %.1f%% of rows dead; a commit %d B",
		l.amplification(), l.rewrites, len(l.data), -l.overBound, l.smalls, 100*l.deadShares/float64(epochs), l.landed/epochs)
}

// TestLife is a day of commits, a second each, to a table of five million rows.
func TestLife(t *testing.T) {
	epochs := 86_400
	if testing.Short() {
		epochs = 7200
	}
	l := newLife(Options{}, 5_000_000)
	l.live(epochs)
	t.Logf("%d commits: %v", epochs, l)
	require.LessOrEqual(t, l.amplification(), 6.0)
	require.LessOrEqual(t, l.overBound, 0, "files ≤ 2 × bytes / target + 16")
	require.LessOrEqual(t, l.planned, 3, "the worker keeps up")

	// Once nothing more comes, the table soon looks as if freshly written.
	l.epoch += restEpochs
	for rounds := 0; l.compact(); rounds++ {
		require.Less(t, rounds, 300)
	}
	smalls := 0
	for _, f := range l.data {
		if 2*f.Bytes < l.o.TargetBytes {
			smalls++
		}
		require.LessOrEqual(t, float64(f.Dead), l.o.MaxDeadResting*float64(f.Rows))
	}
	t.Logf("at rest: %d files, %d of them small", len(l.data), smalls)
	require.LessOrEqual(t, smalls, 4)
}

// TestOtherLives are those that the defaults were chosen by, two hours each.
func TestOtherLives(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: nine seconds of simulation")
	}
	for _, c := range []struct {
		name string
		o    Options
		rows int64
		set  func(*life)
	}{
		{"4 spare files", Options{SpareFiles: 4}, 5e6, nil},
		{"12 spare files", Options{SpareFiles: 12}, 5e6, nil},
		{"a tenth dead at most", Options{MaxDead: 0.1}, 5e6, nil},
		{"three tenths dead at most", Options{MaxDead: 0.3}, 5e6, nil},
		{"a table that begins empty", Options{}, 0, nil},
		{"changes of the last minutes' rows", Options{}, 5e6, func(l *life) { l.hot = true }},
		{"a worker of a fifth of a core", Options{}, 5e6, func(l *life) { l.perEpoch = 8 << 20 }},
	} {
		l := newLife(c.o, c.rows)
		if c.set != nil {
			c.set(l)
		}
		l.live(7200)
		t.Logf("%s: %v", c.name, l)
		if c.o == (Options{}) {
			require.LessOrEqual(t, l.overBound, 0, "files ≤ 2 × bytes / target + 16")
		}
		require.LessOrEqual(t, l.planned, 3, "the worker keeps up")
	}
}

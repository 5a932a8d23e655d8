package index

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestModel drives an index and a model of plain maps through the same random
// calls: epochs that fill, commit and merge, truncate, close, crash, reload.
func TestModel(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				m := newMachine(r, t, o)
				defer m.done()
				r.Repeat(map[string]func(*rapid.T){
					"put": m.put, "remove": m.remove, "removeStale": m.removeStale, "truncate": m.truncate,
					"seal": m.seal, "merge": m.merge, "discard": m.discard, "reopen": m.reopen, "crash": m.crash,
					"rebuild": m.rebuild, "": m.check,
				})
			})
		})
	}
}

type machine struct {
	dir  string
	o    Options
	x    *Index
	keys []Key

	n                         uint64
	snapshot                  int64
	base, committing, filling rowsOf // what is visible with the overlays up to each
	sealed                    bool
	files                     []FileName
	batch, sealedBatch        uint32 // virtual file of the filling and the committing epoch
	pos                       uint32
}

func newMachine(r *rapid.T, t *testing.T, o Options) *machine {
	// Thousands of journals are synced here; memory does that faster.
	dir, err := os.MkdirTemp("/dev/shm", "index")
	if err != nil {
		dir, err = os.MkdirTemp("", "index")
	}
	require.NoError(t, err)
	o = small(o)
	o.OverlayMemory = rapid.SampledFrom([]int64{1, 32 << 10, 32 << 20}).Draw(r, "memory")
	m := &machine{dir: dir, o: o, batch: VirtualFile}
	n := rapid.SampledFrom([]uint64{20, 3000}).Draw(r, "keys")
	for i := range n {
		m.keys = append(m.keys, keyFor(o, i))
	}
	m.x, err = Open(dir, o)
	require.NoError(r, err)
	m.rebuild(r)
	return m
}

func (m *machine) done() {
	if m.x != nil {
		m.x.release()
	}
	os.RemoveAll(m.dir)
}

// some draws a run of keys, short or long.
func (m *machine) some(r *rapid.T) []Key {
	from := rapid.IntRange(0, len(m.keys)-1).Draw(r, "from")
	n := rapid.SampledFrom([]int{1, 3, 400}).Draw(r, "n")
	return m.keys[from:min(len(m.keys), from+n)]
}

func (m *machine) fresh() Loc {
	m.pos++
	return Loc{File: m.batch, Pos: m.pos}
}

func (m *machine) put(r *rapid.T) {
	times := 1
	if m.o.Multi {
		times = rapid.SampledFrom([]int{1, 1, 40}).Draw(r, "rows")
	}
	for _, k := range m.some(r) {
		for range times {
			l := m.fresh()
			require.NoError(r, m.x.Put(k, l))
			m.filling.put(k, l, m.o.Multi)
		}
	}
}

func (m *machine) remove(r *rapid.T) {
	blind := rapid.Bool().Draw(r, "blind") && !m.o.Multi
	for _, k := range m.some(r) {
		l, ok := m.filling.first(k)
		if !ok && !blind {
			continue
		}
		m.filling.remove(k, l)
		if blind {
			l = Loc{}
		}
		require.NoError(r, m.x.Remove(k, l))
	}
}

// removeStale reports rows dead that are not where it says: nothing changes.
func (m *machine) removeStale(r *rapid.T) {
	for _, k := range m.some(r) {
		require.NoError(r, m.x.Remove(k, Loc{File: m.x.nextFile + 1000, Pos: 1}))
	}
}

func (m *machine) truncate(*rapid.T) {
	m.x.Truncate()
	m.filling = rowsOf{}
}

func (m *machine) seal(r *rapid.T) {
	if m.sealed {
		require.ErrorIs(r, m.x.Seal(), ErrState)
		return
	}
	require.NoError(r, m.x.Seal())
	m.sealed, m.committing, m.sealedBatch = true, m.filling.clone(), m.batch
	m.batch++
}

func (m *machine) merge(r *rapid.T) {
	no := m.x.NextFile()
	real := func(l Loc) (Loc, bool) {
		if l.File != m.sealedBatch {
			return l, true
		}
		return Loc{File: no, Pos: l.Pos}, l.Pos%7 != 0
	}
	m.n += uint64(rapid.IntRange(0, 2).Draw(r, "step"))
	m.snapshot = rapid.Int64().Draw(r, "snapshot")
	files := append(append([]FileName(nil), m.files...), FileName{No: no, Path: fmt.Sprintf("f%d", no)})
	if m.sealed {
		// What resolve drops is gone from the epoch's rows, and so from what
		// the filling epoch sees.
		m.committing = m.settle(m.committing, real)
		m.filling = m.settle(m.filling, real)
		m.base = m.committing
	}
	require.NoError(r, m.x.Merge(m.n, m.snapshot, files, real))
	m.sealed, m.committing, m.files = false, nil, files
	m.compact(r)
	require.Equal(r, m.base.count(), m.x.Len())
}

func (m *machine) settle(rows rowsOf, real func(Loc) (Loc, bool)) rowsOf {
	out := rowsOf{}
	for k, locs := range rows {
		for l := range locs {
			if to, ok := real(l); ok {
				out.put(k, to, m.o.Multi)
			}
		}
	}
	return out
}

// compact forgets files without rows, as an epoch that truncates does.
func (m *machine) compact(r *rapid.T) {
	if len(m.base) > 0 || len(m.files) < 2 {
		return
	}
	m.files = m.files[len(m.files)-1:]
	require.NoError(r, m.x.Merge(m.n, m.snapshot, m.files, nil))
}

func (m *machine) discard(*rapid.T) {
	m.x.Discard()
	m.sealed, m.committing, m.filling = false, nil, m.base.clone()
}

func (m *machine) reopen(r *rapid.T) {
	require.NoError(r, m.x.Close())
	m.open(r)
}

func (m *machine) crash(r *rapid.T) {
	crash(m.x)
	m.open(r)
}

func (m *machine) open(r *rapid.T) {
	var err error
	m.x, err = Open(m.dir, m.o)
	require.NoError(r, err)
	require.Equal(r, State{Phase: At, N: m.n, Base: m.n, Snapshot: m.snapshot}, m.x.State())
	require.Equal(r, m.base.count(), m.x.Len())
	m.sealed, m.committing, m.filling = false, nil, m.base.clone()
}

func (m *machine) rebuild(r *rapid.T) {
	require.NoError(r, m.x.Reset())
	require.Equal(r, State{}, m.x.State())
	no := m.x.NextFile()
	m.base = rowsOf{}
	require.NoError(r, m.x.Load(int64(rapid.IntRange(0, 60).Draw(r, "expected")), func(put func(Key, Loc) error) error {
		for i, k := range m.keys[:rapid.IntRange(0, len(m.keys)-1).Draw(r, "load")] {
			l := Loc{no, uint32(i)}
			m.base.put(k, l, m.o.Multi)
			if err := put(k, l); err != nil {
				return err
			}
		}
		return nil
	}))
	m.n++
	m.files = []FileName{{No: no, Path: fmt.Sprintf("f%d", no)}}
	require.NoError(r, m.x.CommitLoad(m.n, m.snapshot, m.files))
	m.sealed, m.committing, m.filling = false, nil, m.base.clone()
}

func (m *machine) check(r *rapid.T) {
	requireRows(r, m.filling, m.x, m.keys)
	requireFiles(r, m.files, m.x)
}

package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/wal"
)

// TestDiffOfAnyEpochs applies the difference of any two epochs to the rows of
// the first, which must give the second's, and looks that it is the smallest.
func TestDiffOfAnyEpochs(t *testing.T) {
	seeds, steps := 2, 16
	switch {
	case testing.Short():
		seeds, steps = 1, 7
	case laketest.Race:
		steps = 8
	}
	for seed := range uint64(seeds) {
		for _, version := range []int{2, 3} {
			for _, keyed := range []bool{true, false} {
				t.Run(fmt.Sprintf("v%d keyed=%t seed %d", version, keyed, seed), func(t *testing.T) {
					m := newModel(t, version, keyed, seed)
					for range steps {
						m.step()
					}
					for i, from := range m.epochs {
						for j, to := range m.epochs[i:] {
							limit := int64(32 << 20)
							if (i+j)%4 == 0 {
								limit = 3000 // rows are put aside, and divided again
							}
							m.checkDiff(from, to, limit)
						}
					}
				})
			}
		}
	}
}

// TestDiffReadsWhatDiffers: a data file that both epochs have with the same dead
// rows is not opened, and of one with new dead rows no whole file is fetched.
func TestDiffReadsWhatDiffers(t *testing.T) {
	m := newModel(t, 2, true, 1)
	var rows []modelRow
	for range 200 {
		rows = append(rows, m.newRow())
	}
	still, touched := m.write(rows[:100]), m.write(rows[100:])
	for i, r := range rows {
		f := []*lake.NewFile{still, touched}[i/100]
		m.rows = append(m.rows, modelPlace{r, f.Path, uint32(i % 100)})
	}
	m.commit(&lake.Change{Add: []*lake.NewFile{still, touched}})
	from := m.epochs[len(m.epochs)-1]
	r := m.newRow()
	added := m.write([]modelRow{r})
	m.rows[100] = modelPlace{r, added.Path, 0}
	m.commit(&lake.Change{Add: []*lake.NewFile{added}, Dead: map[string]*roaring.Bitmap{touched.Path: roaring.BitmapOf(0)}})
	to := m.epochs[len(m.epochs)-1]

	read := func(path string) (n int) {
		key, ok := m.faults.Key(path)
		require.True(t, ok)
		for _, c := range m.faults.Calls() {
			if c.Key == key && (c.Op == laketest.OpGet || c.Op == laketest.OpGetRange) {
				n++
			}
		}
		return n
	}
	was := read(still.Path)
	m.checkDiff(from, to, 32<<20)
	require.Equal(t, was, read(still.Path))
	require.NotZero(t, read(touched.Path))
	require.NotZero(t, read(added.Path))

	was = len(m.faults.Calls())
	m.checkDiff(to, to, 32<<20)
	for _, c := range m.faults.Calls()[was:] {
		require.True(t, strings.Contains(c.Key, "/metadata/") || strings.HasSuffix(c.Key, "-deletes.parquet"), c.Key)
	}
}

// TestDiffOfAbsence: a table that one of the epochs lacks, or both; and moments
// in the wrong order.
func TestDiffOfAbsence(t *testing.T) {
	m := newModel(t, 3, true, 2)
	for range 5 {
		m.step()
	}
	last := m.epochs[len(m.epochs)-1]
	none := last
	none.Table = nil
	diff := func(from, to Point) (*Diff, Counts, error) {
		d, err := OpenDiff(t.Context(), DiffOptions{Store: m.faults, Table: modelIdent, From: from, To: to, TempDir: t.TempDir()})
		if err != nil {
			return nil, Counts{}, err
		}
		counts, err := d.Rows(t.Context(), func(Changes) error { return nil })
		return d, counts, err
	}
	d, counts, err := diff(none.Point, last.Point)
	require.NoError(t, err)
	require.Equal(t, Counts{Inserted: int64(len(last.rows))}, counts)
	require.Contains(t, d.Notes[0], "all its rows are inserted")
	d, counts, err = diff(last.Point, none.Point)
	require.NoError(t, err)
	require.Equal(t, Counts{Deleted: int64(len(last.rows))}, counts)
	require.Contains(t, d.Notes[0], "all its rows are deleted")
	_, _, err = diff(none.Point, none.Point)
	require.ErrorIs(t, err, ErrNoTable)
	_, _, err = diff(last.Point, m.epochs[0].Point)
	require.ErrorIs(t, err, ErrBackwards)

	// An error of the reader, or of who takes the rows, is the diff's.
	refused := errors.New("no")
	d, err = OpenDiff(t.Context(), DiffOptions{Store: m.faults, Table: modelIdent, From: m.epochs[0].Point, To: last.Point, TempDir: t.TempDir(), MemoryBytes: 100})
	require.NoError(t, err)
	_, err = d.Rows(t.Context(), func(Changes) error { return refused })
	require.ErrorIs(t, err, refused)
	m.faults.Inject(laketest.Fault{Key: "/data/", Before: laketest.ErrLost})
	_, err = d.Rows(t.Context(), func(Changes) error { return nil })
	require.ErrorIs(t, err, laketest.ErrLost)
}

// TestDiffOfAnotherKey: a table whose key has become a column that it had not.
func TestDiffOfAnotherKey(t *testing.T) {
	m := newModel(t, 2, true, 4)
	m.step()
	m.pg = append(slices.Clone(m.pg), wal.TableColumn{AttNum: 6, Name: "k", Type: pgType(20, "int8"), NotNull: true})
	old := m.layout
	next, err := lake.NewLayout(&wal.Table{OID: m.oid, Schema: "public", Name: "t", ReplicaIdentity: 'd', Columns: m.pg, Key: []int{5}}, old, old.LastField)
	require.NoError(t, err)
	m.layout = next
	m.rows = nil
	var rows []modelRow
	for range 20 {
		r := m.newRow()
		r[6] = r[1]
		rows = append(rows, r)
	}
	f := m.write(rows)
	for i, r := range rows {
		m.rows = append(m.rows, modelPlace{r, f.Path, uint32(i)})
	}
	m.commit(&lake.Change{Schema: next.Schema(), Properties: m.property(), Truncate: true, Add: []*lake.NewFile{f}})
	m.keyed = false // no key that both sides have
	m.checkDiff(m.epochs[1], m.epochs[2], 1000)
	d, err := OpenDiff(t.Context(), DiffOptions{Store: m.faults, Table: modelIdent, From: m.epochs[1].Point, To: m.epochs[2].Point})
	require.NoError(t, err)
	require.Contains(t, strings.Join(d.Notes, "\n"), "the key's column k is not in epoch 2")
}

func (m *model) checkDiff(from, to modelEpoch, limit int64) {
	t := m.t
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	d, err := OpenDiff(t.Context(), DiffOptions{Store: m.faults, Table: modelIdent, From: from.Point, To: to.Point, MemoryBytes: limit, TempDir: t.TempDir(), Allocator: mem})
	require.NoError(t, err)
	byKey := len(d.Key) > 0
	require.Equal(t, m.keyed, byKey, d.Notes)
	keyOf := func(text string) string { return text[:strings.Index(text, "|")] }

	have, want := from.texts(to), to.texts(to)
	was, is := map[string]bool{}, map[string]bool{}
	for text := range have {
		was[keyOf(text)] = true
	}
	for text := range want {
		is[keyOf(text)] = true
	}
	var all Counts
	gone, come := map[string]bool{}, map[string]bool{}
	counts, err := d.Rows(t.Context(), func(c Changes) error {
		before, after := textsOf(t, c.Old), textsOf(t, c.New)
		for _, text := range before {
			have[text]--
			require.GreaterOrEqual(t, have[text], 0, text)
			if have[text] == 0 {
				delete(have, text)
			}
			gone[text] = true
		}
		for _, text := range after {
			come[text] = true
		}
		switch {
		case c.Old == nil:
			all.Inserted += c.New.NumRows()
			for _, text := range after {
				require.False(t, byKey && was[keyOf(text)], "updated, not inserted: %s", text)
			}
		case c.New == nil:
			all.Deleted += c.Old.NumRows()
			for _, text := range before {
				require.False(t, byKey && is[keyOf(text)], "updated, not deleted: %s", text)
			}
		default:
			require.True(t, byKey)
			all.Updated += c.New.NumRows()
			require.Len(t, after, len(before))
			for i := range after {
				require.NotEqual(t, before[i], after[i])
				require.Equal(t, keyOf(before[i]), keyOf(after[i]))
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, all, counts)
	for text := range come {
		require.False(t, gone[text], "a row that is on both sides: %s", text)
	}
	// come holds each text once; the counts of equal rows follow from the sums.
	if byKey {
		for text := range come {
			have[text]++
		}
		require.Equal(t, want, have, "from epoch %d to %d: %v", from.Epoch, to.Epoch, d.Notes)
	} else {
		for text, n := range have {
			require.True(t, n == want[text] || come[text] && n < want[text], "%s: %d of %d", text, n, want[text])
		}
		require.EqualValues(t, len(to.rows), int64(len(from.rows))+counts.Inserted-counts.Deleted)
	}
}

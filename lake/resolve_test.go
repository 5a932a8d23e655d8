package lake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"firn/wal"
)

var toastTable = &wal.Table{
	OID: 1, Schema: "public", Name: "docs", ReplicaIdentity: 'd', Key: []int{0}, MaxAttNum: 3, Usable: true,
	Columns: []wal.TableColumn{
		{AttNum: 1, Name: "id", NotNull: true, Type: wal.TypeInfo{OID: 23, Schema: "pg_catalog", Name: "int4"}},
		{AttNum: 2, Name: "body", Type: wal.TypeInfo{OID: 25, Schema: "pg_catalog", Name: "text"}},
		{AttNum: 3, Name: "more", Type: wal.TypeInfo{OID: 25, Schema: "pg_catalog", Name: "text"}},
	},
}

// olderRows is a store whose files have any number of rows, each value of which
// tells where it stands.
type olderRows struct {
	TableStore
	size func(pos uint32) int // of its values
}

func cellAt(path string, pos uint32, field, size int) string {
	v := fmt.Sprintf("%s/%d/%d ", path, pos, field)
	return v + strings.Repeat("x", max(0, size-len(v)))
}

func (o *olderRows) Read(_ context.Context, path string, fields []int, positions []uint32, fn func(int64, arrow.RecordBatch) error) error {
	var cols []arrow.Field
	for _, f := range fields {
		cols = append(cols, arrow.Field{Name: fmt.Sprint(f), Type: arrow.BinaryTypes.String, Nullable: true})
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(cols, nil))
	defer b.Release()
	for i, pos := range positions {
		for c, f := range fields {
			b.Field(c).(*array.StringBuilder).Append(cellAt(path, pos, f, o.size(pos)))
		}
		if (i+1)%100 != 0 && i+1 < len(positions) {
			continue
		}
		rec := b.NewRecordBatch()
		err := fn(int64(i+1)-rec.NumRows(), rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// written keeps what a file is given.
type written struct {
	lost
	cells [][]string // body, more
	most  int64      // bytes of the largest batch
}

func (w *written) Write(rec arrow.RecordBatch) error {
	var bytes int64
	for i := range int(rec.NumRows()) {
		w.cells = append(w.cells, []string{rec.Column(1).ValueStr(i), rec.Column(2).ValueStr(i)})
		bytes += int64(len(rec.Column(1).ValueStr(i)) + len(rec.Column(2).ValueStr(i)))
	}
	w.most = max(w.most, bytes)
	return w.lost.Write(rec)
}

// Every unchanged value comes back to its row, whatever died in the batch and
// however many portions it takes; and a portion of values that are much larger
// than those before is fetched in smaller ones.
func TestUnchangedValues(t *testing.T) {
	for _, test := range []struct {
		name    string
		size    func(pos uint32) int
		portion int64 // no batch is larger
	}{
		{"small", func(uint32) int { return 20 }, 1 << 20},
		{"all large", func(uint32) int { return 12 << 10 }, 4 * resolvedBytes},
		{"some of the later ones large", func(pos uint32) int { return 20 + 200<<10*int(min(1, pos/8000)) }, 4 * resolvedBytes},
		{"one is more than a portion may be", func(pos uint32) int { return 20 + (5*resolvedBytes)*int(min(1, pos/9999)) }, 16 * resolvedBytes},
	} {
		t.Run(test.name, func(t *testing.T) {
			layout, err := NewLayout(toastTable, nil, 0)
			require.NoError(t, err)
			fields := layout.fields([]int{1, 2})
			rng := rand.New(rand.NewPCG(3, 4))
			rows, err := newRowBuilder(memory.DefaultAllocator, layout)
			require.NoError(t, err)
			rows.wire = []int{0, 1, 2}
			files := []*dataFile{{no: 1, path: "one"}, {no: 2, path: "two"}}
			b := &batch{}
			var want [][]string
			for i := range 3000 {
				pos, file := uint32(i)*3+uint32(rng.IntN(3)), files[rng.IntN(2)]
				if i == 2999 {
					pos = 9999
				}
				row := []string{"new", "new"}
				tuple := wal.Tuple{{Kind: 't', Data: []byte("1")}, {Kind: 't', Data: []byte("new")}, {Kind: 't', Data: []byte("new")}}
				for col := 1; col <= 2; col++ {
					if rng.IntN(3) > 0 {
						tuple[col] = wal.Value{Kind: 'u'}
						row[col-1] = cellAt(file.path, pos, fields[col-1], test.size(pos))
					}
				}
				_, err := rows.append(tuple, func(col int) error {
					rows.cells[col].Null()
					b.fixups = append(b.fixups, fixup{row: i, col: col, file: file, pos: pos})
					return nil
				})
				require.NoError(t, err)
				b.rows++
				if rng.IntN(10) == 0 && i < 2999 {
					b.kill(uint32(i))
				} else {
					want = append(want, row)
				}
			}
			for _, f := range b.fixups {
				x, ok := b.fixup(f.row, f.col)
				require.True(t, ok)
				require.Equal(t, f, x)
			}
			_, ok := b.fixup(0, 7)
			require.False(t, ok)
			b.flushed(&dataFile{}, 1000)
			out := &written{}
			e := &encoder{store: &olderRows{size: test.size}, layout: layout, out: out, jobs: make(chan encodeJob, 1), done: make(chan struct{}),
				room: &encoding{bytes: semaphore.NewWeighted(encodingBytesMax), cpus: semaphore.NewWeighted(1), resolving: semaphore.NewWeighted(1), mem: memory.DefaultAllocator}}
			require.NoError(t, e.send(t.Context(), encodeJob{rec: rows.take(), batch: b, weight: int64(b.bytes) + 1}))
			e.finish()
			require.NoError(t, e.run(t.Context()))
			require.Equal(t, len(want), len(out.cells))
			for i := range want {
				require.Equal(t, want[i], out.cells[i], "row %d", i)
			}
			require.LessOrEqual(t, out.most, test.portion)
			require.EqualValues(t, len(want), e.file.Rows)
		})
	}
}

// An unchanged value that is copied within its batch weighs what it is: an open
// batch of 8 MB by its rows' messages could else be one of gigabytes.
func TestCopiedValueWeighs(t *testing.T) {
	layout, err := NewLayout(toastTable, nil, 0)
	require.NoError(t, err)
	rows, err := newRowBuilder(memory.DefaultAllocator, layout)
	require.NoError(t, err)
	defer rows.release()
	rows.wire = []int{0, 1, 2}
	body := strings.Repeat("x", 100_000)
	first, err := rows.append(wal.Tuple{{Kind: 't', Data: []byte("1")}, {Kind: 't', Data: []byte(body)}, {Kind: 'n'}}, nil)
	require.NoError(t, err)
	size, err := rows.append(wal.Tuple{{Kind: 't', Data: []byte("1")}, {Kind: 'u'}, {Kind: 'n'}}, func(col int) error {
		rows.copyCell(col, 0)
		return nil
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, size, first)
}

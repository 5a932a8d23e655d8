package lake

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"
	"pgregory.net/rapid"

	"firn/lake/partition"
)

// A partitioned batch's live rows follow one another in their partitions' files,
// in stream order, and what they lack is told by their places there.
func TestBatchScatters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &batch{rows: rapid.IntRange(1, 300).Draw(t, "rows")}
		parts := make([]partition.Part, rapid.IntRange(1, 20).Draw(t, "parts"))
		for row := range b.rows {
			if rapid.IntRange(0, 3).Draw(t, "toast") == 0 {
				b.fixups = append(b.fixups, fixup{row: row, col: 1, pos: uint32(row)}, fixup{row: row, col: 2, pos: uint32(row)})
			}
			if rapid.IntRange(0, 4).Draw(t, "dead") == 0 {
				b.kill(uint32(row))
				continue
			}
			p := &parts[rapid.IntRange(0, len(parts)-1).Draw(t, "part")]
			p.Rows = append(p.Rows, int32(row))
		}
		n := 0
		for _, p := range parts {
			if len(p.Rows) > 0 {
				parts[n] = p
				n++
			}
		}
		parts = parts[:n]
		b.scatter(parts)
		for i := range parts {
			b.shares[i].file, b.shares[i].start = &dataFile{no: uint32(i)}, uint32(1000*i)
		}
		for i, p := range parts {
			for j, row := range p.Rows {
				f, pos := b.place(uint32(row))
				if f.no != uint32(i) || pos != uint32(1000*i+j) {
					t.Fatalf("row %d is at %d of file %d, want %d of %d", row, pos, f.no, 1000*i+j, i)
				}
			}
			last := -1
			for _, f := range b.missing(i) {
				if f.row < last || p.Rows[f.row] != int32(f.pos) {
					t.Fatalf("fixup of row %d came to %d", f.pos, f.row)
				}
				last = f.row
			}
		}
	})
}

// However many partitions rows come for, and in however many tables, no more files
// are open, nor hold more, than all of them may, and what each may whatever the
// others do; all rows are written, each where it belongs.
func TestFansAreBounded(t *testing.T) {
	layout, err := NewLayout(benchTable, nil, 0)
	require.NoError(t, err)
	column := layout.Columns[0].Name
	by, err := partition.Parse("bucket(1000, " + strconv.Quote(column) + ")")
	require.NoError(t, err)
	layout, err = layout.partitioned(by)
	require.NoError(t, err)
	room := &encoding{bytes: semaphore.NewWeighted(encodingBytesMax), cpus: semaphore.NewWeighted(2), resolving: semaphore.NewWeighted(resolversMax), mem: memory.DefaultAllocator}
	store := &specs{}
	var began []*encoder
	const tables, batches, each = 7, 3, 3000
	var fans []*fan
	for range tables {
		f, err := newFan(store, layout, room, func(of *partition.Place) (*dataFile, error) {
			require.Len(t, of.Values, 1)
			e, err := newEncoder(store, layout, of, room)
			began = append(began, e)
			go func() { _ = e.run(t.Context()) }() // wait returns its error
			return &dataFile{no: uint32(len(began)), enc: e}, err
		})
		require.NoError(t, err)
		require.True(t, f.partitions(0))
		require.False(t, f.partitions(1))
		fans = append(fans, f)
	}
	rows, err := newRowBuilder(room.mem, layout)
	require.NoError(t, err)
	rows.wire = []int{0, 1, 2, 3, 4, 5}
	for i := range batches {
		for _, f := range fans {
			b := &batch{rows: each, bytes: fansBytesMax / 2}
			for n := range each {
				_, err = rows.append(newBenchRow().stream(i*each+n), nil)
				require.NoError(t, err)
			}
			require.NoError(t, f.put(t.Context(), rows.take(), b))
			require.LessOrEqual(t, len(f.open), fanFilesMax)
			if f.bytes > fanFileBytes {
				require.LessOrEqual(t, room.fans.bytes.Load(), int64(fansBytesMax))
			}
			files, bytes := 0, 0
			for _, f := range fans {
				files, bytes = files+len(f.open), bytes+f.bytes
			}
			require.EqualValues(t, files, room.fans.files.Load())
			require.EqualValues(t, bytes, room.fans.bytes.Load())
			require.LessOrEqual(t, files, fansFilesMax+tables*fanFilesFree)
			require.LessOrEqual(t, bytes, fansBytesMax+tables*fanFileBytes)
		}
	}
	for _, f := range fans {
		f.endAll()
		require.Zero(t, f.bytes)
	}
	require.Zero(t, room.fans.bytes.Load())
	require.Zero(t, room.fans.files.Load())
	total := int64(0)
	for _, e := range began {
		n, err := e.wait(t.Context())
		require.NoError(t, err)
		total += n.Rows
	}
	require.EqualValues(t, tables*batches*each, total)
	require.Greater(t, len(began), 1000)
	require.Nil(t, room.fans.crowd())
	require.Empty(t, room.fans.ended, "what is uploaded is forgotten")
}

type large struct{ FileWriter }

func (large) Bytes() int64 { return 3 * endedFileBytes }

// What ended files hold until they are uploaded is bounded, whose ever they are;
// one that failed holds nothing.
func TestDrainWaitsForBytes(t *testing.T) {
	room := &fanRoom{}
	var uploads []chan struct{}
	done := make(chan struct{})
	close(done)
	room.end(&encoder{out: large{}, done: done, err: errTooMuch})
	for range endedBytesMax/endedFileBytes + 2 {
		up := make(chan struct{})
		uploads = append(uploads, up)
		room.end(&encoder{out: large{}, done: done, file: &NewFile{Uploaded: up, UploadErr: func() error { return errTooMuch }}})
	}
	drained := make(chan error)
	go func() { drained <- room.drain(t.Context()) }()
	for _, up := range uploads[:2] {
		select {
		case <-drained:
			require.Fail(t, "did not wait")
		case <-time.After(10 * time.Millisecond):
		}
		close(up)
	}
	require.NoError(t, <-drained)
	require.Len(t, room.ended, endedBytesMax/endedFileBytes)

	room.end(&encoder{out: large{}, done: make(chan struct{})}) // still being encoded
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, room.drain(ctx), context.Canceled)
}

// specs is a store of files that come to nothing, with one partition spec.
type specs struct{ counted }

func (*specs) Spec(fields []partition.Field) (iceberg.PartitionSpec, error) {
	t, err := iceberg.ParseTransform(fields[0].Transform)
	return iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{fields[0].Source}, FieldID: 1000, Name: "p", Transform: t}), err
}

func (s *specs) NewFile(sc *iceberg.Schema, of *partition.Place) (FileWriter, error) {
	w, err := s.counted.NewFile(sc, of)
	return uploadedFile{w}, err
}

type uploadedFile struct{ FileWriter }

func (u uploadedFile) Close(ctx context.Context) (*NewFile, error) {
	n, err := u.FileWriter.Close(ctx)
	done := make(chan struct{})
	close(done)
	n.Uploaded, n.UploadErr = done, func() error { return nil }
	return n, err
}

// Rows of every kind of column are taken out of a record.
func TestTakeRows(t *testing.T) {
	layout, err := NewLayout(benchTable, nil, 0)
	require.NoError(t, err)
	rows, err := newRowBuilder(memory.DefaultAllocator, layout)
	require.NoError(t, err)
	rows.wire = []int{0, 1, 2, 3, 4, 5}
	for n := range 100 {
		_, err = rows.append(newBenchRow().stream(n), nil)
		require.NoError(t, err)
	}
	rec := rows.take()
	defer rec.Release()
	for _, of := range [][]int32{{3, 4, 5}, {0, 7, 99}, {42}} {
		got, err := takeRows(t.Context(), rec, of, memory.DefaultAllocator)
		require.NoError(t, err)
		require.EqualValues(t, len(of), got.NumRows())
		for i, row := range of {
			for c := range rec.Columns() {
				require.Equal(t, rec.Column(c).ValueStr(int(row)), got.Column(c).ValueStr(i))
			}
		}
		got.Release()
	}
}

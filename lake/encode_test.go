package lake

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"firn/lake/partition"
)

// counted is a store of files that counts those begun and not yet ended.
type counted struct {
	TableStore
	mu         sync.Mutex
	open, most int
}

func (c *counted) NewFile(*iceberg.Schema, *partition.Place) (FileWriter, error) {
	return &countedFile{FileWriter: &lost{}, of: c}, nil
}

type countedFile struct {
	FileWriter
	of    *counted
	begun bool
}

func (f *countedFile) Write(rec arrow.RecordBatch) error {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if !f.begun {
		f.begun = true
		f.of.open++
		f.of.most = max(f.of.most, f.of.open)
	}
	return f.FileWriter.Write(rec)
}

func (f *countedFile) Close(ctx context.Context) (*NewFile, error) {
	time.Sleep(time.Millisecond) // to encode the last pages
	f.of.mu.Lock()
	f.of.open--
	f.of.mu.Unlock()
	return f.FileWriter.Close(ctx)
}

// However many tables an epoch has, no more of their encoders hold pages than
// there are processors.
func TestEncodersOpen(t *testing.T) {
	layout, err := NewLayout(benchTable, nil, 0)
	require.NoError(t, err)
	room := &encoding{bytes: semaphore.NewWeighted(encodingBytesMax), cpus: semaphore.NewWeighted(1), resolving: semaphore.NewWeighted(resolversMax), mem: memory.DefaultAllocator}
	require.NoError(t, room.cpus.Acquire(t.Context(), 1)) // until all of them wait
	store := &counted{}
	var all []*encoder
	var done sync.WaitGroup
	for range 100 {
		e, err := newEncoder(store, layout, nil, room)
		require.NoError(t, err)
		rows, err := newRowBuilder(room.mem, layout)
		require.NoError(t, err)
		rows.wire = []int{0, 1, 2, 3, 4, 5}
		_, err = rows.append(newBenchRow().stream(1), nil)
		require.NoError(t, err)
		done.Go(func() { _ = e.run(t.Context()) }) // wait returns its error
		require.NoError(t, e.send(t.Context(), encodeJob{rec: rows.take(), batch: &batch{rows: 1, bytes: 100}, weight: 100}))
		e.finish()
		all = append(all, e)
	}
	room.cpus.Release(1)
	done.Wait()
	for _, e := range all {
		f, err := e.wait(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, f.Rows)
	}
	require.Equal(t, 1, store.most)
}

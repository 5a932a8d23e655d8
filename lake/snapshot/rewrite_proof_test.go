package snapshot

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// swapStore puts another body than it is given.
type swapStore struct {
	Store
	swap func(key string, body []byte) []byte
}

func (s *swapStore) Put(ctx context.Context, key string, body io.ReadSeeker, _ int64) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	b = s.swap(key, b)
	return s.Store.Put(ctx, key, bytes.NewReader(b), int64(len(b)))
}

// The proof is of what lies on the store: a value, a row or a byte that is not
// as it was read ends the rewrite.
func TestRewriteProvesWhatIsOnTheStore(t *testing.T) {
	h := newHarness(t, 2, 1)
	c := &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{h.write(testSchema, 100), h.write(testSchema, 50)}, Dead: map[string]*roaring.Bitmap{}}
	c.Dead[c.Add[0].Path] = dead(3, 4, 99)
	h.commit(c)
	// other is a good file of the output's schema: as many rows, but not these.
	other := func(change func(ids []int64) []int64) []byte {
		w, _, err := h.tab.newRewriter(inputsOf(h.tab))
		require.NoError(t, err)
		var ids []int64
		for _, f := range h.tab.files {
			for row, id := range h.rows[f.path] {
				if f.dead == nil || !f.dead.Contains(uint32(row)) {
					ids = append(ids, id)
				}
			}
		}
		ids = change(ids)
		rec := record(t, w.meta.schema(), ids)
		defer rec.Release()
		require.NoError(t, w.w.Write(rec))
		w.w.endGroup()
		require.NoError(t, w.w.pq.Close())
		b, err := io.ReadAll(w.w.body.reader())
		require.NoError(t, err)
		return b
	}
	swap := &swapStore{Store: h.store}
	h.tab.o.Store = swap
	prove := func(change func(ids []int64) []int64) error {
		body := other(change)
		swap.swap = func(string, []byte) []byte { return body }
		w, from, err := h.tab.newRewriter(inputsOf(h.tab))
		require.NoError(t, err)
		for _, in := range from {
			require.NoError(t, w.copy(h.ctx, in))
		}
		require.NoError(t, w.flush())
		n, err := w.w.Close(h.ctx)
		require.NoError(t, err)
		<-n.Uploaded
		require.NoError(t, n.UploadErr())
		n.Bytes = int64(len(body)) // of another size it would not even open
		return w.prove(h.ctx, n)
	}
	for name, change := range map[string]func(ids []int64) []int64{
		"another row":   func(ids []int64) []int64 { ids[7] = 1000; return ids },
		"a row twice":   func(ids []int64) []int64 { ids[7] = ids[8]; return ids },
		"a row missing": func(ids []int64) []int64 { return ids[1:] },
		"one too many":  func(ids []int64) []int64 { return append(ids, 1000) },
	} {
		require.ErrorIs(t, prove(change), lake.ErrRowsChanged, name)
	}
	require.NoError(t, prove(func(ids []int64) []int64 { slices.Reverse(ids); return ids }))

	// Any byte of a page, and most others, break it.
	failed := 0
	const flips = 60
	for i := range flips {
		swap.swap = func(_ string, b []byte) []byte {
			b[4+(len(b)-8)*i/flips] ^= 0x10
			return b
		}
		if _, err := h.tab.Rewrite(h.ctx, inputsOf(h.tab)); err != nil {
			failed++
		}
	}
	require.Greater(t, failed, flips/3, "the rest lies in statistics and names")
	swap.swap = func(_ string, b []byte) []byte { return b }
	h.rewrite()
}

// flipStore reads one byte wrongly.
type flipStore struct {
	Store
	at int64
}

func (s *flipStore) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	b, err := s.Store.GetRange(ctx, key, off, n)
	if i := s.at - off; err == nil && i >= 0 && i < int64(len(b)) {
		b = bytes.Clone(b)
		b[i] ^= 0x10
	}
	return b, err
}

// The Arrow schema in a file's footer is not needed, so no damage to it may matter:
// the library that decodes it believes its lengths.
func TestReadWithoutTheArrowSchema(t *testing.T) {
	h := newHarness(t, 2, 1)
	f := h.write(testSchema, 10)
	<-f.Uploaded
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{f}})
	key, ok := h.store.Key(f.Path)
	require.True(t, ok)
	body, err := h.store.Get(h.ctx, key)
	require.NoError(t, err)
	const name, gap = "ARROW:schema", 3 // a type and the length come between
	from := bytes.LastIndex(body, []byte(name)) + len(name) + gap
	to := from + bytes.IndexByte(body[from:], 0)
	require.Greater(t, to-from, 500)
	store := &flipStore{Store: h.store}
	h.tab.o.Store = store
	for at := from; at < to; at++ {
		store.at = int64(at)
		h.tab.o.Footers = NewFooters(1)
		rows := 0
		require.NoError(t, h.tab.Read(h.ctx, f.Path, []int{1, 2}, nil, func(_ int64, rec arrow.RecordBatch) error {
			rows += int(rec.NumRows())
			return nil
		}), "byte %d of the schema", at-from)
		require.Equal(t, 10, rows)
	}
}

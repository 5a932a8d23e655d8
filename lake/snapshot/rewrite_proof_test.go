package snapshot

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
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

package snapshot

import (
	"io/fs"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"

	"firn/lake"
)

// What a metadata file needs is what the table knows of; a file that the store
// doesn't have for once is an error, and what it names is found at the next look.
func TestRule14Reach(t *testing.T) {
	for _, version := range []int{2, 3} {
		h := newHarness(t, version, 21)
		for range 12 {
			f := h.write(testSchema, 30)
			c := &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{f}, Dead: map[string]*roaring.Bitmap{f.Path: dead(1, 5)}}
			h.commit(c)
		}
		r := NewReach(h.store, xxh3.HashString)
		look := func(history bool) (map[uint64]bool, error) {
			r.Round()
			found := map[uint64]bool{}
			var at = make(chan uint64)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for k := range at {
					found[k] = true
				}
			}()
			err := r.Visit(h.ctx, h.tab.Metadata(), history, func(k uint64) { at <- k })
			close(at)
			<-done
			return found, err
		}
		whole, err := look(false)
		require.NoError(t, err)
		var manifests []string
		for _, m := range append(append([]*manifest(nil), h.tab.data...), h.tab.deletes...) {
			manifests = append(manifests, m.file.FilePath())
		}
		for _, uri := range manifests {
			require.True(t, whole[hashOf(t, h, uri)], uri)
		}
		for _, f := range h.tab.files {
			require.True(t, whole[hashOf(t, h, f.path)], f.path)
		}
		for d := range h.tab.deleteSet {
			require.True(t, whole[hashOf(t, h, d.entry.file.FilePath())])
		}
		all, err := look(true)
		require.NoError(t, err)
		require.Greater(t, len(all), len(whole))

		key, _ := h.store.Key(manifests[0])
		body, err := h.store.Get(h.ctx, key)
		require.NoError(t, err)
		require.NoError(t, h.store.Delete(h.ctx, key))
		r = NewReach(h.store, xxh3.HashString) // a process that has not read it
		_, err = look(false)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, h.store.PutIfAbsent(h.ctx, key, body))
		again, err := look(false)
		require.NoError(t, err)
		require.Equal(t, whole, again)
	}
}

func hashOf(t *testing.T, h *harness, uri string) uint64 {
	key, ok := h.store.Key(uri)
	require.True(t, ok)
	return xxh3.HashString(key)
}

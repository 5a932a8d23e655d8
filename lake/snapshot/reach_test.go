package snapshot

import (
	"io/fs"
	"runtime"
	"testing"
	"time"

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

// A file that was uploaded and then let go of is not pending for ever: one that
// nobody has any more, one whose rows all died before its epoch was published,
// and the objects of an epoch that never was.
func TestRule13LetGo(t *testing.T) {
	h := newHarness(t, 2, 13)
	pending := NewPending()
	h.tab.o.Pending = pending
	left := func() int {
		runtime.GC()
		return len(pending.Keys())
	}
	gone := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { return left() == n }, 10*time.Second, 5*time.Millisecond)
	}
	kept := h.write(testSchema, 5)
	<-kept.Uploaded
	dropped := h.write(testSchema, 5)
	<-dropped.Uploaded
	require.Equal(t, 2, left())
	runtime.KeepAlive(dropped)
	gone(1)
	require.Equal(t, 1, left(), "what somebody has is pending")

	p, err := h.tab.Prepare(h.ctx, &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{kept}})
	require.NoError(t, err)
	require.NoError(t, p.Upload(h.ctx))
	require.Greater(t, left(), 3)
	runtime.KeepAlive(p)
	gone(1) // it was never published

	dead := roaring.New()
	dead.AddRange(0, 5)
	born := h.write(testSchema, 5)
	c := &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{kept, born}, Dead: map[string]*roaring.Bitmap{born.Path: dead}}
	p, err = h.tab.Prepare(h.ctx, c)
	require.NoError(t, err)
	require.NoError(t, p.Upload(h.ctx))
	h.tab.Adopt(p)
	runtime.KeepAlive(c)
	gone(0)
}

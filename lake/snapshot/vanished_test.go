package snapshot

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

// TestRule13LooksAgain publishes files that were uploaded long ago: they are
// looked at before, and a missing one ends the commit.
func TestRule13LooksAgain(t *testing.T) {
	h := newHarness(t, 2, 1)
	store := laketest.NewFaultStore(h.store)
	h.tab.o.Store = store
	now := time.Now()
	h.tab.o.Now = func() time.Time { return now }
	prepare := func(age time.Duration) (lake.Prepared, *lake.NewFile) {
		f := h.write(testSchema, 10)
		<-f.Uploaded
		now = now.Add(age)
		p, err := h.tab.Prepare(h.ctx, &lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{f}})
		require.NoError(t, err)
		store.Clear()
		return p, f
	}
	looks := func() (n int) {
		for _, c := range store.Calls() {
			if c.Op == laketest.OpGetRange {
				n++
			}
		}
		return n
	}
	p, _ := prepare(29 * time.Minute)
	require.NoError(t, p.Upload(h.ctx))
	require.Zero(t, looks(), "nobody may have removed it yet")
	p, _ = prepare(31 * time.Minute)
	require.NoError(t, p.Upload(h.ctx))
	require.Equal(t, 1, looks())
	p, f := prepare(31 * time.Minute)
	key, _ := store.Key(f.Path)
	require.NoError(t, store.Delete(h.ctx, key))
	require.ErrorIs(t, p.Upload(h.ctx), lake.ErrVanished)
	p, f = prepare(31 * time.Minute)
	store.Inject(laketest.Fault{Op: laketest.OpGetRange, Before: laketest.ErrSlowDown})
	require.ErrorIs(t, p.Upload(h.ctx), laketest.ErrSlowDown, "an outage is no loss")
	require.NotNil(t, f)
}

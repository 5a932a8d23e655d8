package compaction

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
)

// place is a Warehouse in memory.
type place struct {
	objects  map[string]time.Time
	needed   map[string]bool
	others   string // prefix of folders that others write to
	now      time.Time
	owned    error
	listed   func() // called once a listing has ended
	needErr  error
	neededAt int // times asked
}

func (p *place) Hash(key string) uint64 { return xxh3.HashString(key) }

func (p *place) Needed(_ context.Context, fn func(uint64)) error {
	p.neededAt++
	for k := range p.needed {
		fn(p.Hash(k))
	}
	return p.needErr
}

func (p *place) Ours(key string) bool { return p.others == "" || !strings.HasPrefix(key, p.others) }

func (p *place) Sweepable(key string) bool { return !strings.HasPrefix(key, "else/") }

func (p *place) List(_ context.Context, after string) ([]Object, error) {
	var out []Object
	for _, k := range slices.Sorted(maps.Keys(p.objects)) {
		if k > after && len(out) < 100 {
			out = append(out, Object{Key: k, Size: 10, Modified: p.objects[k]})
		}
	}
	if len(out) == 0 && p.listed != nil {
		p.listed()
	}
	return out, nil
}

func (p *place) Now(context.Context) (time.Time, error) { return p.now, nil }
func (p *place) Check(context.Context) error            { return p.owned }

func (p *place) Delete(_ context.Context, keys ...string) error {
	for _, k := range keys {
		delete(p.objects, k)
	}
	return nil
}

func newPlace(keys ...string) *place {
	p := &place{objects: map[string]time.Time{}, needed: map[string]bool{}, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for _, k := range keys {
		p.objects[k] = p.now.Add(-48 * time.Hour)
	}
	return p
}

func (p *place) sweep(t *testing.T, s *Sweeper, later time.Duration) Swept {
	t.Helper()
	p.now = p.now.Add(later)
	swept, err := s.Sweep(t.Context())
	require.NoError(t, err)
	return swept
}

// What no kept epoch needs goes after the grace time, counted from when that was
// first seen, and nothing else does.
func TestRule14Sweep(t *testing.T) {
	p := newPlace("else/log/1", "public/a/data/old", "public/a/data/used", "public/a/metadata/x.json", "public/b/data/1", "public/b/data/2", "public/b/data/3")
	p.needed["public/a/data/used"] = true
	s := &Sweeper{Warehouse: p, Grace: time.Hour}
	require.Equal(t, Swept{Needed: 1, Waiting: 5, WaitingBytes: 50}, p.sweep(t, s, 0))
	p.needed["public/b/data/1"] = true // a tag came, or a rollback
	require.Equal(t, Swept{Needed: 2, Waiting: 4, WaitingBytes: 40}, p.sweep(t, s, 59*time.Minute))
	delete(p.needed, "public/b/data/1") // its time begins anew
	p.now = p.now.Add(2 * time.Minute)
	would, err := s.Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, Swept{Needed: 1, Waiting: 1, WaitingBytes: 10, Removed: 4, RemovedBytes: 40}, would)
	require.Len(t, p.objects, 7)
	require.Equal(t, Swept{Needed: 1, Waiting: 1, WaitingBytes: 10, Removed: 4, RemovedBytes: 40}, p.sweep(t, s, 0))
	require.Equal(t, []string{"else/log/1", "public/a/data/used", "public/b/data/1"},
		slices.Sorted(maps.Keys(p.objects)))
	require.Equal(t, Swept{Needed: 1, Removed: 1, RemovedBytes: 10}, p.sweep(t, s, time.Hour))
}

// A file that is uploaded long before it is published is pending, and needed. It
// may be published between the looks at what is needed and at what is there.
func TestRule13PublishedMeanwhile(t *testing.T) {
	p := newPlace("public/a/data/long", "public/a/data/lost")
	s := &Sweeper{Warehouse: p, Grace: time.Hour}
	p.sweep(t, s, 0)
	p.listed = func() { p.needed["public/a/data/long"] = true }
	require.Equal(t, Swept{Removed: 1, RemovedBytes: 10}, p.sweep(t, s, time.Hour))
	require.Contains(t, p.objects, "public/a/data/long")
}

// A young file stays though nothing has needed its name for long, and so does
// one for a day that others may be about to commit.
func TestRule13Ages(t *testing.T) {
	p := newPlace("public/a/data/1", "theirs/a/data/1")
	p.others = "theirs/"
	p.objects["public/a/data/1"] = p.now
	s := &Sweeper{Warehouse: p, Grace: time.Hour, OthersGrace: 24 * time.Hour}
	p.sweep(t, s, 0)
	p.objects["public/a/data/1"] = p.now.Add(time.Minute)
	require.Zero(t, p.sweep(t, s, time.Hour).Removed)
	require.Equal(t, 1, p.sweep(t, s, time.Hour).Removed)
	require.Zero(t, p.sweep(t, s, 21*time.Hour).Removed)
	require.Equal(t, 1, p.sweep(t, s, time.Hour).Removed)
	require.Empty(t, p.objects)
}

// Only the owner removes, and nobody on a guess.
func TestRule13OnlyTheOwner(t *testing.T) {
	p := newPlace("public/a/data/1")
	s := &Sweeper{Warehouse: p, Grace: time.Hour}
	p.sweep(t, s, 0)
	p.now = p.now.Add(2 * time.Hour)
	for _, broken := range []*error{&p.owned, &p.needErr} {
		*broken = errors.New("no")
		_, err := s.Sweep(t.Context())
		require.Error(t, err)
		require.Len(t, p.objects, 1)
		*broken = nil
	}
	require.Equal(t, 1, p.sweep(t, s, 0).Removed)
}

// However many there are, each deletion is bounded and preceded by the question
// who owns the lake.
func TestSweepInPortions(t *testing.T) {
	var keys []string
	for i := range 2*deletesAtOnce + 5 {
		keys = append(keys, fmt.Sprintf("public/a/data/%06d", i))
	}
	p := newPlace(keys...)
	s := &Sweeper{Warehouse: p, Grace: time.Hour}
	require.Equal(t, len(keys), p.sweep(t, s, 0).Waiting)
	require.Equal(t, len(keys), p.sweep(t, s, time.Hour).Removed)
	require.Empty(t, p.objects)
	require.Equal(t, 3, p.neededAt)
}

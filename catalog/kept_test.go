package catalog_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/laketest"
)

// simulate thins after each epoch, as commits do.
func simulate(epochs int, step func(i int) time.Duration) (kept []time.Time, most int) {
	r := catalog.DefaultRetention()
	now := day
	for i := range epochs {
		now = now.Add(step(i))
		kept = append(kept, now)
		var left []time.Time
		for j, keep := range r.Thin(kept) {
			if keep {
				left = append(left, kept[j])
			}
		}
		kept = left
		most = max(most, len(kept))
	}
	return kept, most
}

func TestThinIsBounded(t *testing.T) {
	for name, step := range map[string]func(int) time.Duration{
		"every second": func(int) time.Duration { return time.Second },
		"every 10 s":   func(int) time.Duration { return 10 * time.Second },
		"every 59 s":   func(int) time.Duration { return 59 * time.Second },
		"every 47 min": func(int) time.Duration { return 47 * time.Minute },
		"all at once":  func(int) time.Duration { return 0 },
		"clock runs back": func(i int) time.Duration {
			if i%1000 == 999 {
				return -30 * time.Minute
			}
			return 5 * time.Second
		},
		"random": func(i int) time.Duration {
			return time.Duration(rand.New(rand.NewPCG(7, uint64(i))).ExpFloat64() * float64(2*time.Minute))
		},
	} {
		t.Run(name, func(t *testing.T) {
			kept, most := simulate(6_000, step)
			require.LessOrEqual(t, most, 200)
			require.GreaterOrEqual(t, len(kept), 60)
		})
	}
}

func TestThinKeepsTheFirstOfEachBucket(t *testing.T) {
	// Forty days of an epoch every ten minutes, and an hour of one a second.
	n := 40 * 24 * 6
	kept, _ := simulate(n+3600, func(i int) time.Duration {
		if i < n {
			return 10 * time.Minute
		}
		return time.Second
	})
	now := kept[len(kept)-1]
	has := map[time.Time]bool{}
	for _, k := range kept {
		has[k] = true
	}
	for d := now.Truncate(24 * time.Hour); now.Sub(d) < 30*24*time.Hour; d = d.Add(-24 * time.Hour) {
		require.True(t, has[d], "the first epoch of %s", d.Format(time.DateOnly))
	}
	for h := now.Add(-time.Hour).Truncate(time.Hour); now.Sub(h) < 48*time.Hour; h = h.Add(-time.Hour) {
		require.True(t, has[h], "the first epoch of %s", h)
	}
	for m := now.Truncate(time.Minute); now.Sub(m) < 50*time.Minute; m = m.Add(-time.Minute) {
		require.True(t, has[m] || has[m.Add(time.Second)], "the first epoch of %s", m)
	}
	require.Len(t, kept[len(kept)-60:], 60)
	require.Equal(t, 59*time.Second, now.Sub(kept[len(kept)-60]), "the newest 60 whatever their age")
	require.Equal(t, catalog.DefaultRetention().Thin(nil), []bool{})
}

// A tag outlives thinning; once it is dropped its epoch goes like any other.
func TestTagKeepsItsEpoch(t *testing.T) {
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{Retention: catalog.Retention{Newest: 5}})
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	tagged := l.Head().Epochs()[0]
	commit(t, l, func(n *catalog.State) { n.PutTag("release", catalog.Tag{Kept: tagged, Created: day}) })
	for range 20 {
		commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	}
	epochs := reopened(t, s).Epochs()
	require.Len(t, epochs, 6)
	require.Equal(t, tagged, epochs[0])
	st, err := l.AsOf(t.Context(), catalog.Moment{Tag: "release"})
	require.NoError(t, err)
	table, _ := st.Table(ident("orders"))
	require.Equal(t, "memory://orders/1.json", table.Metadata)
	commit(t, l, func(n *catalog.State) { n.DropTag("release") })
	commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	require.Len(t, reopened(t, s).Epochs(), 5)
}

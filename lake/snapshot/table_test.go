package snapshot

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

// seeds are those of the random tests; FIRN_SEED replays one.
func seeds(t *testing.T, n int) []uint64 {
	if s := os.Getenv("FIRN_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		return []uint64{v}
	}
	var out []uint64
	for i := range n {
		out = append(out, uint64(i+1))
	}
	return out
}

func TestRandomCommits(t *testing.T) {
	commits, n := 300, 2
	switch {
	case testing.Short():
		commits, n = 60, 1
	case laketest.Race:
		n = 1
	}
	for _, version := range []int{2, 3} {
		for _, seed := range seeds(t, n) {
			t.Run(fmt.Sprintf("v%d/seed%d", version, seed), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t, version, seed)
				for i := range commits {
					h.commit(h.random())
					if i%20 == 19 || i == commits-1 {
						h.check()
					}
					if i%50 == 49 { // a restart
						h.tab = h.sameAsLoaded()
					}
				}
			})
		}
	}
}

// Enough files for manifests that are written again by themselves.
func TestManyFiles(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, version, 30)
			most := 0
			for i := range 170 {
				c := &lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{}}
				c.Add = []*lake.NewFile{h.write(testSchema, 6), h.write(testSchema, 6)}
				files := h.tab.Files()
				for range min(3, len(files)) {
					f := files[h.rng.IntN(len(files))]
					c.Dead[f.Path] = h.kill(f.Path, 1+h.rng.IntN(3))
				}
				h.commit(c)
				for _, m := range h.tab.data {
					most = max(most, len(m.entries))
				}
				if i%60 == 59 {
					h.check()
					h.tab = h.sameAsLoaded()
				}
			}
			h.check()
			require.Greater(t, most, manifestAlone)
			require.Less(t, len(h.tab.files), 340, "some files died")
		})
	}
}

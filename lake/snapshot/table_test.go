package snapshot

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
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
	if testing.Short() {
		commits, n = 60, 1
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

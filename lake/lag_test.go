package lake

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"firn/wal"
)

// Whatever the server says, and however the lake follows, the age of what waits
// is never more than it is, and at most half as much less, as far as the server
// was asked.
func TestLagOfAnyStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l lag
		var all []lagPoint
		now := time.Unix(0, 0)
		end, durable := wal.LSN(1), wal.LSN(0)
		for range rapid.IntRange(1, 1500).Draw(t, "points") {
			now = now.Add(time.Second)
			end += wal.LSN(rapid.IntRange(0, 3).Draw(t, "written"))
			l.see(end, now)
			if len(all) == 0 || end > all[len(all)-1].lsn {
				all = append(all, lagPoint{end, now})
			}
			if rapid.IntRange(0, 200).Draw(t, "moves") == 0 {
				durable = wal.LSN(rapid.Uint64Range(uint64(durable), uint64(end)).Draw(t, "durable"))
			}
			l.forget(durable)
			require.LessOrEqual(t, len(l.points), lagPoints)
			require.Equal(t, end, l.end())
			var age time.Duration
			for _, p := range all {
				if p.lsn > durable {
					age = now.Sub(p.at)
					break
				}
			}
			got := l.age(durable, now)
			require.LessOrEqual(t, got, age)
			require.GreaterOrEqual(t, got, age/2)
		}
	})
}

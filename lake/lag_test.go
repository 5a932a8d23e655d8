package lake

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"firn/wal"
)

// Whatever the server says, and however the lake follows, the age of what waits
// is never more than it is, nor less by more than the time between two points
// that were kept.
func TestLagOfAnyStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l lag
		began := time.Unix(0, 0)
		at := func(lsn wal.LSN) time.Time { return began.Add(time.Duration(lsn) * time.Second) } // a byte a second
		end, durable, gap := wal.LSN(0), wal.LSN(0), time.Duration(0)
		for range rapid.IntRange(1, 5).Draw(t, "stays") {
			for range rapid.IntRange(1, 600).Draw(t, "seconds") {
				end++
				oldest := slices.Clone(l.points[:min(1, len(l.points))])
				l.see(end, at(end))
				require.LessOrEqual(t, len(l.points), lagPoints)
				require.Equal(t, end, l.end())
				if len(oldest) > 0 {
					require.Equal(t, oldest[0], l.points[0], "while the lake stays where it is")
				}
			}
			for i, p := range l.points[1:] {
				gap = max(gap, p.at.Sub(l.points[i].at))
			}
			durable = wal.LSN(rapid.Uint64Range(uint64(durable), uint64(end)).Draw(t, "durable"))
			l.forget(durable)
			age := at(end).Sub(at(min(end, durable+1)))
			got := l.age(durable, at(end))
			require.LessOrEqual(t, got, age)
			require.GreaterOrEqual(t, got, age-gap)
		}
	})
}

func TestLagOfAnotherServer(t *testing.T) {
	var l lag
	at := time.Unix(0, 0)
	l.see(100, at)
	l.see(50, at.Add(time.Second))
	require.EqualValues(t, 50, l.end())
	require.Zero(t, l.age(50, at.Add(time.Hour)))
	require.Equal(t, time.Minute, l.age(40, at.Add(time.Second+time.Minute)))
}

package lake

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

// quietStream is a stream of which nothing is asked but a position.
type quietStream struct {
	Stream
	pings int
}

func (s *quietStream) Ping() { s.pings++ }

// Rewrites have a processor while nothing comes, half of one beside the stream,
// and little while it is behind or a table is loaded; more where they queue up,
// or somebody asked.
func TestPace(t *testing.T) {
	stream := &quietStream{}
	s := &session{Lake: New(Options{}), log: slog.New(slog.DiscardHandler), stream: stream}
	want := func(share int, why string) {
		t.Helper()
		s.pace()
		require.Equal(t, share, s.share, why)
		require.EqualValues(t, share, s.o.Pacer.share.Load(), why)
	}
	end := wal.LSN(1 << 30)
	s.position = end
	far := func(lsn wal.LSN, since time.Duration) {
		end = lsn
		s.measureDone(measured{end: end, at: time.Now().Add(-since)})
	}
	want(ShareAlone, "nothing comes")
	s.dirtyAt = time.Now()
	want(ShareBeside, "the stream flows")
	s.queued = true
	want(ShareAlone, "rewrites queue up")
	s.queued = false
	require.Zero(t, stream.pings)
	far(s.position+behindBytes, time.Minute)
	want(ShareBeside, "next to nothing is not behind")
	require.Equal(t, 1, stream.pings, "what holds nothing for us is told when asked")
	s.position = end
	far(end+1<<30, behindAfter/2)
	want(ShareBeside, "however much it is, it has just been written")
	s.lag.points[len(s.lag.points)-1].at = time.Now().Add(-behindAfter)
	want(ShareBehind, "the stream is behind")
	s.rewrites, s.queued = []*rewrite{{}}, true
	want(ShareBeside, "both are behind")
	s.queued = false
	want(ShareBehind, "the stream is behind")
	require.True(t, s.yielding)
	s.idle = end
	want(ShareBeside, "the rest held nothing for us")
	require.False(t, s.yielding)
	s.loading = true
	want(ShareBehind, "a table is loaded")
	far(end+1<<30, time.Minute)
	s.rewrites = append(s.rewrites, &rewrite{asked: true})
	want(ShareAlone, "somebody waits for a rewrite")
}

func TestCrowdedEpochs(t *testing.T) {
	s := &session{Lake: New(Options{Freshness: time.Second})}
	due := func(want bool, after time.Duration, why string) {
		t.Helper()
		s.dirtyAt = time.Now().Add(-after)
		require.Equal(t, want, s.due(), why)
	}
	due(true, time.Second, "its time has come")
	s.queued = true
	due(false, 2*time.Second, "rewrites queue up")
	due(true, crowded, "but not for ever")
	s.queued, s.late = false, true
	due(false, 2*time.Second, "the stream is behind")
	s.waits = []request{{}}
	due(true, 0, "somebody waits for it")
	s.waits, s.o.Freshness = nil, time.Minute
	due(false, crowded, "it has time")
	due(true, time.Minute, "its time has come")
}

func TestWriteAmplification(t *testing.T) {
	require.Zero(t, Compaction{RewrittenBytes: 5}.WriteAmplification())
	require.Equal(t, 1.5, Compaction{WrittenBytes: 10, RewrittenBytes: 5}.WriteAmplification())
}

package lake

import (
	"slices"
	"time"

	"firn/wal"
)

const (
	// measureEvery is how often the server is asked where its WAL ends; with
	// nothing to do it is only every Options.Poll.
	measureEvery = time.Second
	// behindAfter is how long WAL may be on its way before the lake counts as
	// behind.
	behindAfter = 5 * time.Second
	// hiddenLag is how long the server may take to say that WAL holds nothing for
	// us. Until then no commit is taken to wait in it. Once in a while it takes
	// longer: where somebody's open transaction has written half a record, the
	// rest comes within some 15 s.
	hiddenLag = 2 * time.Second
	lagPoints = 256
)

// lag knows how far the server is ahead. The stream doesn't tell: it gives the
// positions of what it sends, not of what is still to come, and a server that
// is slow to send looks like one that has nothing to say. So the server is
// asked now and then, and what it said is kept until the lake is there.
type lag struct {
	points []lagPoint // ascending in both, at most lagPoints
}

// lagPoint is an end of the server's WAL, and when it was there already.
type lagPoint struct {
	lsn wal.LSN
	at  time.Time
}

// see adds what the server said. Where it is too much, half of the older points
// go, but never the oldest. A server that is less far than before is another
// one, and what the first said is void.
func (l *lag) see(end wal.LSN, at time.Time) {
	switch {
	case end == l.end():
		return
	case end < l.end():
		l.points = l.points[:0]
	case len(l.points) == lagPoints:
		for i := range lagPoints / 4 {
			l.points[i] = l.points[2*i]
		}
		l.points = slices.Delete(l.points, lagPoints/4, lagPoints/2)
	}
	l.points = append(l.points, lagPoint{end, at})
}

// forget drops the points that the lake has reached, but for the newest.
func (l *lag) forget(durable wal.LSN) {
	n := slices.IndexFunc(l.points, func(p lagPoint) bool { return p.lsn > durable })
	if n < 0 {
		n = max(0, len(l.points)-1)
	}
	l.points = slices.Delete(l.points, 0, n)
}

// end is the newest known end of the server's WAL.
func (l *lag) end() wal.LSN {
	if len(l.points) == 0 {
		return 0
	}
	return l.points[len(l.points)-1].lsn
}

// age is how long there has been WAL past lsn, as far as is known.
func (l *lag) age(lsn wal.LSN, now time.Time) time.Duration {
	for _, p := range l.points {
		if p.lsn > lsn {
			return now.Sub(p.at)
		}
	}
	return 0
}

type measured struct {
	end wal.LSN
	at  time.Time
	err error
}

// measure asks, beside the owner, where the server's WAL ends.
func (s *session) measure() {
	every := measureEvery
	if s.pulse() == idlePulse {
		every = s.o.Poll
	}
	if s.measuring || s.stopping || time.Since(s.measuredAt) < every {
		return
	}
	s.measuring, s.measuredAt = true, time.Now()
	s.group.Go(func() error {
		end, err := s.o.Source.FlushLSN(s.ctx)
		select {
		case s.measured <- measured{end, time.Now(), err}:
		case <-s.ctx.Done():
		}
		return nil
	})
}

func (s *session) measureDone(m measured) {
	s.measuring = false
	if m.err != nil {
		s.log.Debug("ask for the end of the server's WAL", "err", m.err) // the stream's own error says more
		return
	}
	s.lag.see(m.end, m.at)
	if m.end > s.streamed() {
		s.stream.Ping() // the server may be past WAL that holds nothing for us
	}
}

// streamed is how far the stream has come.
func (s *session) streamed() wal.LSN { return max(s.position, s.idle) }

// behind is how much WAL is still to come, 0 if that is next to nothing, or a
// matter of moments.
func (s *session) behind() int64 {
	after := behindAfter
	if s.late {
		after /= 2 // not to and fro
	}
	at := s.streamed()
	if end := s.lag.end(); end > at+behindBytes && s.lag.age(at, time.Now()) >= after {
		return int64(end - at)
	}
	return 0
}

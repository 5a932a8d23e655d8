package lake

import (
	"slices"
	"time"

	"firn/wal"
)

const (
	// measureEvery is how often the server is asked where its WAL ends, while
	// there is something to do; else each look at its catalogs tells.
	measureEvery = time.Second
	// behindAfter is how long WAL may be on its way before the lake counts as
	// behind.
	behindAfter = 5 * time.Second
	// hiddenLag is how long the server may take to say that WAL holds nothing
	// for us. Until then no commit is taken to wait in it.
	hiddenLag = 2 * time.Second
	lagPoints = 256
)

// lag knows how far the server is ahead. The stream doesn't tell: it gives the
// positions of what it sends, not of what is still to come, and a server that
// is slow to send looks like one that has nothing to say. So the server is
// asked now and then, and what it said is kept until the lake is there.
type lag struct {
	points []lagPoint // ascending in both, at most lagPoints
	asking bool
	asked  time.Time
}

// lagPoint is an end of the server's WAL, and when it was there already.
type lagPoint struct {
	lsn wal.LSN
	at  time.Time
}

// see adds what the server said. Of many points half are kept, so that the
// oldest stands however far behind the lake is.
func (l *lag) see(end wal.LSN, at time.Time) {
	if end <= l.end() {
		return
	}
	if len(l.points) == lagPoints {
		for i := range lagPoints / 2 {
			l.points[i] = l.points[2*i]
		}
		l.points = l.points[:lagPoints/2]
	}
	l.points = append(l.points, lagPoint{end, at})
}

// forget drops the points that the lake has reached, but for the newest.
func (l *lag) forget(durable wal.LSN) {
	n, _ := slices.BinarySearchFunc(l.points, durable+1, func(p lagPoint, lsn wal.LSN) int { return int(int64(p.lsn - lsn)) })
	l.points = slices.Delete(l.points, 0, min(n, max(0, len(l.points)-1)))
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
	now := time.Now()
	if s.lag.asking || s.stopping || s.pulse() == idlePulse || now.Sub(s.lag.asked) < measureEvery {
		return
	}
	s.lag.asking, s.lag.asked = true, now
	s.group.Go(func() error {
		end, err := s.o.Source.InsertLSN(s.ctx)
		select {
		case s.measured <- measured{end, now, err}:
		case <-s.ctx.Done():
		}
		return nil
	})
}

func (s *session) measureDone(m measured) {
	s.lag.asking = false
	if m.err != nil {
		s.log.Debug("ask for the end of the server's WAL", "err", m.err) // the stream's own error says more
		return
	}
	s.ahead(m.end, m.at)
}

// ahead takes note of an end of the server's WAL.
func (s *session) ahead(end wal.LSN, at time.Time) {
	s.lag.see(end, at)
	if end > s.streamed() {
		s.stream.Ping() // WAL that holds nothing for us passes unseen
	}
}

// streamed is how far the stream has come.
func (s *session) streamed() wal.LSN { return max(s.position, s.idle) }

// behind is how much WAL is still to come, 0 if that is next to nothing, or a
// matter of moments.
func (s *session) behind() int64 {
	at := s.streamed()
	if end := s.lag.end(); end > at+behindBytes && s.lag.age(at, time.Now()) >= behindAfter {
		return int64(end - at)
	}
	return 0
}

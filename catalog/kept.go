package catalog

import "time"

// Retention says which epochs the lake goes on answering for. Ages count back
// from the newest epoch's time; of a minute, hour or day the first epoch
// survives, so the first of an hour is among the firsts of its minutes and
// thinning a thinned list loses nothing that an unthinned one would keep.
type Retention struct {
	Newest  int           // kept whatever their age
	Minutes time.Duration // one a minute while younger
	Hours   time.Duration // one an hour while younger
	Days    time.Duration // one a day while younger
}

// DefaultRetention keeps at most 200 epochs besides tagged ones.
func DefaultRetention() Retention {
	return Retention{Newest: 60, Minutes: time.Hour, Hours: 48 * time.Hour, Days: 30 * 24 * time.Hour}
}

// Thin returns for times, oldest first as they were committed, whether each is
// kept. A time before its predecessor's counts as that one: clocks run back,
// and must not open a bucket twice.
func (r Retention) Thin(times []time.Time) []bool {
	keep := make([]bool, len(times))
	if len(times) == 0 {
		return keep
	}
	now := times[0].UnixNano()
	for _, t := range times {
		now = max(now, t.UnixNano())
	}
	rules := [...]struct{ width, limit, last int64 }{
		{width: int64(time.Minute), limit: int64(r.Minutes)},
		{width: int64(time.Hour), limit: int64(r.Hours)},
		{width: int64(24 * time.Hour), limit: int64(r.Days)},
	}
	at := times[0].UnixNano()
	for i, t := range times {
		at = max(at, t.UnixNano())
		keep[i] = i >= len(times)-r.Newest
		// Every width sees every time, so that what an hour's first is does
		// not depend on how far thinning has come.
		for j := range rules {
			rule := &rules[j]
			bucket := at / rule.width
			if (i == 0 || bucket != rule.last) && now-at < rule.limit {
				keep[i] = true
			}
			rule.last = bucket
		}
	}
	return keep
}

// keep adds s itself to the kept epochs and thins the others.
func (s *State) keep(r Retention) {
	s.epochs.put(s.Number, Kept{Number: s.Number, CommitID: s.CommitID, Epoch: s.Epoch, LSN: s.LSN, Time: s.CommitTime})
	epochs := s.Epochs()
	times := make([]time.Time, len(epochs))
	for i, k := range epochs {
		times[i] = k.Time
	}
	tagged := map[uint64]bool{}
	for _, t := range s.Tags() {
		tagged[t.Number] = true
	}
	for i, keep := range r.Thin(times) {
		if !keep && !tagged[epochs[i].Number] {
			s.epochs.drop(epochs[i].Number)
		}
	}
}

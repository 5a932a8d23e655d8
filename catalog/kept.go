package catalog

import (
	"errors"
	"fmt"
	"time"
)

// Retention says which epochs the lake goes on answering for, and with them
// which snapshots of each table: those that a kept epoch shows. Ages count back
// from the newest epoch's time, so that a lake at rest loses nothing by waiting;
// of a minute, hour or day the first epoch survives, so the first of an hour is
// among the firsts of its minutes and thinning a thinned list loses nothing that
// an unthinned one would keep.
type Retention struct {
	Newest  int           // kept whatever their age
	Minutes time.Duration // one a minute while younger
	Hours   time.Duration // one an hour while younger
	Days    time.Duration // one a day while younger
}

// KeptMax bounds the kept epochs, tagged ones apart: every table's metadata
// lists a snapshot for each.
const KeptMax = 199

// DefaultRetention keeps at most 198 epochs besides tagged ones.
func DefaultRetention() Retention {
	return Retention{Newest: 60, Minutes: time.Hour, Hours: 48 * time.Hour, Days: 30 * 24 * time.Hour}
}

// Check refuses a rule that keeps nothing, or more than KeptMax.
func (r Retention) Check() error {
	if r.Newest < 1 {
		return errors.New("at least the newest epoch has to be kept")
	}
	if r.Minutes < 0 || r.Hours < 0 || r.Days < 0 {
		return errors.New("an age below zero is none")
	}
	units := func(age, width time.Duration) int64 { return int64((age + width - 1) / width) }
	most := int64(r.Newest) + units(r.Minutes, time.Minute) + units(r.Hours, time.Hour) + units(r.Days, 24*time.Hour)
	if most > KeptMax {
		return fmt.Errorf("it keeps up to %d epochs, and %d are the most (tagged ones are not counted)", most, KeptMax)
	}
	return nil
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
	kept := 0
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
		if keep[i] {
			kept++
		}
	}
	// A span may touch one bucket more than it is long.
	for i := 0; kept > KeptMax; i++ {
		if keep[i] {
			keep[i] = false
			kept--
		}
	}
	return keep
}

// keep adds s itself to the kept epochs and thins the others.
func (s *State) keep(r Retention) {
	s.epochs.put(s.Number, Kept{Number: s.Number, CommitID: s.CommitID, Epoch: s.Epoch, LSN: s.LSN, Time: s.CommitTime})
	s.thin(r)
}

// thin drops the epochs that the rule does not keep and no tag names, and
// returns them.
func (s *State) thin(r Retention) []Kept {
	gone := s.beyond(r)
	for _, k := range gone {
		s.epochs.drop(k.Number)
	}
	return gone
}

// beyond lists the kept epochs that the rule would not keep and no tag names.
func (s *State) beyond(r Retention) []Kept {
	epochs := s.Epochs()
	times := make([]time.Time, len(epochs))
	for i, k := range epochs {
		times[i] = k.Time
	}
	tagged := map[uint64]bool{}
	for _, t := range s.Tags() {
		tagged[t.Number] = true
	}
	var out []Kept
	for i, keep := range r.Thin(times) {
		if !keep && !tagged[epochs[i].Number] {
			out = append(out, epochs[i])
		}
	}
	return out
}

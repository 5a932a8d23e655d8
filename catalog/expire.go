package catalog

import (
	"context"
	"fmt"
	"strings"
)

// How the log is kept short.
//
// An entry is needed while a kept epoch or a tag names it, and so is the full
// entry that it builds on; and, by number, while it is one of the newest 10,000,
// for what a writer that was held up is told about its put rests on them
// (commit.go). What is older than that and needed by nothing goes in two steps.
// First an entry raises State.Trimmed: below that number only what is needed is
// sure to be there. Then, after the grace time, the running owner removes the
// objects, as it removes files. The log orders the first step against tags: a tag
// names an epoch that its own entry keeps, so below the mark what is needed only
// ever becomes less, and an owner that was held up in the middle, or fenced, can
// remove nothing that has become needed since.
//
// Who reads meanwhile: the head, its full entry and those of the newest 10,000
// are there, so Refresh, Commit and a pinned warehouse's entry read on. An entry
// that goes between the look at the kept epochs and its GET was thinned out at
// least the grace time ago, and is ErrNotKept. A walk of the chain meets a gap
// only where it began 10,000 entries below the head: then the entry that it began
// at is no longer in the log either, and is made again above the head.
//
// Rejected: an entry that lists the objects it dooms. It would say nothing that
// the kept epochs don't, and be as long as the log.

// keptNumbers are the newest entries that stay whatever names them.
const keptNumbers = 10_000

// Expiry is what an Expire dropped, or would.
type Expiry struct {
	Epochs  []Kept // thinned out, oldest first
	Trimmed uint64 // the state's
}

// Expire applies the retention to the kept epochs, as each epoch's commit does,
// and marks what of the log may go: one entry, or none if there is nothing to say.
// It is the claimed run's to do; the files and entries themselves stay.
func (l *Log) Expire(ctx context.Context) (Expiry, error) {
	if l.incarnation.Load() == 0 {
		return Expiry{}, fmt.Errorf("%w: this run has not claimed it", ErrFenced)
	}
	var x Expiry
	_, err := l.Commit(ctx, func(next *State) error {
		x = l.expiry(next)
		if len(x.Epochs) == 0 && x.Trimmed == next.Trimmed {
			return ErrUnchanged
		}
		next.thin(l.retention)
		next.Trimmed = x.Trimmed
		return nil
	})
	return x, err
}

// Expirable is what Expire would do to a state.
func (l *Log) Expirable(s *State) Expiry { return l.expiry(s) }

func (l *Log) expiry(s *State) Expiry {
	x := Expiry{Epochs: s.beyond(l.retention), Trimmed: s.Trimmed}
	// A mark a thousand entries, not one with each.
	step := max(l.numbers/10, 1)
	if s.Number > l.numbers {
		x.Trimmed = max(x.Trimmed, (s.Number-l.numbers)/step*step)
	}
	return x
}

// Retention is the rule by which this Log thins.
func (l *Log) Retention() Retention { return l.retention }

// Keys are the log's objects that the state is read from: its entry, and the
// full one that this builds on.
func (s *State) Keys() []string {
	keys := []string{entryKey(s.Number)}
	if s.base.CommitID != "" && s.base.Number != s.Number {
		keys = append(keys, entryKey(s.base.Number))
	}
	return keys
}

// MayTrim says whether a key is that of an entry below the mark: one that stays
// only if a kept epoch, a tag or the mark's own entry is read from it (Keys).
func (s *State) MayTrim(key string) bool {
	if !strings.HasPrefix(key, LogPrefix) {
		return false
	}
	number, err := entryNumber(key)
	return err == nil && number < s.Trimmed
}

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
)

// How a commit stays right.
//
// The callback changes a private copy of the head, the copy becomes an entry
// under the next number, and put-if-absent lets one writer have that number.
// Whatever the put answers, the object under the number decides:
//
//   - it is ours: committed;
//   - it is absent (the request was lost): the same bytes go again, so a first
//     request that still arrives late changes nothing;
//   - it is someone's: the head is read again. If the source's incarnation is
//     no longer ours we are fenced. Else it is a catalog commit, or a ghost of
//     our own that an earlier error hid: the callback runs again on that head.
//
// One thing the store can't decide. A writer that was asleep (a paused machine)
// may put a number that lies far behind by now and has been deleted: the store
// says yes. So after a minute without a listing the answer is checked: every
// number from ours to the head must be there and name its predecessor. A
// minute, not a lease: the newest 10,000 numbers are never deleted, so within
// a minute no number can come free again.
//
// Rejected: a mutable head object with If-Match. It needs a second conditional
// operation that fewer stores have, has no history, and a lost answer followed
// by another writer's commit can no longer be told from a refusal.

const (
	// listingMaxAge is measured on a clock that goes on during sleep.
	listingMaxAge = time.Minute
	// unknownTriesMax bounds the questions after an unclear answer; with the
	// pauses between them, about 40 s.
	unknownTriesMax = 12
	outcomeMaxAge   = time.Hour
)

// Commit changes the catalog: fn gets a copy of the head to change, and is
// called again on a newer head if another writer was faster, so it must not
// remember what it did before. It may do I/O; other commits of this process
// wait meanwhile. fn's error ends the commit and comes back unchanged;
// ErrUnchanged ends it with the head and no error. The returned state is the
// one this commit made.
//
// Errors: ErrFenced, ErrUnknown (the entry may or may not be there), ErrCorrupt
// and ErrRewound, or the store's own.
func (l *Log) Commit(ctx context.Context, fn func(next *State) error) (*State, error) {
	return l.commit(ctx, false, fn)
}

// CommitPriority is Commit for the stream: it goes before all commits that
// wait in this process, and doesn't back off when another process was faster.
func (l *Log) CommitPriority(ctx context.Context, fn func(next *State) error) (*State, error) {
	return l.commit(ctx, true, fn)
}

// Claim makes this Log the one writer of its source: a new incarnation, which
// fences the one before. Call it once the slot is ours, before anything else
// is written. The source must be ready.
func (l *Log) Claim(ctx context.Context) (*State, error) {
	if err := l.turn.take(ctx, true); err != nil {
		return nil, err
	}
	defer l.turn.give()
	return l.attempt(ctx, true, func(head *State) (*State, error) {
		if head.Source == nil || head.Source.Phase != PhaseReady {
			return nil, errors.New("claim lake: its source is not ready yet")
		}
		next := head.draft()
		next.Source.Incarnation++
		next.Source.Writer = l.id
		next.Writer = Writer{ID: l.id, Incarnation: next.Source.Incarnation}
		return next, nil
	}, func(s *State) { l.incarnation.Store(s.Source.Incarnation) })
}

// Incarnation is the one claimed, 0 before Claim.
func (l *Log) Incarnation() uint64 { return l.incarnation.Load() }

func (l *Log) commit(ctx context.Context, urgent bool, fn func(*State) error) (*State, error) {
	if err := l.turn.take(ctx, urgent); err != nil {
		return nil, err
	}
	defer l.turn.give()
	return l.attempt(ctx, urgent, func(head *State) (*State, error) {
		if err := l.fenced(head); err != nil {
			return nil, err
		}
		next := head.draft()
		if err := fn(next); err != nil {
			return nil, err
		}
		next.Writer = Writer{ID: l.id, Incarnation: l.incarnation.Load()}
		return next, l.checkSource(head, next)
	}, nil)
}

// attempt runs with the turn held, until an entry of ours is in the log.
func (l *Log) attempt(ctx context.Context, urgent bool, build func(head *State) (*State, error), done func(*State)) (*State, error) {
	if l.unsure {
		if _, err := l.Refresh(ctx); err != nil {
			return nil, err
		}
		l.unsure = false
	}
	for try := 0; ; try++ {
		head := l.Head()
		next, err := build(head)
		if errors.Is(err, ErrUnchanged) {
			return head, nil
		}
		if err != nil {
			return nil, err
		}
		body, err := l.seal(head, next)
		if err != nil {
			return nil, err
		}
		won, err := l.publish(ctx, next, body)
		if err != nil {
			l.unsure = true
			return nil, err
		}
		if won {
			if done != nil {
				done(next)
			}
			l.adopt(next)
			return next, nil
		}
		now, err := l.Refresh(ctx)
		if err != nil {
			return nil, err
		}
		if now.CommitID == head.CommitID {
			return nil, fmt.Errorf("write log entry %d: %w: the number is taken and the listing lacks it", next.Number, ErrRewound)
		}
		if !urgent {
			if err := l.backOff(ctx, try); err != nil {
				return nil, err
			}
		}
	}
}

// Owned reads the head, and fails with ErrFenced unless this Log has claimed the
// source and nobody after it has.
func (l *Log) Owned(ctx context.Context) error {
	if l.incarnation.Load() == 0 {
		return fmt.Errorf("%w: this run has not claimed it", ErrFenced)
	}
	head, err := l.Refresh(ctx)
	if err != nil {
		return err
	}
	return l.fenced(head)
}

func (l *Log) fenced(head *State) error {
	mine := l.incarnation.Load()
	if mine == 0 || head.Source != nil && head.Source.Incarnation == mine && head.Source.Writer == l.id {
		return nil
	}
	var s Source
	if head.Source != nil {
		s = *head.Source
	}
	return fmt.Errorf("%w: this run is incarnation %d, entry %d names incarnation %d of writer %s", ErrFenced, mine, head.Number, s.Incarnation, s.Writer)
}

// checkSource keeps what fencing rests on out of a callback's reach.
func (l *Log) checkSource(head, next *State) error {
	if head.Source == nil {
		return nil
	}
	if next.Source == nil {
		return errors.New("commit entry: a lake's source can't be taken away")
	}
	next.Source.Incarnation, next.Source.Writer = head.Source.Incarnation, head.Source.Writer
	if l.incarnation.Load() == 0 && head.Source.Phase == PhaseReady && (next.LSN != head.LSN || next.Epoch != head.Epoch) {
		return errors.New("commit entry: only the run that has claimed the lake moves its LSN and epoch")
	}
	return nil
}

// seal numbers next and encodes it.
func (l *Log) seal(head, next *State) ([]byte, error) {
	if err := next.check(head); err != nil {
		return nil, err
	}
	next.Number = head.Number
	if head.CommitID != "" {
		next.Number++
	}
	next.Previous = head.CommitID
	next.CommitID = uuid.NewString()
	if next.Epoch > head.Epoch {
		next.keep(l.retention)
	}
	next.purgeOutcomes(l.clock.Now().Add(-outcomeMaxAge))
	return next.encode()
}

// publish puts next under its number and reports whether it is in the log. An
// error means that nobody knows.
func (l *Log) publish(ctx context.Context, next *State, body []byte) (bool, error) {
	key := entryKey(next.Number)
	putErr := l.store.PutIfAbsent(ctx, key, body)
	for try := 0; ; try++ {
		if putErr == nil {
			return l.confirm(ctx, next)
		}
		if errors.Is(putErr, fs.ErrPermission) {
			return false, fmt.Errorf("write log entry %d: %w", next.Number, putErr)
		}
		data, err := l.store.Get(ctx, key)
		switch {
		case err == nil:
			e, err := decodeEntry(next.Number, data)
			if err != nil {
				return false, err
			}
			if e.CommitID == next.CommitID {
				return l.confirm(ctx, next)
			}
			l.log.Info("log entry taken by another writer", "entry", next.Number, "writer", e.Writer.ID)
			return false, nil
		case !errors.Is(err, fs.ErrNotExist):
			putErr = err
		}
		if try == unknownTriesMax {
			return false, fmt.Errorf("write log entry %d: %w: %w", next.Number, ErrUnknown, putErr)
		}
		l.log.Warn("log entry's outcome unclear, asking again", "entry", next.Number, "err", putErr)
		if sleepErr := l.clock.Sleep(ctx, pause(try)); sleepErr != nil {
			return false, fmt.Errorf("write log entry %d: %w: %w", next.Number, ErrUnknown, sleepErr)
		}
		if errors.Is(err, fs.ErrNotExist) {
			putErr = l.store.PutIfAbsent(ctx, key, body)
		}
	}
}

// confirm decides about an entry of ours that the store has.
func (l *Log) confirm(ctx context.Context, next *State) (bool, error) {
	for try := 0; ; try++ {
		l.mu.Lock()
		listed := l.listed
		l.mu.Unlock()
		if l.clock.Boot()-listed <= listingMaxAge {
			return true, nil
		}
		ok, err := l.chained(ctx, next)
		if err == nil {
			return ok, nil
		}
		if try == unknownTriesMax || errors.Is(err, ErrRewound) || errors.Is(err, ErrCorrupt) {
			return false, fmt.Errorf("confirm log entry %d: %w: %w", next.Number, ErrUnknown, err)
		}
		if sleepErr := l.clock.Sleep(ctx, pause(try)); sleepErr != nil {
			return false, fmt.Errorf("confirm log entry %d: %w: %w", next.Number, ErrUnknown, err)
		}
	}
}

// chained reports whether every number from next's to the head is there and
// names its predecessor, next first.
func (l *Log) chained(ctx context.Context, next *State) (bool, error) {
	asked := l.clock.Boot()
	newer, found, err := l.listDown(ctx, next.Number)
	if err != nil {
		return false, err
	}
	if !found {
		return false, fmt.Errorf("%w: a listing after the put lacks the entry", ErrRewound)
	}
	previous := next.CommitID
	for number := next.Number + 1; number <= next.Number+newer; number++ {
		data, err := l.store.Get(ctx, entryKey(number))
		if errors.Is(err, fs.ErrNotExist) {
			previous = ""
			break
		}
		if err != nil {
			return false, err
		}
		e, err := decodeEntry(number, data)
		if err != nil {
			return false, err
		}
		if e.Previous != previous {
			previous = ""
			break
		}
		previous = e.CommitID
	}
	if previous == "" {
		l.log.Warn("log entry was put behind the head, taking it back up", "entry", next.Number)
		return false, nil
	}
	l.noteListing(asked)
	return true, nil
}

// listDown returns how far the head lies above a number, and whether the
// number is in the listing.
func (l *Log) listDown(ctx context.Context, number uint64) (newer uint64, found bool, err error) {
	const page = 1000
	after, head, first := "", number, true
	for {
		keys, err := l.store.Keys(ctx, LogPrefix, after, page)
		if err != nil {
			return 0, false, fmt.Errorf("list epoch log: %w", err)
		}
		for _, k := range keys {
			n, err := entryNumber(k)
			if err != nil {
				return 0, false, err
			}
			if first {
				head, first = n, false
			}
			if n == number {
				return head - number, true, nil
			}
			if n < number {
				return 0, false, nil
			}
		}
		if len(keys) < page {
			return 0, false, nil
		}
		after = keys[len(keys)-1]
	}
}

// pause grows from 100 ms to 5 s.
func pause(try int) time.Duration {
	return min(100*time.Millisecond<<min(try, 10), 5*time.Second)
}

// backOff leaves the next number to the stream.
func (l *Log) backOff(ctx context.Context, try int) error {
	limit := min(20*time.Millisecond<<min(try, 10), 500*time.Millisecond)
	return l.clock.Sleep(ctx, limit/4+rand.N(limit))
}

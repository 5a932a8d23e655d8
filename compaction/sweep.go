package compaction

import (
	"context"
	"fmt"
	"time"
)

// Warehouse is the place that a Sweeper keeps clean. Objects are told apart by
// a hash of their keys: what is taken for another is kept for it, no more.
type Warehouse interface {
	// Hash is of at least 64 bits' worth.
	Hash(key string) uint64
	// Needed calls fn for every object that somebody may still ask for: those of
	// the head with its history, of each kept epoch, and those uploaded for a
	// commit to come. After an error nothing is known.
	Needed(ctx context.Context, fn func(hash uint64)) error
	// Sweepable says whether an object is of those that Needed told about at its
	// last call; what isn't stays.
	Sweepable(key string) bool
	// Ours says whether an object, in a folder that Needed found, can only be
	// this process' or an earlier run's.
	Ours(key string) bool
	// List returns the next objects after a key, in the order of their keys;
	// none: that was all.
	List(ctx context.Context, after string) ([]Object, error)
	// Now is the clock by which objects age.
	Now(ctx context.Context) (time.Time, error)
	// Check fails if another run owns the lake. Only the owner removes.
	Check(ctx context.Context) error
	Delete(ctx context.Context, keys ...string) error
}

// Object is one in a listing.
type Object struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Sweeper removes what no kept epoch needs. An object goes once it has been
// found needed by nothing at two looks a grace time apart, and is older than
// that: readers in the middle of a query and writers that were held up have as
// long. It forgets what it has seen with the process, so a kill leaves nothing
// that the next run doesn't find.
type Sweeper struct {
	Warehouse
	Grace time.Duration
	// OthersGrace is for objects that others may have put there.
	OthersGrace time.Duration

	unneeded map[uint64]time.Time // since when
}

// Swept is what a sweep found and did.
type Swept struct {
	Needed       int   // objects
	Waiting      int   // needed by nothing, and not yet for long enough
	WaitingBytes int64 // of these
	Removed      int
	RemovedBytes int64
}

const (
	deletesAtOnce = 1000
	// waitingMax bounds what is noted as needed by nothing; more wait for the next
	// look.
	waitingMax = 1 << 20
)

// Sweep looks through the warehouse once, and removes what its time has come for.
func (s *Sweeper) Sweep(ctx context.Context) (Swept, error) {
	swept, doomed, err := s.look(ctx)
	if err == nil && len(doomed) > 0 {
		err = s.remove(ctx, doomed, &swept)
	}
	if err != nil {
		return swept, fmt.Errorf("remove what no kept epoch needs: %w", err)
	}
	return swept, nil
}

// Look is a Sweep that removes nothing and notes nothing: Removed is what would
// have been.
func (s *Sweeper) Look(ctx context.Context) (Swept, error) {
	was := s.unneeded
	swept, doomed, err := s.look(ctx)
	s.unneeded = was
	if err != nil {
		return swept, fmt.Errorf("look for what no kept epoch needs: %w", err)
	}
	for _, o := range doomed {
		swept.Removed++
		swept.RemovedBytes += o.Size
	}
	return swept, nil
}

// look notes what nothing needs, and returns what its time has come for.
func (s *Sweeper) look(ctx context.Context) (out Swept, doomed []Object, err error) {
	now, err := s.Now(ctx)
	if err != nil {
		return out, nil, err
	}
	needed, err := s.needed(ctx)
	if err != nil {
		return out, nil, err
	}
	out.Needed = len(needed)
	unneeded := map[uint64]time.Time{}
	for after := ""; ; {
		page, err := s.List(ctx, after)
		if err != nil {
			return out, nil, err
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].Key
		for _, o := range page {
			h := s.Hash(o.Key)
			if _, ok := needed[h]; ok || !s.Sweepable(o.Key) {
				continue
			}
			grace := s.Grace
			if !s.Ours(o.Key) {
				grace = max(grace, s.OthersGrace)
			}
			since, known := s.unneeded[h]
			if !known {
				since = now
			}
			if known || len(unneeded) < waitingMax {
				unneeded[h] = since
			}
			if known && now.Sub(since) >= grace && now.Sub(o.Modified) >= grace {
				doomed = append(doomed, o)
			} else {
				out.Waiting++
				out.WaitingBytes += o.Size
			}
		}
	}
	s.unneeded = unneeded
	return out, doomed, nil
}

// remove deletes what is doomed, but for what was published meanwhile and may
// need what was uploaded long before.
func (s *Sweeper) remove(ctx context.Context, doomed []Object, out *Swept) error {
	needed, err := s.needed(ctx)
	if err != nil {
		return err
	}
	for len(doomed) > 0 {
		if err := s.Check(ctx); err != nil {
			return err
		}
		var keys []string
		var bytes int64
		n := min(len(doomed), deletesAtOnce)
		for _, o := range doomed[:n] {
			if _, ok := needed[s.Hash(o.Key)]; !ok && s.Sweepable(o.Key) {
				keys, bytes = append(keys, o.Key), bytes+o.Size
			}
		}
		if err := s.Delete(ctx, keys...); err != nil {
			return err
		}
		out.Removed += len(keys)
		out.RemovedBytes += bytes
		doomed = doomed[n:]
	}
	return nil
}

func (s *Sweeper) needed(ctx context.Context) (map[uint64]struct{}, error) {
	needed := map[uint64]struct{}{}
	err := s.Needed(ctx, func(h uint64) { needed[h] = struct{}{} })
	return needed, err
}

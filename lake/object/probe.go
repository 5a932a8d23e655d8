package object

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// probeRacers write one key at once.
const probeRacers = 4

// ErrUnordered: a listing lacks what was just written, or isn't sorted.
var ErrUnordered = errors.New("the store's listings cannot be relied on")

// Probe proves what the epoch log rests on, by a few objects under _firn/probe
// that it removes again: a taken key is refused and keeps its content, one of
// several racing writers wins, and a listing shows at once and in order what
// was written. Errors: ErrUnconditional, ErrUnordered, or the store's own.
func Probe(ctx context.Context, s Store) (err error) {
	prefix := "_firn/probe/" + uuid.NewString() + "/"
	names := []string{prefix + "c", prefix + "a", prefix + "b/a", prefix + "b-a"}
	defer func() {
		err = errors.Join(err, s.Delete(context.WithoutCancel(ctx), names...))
	}()
	first, race := names[0], prefix+"race"
	// The racers write race while the others are written.
	g, gctx := errgroup.WithContext(ctx)
	for _, key := range names {
		g.Go(func() error {
			if err := s.PutIfAbsent(gctx, key, []byte("first")); err != nil {
				return fmt.Errorf("probe store: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error { return probeRace(gctx, s, race) })
	names = append(names, race)
	if err := g.Wait(); err != nil {
		return err
	}
	if err := probeTaken(ctx, s, first); err != nil {
		return err
	}
	want := slices.Sorted(slices.Values(names))
	got, err := s.Keys(ctx, prefix, "", 0)
	if err != nil {
		return fmt.Errorf("probe store: %w", err)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("probe store: %w: wrote %q, listed %q", ErrUnordered, want, got)
	}
	got, err = s.Keys(ctx, prefix, want[0], 2)
	if err != nil {
		return fmt.Errorf("probe store: %w", err)
	}
	if !slices.Equal(got, want[1:3]) {
		return fmt.Errorf("probe store: %w: two keys after %q are %q, listed %q", ErrUnordered, want[0], want[1:3], got)
	}
	return nil
}

func probeTaken(ctx context.Context, s Store, key string) error {
	err := s.PutIfAbsent(ctx, key, []byte("second"))
	switch {
	case err == nil:
		return fmt.Errorf("probe store: %w: it let a taken key be written again", ErrUnconditional)
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("probe store: %w", err)
	}
	data, err := s.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("probe store: %w", err)
	}
	if string(data) != "first" {
		return fmt.Errorf("probe store: %w: it refused a taken key, and wrote it all the same", ErrUnconditional)
	}
	return nil
}

func probeRace(ctx context.Context, s Store, key string) error {
	won := make([]bool, probeRacers)
	g, gctx := errgroup.WithContext(ctx)
	for i := range probeRacers {
		g.Go(func() error {
			err := s.PutIfAbsent(gctx, key, []byte{byte('0' + i)})
			won[i] = err == nil
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("probe store: %w", err)
	}
	winner, winners := 0, 0
	for i, w := range won {
		if w {
			winner, winners = i, winners+1
		}
	}
	data, err := s.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("probe store: %w", err)
	}
	if winners != 1 || string(data) != string(byte('0'+winner)) {
		return fmt.Errorf("probe store: %w: of %d writers of one key %d won, and it holds %q", ErrUnconditional, probeRacers, winners, data)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// recoverKilled kills firn in the middle of changes to a large table, and takes
// the time until it streams again: with its state folder, and without.
func recoverKilled(ctx context.Context, r *rig, result *Result) error {
	keys := r.size(10_000_000, 5_000)
	d := updated(10_000_000, 5_000, 200_000, 500)
	r.say("making %s rows", grouped(keys))
	if err := d.setup(ctx, r); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	m := r.firn("recover")
	r.say("loading them")
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := r.caughtUp(ctx, m); err != nil {
		return err
	}
	var cost []usage
	for _, state := range []string{"intact", "lost"} {
		var took []time.Duration
		for round := range r.rounds() {
			if err := r.setSeed(ctx, round); err != nil {
				return err
			}
			// Half of the changes are in the lake, the others on their way.
			if err := d.backlog(ctx, r, round); err != nil {
				return err
			}
			if err := r.caughtUp(ctx, m); err != nil {
				return err
			}
			if err := d.backlog(ctx, r, round); err != nil {
				return err
			}
			if err := m.kill(); err != nil {
				return err
			}
			w, err := r.meter(ctx)
			if err != nil {
				return err
			}
			if state == "lost" {
				if err := os.RemoveAll(m.state()); err != nil {
					return fmt.Errorf("remove the state folder: %w", err)
				}
			}
			if err := w.start(ctx, m); err != nil {
				return err
			}
			if err := m.streaming(ctx); err != nil {
				return err
			}
			streaming := time.Since(w.began)
			if err := r.caughtUp(ctx, m); err != nil {
				return err
			}
			u, err := w.end(ctx)
			if err != nil {
				return err
			}
			r.say("state %s: streaming after %.2f s, caught up after %.2f s", state, streaming.Seconds(), u.wall.Seconds())
			took, cost = append(took, streaming), append(cost, u)
		}
		result.add("kill to streaming, state "+state, median(took, func(d time.Duration) time.Duration { return d }).Seconds(), "s")
	}
	result.add("rows", float64(keys), "")
	result.usage(median(cost, func(u usage) int64 { return u.anon }))
	r.say("comparing")
	if err := m.check(ctx, d.tables...); err != nil {
		return err
	}
	return m.stop(ctx)
}

// caughtUp returns once the lake has all that is committed now.
func (r *rig) caughtUp(ctx context.Context, m mirror) error {
	end, err := r.walEnd(ctx)
	if err != nil {
		return err
	}
	return m.reach(ctx, end)
}

var recoveries = []workload{
	{kind: "recover", name: "killed", about: "kill -9 amid updates of a 10M-row table: restart to streaming with the state folder, and without", disk: 16 * gigabyte, run: recoverKilled},
}

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// drain is a backlog of changes, written while the mirror is away.
type drain struct {
	tables  []string                                           // that it changes; there must be as many rows in them after
	setup   func(ctx context.Context, r *rig) error            // the tables, and what they hold before
	backlog func(ctx context.Context, r *rig, round int) error // another one for each round
	rows    func(r *rig) int64                                 // changes in a backlog
	keys    func(r *rig) int64                                 // of the table, where they are plotted
	yaml    string
	once    bool // one round, whose preparation takes long
}

func (d drain) run(ctx context.Context, r *rig, result *Result) error {
	r.say("setting up")
	if err := d.setup(ctx, r); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	m, err := r.mirror("drain", d.yaml, d.tables)
	if err != nil {
		return err
	}
	r.say("loading what is there before")
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := r.caughtUp(ctx, m); err != nil {
		return err
	}
	if err := m.stop(ctx); err != nil {
		return err
	}
	rounds := r.rounds()
	if d.once {
		rounds = 1
	}
	var runs []drained
	for round := range rounds {
		run, err := d.round(ctx, r, m, round)
		if err != nil {
			return err
		}
		runs = append(runs, run)
		r.say("%d of %d: %.2f s, pg_recvlogical %.2f s", round+1, rounds, run.wall.Seconds(), run.floor.Seconds())
		if run.wall > time.Minute {
			break
		}
	}
	run := median(runs, func(d drained) time.Duration { return d.wall })
	ratio := median(runs, func(d drained) float64 { return d.floor.Seconds() / d.wall.Seconds() })
	rows := float64(d.rows(r))
	result.add("rows", rows, "")
	result.add("rows per second", rows/run.wall.Seconds(), "/s")
	result.add("pg_recvlogical", rows/run.floor.Seconds(), "/s")
	result.add(perFloor, ratio.floor.Seconds()/ratio.wall.Seconds(), "×")
	result.add("CPU of firn per million rows", run.cpu.Seconds()/rows*1e6, "s")
	result.usage(run.usage)
	if d.keys != nil {
		result.Series = append(result.Series, Series{Plot: "size", Name: "random single-row updates", X: "keys", Y: "updates per second",
			Points: [][2]float64{{float64(d.keys(r)), rows / run.wall.Seconds()}}})
	}
	return nil
}

// drained is one round.
type drained struct {
	usage
	floor time.Duration // mean of before and after
}

func (d drain) round(ctx context.Context, r *rig, m mirror, round int) (out drained, err error) {
	publication, err := r.floorPublication(ctx, d.tables)
	if err != nil {
		return out, err
	}
	for _, slot := range []string{"before", "after"} {
		if err := r.floorSlot(ctx, slot); err != nil {
			return out, err
		}
	}
	r.say("writing the backlog")
	if err := r.setSeed(ctx, round); err != nil {
		return out, err
	}
	if err := d.backlog(ctx, r, round); err != nil {
		return out, err
	}
	if err := r.exec(ctx, "checkpoint"); err != nil {
		return out, err
	}
	end, err := r.walEnd(ctx)
	if err != nil {
		return out, err
	}
	r.say("draining it")
	before, err := r.receiveFloor(ctx, "before", publication, end)
	if err != nil {
		return out, err
	}
	if out.usage, err = r.measure(ctx, m, end, d.tables); err != nil {
		return out, err
	}
	// A slot starts to decode at a checkpoint that its client has confirmed.
	// Without one here the next round would begin with this round's backlog,
	// which the floor's slots, being new, don't see.
	if err := r.exec(ctx, "checkpoint"); err != nil {
		return out, err
	}
	if err := r.caughtUp(ctx, m); err != nil {
		return out, err
	}
	if err := m.stop(ctx); err != nil {
		return out, err
	}
	after, err := r.receiveFloor(ctx, "after", publication, end)
	out.floor = (before + after) / 2
	return out, err
}

// floorPublication makes, once, a publication of its own for the floors.
func (r *rig) floorPublication(ctx context.Context, tables []string) (string, error) {
	const name = "bench_floor"
	var there bool
	if err := r.conn.QueryRow(ctx, "select exists (select from pg_publication where pubname = $1)", name).Scan(&there); err != nil {
		return "", fmt.Errorf("look for publication %s: %w", name, err)
	}
	if there {
		return name, nil
	}
	sql := "create publication " + name + " for table "
	for i, t := range tables {
		if i > 0 {
			sql += ", "
		}
		sql += t
	}
	return name, r.exec(ctx, sql)
}

// median is the one of several that lies in the middle.
func median[T any, V int64 | time.Duration | float64](all []T, by func(T) V) T {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b T) int {
		switch x, y := by(a), by(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2]
}

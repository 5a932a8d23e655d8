package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// load is a full table that is brought into an empty lake.
type load struct {
	table string
	rows  func(r *rig) int64
	setup func(ctx context.Context, r *rig, rows int64) error
}

func (l load) run(ctx context.Context, r *rig, result *Result) error {
	rows := l.rows(r)
	r.say("making %s rows", grouped(rows))
	if err := l.setup(ctx, r, rows); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	if _, err := r.copyFloor(ctx, l.table); err != nil { // warms Postgres up
		return err
	}
	var runs []drained
	for round := range r.rounds() {
		run, err := l.round(ctx, r, round)
		if err != nil {
			return err
		}
		runs = append(runs, run)
		r.say("%d of %d: %.2f s, COPY %.2f s", round+1, r.rounds(), run.wall.Seconds(), run.floor.Seconds())
		if run.wall > time.Minute {
			break
		}
	}
	run := median(runs, func(d drained) time.Duration { return d.wall })
	ratio := median(runs, func(d drained) float64 { return d.floor.Seconds() / d.wall.Seconds() })
	var heap int64
	if err := r.conn.QueryRow(ctx, "select pg_table_size($1::text::regclass)", l.table).Scan(&heap); err != nil {
		return fmt.Errorf("ask for the size of %s: %w", l.table, err)
	}
	result.add("rows", float64(rows), "")
	result.add("size in Postgres", float64(heap)/(1<<20), "MB")
	result.add("rows per second", float64(rows)/run.wall.Seconds(), "/s")
	result.add("binary COPY", float64(rows)/run.floor.Seconds(), "/s")
	result.add(perFloor, ratio.floor.Seconds()/ratio.wall.Seconds(), "×")
	result.add("CPU of firn per million rows", run.cpu.Seconds()/float64(rows)*1e6, "s")
	result.usage(run.usage)
	return nil
}

func (l load) round(ctx context.Context, r *rig, round int) (out drained, err error) {
	before, err := r.copyFloor(ctx, l.table)
	if err != nil {
		return out, err
	}
	end, err := r.walEnd(ctx)
	if err != nil {
		return out, err
	}
	m, err := r.mirror(fmt.Sprint("load-", round), "", []string{l.table})
	if err != nil {
		return out, err
	}
	if out.usage, err = r.measure(ctx, m, end, []string{l.table}); err != nil {
		return out, err
	}
	if err := m.stop(ctx); err != nil {
		return out, err
	}
	if err := r.forget(ctx); err != nil {
		return out, err
	}
	after, err := r.copyFloor(ctx, l.table)
	out.floor = (before + after) / 2
	return out, err
}

var loads = []workload{
	{kind: "load", name: "events", about: "5M rows of ten columns", disk: 6 * gigabyte, run: load{
		table: "events", rows: func(r *rig) int64 { return r.size(5_000_000, 5_000) },
		setup: func(ctx context.Context, r *rig, rows int64) error { return makeEvents(ctx, r, "events", rows) },
	}.run},
	{kind: "load", name: "wide", about: "500,000 rows of a hundred columns", disk: 4 * gigabyte, run: load{
		table: "wide", rows: func(r *rig) int64 { return r.size(500_000, 500) }, setup: makeWide,
	}.run},
	{kind: "load", name: "toast", about: "400,000 rows with a TOASTed column of 2.4 KB", disk: 6 * gigabyte, run: load{
		table: "docs", rows: func(r *rig) int64 { return r.size(400_000, 500) }, setup: docs,
	}.run},
}

// makeWide makes a table of a hundred columns: a key, and numbers, texts and
// times in turn, a tenth of them NULL.
func makeWide(ctx context.Context, r *rig, rows int64) error {
	columns, values := []string{"id bigint primary key"}, []string{"i"}
	kinds := []struct{ typ, value string }{
		{"int", "(i * %[1]d) %% 1000"},
		{"text", "'value ' || (i * %[1]d) %% 997"},
		{"timestamptz", "timestamptz '2024-01-01' + (i + %[1]d) * interval '1 second'"},
		{"numeric(12,2)", "((i + %[1]d) %% 100000) / 100.0"},
		{"bigint", "i * %[1]d"},
		{"boolean", "(i + %[1]d) %% 3 = 0"},
	}
	for c := 1; c < 100; c++ {
		k := kinds[c%len(kinds)]
		columns = append(columns, fmt.Sprintf("c%d %s", c, k.typ))
		value := fmt.Sprintf(k.value, c)
		if c%3 == 0 {
			value = fmt.Sprintf("case when (i + %d) %% 3 > 0 then %s end", c, value)
		}
		values = append(values, value)
	}
	return r.exec(ctx, "create table wide ("+strings.Join(columns, ", ")+")",
		fmt.Sprintf("insert into wide select %s from generate_series(1, %d) i", strings.Join(values, ", "), rows))
}

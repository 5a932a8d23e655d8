package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// commitOnce changes one row in each of so many tables, in one transaction,
// and waits until the lake has it: one epoch. It gives the time from Postgres'
// commit to the end of the wait.
func (r *rig) commitOnce(ctx context.Context, m *firn, tables, n int) (time.Duration, error) {
	var sql strings.Builder
	// firn is sent what is flushed, and is to be waited for, not the disk.
	sql.WriteString("begin; set local synchronous_commit = on;")
	for t := range tables {
		fmt.Fprintf(&sql, "insert into small_%d values (%d, 'row %d');", t, n, n)
	}
	sql.WriteString("commit")
	if err := r.exec(ctx, sql.String()); err != nil {
		return 0, err
	}
	began := time.Now()
	// Without an LSN, firn waits for what is committed now.
	if _, err := get(ctx, m.url+"/wait?timeout=1m"); err != nil {
		return 0, m.failed(fmt.Errorf("wait for firn: %w", err))
	}
	return time.Since(began), nil
}

// small makes tables that get one row a commit, and a mirror of them that is
// up to date.
func (r *rig) small(ctx context.Context, tables int, store string) (*firn, error) {
	for t := range tables {
		if err := r.exec(ctx, fmt.Sprintf("create table small_%d (id bigint primary key, note text)", t)); err != nil {
			return nil, err
		}
	}
	m := r.firn("commit", "--freshness", "1h")
	m.store = store
	if err := m.start(ctx); err != nil {
		return nil, err
	}
	return m, r.caughtUp(ctx, m)
}

func smallTables(n int) []string {
	var out []string
	for t := range n {
		out = append(out, fmt.Sprint("small_", t))
	}
	return out
}

// phases are how long firn itself says that its commits took until now, all
// together, and how many there were.
func phases(ctx context.Context, m *firn) (total time.Duration, commits float64, err error) {
	text, err := get(ctx, m.url+"/metrics")
	if err != nil {
		return 0, 0, m.failed(fmt.Errorf("ask firn for its metrics: %w", err))
	}
	seconds := 0.0
	for _, phase := range []string{"prepare", "upload", "publish"} {
		seconds += sumMetric(text, `firn_commit_phase_seconds_sum{phase="`+phase+`"}`)
	}
	return time.Duration(seconds * float64(time.Second)), sumMetric(text, `firn_commit_phase_seconds_count{phase="publish"}`), nil
}

// series makes n commits and gives the median times: outside as a client sees
// them, inside as firn counts its own (a mean).
func (r *rig) series(ctx context.Context, m *firn, tables, first, n int) (outside, inside time.Duration, err error) {
	before, commits, err := phases(ctx, m)
	if err != nil {
		return 0, 0, err
	}
	var took []time.Duration
	for i := range n {
		one, err := r.commitOnce(ctx, m, tables, first+i)
		if err != nil {
			return 0, 0, err
		}
		took = append(took, one)
	}
	after, then, err := phases(ctx, m)
	if err != nil {
		return 0, 0, err
	}
	if then > commits {
		inside = time.Duration(float64(after-before) / (then - commits))
	}
	return median(took, func(d time.Duration) time.Duration { return d }), inside, nil
}

// history makes thousands of commits, one after the other.
func history(ctx context.Context, r *rig, result *Result) error {
	m, err := r.small(ctx, 1, "")
	if err != nil {
		return err
	}
	const step = 100
	count := int(r.size(5_000, 200))
	line := Series{Plot: "history", Name: "one table", X: "commits before", Y: "time of a commit, ms"}
	var at100, last time.Duration
	r.say("%d commits", count)
	for n := 0; n < count; n += step {
		outside, inside, err := r.series(ctx, m, 1, n, step)
		if err != nil {
			return err
		}
		if n == step { // the hundred before it also warm up
			at100 = outside
			result.add("commit after 100", outside.Seconds()*1e3, "ms")
			result.add("firn's own mean, after 100", inside.Seconds()*1e3, "ms")
		}
		last = outside
		if n+step >= count {
			result.add("commit at the end", outside.Seconds()*1e3, "ms")
			result.add("firn's own mean, at the end", inside.Seconds()*1e3, "ms")
		}
		line.Points = append(line.Points, [2]float64{float64(n), outside.Seconds() * 1e3})
	}
	result.add("commits", float64(count), "")
	result.add("at the end against at 100", last.Seconds()/at100.Seconds(), "×")
	result.Series = append(result.Series, line)
	if err := m.check(ctx, smallTables(1)...); err != nil {
		return err
	}
	return m.stop(ctx)
}

// latency makes commits while every request to the store takes longer.
func latency(ctx context.Context, r *rig, result *Result) error {
	const tables = 10
	slow, err := newSlowStore(r.s3.Endpoint)
	if err != nil {
		return err
	}
	defer slow.close()
	m, err := r.small(ctx, tables, slow.endpoint)
	if err != nil {
		return err
	}
	each := int(r.size(40, 5))
	if _, _, err := r.series(ctx, m, tables, 0, each); err != nil { // warms up
		return err
	}
	outer := Series{Plot: "latency", Name: "row change to visible", X: "injected per request, ms", Y: "time of a commit, ms"}
	inner := outer
	inner.Name = "firn's own mean"
	for i, delay := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} {
		r.say("%d commits, each request delayed by %s", each, delay)
		slow.delay.Store(int64(delay))
		before := slow.requests.Load()
		outside, inside, err := r.series(ctx, m, tables, (i+1)*each, each)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("with %d ms injected", delay.Milliseconds())
		result.add("commit "+name, outside.Seconds(), "s")
		result.add("firn's own mean "+name, inside.Seconds(), "s")
		result.add("requests of a commit "+name, float64(slow.requests.Load()-before)/float64(each), "")
		outer.Points = append(outer.Points, [2]float64{float64(delay.Milliseconds()), outside.Seconds() * 1e3})
		inner.Points = append(inner.Points, [2]float64{float64(delay.Milliseconds()), inside.Seconds() * 1e3})
	}
	slow.delay.Store(0)
	result.Series = append(result.Series, outer, inner)
	if err := m.check(ctx, smallTables(tables)...); err != nil {
		return err
	}
	return m.stop(ctx)
}

// breadth makes commits that change more and more tables.
func breadth(ctx context.Context, r *rig, result *Result) error {
	most := int(r.size(100, 10))
	m, err := r.small(ctx, most, "")
	if err != nil {
		return err
	}
	each := int(r.size(40, 5))
	line := Series{Plot: "tables", Name: "row change to visible", X: "tables changed", Y: "time of a commit, ms"}
	if _, _, err := r.series(ctx, m, most, 0, each); err != nil { // warms up
		return err
	}
	for i, tables := range []int{1, 10, 100} {
		if tables > most {
			break
		}
		r.say("%d commits of %d tables", each, tables)
		outside, inside, err := r.series(ctx, m, tables, (i+1)*each, each)
		if err != nil {
			return err
		}
		result.add(fmt.Sprintf("commit with %d tables changed", tables), outside.Seconds()*1e3, "ms")
		result.add(fmt.Sprintf("firn's own mean with %d", tables), inside.Seconds()*1e3, "ms")
		line.Points = append(line.Points, [2]float64{float64(tables), outside.Seconds() * 1e3})
	}
	result.Series = append(result.Series, line)
	if err := m.check(ctx, smallTables(most)...); err != nil {
		return err
	}
	return m.stop(ctx)
}

var commits = []workload{
	{kind: "commit", name: "history", about: "5,000 commits of one row each, one after the other", disk: 2 * gigabyte, run: history},
	{kind: "commit", name: "latency", about: "commits of 10 tables with 0, 10 and 50 ms injected before each request to the store", disk: gigabyte, run: latency},
	{kind: "commit", name: "tables", about: "commits of 1, 10 and 100 tables", disk: gigabyte, run: breadth},
}

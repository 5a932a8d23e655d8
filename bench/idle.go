package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// quiet leaves firn alone beside a database that writes, slowly, what is none
// of its business.
func quiet(ctx context.Context, r *rig, result *Result) error {
	if err := makeEvents(ctx, r, "events", r.size(1_000_000, 1_000)); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	m := r.firn("idle")
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := r.caughtUp(ctx, m); err != nil {
		return err
	}
	time.Sleep(time.Duration(r.size(20, 1)) * time.Second) // what loading leaves to do is over
	length := time.Duration(r.size(120, 5)) * time.Second
	objects, err := r.objects(ctx)
	if err != nil {
		return err
	}
	start, err := r.walBytes(ctx)
	if err != nil {
		return err
	}
	r.say("idle for %s", length)
	cpu := cpuTime(m.pid())
	noise := "select pg_logical_emit_message(false, 'noise', '" + strings.Repeat("x", 64<<10) + "')"
	for until := time.Now().Add(length); time.Now().Before(until); time.Sleep(time.Second) {
		if err := r.exec(ctx, noise); err != nil {
			return err
		}
	}
	spent := cpuTime(m.pid()) - cpu
	end, err := r.walBytes(ctx)
	if err != nil {
		return err
	}
	after, err := r.objects(ctx)
	if err != nil {
		return err
	}
	if passed := end - start; passed >= 16<<20 {
		return fmt.Errorf("%d MB of WAL passed, and were to be fewer than 16", passed>>20)
	}
	result.add("CPU of firn, share of a core", spent.Seconds()/length.Seconds()*100, "%")
	result.add("objects written", float64(after-objects), "")
	result.add("WAL that passed", float64(end-start)/(1<<20), "MB")
	if err := m.check(ctx, "events"); err != nil {
		return err
	}
	return m.stop(ctx)
}

// walBytes is the position at which Postgres writes.
func (r *rig) walBytes(ctx context.Context) (int64, error) {
	var at int64
	if err := r.conn.QueryRow(ctx, "select (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&at); err != nil {
		return 0, fmt.Errorf("ask for the end of WAL: %w", err)
	}
	return at, nil
}

var idles = []workload{
	{kind: "idle", name: "quiet", about: "two minutes in which only WAL that is nobody's passes, less than 16 MB", disk: 2 * gigabyte, run: quiet},
}

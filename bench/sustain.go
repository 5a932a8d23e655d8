package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"firn/lake"
)

// The mix of sustain: of a transaction's thousand changes so many of each kind.
// Updates and deletes are of the last million rows, for changes of rows far apart
// would measure how fast Postgres writes whole pages to its WAL. New rows are
// copied from others, but for the key: to make them up costs Postgres as much as
// to write them, and the writer shares the processors with what is measured.
var mixSetup = []string{
	"set temp_buffers = '64MB'",
	"create temp table rows as select * from events where id <= 100000",
	"create index on rows (id)",
	`create procedure mix(txns int) language plpgsql as $$
	declare top bigint; sets int := (select max(id) / 750 - 1 from rows); few int;
	begin
		for txn in 1 .. txns loop
			select max(id) into top from events;
			few := 750 * (1 + txn % sets);
			insert into events select top + 1 + id % 750, user_id, kind, amount, ok, created_at, note, f1, i1, tags
				from rows where id between few and few + 749;
			update events set i1 = i1 + 1, amount = amount + 1 where id = any(array(
				select top - floor(random() * least(top, 1000000))::bigint from generate_series(1, 200)));
			delete from events where id = any(array(
				select top - floor(random() * least(top, 1000000))::bigint from generate_series(1, 50)));
			commit;
		end loop;
	end $$`,
}

const mixChanges = 1_000 // of a transaction

// sustain writes, for long, at 60 % of the rate at which firn drains the same
// changes, while it compacts what comes.
func sustain(ctx context.Context, r *rig, result *Result) error {
	if err := makeEvents(ctx, r, "events", r.size(1_000_000, 2_000)); err != nil {
		return err
	}
	if err := r.exec(ctx, mixSetup...); err != nil {
		return err
	}
	m := r.firn("sustain", "--freshness", "1s")
	m.yaml = "grace: 2m\n" // or what has been rewritten would fill the disk
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := r.caughtUp(ctx, m); err != nil {
		return err
	}
	alone, rate, err := r.drainRate(ctx, m)
	if err != nil {
		return err
	}
	length := time.Duration(r.size(20*60, 5)) * time.Second
	target := 0.6 * rate
	r.say("%s changes a second, of %s, for %s", number(target), number(rate), length)
	var seen []sustained
	var written int64
	g, gctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	cpu := cpuTime(m.pid())
	began := time.Now()
	g.Go(func() (err error) {
		defer close(done)
		written, err = r.writeMix(gctx, target, length)
		return err
	})
	g.Go(func() (err error) {
		seen, err = m.watchSustained(gctx, done)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	took := time.Since(began)
	r.say("written; waiting for firn")
	ended := time.Now()
	if err := r.caughtUp(ctx, m); err != nil {
		return err
	}
	behind := time.Since(ended)
	result.add("drained", rate, "/s")
	result.add("written without firn", alone, "/s")
	result.add("changes per second", float64(written)/took.Seconds(), "/s")
	result.add("of the rate of draining", float64(written)/took.Seconds()/rate, "×")
	result.add("of the rate without firn", float64(written)/took.Seconds()/alone, "×")
	result.add("behind at the end", behind.Seconds(), "s")
	result.add("CPU of firn, share of a core", (cpuTime(m.pid())-cpu).Seconds()/took.Seconds()*100, "%")
	summarize(seen, result)
	r.say("comparing")
	if err := m.check(ctx, "events"); err != nil {
		return err
	}
	return m.stop(ctx)
}

// drainRate is how many of the mix's changes firn brings into the lake a second,
// when they wait for it and nobody else is at work, and how many Postgres
// writes when it is by itself.
func (r *rig) drainRate(ctx context.Context, m *firn) (alone, drained float64, err error) {
	txns := r.size(1_000, 5)
	var writes, drains []float64
	for round := range r.rounds() {
		if err := m.stop(ctx); err != nil {
			return 0, 0, err
		}
		if err := r.setSeed(ctx, round); err != nil {
			return 0, 0, err
		}
		began := time.Now()
		if err := r.exec(ctx, fmt.Sprintf("call mix(%d)", txns)); err != nil {
			return 0, 0, err
		}
		writes = append(writes, float64(txns*mixChanges)/time.Since(began).Seconds())
		if err := r.exec(ctx, "checkpoint"); err != nil {
			return 0, 0, err
		}
		end, err := r.walEnd(ctx)
		if err != nil {
			return 0, 0, err
		}
		u, err := r.measure(ctx, m, end, []string{"events"})
		if err != nil {
			return 0, 0, err
		}
		drains = append(drains, float64(txns*mixChanges)/u.wall.Seconds())
		r.say("Postgres wrote %s changes a second, firn drained %s", number(writes[round]), number(drains[round]))
	}
	same := func(v float64) float64 { return v }
	return median(writes, same), median(drains, same), nil
}

// writeMix writes at a rate, as far as Postgres can, and says how much it was.
func (r *rig) writeMix(ctx context.Context, rate float64, length time.Duration) (changes int64, err error) {
	began := time.Now()
	for time.Since(began) < length {
		owed := int64(rate*time.Since(began).Seconds()) - changes
		txns := owed / mixChanges
		if txns < 1 {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err := r.exec(ctx, fmt.Sprintf("call mix(%d)", min(txns, 50))); err != nil {
			return changes, err
		}
		changes += min(txns, 50) * mixChanges
	}
	return changes, nil
}

// sustained is what firn said at one moment.
type sustained struct {
	at      time.Duration
	lag     int64 // bytes of WAL
	fresh   float64
	files   int
	bytes   int64
	planned int64 // bytes of what is to be rewritten, or is being
}

// watchSustained asks firn every second until done.
func (m *firn) watchSustained(ctx context.Context, done <-chan struct{}) (all []sustained, err error) {
	began := time.Now()
	for {
		select {
		case <-done:
			return all, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
		text, err := get(ctx, m.url+"/status")
		if err != nil {
			return nil, m.failed(fmt.Errorf("ask firn for its status: %w", err))
		}
		var st lake.Status
		if err := json.Unmarshal([]byte(text), &st); err != nil {
			return nil, fmt.Errorf("read firn's status: %w", err)
		}
		for _, t := range st.Tables {
			all = append(all, sustained{at: time.Since(began), lag: st.LagBytes, fresh: st.Freshness, files: t.DataFiles, bytes: t.Bytes,
				planned: t.Compaction.PlannedBytes + t.Compaction.RunningBytes})
		}
	}
}

// summarize adds what was seen to the result. Halves begin after a tenth, in
// which the table's first files are put in order.
func summarize(seen []sustained, result *Result) {
	const target = 128 << 20
	files := Series{Plot: "sustain-files", Name: "live data files", X: "seconds of ingest", Y: "live data files"}
	bound := files
	bound.Name = "bound"
	backlog := Series{Plot: "sustain-backlog", Name: "to be rewritten", X: files.X, Y: "MB"}
	lag := backlog
	lag.Name = "WAL not yet in the lake"
	var fullest, fresh float64
	var lags, planned [2]float64
	var counts [2]float64
	for i, s := range seen {
		at := s.at.Seconds()
		if i%max(len(seen)/200, 1) == 0 {
			files.Points = append(files.Points, [2]float64{at, float64(s.files)})
			bound.Points = append(bound.Points, [2]float64{at, boundOf(s.bytes, target)})
			backlog.Points = append(backlog.Points, [2]float64{at, float64(s.planned) / (1 << 20)})
			lag.Points = append(lag.Points, [2]float64{at, float64(s.lag) / (1 << 20)})
		}
		fullest, fresh = max(fullest, float64(s.files)/boundOf(s.bytes, target)), max(fresh, s.fresh)
		if begin := len(seen) / 10; i >= begin {
			half := min(1, 2*(i-begin)/max(1, len(seen)-begin))
			lags[half] += float64(s.lag)
			planned[half] += float64(s.planned)
			counts[half]++
		}
	}
	mean := func(sums [2]float64, half int) float64 { return sums[half] / max(1, counts[half]) / (1 << 20) }
	result.add("oldest commit not yet in the lake, at most", fresh, "s")
	result.add("WAL not yet in the lake, first half", mean(lags, 0), "MB")
	result.add("WAL not yet in the lake, second half", mean(lags, 1), "MB")
	result.add("of the bound on data files, at most", fullest, "×")
	result.add("to be rewritten, first half", mean(planned, 0), "MB")
	result.add("to be rewritten, second half", mean(planned, 1), "MB")
	// A file's size more or less says nothing.
	result.add("to be rewritten, second half against first", (mean(planned, 1)+target>>20)/(mean(planned, 0)+target>>20), "×")
	result.Series = append(result.Series, files, bound, backlog, lag)
}

var sustains = []workload{
	{kind: "sustain", name: "mix", about: "20 minutes of inserts, updates and deletes at 60 % of the rate at which firn drains them, --freshness 1s, compaction on", disk: 58 * gigabyte, big: true, run: sustain},
}

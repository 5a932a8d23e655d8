package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"firn/cmd/firn/life"
	"firn/compaction"
	"firn/lake/laketest"
	"firn/lake/object"
)

// lifetime is a table that lives faster than the clock: a transaction, and an
// epoch, for each second of its own time. Its changes come from a generator, and
// what the lake holds is compared with the generator's ledger.
type lifetime struct {
	epochs, epochsShort int
	scans               int // of each kind, by each reader
	version             int // of the table's format
}

// What one epoch changes, and how many rows there are before.
const (
	lifeRows, lifeRowsShort       = 5_000_000, 5_000
	lifeChanges, lifeChangesShort = 1_000, 100
	lifeRest                      = 2 * time.Hour
)

// boundOf is how many data files a table of so many bytes may have.
func boundOf(bytes, target int64) float64 { return 2*float64(bytes)/float64(target) + 16 }

func (l lifetime) run(ctx context.Context, r *rig, result *Result) (err error) {
	o := compaction.Options{TargetBytes: r.size(128<<20, 1<<20)}
	ledger := life.NewLedger(r.size(lifeRows, lifeRowsShort), uint64(r.o.seed))
	r.say("loading %s rows", grouped(ledger.Rows()))
	m, err := r.life(ctx, "life", l.version, ledger, &o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	if err := l.live(ctx, r, m, o, result); err != nil {
		return err
	}
	r.say("writing the same rows freshly")
	fresh, err := r.life(ctx, "fresh", l.version, ledger, nil)
	if err != nil {
		return err
	}
	if err := fresh.Stop(); err != nil {
		return err
	}
	if err := r.openStore(ctx); err != nil {
		return err
	}
	scans, err := r.scans(ctx)
	if err != nil {
		return err
	}
	defer scans.close()
	log, store := fresh.Catalog()
	if err := scans.open(ctx, "fresh", log, store); err != nil {
		return err
	}
	// As it is in the middle of it all, but for rewrites that were under way, and
	// after a time of rest.
	for _, then := range []struct {
		lake, suffix string
		rest         time.Duration
	}{{"life", "", 0}, {"rested", ", after a rest", lifeRest}} {
		if err := m.Rest(ctx, then.rest); err != nil {
			return err
		}
		if err := l.compare(ctx, r, scans, ledger, m, then.lake, then.suffix, result); err != nil {
			return err
		}
	}
	if err := m.Stop(); err != nil {
		return err
	}
	if n := m.Engine.Lake.Counters().Restarts.Load(); n > 0 {
		return fmt.Errorf("the mirror contradicted itself %d times", n)
	}
	return nil
}

// life begins a life in a lake of that name.
func (r *rig) life(ctx context.Context, lake string, version int, ledger *life.Ledger, o *compaction.Options) (*life.Life, error) {
	return life.Start(ctx, life.Options{
		FormatVersion: version,
		Warehouse:     "s3://" + bucket + "/" + lake, StateDir: filepath.Join(r.dir, "state-"+lake), Ledger: ledger, Compaction: o,
		Object: object.Options{Endpoint: r.s3.Endpoint, Region: r.s3.Region, AccessKeyID: r.s3.AccessKey, SecretAccessKey: r.s3.SecretKey},
		// An hour, by the table's clock.
		Grace: time.Duration(r.size(60, 2)) * time.Second,
	})
}

// live lives, and says what it was like.
func (l lifetime) live(ctx context.Context, r *rig, m *life.Life, o compaction.Options, result *Result) error {
	epochs, changes := int(r.size(int64(l.epochs), int64(l.epochsShort))), int(r.size(lifeChanges, lifeChangesShort))
	r.say("%s epochs of %s changes", grouped(int64(epochs)), grouped(int64(changes)))
	c := m.Engine.Lake.Counters()
	title := fmt.Sprintf("%s epochs", grouped(int64(epochs)))
	files := Series{Plot: "files", Name: title, X: "epochs, a second each", Y: "live data files"}
	bound := files
	bound.Name = title + ": bound"
	amplified := Series{Plot: "amplification", Name: title, X: files.X, Y: "bytes written, of data files, over bytes ingested"}
	commit := Series{Plot: "life", Name: title, X: files.X, Y: "time of a commit, ms"}
	var took []time.Duration
	var fullest float64
	var deletes int
	landed, rewritten := c.BytesWritten.Load(), c.RewrittenBytes.Load()
	amplification := func() float64 {
		in := float64(c.BytesWritten.Load() - landed)
		return (in + float64(c.RewrittenBytes.Load()-rewritten)) / in
	}
	_, store, err := r.storeTraffic(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	for n := range epochs {
		one, err := m.Epoch(ctx, changes)
		if err != nil {
			return fmt.Errorf("epoch %d: %w", n, err)
		}
		took = append(took, one)
		t := m.Table()
		most := boundOf(t.Bytes, o.TargetBytes)
		fullest, deletes = max(fullest, float64(t.DataFiles)/most), max(deletes, t.DeleteFiles)
		if every := max(epochs/100, 1); n%every == every-1 {
			x := float64(n + 1)
			files.Points = append(files.Points, [2]float64{x, float64(t.DataFiles)})
			bound.Points = append(bound.Points, [2]float64{x, most})
			amplified.Points = append(amplified.Points, [2]float64{x, amplification()})
			commit.Points = append(commit.Points, [2]float64{x, medianTime(took[n+1-every:]).Seconds() * 1e3})
		}
		if n%max(epochs/10, 1) == 0 {
			r.say("epoch %s: %d data files, write amplification %.2f, commits of %.1f ms", grouped(int64(n)), t.DataFiles, amplification(),
				medianTime(took[max(0, n-100):]).Seconds()*1e3)
		}
	}
	wall := time.Since(began)
	// A window of commits, so that rewrites beside them weigh as they do on the
	// whole.
	window := min(500, max(1, (epochs-100)/2))
	first, last := medianTime(took[min(100, epochs-1):min(100+window, epochs)]), medianTime(took[epochs-window:])
	t := m.Table()
	result.add("epochs", float64(epochs), "")
	result.add("rows at the end", float64(t.Rows), "")
	result.add("bytes at the end", float64(t.Bytes)/(1<<20), "MB")
	result.add("data files at the end", float64(t.DataFiles), "")
	result.add("of the bound on data files, at most", fullest, "×")
	result.add("delete files, at most", float64(deletes), "")
	result.add("write amplification", amplification(), "×")
	result.add("rewrites", float64(c.Rewrites.Load()), "")
	result.add("commit after 100", first.Seconds()*1e3, "ms")
	result.add("commit at the end", last.Seconds()*1e3, "ms")
	result.add("commit at the end against after 100", last.Seconds()/first.Seconds(), "×")
	result.add("faster than the clock", float64(epochs)/wall.Seconds(), "×")
	_, after, err := r.storeTraffic(ctx)
	if err != nil {
		return err
	}
	result.add("bytes to the store, per byte ingested", float64(after-store)/float64(c.BytesWritten.Load()-landed), "×")
	result.add("objects removed", float64(c.Removed.Load()), "")
	result.Series = append(result.Series, files, bound, amplified, commit)
	return nil
}

func medianTime(all []time.Duration) time.Duration {
	return median(all, func(d time.Duration) time.Duration { return d })
}

// compare makes sure that both lakes hold what the ledger does, and then takes
// the time of scans of both in turn.
func (l lifetime) compare(ctx context.Context, r *rig, scans *scans, ledger *life.Ledger, lived *life.Life, lake, suffix string, result *Result) error {
	if err := r.dead(ctx, lived, suffix, result); err != nil {
		return err
	}
	log, store := lived.Catalog()
	if err := scans.open(ctx, lake, log, store); err != nil {
		return err
	}
	r.say("comparing")
	rows, sum := ledger.Sum()
	for _, name := range []string{lake, "fresh"} {
		got, err := r.duckdb.Try(ctx, fmt.Sprintf(life.SumSQL, name+".public.events"))
		if err != nil {
			return fmt.Errorf("sum up the lake: %w", err)
		}
		if got := got.Rows[0]; got[0] != rows || got[1] != sum {
			return fmt.Errorf("the lake %s is wrong: the source had %s rows (sum of hashes %s), the lake has %s (%s)", name, rows, sum, got[0], got[1])
		}
	}
	for _, reader := range []string{"DuckDB", "PyIceberg"} {
		r.say("scanning by %s", reader)
		worst := 0.0
		for _, q := range scans.by(reader) {
			took := map[string][]time.Duration{}
			for round := range int(r.size(int64(l.scans), 1)) + 1 {
				for _, name := range []string{lake, "fresh"} {
					one, err := q.scan(ctx, name)
					if err != nil {
						return fmt.Errorf("scan by %s: %w", reader, err)
					}
					if round > 0 { // the first one warms up
						took[name] = append(took[name], one)
					}
				}
			}
			a, b := medianTime(took[lake]), medianTime(took["fresh"])
			result.add(fmt.Sprintf("%s by %s%s", q.about, reader, suffix), a.Seconds(), "s")
			result.add(fmt.Sprintf("%s by %s, freshly written%s", q.about, reader, suffix), b.Seconds(), "s")
			worst = max(worst, a.Seconds()/b.Seconds())
		}
		if reader == "DuckDB" && suffix == "" {
			if err := l.withoutDeletes(ctx, r, scans, lived, result); err != nil {
				return err
			}
		}
		result.add("scan by "+reader+" against freshly written"+suffix, worst, "×")
	}
	return nil
}

// withoutDeletes takes the time of DuckDB's scans of the data files as they are,
// dead rows and all: what the number of files costs, and what the deletes do.
func (l lifetime) withoutDeletes(ctx context.Context, r *rig, s *scans, m *life.Life, result *Result) error {
	table, err := r.openTable(ctx, m)
	if err != nil {
		return err
	}
	var paths []string
	for _, f := range table.Files() {
		paths = append(paths, laketest.Quote(f.Path))
	}
	if _, err := r.duckdb.Try(ctx, "create schema if not exists public; create or replace view public.events as select * from read_parquet(["+strings.Join(paths, ", ")+"])"); err != nil {
		return fmt.Errorf("name the data files in DuckDB: %w", err)
	}
	for _, q := range s.by("DuckDB") {
		var took []time.Duration
		for range int(r.size(int64(l.scans), 1)) {
			one, err := q.scan(ctx, "memory")
			if err != nil {
				return fmt.Errorf("scan the data files by DuckDB: %w", err)
			}
			took = append(took, one)
		}
		result.add(q.about+" by DuckDB, of the data files without their deletes", medianTime(took).Seconds(), "s")
	}
	return nil
}

// dead says how much of the table readers have to leave out.
func (r *rig) dead(ctx context.Context, m *life.Life, suffix string, result *Result) error {
	table, err := r.openTable(ctx, m)
	if err != nil {
		return err
	}
	var rows, dead, beside int64
	for _, f := range table.Files() {
		rows += f.Rows
		if f.Dead != nil && !f.Dead.IsEmpty() {
			dead, beside = dead+int64(f.Dead.GetCardinality()), beside+f.Rows
		}
	}
	result.add("rows dead"+suffix, float64(dead)/float64(rows)*100, "%")
	result.add("rows in files with dead ones"+suffix, float64(beside)/float64(rows)*100, "%")
	result.add("delete files at the end"+suffix, float64(table.Footprint().DeleteFiles), "")
	return nil
}

var lives = []workload{
	{kind: "life", name: "hours", about: "two hours of epochs, a second each by the table's clock, over 5M rows: 7,200 of 1,000 changes, 20 % random updates, 5 % random deletes", disk: 12 * gigabyte, big: true,
		run: lifetime{epochs: 7_200, epochsShort: 60, scans: 15, version: 2}.run},
	{kind: "life", name: "hours-v3", about: "the same in format version 3, whose deletes are bitmaps", disk: 12 * gigabyte, big: true,
		run: lifetime{epochs: 7_200, epochsShort: 30, scans: 15, version: 3}.run},
	{kind: "life", name: "day", about: "a day of such epochs: 86,400", disk: 40 * gigabyte, big: true,
		run: lifetime{epochs: 86_400, epochsShort: 30, scans: 3, version: 2}.run},
}

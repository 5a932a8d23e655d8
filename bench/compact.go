package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"firn/catalog"
	"firn/cmd/firn/life"
	"firn/lake"
	"firn/lake/snapshot"
)

// oneCore rewrites all files of a table of ten columns into one, its proof
// included, with one processor for what is Go's here. The store has its own.
func oneCore(ctx context.Context, r *rig, result *Result) error {
	ledger := life.NewLedger(r.size(lifeRows, lifeRowsShort), uint64(r.o.seed))
	r.say("loading %s rows", grouped(ledger.Rows()))
	m, err := r.life(ctx, "rewrite", 2, ledger, nil)
	if err != nil {
		return err
	}
	if err := m.Stop(); err != nil {
		return err
	}
	table, err := r.openTable(ctx, m)
	if err != nil {
		return err
	}
	var inputs []lake.RewriteInput
	var rows, bytes int64
	for _, f := range table.Files() {
		inputs = append(inputs, lake.RewriteInput{Path: f.Path, Dead: f.Dead})
		rows, bytes = rows+f.Rows, bytes+f.Bytes
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var took []time.Duration
	var most int64
	cpu := -cpuTime(os.Getpid())
	for range r.rounds() {
		debug.FreeOSMemory()
		before, _ := memory(os.Getpid())
		watching, stop := context.WithCancel(ctx)
		peak := make(chan int64)
		go func() {
			var high int64
			for watching.Err() == nil {
				now, _ := memory(os.Getpid())
				high = max(high, now)
				time.Sleep(10 * time.Millisecond)
			}
			peak <- high
		}()
		began := time.Now()
		out, err := table.Rewrite(ctx, inputs)
		took = append(took, time.Since(began))
		stop()
		most = max(most, <-peak-before)
		if err != nil {
			return err
		}
		if out.Output == nil || out.Output.Rows != rows {
			return fmt.Errorf("rewrite %d rows: %d came out", rows, out.Output.Rows)
		}
	}
	cpu += cpuTime(os.Getpid())
	one := medianTime(took)
	r.say("%d files of %d MB in %.2f s", len(inputs), bytes>>20, one.Seconds())
	result.add("rows", float64(rows), "")
	result.add("bytes of the inputs", float64(bytes)/(1<<20), "MB")
	result.add("rows per second of one core", float64(rows)/one.Seconds(), "/s")
	result.add("CPU per million rows", cpu.Seconds()/float64(len(took))/float64(rows)*1e6, "s")
	result.add("memory of a rewrite", float64(most)/(1<<20), "MB")
	return nil
}

// openTable opens the table of a life that has ended.
func (r *rig) openTable(ctx context.Context, m *life.Life) (*snapshot.Table, error) {
	log, store := m.Catalog()
	t, ok := log.Head().Table(catalog.Ident{Namespace: []string{"public"}, Name: "events"})
	if !ok {
		return nil, errors.New("open the table: the lake has none")
	}
	key, _ := store.Key(t.Metadata)
	folder, _, _ := strings.Cut(key, "/metadata/")
	return snapshot.Load(ctx, snapshot.Options{Store: store, Ident: lake.Ident{Namespace: "public", Name: "events"}, Location: folder, TempDir: r.dir}, t.Metadata)
}

var compactions = []workload{
	{kind: "compact", name: "core", about: "one rewrite of 5M rows of ten columns in eight files, reading back included, by one core", disk: 2 * gigabyte, run: oneCore},
}

package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// workload is one case: work that is the same on every run of one seed.
type workload struct {
	kind  string // load, drain, fresh, recover, commit, idle, compact, life, sustain
	name  string
	about string // a sentence
	disk  int64  // bytes at most, of servers, WAL and lake together
	big   bool   // only by name, or by `big`
	run   func(ctx context.Context, r *rig, result *Result) error
}

func (w workload) title() string { return w.kind + " " + w.name }

const gigabyte = 1 << 30

func gigabytes(n int64) string { return fmt.Sprintf("%.1f GB", float64(n)/gigabyte) }

// workloads are all cases, in the order in which `all` runs them.
var workloads = slices.Concat(loads, drains, freshes, recoveries, commits, idles, compactions, lives, sustains)

var kindAbout = map[string]string{
	"load":    "Load full tables into an empty lake, beside binary COPY",
	"drain":   "Bring a backlog of changes into the lake, beside pg_recvlogical",
	"fresh":   "From a commit in Postgres to what a reader of the catalog sees, by rate",
	"recover": "From kill -9 to streaming again",
	"commit":  "The time of one commit to the lake, by history, by tables, by the store's latency",
	"idle":    "What firn costs when nothing happens",
	"compact": "What rewriting data files costs",
	"life":    "Days of a table in minutes, and how it reads then",
	"sustain": "Changes without end, and compaction beside them",
}

func kinds() []string {
	var out []string
	for _, w := range workloads {
		if !slices.Contains(out, w.kind) {
			out = append(out, w.kind)
		}
	}
	return out
}

// runCase runs one case on servers of its own.
func runCase(ctx context.Context, o *options, w workload) (_ *Result, err error) {
	// What hangs must end, a test of what hangs all the more.
	limit := 30 * time.Minute
	switch {
	case o.short:
		limit = 5 * time.Minute
	case w.big:
		limit = 3 * time.Hour
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fmt.Fprintf(o.out, "== %s: %s\n", w.title(), w.about)
	r, err := newRig(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := r.close(); err == nil {
			err = closed
		}
	}()
	if need := w.disk; !o.short {
		free, err := freeBytes(r.dir)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(o.out, "   needs %s of disk, %s are free\n", gigabytes(need), gigabytes(free))
		if free < need+need/10 {
			return nil, fmt.Errorf("it needs %s of disk in %s, where %s are free (TMPDIR chooses another place)", gigabytes(need), r.dir, gigabytes(free))
		}
	}
	result := &Result{Workload: w.title(), Date: time.Now().UTC().Truncate(time.Second), Short: o.short, Seed: o.seed, Peer: o.peer}
	if result.Machine, err = thisMachine(ctx, r); err != nil {
		return nil, err
	}
	if o.peer != "" && w.kind != "load" && w.kind != "drain" {
		return nil, fmt.Errorf("--peer is for load and drain")
	}
	if err := w.run(ctx, r, result); err != nil {
		return nil, err
	}
	return result, nil
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space in %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// target is a figure that firn must reach, at its full size.
type target struct {
	what   string
	floor  string // what the figure is a ratio to, if it is one
	cases  []string
	figure string // of those cases; the worst counts
	least  float64
	most   float64 // the one that is not 0 counts
	unit   string
}

const perFloor = "per floor"

var targets = []target{
	{what: "drain of 1M inserts in 1,000-row transactions, to committed Iceberg", floor: "pg_recvlogical > /dev/null", cases: []string{"drain inserts"}, figure: perFloor, least: 1.4, unit: "×"},
	{what: "one 1M-row transaction, streamed", floor: "the same", cases: []string{"drain transaction"}, figure: perFloor, least: 1.0, unit: "×"},
	{what: "initial load of 5M such rows", floor: "binary COPY on one connection > /dev/null", cases: []string{"load events"}, figure: perFloor, least: 0.75, unit: "×"},
	{what: "random single-row updates over 10M keys (100-row transactions)", cases: []string{"drain updates"}, figure: "rows per second", least: 150_000, unit: "/s"},
	{what: "the same over 100M keys (big)", cases: []string{"drain updates-100M"}, figure: "rows per second", least: 100_000, unit: "/s"},
	{what: "TOAST-untouched updates, 1M rows", cases: []string{"drain toast", "drain toast-random"}, figure: "rows per second", least: 20_000, unit: "/s"},
	{what: "firn's CPU per million streamed inserts", cases: []string{"drain inserts"}, figure: "CPU of firn per million rows", most: 2.0, unit: "s"},
	{what: "freshness p99 at 5,000 one-row transactions/s, --freshness 1s", cases: []string{"fresh 1s"}, figure: "p99 at 5,000/s", most: 1.5, unit: "s"},
	{what: "the same, --freshness 200ms", cases: []string{"fresh 200ms"}, figure: "p99 at 5,000/s", most: 0.6, unit: "s"},
	{what: "resident anonymous memory: transactions up to 1M rows, 10M keys, 1,000 tables", cases: []string{"drain inserts", "drain updates", "drain transaction", "drain tables", "recover killed"}, figure: anonymous, most: 512, unit: "MB"},
	{what: "resident anonymous memory: a 10M-row transaction, 100M keys (big)", cases: []string{"drain transaction-10M", "drain updates-100M"}, figure: anonymous, most: 512, unit: "MB"},
	{what: "commit at 5,000 commits against at 100", cases: []string{"commit history"}, figure: "at the end against at 100", most: 1.2, unit: "× the time"},
	{what: "a commit with 50 ms injected per store request, 10 tables changed", cases: []string{"commit latency"}, figure: "commit with 50 ms injected", most: 0.170, unit: "s"},
	{what: "restart to streaming, 10M-row table, state folder intact", cases: []string{"recover killed"}, figure: "kill to streaming, state intact", most: 2, unit: "s"},
	{what: "the same, state folder lost", cases: []string{"recover killed"}, figure: "kill to streaming, state lost", most: 8, unit: "s"},
	{what: "idle for 2 minutes: share of a core", cases: []string{"idle quiet"}, figure: "CPU of firn, share of a core", most: 0.2, unit: "%"},
	{what: "idle for 2 minutes: objects written while under 16 MB of WAL pass", cases: []string{"idle quiet"}, figure: "objects written", most: 0, unit: "objects"},
	{what: "compaction of ten columns by one core", cases: []string{"compact core"}, figure: "rows per second of one core", least: 700_000, unit: "/s"},
	{what: "its memory", cases: []string{"compact core"}, figure: "memory of a rewrite", most: 256, unit: "MB"},
	{what: "scan by DuckDB after 7,200 epochs over 5M rows (big)", floor: "the same rows freshly written", cases: []string{"life hours"}, figure: "scan by DuckDB against freshly written", most: 1.2, unit: "× the time"},
	{what: "the same by PyIceberg (big)", floor: "the same", cases: []string{"life hours"}, figure: "scan by PyIceberg against freshly written", most: 1.2, unit: "× the time"},
	{what: "the same after two hours without changes, by DuckDB (big)", floor: "the same", cases: []string{"life hours"}, figure: "scan by DuckDB against freshly written, after a rest", most: 1.2, unit: "× the time"},
	{what: "the same then, by PyIceberg (big)", floor: "the same", cases: []string{"life hours"}, figure: "scan by PyIceberg against freshly written, after a rest", most: 1.2, unit: "× the time"},
	{what: "ingest at 60 % of the rate of draining for 20 minutes, compaction on: behind at its end (big)", cases: []string{"sustain mix"}, figure: "behind at the end", most: 5, unit: "s"},
	{what: "the rate that was written, of the rate of draining (big)", cases: []string{"sustain mix"}, figure: "of the rate of draining", least: 0.59, unit: "×"},
	{what: "its backlog of compaction, second half against first (big)", cases: []string{"sustain mix"}, figure: "to be rewritten, second half against first", most: 1.2, unit: "×"},
	{what: "live data files, of 2 × (bytes / target) + 16 (big)", cases: []string{"life hours", "life day", "sustain mix"}, figure: "of the bound on data files, at most", most: 1, unit: "×"},
	{what: "write amplification of 86,400 epochs (big)", cases: []string{"life day"}, figure: "write amplification", most: 6, unit: "×"},
	{what: "commit at 86,400 epochs against at 100 (big)", cases: []string{"life day"}, figure: "commit at the end against after 100", most: 1.2, unit: "× the time"},
}

// verdict is a target beside what was measured.
type verdict struct {
	target
	value float64
	met   bool
}

// judge gives the verdicts on those targets that the results speak of. What
// was measured small, or is a peer's, says nothing.
func judge(results []*Result) []verdict {
	var out []verdict
	for _, t := range targets {
		v := verdict{target: t}
		found := false
		for _, r := range results {
			if r.Short || r.Peer != "" || !slices.Contains(t.cases, r.Workload) {
				continue
			}
			if value, ok := r.figure(t.figure); ok {
				if !found || t.least > 0 && value < v.value || t.least == 0 && value > v.value {
					v.value = value
				}
				found = true
			}
		}
		if found {
			v.met = t.least > 0 && v.value >= t.least || t.least == 0 && v.value <= t.most
			out = append(out, v)
		}
	}
	return out
}

func (t target) must() string {
	if t.least > 0 {
		return "≥ " + number(t.least) + " " + t.unit
	}
	return "≤ " + number(t.most) + " " + t.unit
}

func (v verdict) word() string {
	if v.met {
		return "met"
	}
	return "NOT MET"
}

func printTargets(out io.Writer, results []*Result) {
	verdicts := judge(results)
	if len(verdicts) == 0 {
		return
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TARGET\tFLOOR\tMUST REACH\tMEASURED\t")
	for _, v := range verdicts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.what, v.floor, v.must(), number(v.value), v.word())
	}
	_ = t.Flush() // to the terminal, as every line before
	fmt.Fprintln(out)
}

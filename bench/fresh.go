package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fresh is a stream of one-row transactions at each of several rates, and a
// reader who asks the catalog for the table again and again.
type fresh struct {
	freshness string // firn's
	rates     []int  // transactions per second
}

// pollEvery is how often the reader asks; it adds up to that to what it sees.
const pollEvery = 10 * time.Millisecond

func (f fresh) run(ctx context.Context, r *rig, result *Result) error {
	if err := makeEvents(ctx, r, "events", 1); err != nil {
		return err
	}
	if err := r.exec(ctx, "create sequence ids start 2 cache 1000"); err != nil {
		return err
	}
	m := r.firn("fresh", "--freshness", f.freshness)
	if err := m.start(ctx); err != nil {
		return err
	}
	end, err := r.walEnd(ctx)
	if err != nil {
		return err
	}
	if err := m.reach(ctx, end); err != nil {
		return err
	}
	half := Series{Plot: "freshness", Name: f.freshness + ", median", X: "transactions per second", Y: "commit to visible, s"}
	high := half
	high.Name = f.freshness + ", p99"
	for i, rate := range f.rates {
		if r.o.short && i > 0 {
			break
		}
		seen, err := f.at(ctx, r, m, rate)
		if err != nil {
			return err
		}
		name := "at " + grouped(int64(rate)) + "/s"
		result.add("median "+name, quantile(seen.ages, 0.5), "s")
		result.add("p99 "+name, quantile(seen.ages, 0.99), "s")
		result.add("longest "+name, quantile(seen.ages, 1), "s")
		result.add("reached "+name, seen.rate, "/s")
		result.add("CPU of firn "+name, seen.firn*100, "% of a core")
		result.add("CPU of pgbench "+name, seen.pgbench*100, "% of a core")
		half.Points = append(half.Points, [2]float64{seen.rate, quantile(seen.ages, 0.5)})
		high.Points = append(high.Points, [2]float64{seen.rate, quantile(seen.ages, 0.99)})
	}
	result.Series = append(result.Series, half, high)
	if err := m.check(ctx, "events"); err != nil {
		return err
	}
	return m.stop(ctx)
}

// observed is what one rate gave.
type observed struct {
	ages          []float64 // seconds from commit to visible, sorted, one per transaction
	rate          float64   // reached
	firn, pgbench float64   // shares of a core
}

func (f fresh) at(ctx context.Context, r *rig, m *firn, rate int) (out observed, err error) {
	seconds := int(r.size(30, 3))
	r.say("%d transactions per second for %d s", rate, seconds)
	base, err := rowsVisible(ctx, m.url, "events")
	if err != nil {
		return out, err
	}
	reading, quit := context.WithCancel(ctx)
	defer quit()
	read := make(chan []sight, 1)
	go func() { read <- watchTable(reading, m.url, "events") }()

	dir, err := os.MkdirTemp(r.dir, "pgbench")
	if err != nil {
		return out, fmt.Errorf("make pgbench's folder: %w", err)
	}
	script := filepath.Join(dir, "insert.sql")
	sql := `insert into events select i, i % 100000, 'kind' || i % 10, (i % 10000) / 100.0, i % 2 = 0, now(), md5(i::text) || 'note', i / 3.0, i % 1000, 'tag' || i % 100 from nextval('ids') i;` + "\n"
	if err := os.WriteFile(script, []byte(sql), 0o644); err != nil {
		return out, fmt.Errorf("write pgbench's script: %w", err)
	}
	path, err := r.program("pgbench")
	if err != nil {
		return out, err
	}
	cmd := exec.CommandContext(ctx, path, "-n", "-M", "prepared", "-f", script, "-c", "16", "-j", "1", "-T", strconv.Itoa(seconds), "-R", strconv.Itoa(rate),
		"-l", "--log-prefix", filepath.Join(dir, "log"), "--random-seed", strconv.FormatInt(r.o.seed, 10), r.url)
	before := cpuTime(m.pid())
	began := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		return out, fmt.Errorf("run pgbench: %w: %s", err, text)
	}
	took := time.Since(began)
	out.firn = (cpuTime(m.pid()) - before).Seconds() / took.Seconds()
	out.pgbench = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds() / took.Seconds()

	done, err := finished(dir)
	if err != nil {
		return out, err
	}
	out.rate = float64(len(done)) / took.Seconds()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(pollEvery) {
		if n, err := rowsVisible(ctx, m.url, "events"); err == nil && n >= base+int64(len(done)) {
			break
		} else if time.Now().After(deadline) {
			return out, fmt.Errorf("of %d rows the reader sees %d after a minute: %v", base+int64(len(done)), n, err)
		}
	}
	time.Sleep(2 * pollEvery) // the watcher sees it too
	quit()
	out.ages = ages(done, base, <-read)
	if len(out.ages) != len(done) {
		return out, fmt.Errorf("the reader saw %d of %d transactions", len(out.ages), len(done))
	}
	return out, nil
}

// finished reads from pgbench's logs when each transaction ended, in order.
func finished(dir string) ([]time.Time, error) {
	logs, err := filepath.Glob(filepath.Join(dir, "log*"))
	if err != nil {
		return nil, fmt.Errorf("find pgbench's logs: %w", err)
	}
	var out []time.Time
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			return nil, fmt.Errorf("read pgbench's log: %w", err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			// client, number, time, script, end in seconds, and its µs, lag
			f := strings.Fields(lines.Text())
			if len(f) < 6 {
				return nil, fmt.Errorf("read pgbench's log: %q", lines.Text())
			}
			s, err := strconv.ParseInt(f[4], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read pgbench's log: %w", err)
			}
			us, err := strconv.ParseInt(f[5], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read pgbench's log: %w", err)
			}
			out = append(out, time.Unix(s, us*1000))
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out, nil
}

// sight is how many rows the reader saw first at a time.
type sight struct {
	at   time.Time
	rows int64
}

// ages gives, for transactions of one row in the order of their ends, the time
// until the reader first saw as many rows. It takes commits to have become
// visible in that order, as they do, but for neighbours.
func ages(done []time.Time, base int64, seen []sight) []float64 {
	var out []float64
	at := 0
	for i, t := range done {
		for at < len(seen) && seen[at].rows < base+int64(i)+1 {
			at++
		}
		if at == len(seen) {
			break
		}
		out = append(out, max(0, seen[at].at.Sub(t).Seconds()))
	}
	slices.Sort(out)
	return out
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// watchTable asks the catalog for a table until ctx ends, as a reader would who
// wants the newest snapshot, and notes each change.
func watchTable(ctx context.Context, catalog, table string) []sight {
	var out []sight
	tag := ""
	for tick := time.NewTicker(pollEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return out
		case <-tick.C:
		}
		rows, next, err := readTable(ctx, catalog, table, tag)
		if err != nil || next == tag {
			continue // not seen is not seen; what was never seen fails the case
		}
		tag = next
		out = append(out, sight{time.Now(), rows})
	}
}

// rowsVisible is how many rows a table's current snapshot has.
func rowsVisible(ctx context.Context, catalog, table string) (int64, error) {
	rows, _, err := readTable(ctx, catalog, table, "")
	return rows, err
}

// readTable loads a table from the REST catalog, if it isn't tag's any more.
func readTable(ctx context.Context, catalog, table, tag string) (rows int64, next string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, catalog+"/v1/namespaces/public/tables/"+table+"?snapshots=refs", nil)
	if err != nil {
		return 0, "", err
	}
	if tag != "" {
		req.Header.Set("If-None-Match", tag)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotModified:
		return 0, tag, nil
	case http.StatusOK:
	default:
		return 0, "", fmt.Errorf("load table %s: %s", table, resp.Status)
	}
	var answer struct {
		Metadata struct {
			Current   int64 `json:"current-snapshot-id"`
			Snapshots []struct {
				ID      int64             `json:"snapshot-id"`
				Summary map[string]string `json:"summary"`
			} `json:"snapshots"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, "", fmt.Errorf("decode table %s: %w", table, err)
	}
	for _, s := range answer.Metadata.Snapshots {
		if s.ID == answer.Metadata.Current {
			rows, err := strconv.ParseInt(s.Summary["total-records"], 10, 64)
			return rows, resp.Header.Get("ETag"), err
		}
	}
	return 0, "", fmt.Errorf("table %s has no current snapshot", table)
}

var freshes = []workload{
	{kind: "fresh", name: "1s", about: "--freshness 1s, one-row transactions by pgbench at 5,000, 1,000 and 100 a second", disk: 2 * gigabyte, run: fresh{"1s", []int{5000, 1000, 100}}.run},
	{kind: "fresh", name: "200ms", about: "the same with --freshness 200ms", disk: 2 * gigabyte, run: fresh{"200ms", []int{5000, 1000, 100}}.run},
}

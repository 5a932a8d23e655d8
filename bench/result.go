package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Result is what one case gave. Its rows have been compared with Postgres'.
type Result struct {
	Workload string    `json:"workload"`
	Date     time.Time `json:"date"`
	Short    bool      `json:"short,omitempty"` // no measurement
	Seed     int64     `json:"seed"`
	Peer     string    `json:"peer,omitempty"` // what was measured instead of firn
	Seconds  float64   `json:"seconds"`        // of the whole case, with set-up and checks
	Machine  Machine   `json:"machine"`
	Figures  []Figure  `json:"figures"`
	Series   []Series  `json:"series,omitempty"`
}

// Figure is one number. Those of a case are in the order in which they are to
// be read.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// Series is a line of a plot.
type Series struct {
	Plot   string       `json:"plot"` // the plot that it belongs to: the file's name
	Name   string       `json:"name"`
	X      string       `json:"x"` // axes
	Y      string       `json:"y"`
	Points [][2]float64 `json:"points"`
}

func (r *Result) add(name string, value float64, unit string) {
	r.Figures = append(r.Figures, Figure{name, value, unit})
}

// figure is the value of that name, if the case has it.
func (r *Result) figure(name string) (float64, bool) {
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == name })
	if i < 0 {
		return 0, false
	}
	return r.Figures[i].Value, true
}

// usage adds what a run cost; median's of several.
func (r *Result) usage(u usage) {
	r.add("wall", u.wall.Seconds(), "s")
	r.add("CPU of firn", u.cpu.Seconds(), "s")
	if u.walsender > 0 {
		r.add("CPU of walsender", u.walsender.Seconds(), "s")
	}
	r.add("CPU of Postgres", u.postgres.Seconds(), "s")
	r.add("CPU of the store", u.store.Seconds(), "s")
	r.add("CPU of all else", u.others.Seconds(), "s")
	r.add(anonymous, float64(u.anon)/(1<<20), "MB")
	r.add("file-backed memory", float64(u.file)/(1<<20), "MB")
	r.add("requests to the store", float64(u.requests), "")
	r.add("bytes to the store", float64(u.received)/(1<<20), "MB")
}

// anonymous is the figure that the limit on memory is about.
const anonymous = "anonymous memory"

func (r *Result) print(out io.Writer) {
	if r.Short {
		fmt.Fprintln(out, "   -short: the results are right; the figures measure nothing")
	}
	for _, f := range r.Figures {
		fmt.Fprintf(out, "   %-42s %12s %s\n", f.Name, number(f.Value), f.Unit)
	}
	fmt.Fprintln(out)
}

// number prints three significant digits, and whole numbers in full.
func number(v float64) string {
	switch {
	case v == float64(int64(v)) && v < 1e15 && v > -1e15, v >= 1000:
		return grouped(int64(math.Round(v)))
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func grouped(n int64) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// writeJSON writes results to a file; an empty path means nowhere.
func writeJSON(path string, results []*Result) error {
	if path == "" || len(results) == 0 {
		return nil
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// keep writes each result to a file of its own below dir/results, in place of
// what an earlier run of the case gave.
func keep(dir string, results []*Result) error {
	if err := os.MkdirAll(filepath.Join(dir, "results"), 0o755); err != nil {
		return fmt.Errorf("make the folder of results: %w", err)
	}
	var errs []error
	for _, r := range results {
		name := strings.ReplaceAll(r.Workload, " ", "-") + ".json"
		errs = append(errs, writeJSON(filepath.Join(dir, "results", name), []*Result{r}))
	}
	return errors.Join(errs...)
}

// kept reads the results in dir/results, in the order of workloads.
func kept(dir string) ([]*Result, error) {
	var out []*Result
	for _, w := range workloads {
		path := filepath.Join(dir, "results", strings.ReplaceAll(w.title(), " ", "-")+".json")
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read results: %w", err)
		}
		var one []*Result
		if err := json.Unmarshal(b, &one); err != nil {
			return nil, fmt.Errorf("decode %s: %w", path, err)
		}
		out = append(out, one...)
	}
	return out, nil
}

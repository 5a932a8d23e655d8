package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"firn/cmd/firn/internal/listen"
	"firn/lake"
)

const (
	drawEvery   = 250 * time.Millisecond
	loadEvery   = 5 * time.Second  // plain lines while tables load
	streamEvery = 30 * time.Second // plain lines after, if something happened
	barsMax     = 8
	barWidth    = 24
)

// showProgress tells how far loads and stream are, until ctx ends.
func showProgress(ctx context.Context, s *screen, m *mirror) error {
	every := drawEvery
	if !s.terminal() {
		every = loadEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	p := progress{rates: map[string]*rate{}}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			st := m.status()
			p.changes.at(now, changesOf(m.engine.Lake.Counters()), 0)
			if s.terminal() {
				s.show(append(p.bars(now, st), p.line(st))...)
			} else {
				p.plain(s, now, st)
			}
		}
	}
}

func changesOf(c *lake.Counters) int64 {
	return c.Inserts.Load() + c.Updates.Load() + c.Deletes.Load() + c.Truncates.Load()
}

// progress remembers what was seen before, for rates.
type progress struct {
	rates   map[string]*rate // of loading tables
	changes rate
	said    struct { // the last plain line about the stream
		when         time.Time
		state, epoch string
	}
}

// rate is how fast rows and bytes go by, smoothed over some seconds.
type rate struct {
	when        time.Time
	rows, bytes int64
	rowsPerS    float64
	bytesPerS   float64
}

func (r *rate) at(now time.Time, rows, bytes int64) {
	d := now.Sub(r.when).Seconds()
	if r.when.IsZero() || rows < r.rows {
		*r = rate{when: now, rows: rows, bytes: bytes}
		return
	}
	if d <= 0 {
		return
	}
	weight := min(1, d/3)
	if r.rowsPerS == 0 {
		weight = 1
	}
	r.rowsPerS += weight * (float64(rows-r.rows)/d - r.rowsPerS)
	r.bytesPerS += weight * (float64(bytes-r.bytes)/d - r.bytesPerS)
	r.when, r.rows, r.bytes = now, rows, bytes
}

// loading are the tables that are copied at present.
func loading(st listen.Status) []lake.TableStatus {
	var out []lake.TableStatus
	for _, t := range st.Tables {
		if (t.State == lake.Loading || t.State == lake.Behind) && t.LoadRows > 0 {
			out = append(out, t)
		}
	}
	return out
}

func (p *progress) bars(now time.Time, st listen.Status) []string {
	var out []string
	width := 0
	tables := loading(st)
	for _, t := range tables {
		width = max(width, len([]rune(t.Name)))
	}
	for i, t := range tables {
		if i == barsMax {
			return append(out, fmt.Sprintf("and %d more", len(tables)-barsMax))
		}
		done := share(t)
		full := int(done * barWidth)
		out = append(out, fmt.Sprintf("%-*s  %s%s %3.0f %%  %s", width, t.Name,
			strings.Repeat("█", full), strings.Repeat("░", barWidth-full), 100*done, p.load(now, t)))
	}
	return out
}

// share is how much of a table is loaded. The total is the planner's guess, so
// that it never says all before the end.
func share(t lake.TableStatus) float64 {
	if t.LoadTotal <= 0 {
		return 0
	}
	return min(0.99, float64(t.LoadRows)/float64(t.LoadTotal))
}

// load says how far and how fast a load is.
func (p *progress) load(now time.Time, t lake.TableStatus) string {
	r := p.rates[t.Name]
	if r == nil {
		r = &rate{}
		p.rates[t.Name] = r
	}
	r.at(now, t.LoadRows, t.LoadBytes)
	text := listen.Count(t.LoadRows)
	if t.LoadTotal > 0 {
		text += " of about " + listen.Count(t.LoadTotal)
	}
	text += " rows"
	if r.bytesPerS > 0 {
		text += fmt.Sprintf(", %.1f MB/s", r.bytesPerS/1e6)
	}
	if left := t.LoadTotal - t.LoadRows; left > 0 && r.rowsPerS > 0 {
		text += ", ETA " + (time.Duration(float64(left)/r.rowsPerS) * time.Second).String()
	}
	return text
}

// line is one about the whole.
func (p *progress) line(st listen.Status) string {
	states := map[string]int{}
	for _, t := range st.Tables {
		states[t.State]++
	}
	if st.Outage != "" {
		return "interrupted: " + st.Outage
	}
	if !st.Running {
		return "starting"
	}
	parts := []string{fmt.Sprintf("streaming %s", count(states[lake.Streaming], "table"))}
	for _, state := range []string{lake.Loading, lake.Behind, lake.Quarantined} {
		if n := states[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	parts = append(parts,
		fmt.Sprintf("%s changes/s", listen.Count(int64(p.changes.rowsPerS+0.5))),
		fmt.Sprintf("lag %s (%.1f s)", listen.Size(st.LagBytes), st.Freshness),
		fmt.Sprintf("epoch %d at %s", st.Epoch, st.DurableLSN))
	return strings.Join(parts, " · ")
}

// plain says the same in lines that stay, and only when something happened.
func (p *progress) plain(s *screen, now time.Time, st listen.Status) {
	tables := loading(st)
	for i, t := range tables {
		if i == barsMax {
			s.say(fmt.Sprintf("firn: and %d more tables are loading", len(tables)-barsMax))
			break
		}
		s.say(fmt.Sprintf("firn: loading %s: %s", t.Name, p.load(now, t)))
	}
	state, epoch := fmt.Sprint(st.Running, st.Ready, st.Outage != ""), fmt.Sprint(st.Epoch)
	if state == p.said.state && (epoch == p.said.epoch || now.Sub(p.said.when) < streamEvery) {
		return
	}
	p.said.when, p.said.state, p.said.epoch = now, state, epoch
	s.say("firn: " + p.line(st))
}

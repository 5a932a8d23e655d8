package lake

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// What rewrites may take of one processor, in percent, all of them together.
// Where one has to wait for another it is the next larger share, for neither
// changes nor small files may pile up for good: on processors that are too few
// for both, a stream that is never quite there would leave them a tenth for ever.
const (
	// ShareAlone while nothing comes, and of one that somebody asked for.
	ShareAlone = 100
	// ShareBeside while the stream flows, and is followed without delay.
	ShareBeside = 50
	// ShareBehind while the lake catches up, or loads tables.
	ShareBehind = 10
)

// crowded is how long an epoch lasts at least while the stream is behind, or a
// rewrite has to wait for another: fewer and larger files are less work for both.
const crowded = 5 * time.Second

const (
	// behindBytes is how far the stream may be behind the server's WAL, for
	// however long.
	behindBytes = 16 << 20
	// planAgain is how long a plan holds for files that don't change: what is
	// young grows old.
	planAgain = time.Minute
)

// RewritePlan is a rewrite that would do a table good.
type RewritePlan struct {
	Inputs  []string
	Bytes   int64   // of the inputs
	Urgency float64 // compares the plans of all tables
	Reason  string  // for people

	asked bool // by somebody
}

// PlannedRewrite is a rewrite as Compact tells of it.
type PlannedRewrite struct {
	Table  string `json:"table"`
	State  string `json:"state"` // planned, asked (it is going to be done), or running
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"` // of the files
	Reason string `json:"reason"`
	Asked  bool   `json:"asked"` // somebody asked for it, whatever its state
}

// Backlog is what Compact answers.
type Backlog struct {
	// Rewrites are the running ones, those asked for, and then what is planned.
	Rewrites []PlannedRewrite `json:"rewrites"`
	// Dropped counts the rewrites that were asked for and given up since the
	// process began, for what they were of is not there any more, or the lake
	// started again from the head: who asked may ask anew.
	Dropped int64 `json:"dropped"`
	// Failures are the errors of rewrites that were asked for last.
	Failures []string `json:"failures,omitempty"`
}

// Compaction is what rewrites are about in one table.
type Compaction struct {
	PlannedRewrites int   `json:"planned_rewrites"`
	PlannedFiles    int   `json:"planned_files"` // of the planned rewrites' inputs
	PlannedBytes    int64 `json:"planned_bytes"`
	RunningFiles    int   `json:"running_files"`
	RunningBytes    int64 `json:"running_bytes"`
	// Since the process began: what landed in data files, and what rewrites made.
	WrittenBytes   int64 `json:"written_bytes"`
	RewrittenBytes int64 `json:"rewritten_bytes"`
	RewrittenRows  int64 `json:"rewritten_rows"`
}

// WriteAmplification is how many bytes of data files were written for each that
// landed; 0 if none did.
func (c Compaction) WriteAmplification() float64 {
	if c.WrittenBytes == 0 {
		return 0
	}
	return float64(c.WrittenBytes+c.RewrittenBytes) / float64(c.WrittenBytes)
}

// ErrNoTable: there is no such table, or it is not followed at present.
var ErrNoTable = errors.New("there is no such table that is followed at present")

// pace gives rewrites their share of a processor.
func (s *session) pace() {
	share, behind := ShareBeside, s.behind()
	s.late = behind > 0
	yielding := s.late || s.loading
	switch {
	case slices.ContainsFunc(s.rewrites, func(r *rewrite) bool { return r.asked }):
		share, yielding = ShareAlone, false
	case yielding && s.queued:
		share = ShareBeside
	case yielding:
		share = ShareBehind
	case s.pulse() == idlePulse, s.queued:
		share = ShareAlone
	}
	s.o.Pacer.Share(share)
	s.share = share
	if len(s.rewrites) == 0 || yielding == s.yielding {
		return
	}
	s.yielding = yielding
	if yielding {
		s.log.Info("rewrites yield to the stream", "behind", behind, "loading", s.loading, "cpu_percent", share)
	} else {
		s.log.Info("rewrites have their share again", "cpu_percent", share)
	}
}

// planned is what there is to rewrite of a table: what can be begun now, or as
// it was when its files last changed.
func (s *session) planned(m *member, now bool) []RewritePlan {
	if !m.compactable() {
		m.plans, m.plannedOf = nil, 0
		return nil
	}
	snapshot := m.table.store.Footprint().SnapshotID
	if snapshot == m.plannedOf && s.o.Now().Sub(m.plannedAt) < planAgain && (len(m.plans) == 0 || !now) {
		return m.plans
	}
	files, all := m.table.rewritable(s.o.Now())
	m.plans, m.plannedAt, m.plannedOf = s.o.Plan(files), s.o.Now(), 0
	if all {
		m.plannedOf = snapshot
	}
	return m.plans
}

// compactable says whether a table's files may be rewritten.
func (m *member) compactable() bool {
	return m.table != nil && m.state == Streaming && !m.unseen
}

// compact begins a rewrite if there is room for one and a table would gain by it.
func (s *session) compact() {
	if s.o.Plan == nil || s.stopping {
		return
	}
	var best RewritePlan
	var of *member
	queued := false
	for _, m := range s.sorted() {
		room := len(s.rewrites) < rewritesMax && !s.o.Now().Before(m.rewriteAt)
		plans := s.planned(m, room && s.o.Compact)
		queued = queued || len(plans) > 0 && s.o.Compact && len(s.rewrites) > 0
		if !room {
			continue
		}
		if !s.o.Compact {
			plans = nil
		}
		for _, p := range slices.Concat(s.nextAsked(m), plans) {
			// One long one at a time.
			if p.Bytes > smallRewrite && slices.ContainsFunc(s.rewrites, func(r *rewrite) bool { return !r.small }) {
				continue
			}
			if of == nil || p.Urgency > best.Urgency {
				best, of = p, m
			}
			break
		}
	}
	s.queued = queued && of == nil
	if of != nil {
		s.rewrite(of, best)
	}
}

// nextAsked is the next rewrite that was asked for and can still be done.
func (s *session) nextAsked(m *member) []RewritePlan {
	for len(m.asked) > 0 {
		if m.compactable() {
			files, _ := m.table.rewritable(time.Time{})
			free := func(path string) bool {
				return slices.ContainsFunc(files, func(f LiveFile) bool { return f.Path == path && !f.Busy })
			}
			if !slices.ContainsFunc(m.asked[0].Inputs, func(path string) bool { return !free(path) }) {
				return m.asked[:1:1]
			}
		}
		s.dropped.Add(1)
		m.asked = m.asked[1:]
	}
	return nil
}

// dropAsked counts what was asked for and the session leaves undone.
func (s *session) dropAsked() {
	for _, m := range s.members {
		s.dropped.Add(int64(len(m.asked)))
	}
	for _, r := range slices.Concat(s.rewrites, s.installed) {
		s.dropIf(r.asked)
	}
}

func (s *session) dropIf(asked bool) {
	if asked {
		s.dropped.Add(1)
	}
}

// landed forgets the rewrites that are published with an epoch.
func (s *session) landed(epoch uint64) {
	s.installed = slices.DeleteFunc(s.installed, func(r *rewrite) bool {
		gone := r.table.abandoned || r.member.table != r.table
		s.dropIf(gone && r.asked)
		return gone || r.epoch <= epoch
	})
}

// backlog answers a request: what would be rewritten of these tables (none: all
// of them) if nothing more came. If it is to be done it is, next and in full
// speed.
func (s *session) backlog(tables []string, run bool) (Backlog, error) {
	out := Backlog{Rewrites: []PlannedRewrite{}, Dropped: s.dropped.Load()}
	if s.o.Plan == nil {
		return out, nil
	}
	var of []*member
	for _, m := range s.sorted() {
		if len(tables) == 0 && m.table != nil || slices.Contains(tables, m.ident.String()) {
			of = append(of, m)
		}
	}
	for _, name := range tables {
		if !slices.ContainsFunc(of, func(m *member) bool { return m.ident.String() == name && m.compactable() }) {
			return out, fmt.Errorf("%s: %w", name, ErrNoTable)
		}
	}
	add := func(m *member, state string, asked bool, files int, bytes int64, reason string) {
		out.Rewrites = append(out.Rewrites, PlannedRewrite{Table: m.ident.String(), State: state, Files: files, Bytes: bytes, Reason: reason, Asked: asked})
	}
	for _, r := range slices.Concat(s.rewrites, s.installed) {
		if slices.Contains(of, r.member) {
			add(r.member, "running", r.asked, len(r.inputs), r.bytes, r.reason)
		}
	}
	var plans [][]RewritePlan
	for _, m := range of {
		if run {
			m.askedErr, m.rewriteAt = nil, time.Time{}
			m.asked = s.everything(m)
		}
		if m.askedErr != nil {
			out.Failures = append(out.Failures, fmt.Sprintf("%s: %v", m.ident, m.askedErr))
		}
		for _, p := range m.asked {
			add(m, "asked", true, len(p.Inputs), p.Bytes, p.Reason)
		}
		if len(m.asked) == 0 {
			plans = append(plans, s.everything(m))
		} else {
			plans = append(plans, nil)
		}
	}
	for i, m := range of {
		for _, p := range plans[i] {
			add(m, "planned", false, len(p.Inputs), p.Bytes, p.Reason)
		}
	}
	return out, nil
}

// everything is what there is to rewrite of a table into which no more files
// come, so that nothing dead is left. It goes before all that is planned.
func (s *session) everything(m *member) []RewritePlan {
	if !m.compactable() {
		return nil
	}
	files, _ := m.table.rewritable(s.o.Now())
	for i := range files {
		files[i].Young, files[i].Asked = false, true
	}
	plans := s.o.Plan(files)
	for i := range plans {
		plans[i].Urgency, plans[i].asked = math.Inf(1), true
	}
	return plans
}

// compaction tells of a table's rewrites.
func (s *session) compaction(m *member) Compaction {
	c := *s.tally(m.ident)
	for _, p := range m.plans {
		c.PlannedRewrites++
		c.PlannedFiles += len(p.Inputs)
		c.PlannedBytes += p.Bytes
	}
	for _, r := range s.rewrites {
		if r.member == m {
			c.RunningFiles += len(r.inputs)
			c.RunningBytes += r.bytes
		}
	}
	return c
}

// tally is what has been written of a table since the process began.
func (l *Lake) tally(id Ident) *Compaction {
	c := l.written[id]
	if c == nil {
		c = &Compaction{}
		l.written[id] = c
	}
	return c
}

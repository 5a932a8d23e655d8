package lake

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"

	"firn/lake/index"
)

// LiveFile is a data file as a planner of rewrites sees it.
type LiveFile struct {
	Path  string
	Bytes int64
	Rows  int64 // as written
	Dead  int64
	Young bool // it landed a short while ago
}

// RewritePlan is a rewrite that would do a table good.
type RewritePlan struct {
	Inputs  []string
	Bytes   int64   // of the inputs
	Urgency float64 // compares the plans of all tables
	Reason  string  // for people
}

const (
	// youngFor is how long a file counts as one that landed a short while ago.
	youngFor = 10 * time.Minute
	// smallRewrite is the input of a rewrite that may go beside a long one, so
	// that new files don't pile up meanwhile.
	smallRewrite = 16 << 20
	rewritesMax  = 2
	// rewriteRetry is how long a table is let be after one of its rewrites failed.
	rewriteRetry = time.Minute
	// relocationRows is how many rows the owner finds again in one turn, and
	// mergedRows how many it merges into the index at a time.
	relocationRows = 8 << 10
	mergedRows     = 256 << 10
)

// rewrite is one that runs beside the owner. Its inputs live on meanwhile: rows
// die in them, and they themselves may.
type rewrite struct {
	member *member
	table  *Table
	inputs []*dataFile
	small  bool
	reason string
	began  time.Time
}

type rewriteResult struct {
	*rewrite
	out *Rewritten
	err error
}

// compact begins a rewrite if there is room for one and a table would gain by it.
func (s *session) compact() {
	if s.o.Plan == nil || s.stopping || len(s.rewrites) >= rewritesMax {
		return
	}
	var best RewritePlan
	var of *member
	for _, m := range s.sorted() {
		if m.table == nil || m.state != Streaming || m.unseen || time.Now().Before(m.rewriteAt) {
			continue
		}
		for _, p := range s.o.Plan(m.table.rewritable()) {
			// One long one at a time.
			if len(s.rewrites) > 0 && p.Bytes > smallRewrite && slices.ContainsFunc(s.rewrites, func(r *rewrite) bool { return !r.small }) {
				continue
			}
			if of == nil || p.Urgency > best.Urgency {
				best, of = p, m
			}
			break
		}
	}
	if of != nil {
		s.rewrite(of, best)
	}
}

// rewritable lists the published files that no rewrite is at work on.
func (t *Table) rewritable() []LiveFile {
	byPath := make(map[string]*dataFile, len(t.files))
	for _, f := range t.files {
		byPath[f.path] = f
	}
	var out []LiveFile
	for _, f := range t.store.Files() {
		d := byPath[f.Path]
		if d == nil || d.enc != nil || d.rewriting || d.partial {
			continue
		}
		l := LiveFile{Path: f.Path, Bytes: f.Bytes, Rows: f.Rows, Young: time.Since(d.born) < youngFor}
		if d.dead != nil {
			l.Dead = int64(d.dead.GetCardinality())
		}
		out = append(out, l)
	}
	return out
}

// rewrite begins what was planned. The rows that are dead now are left out.
func (s *session) rewrite(m *member, p RewritePlan) {
	r := &rewrite{member: m, table: m.table, small: p.Bytes <= smallRewrite, reason: p.Reason, began: time.Now()}
	var inputs []RewriteInput
	for _, f := range m.table.files {
		if slices.Contains(p.Inputs, f.path) {
			r.inputs = append(r.inputs, f)
		}
	}
	// In the order in which they came: rows keep it.
	slices.SortFunc(r.inputs, func(a, b *dataFile) int { return int(int64(a.no) - int64(b.no)) })
	for _, f := range r.inputs {
		f.rewriting = true
		in := RewriteInput{Path: f.path}
		if f.dead != nil {
			in.Dead = f.dead.Clone()
		}
		inputs = append(inputs, in)
	}
	s.rewrites = append(s.rewrites, r)
	store := m.table.store
	s.log.Debug("rewriting data files", "table", m.ident.String(), "files", len(inputs), "bytes", p.Bytes, "because", p.Reason)
	s.group.Go(func() error {
		s.o.Fail("in-rewrite")
		out, err := store.Rewrite(s.ctx, inputs)
		s.o.Fail("after-rewrite")
		select {
		case s.rewritten <- rewriteResult{r, out, err}:
		case <-s.ctx.Done():
		}
		return nil
	})
}

// rewriteDone makes a rewrite part of the open epoch.
func (s *session) rewriteDone(r rewriteResult) {
	s.rewrites = slices.DeleteFunc(s.rewrites, func(x *rewrite) bool { return x == r.rewrite })
	for _, f := range r.inputs {
		f.rewriting = false
	}
	if r.member.table != r.table || r.table.abandoned {
		return // what it rewrote is not followed any more
	}
	if r.err != nil {
		if s.ctx.Err() != nil || errors.Is(r.err, ErrInputGone) {
			return // TRUNCATE was faster
		}
		r.member.rewriteAt = time.Now().Add(rewriteRetry)
		s.counters.Errors.Add(1)
		level := s.log.Warn
		if errors.Is(r.err, ErrRowsChanged) {
			level = s.log.Error
		}
		level("rewrite data files; they stay as they are, and it is tried again later", "table", r.member.ident.String(), "after", rewriteRetry, "err", r.err)
		return
	}
	if !r.table.install(r.inputs, r.out) {
		return
	}
	if s.dirtyAt.IsZero() {
		s.dirtyAt = time.Now()
	}
	s.counters.Rewrites.Add(1)
	s.counters.RewrittenFiles.Add(int64(len(r.inputs)))
	if o := r.out.Output; o != nil {
		s.counters.RewrittenRows.Add(o.Rows)
		s.counters.RewrittenBytes.Add(o.Bytes)
	}
	s.log.Info("data files rewritten", "table", r.member.ident.String(), "files", len(r.inputs), "because", r.reason, "took", time.Since(r.began).Round(time.Millisecond))
	s.o.Fail("after-install")
}

// moved is where the rows of a rewritten file are, for look-ups by an index that
// still has them at their old places.
type moved struct {
	Moved
	to uint32 // number of the output; 0: nothing was carried over
}

// install puts a rewrite's output in the place of its inputs. Rows that have died
// since it began are dead in the output, and so are all of an input that is gone
// (PROTOCOL §21). false: nothing of the inputs is left to be replaced.
func (t *Table) install(inputs []*dataFile, r *Rewritten) bool {
	if !slices.ContainsFunc(inputs, func(f *dataFile) bool { return t.files[f.no] == f }) {
		return false
	}
	idle := t.epoch == nil
	e := t.touch()
	if idle {
		e.kind = "rewrite"
	}
	var out *dataFile
	dead := roaring.New()
	if r.Output != nil {
		out = &dataFile{no: t.nextFile(), path: r.Output.Path, rows: uint32(r.Output.Rows), born: time.Now(), partial: t.index != nil}
	}
	for i, f := range inputs {
		m := r.Moved[i]
		if t.files[f.no] != f {
			dead.Or(m.All())
			continue
		}
		if f.dead != nil {
			late := f.dead
			if m.Dead != nil {
				late = roaring.AndNot(f.dead, m.Dead)
			}
			dead.Or(m.Positions(late))
		}
		delete(t.files, f.no)
		if t.index != nil {
			t.moved[f.no] = &moved{Moved: m}
			if out != nil {
				t.moved[f.no].to = out.no
			}
		}
	}
	e.rewrites = append(e.rewrites, r)
	if out == nil {
		return true
	}
	t.files[out.no] = out
	e.outputs = append(e.outputs, out)
	if !dead.IsEmpty() {
		out.dead = dead
		e.dead[out] = dead.Clone()
	}
	return true
}

// follow is where a row is now that was at loc; File is 0 if it was not carried
// over.
func (t *Table) follow(loc index.Loc) index.Loc {
	for len(t.moved) > 0 {
		m := t.moved[loc.File]
		if m == nil {
			return loc
		}
		pos, ok := m.Position(loc.Pos)
		if !ok {
			return index.Loc{}
		}
		loc = index.Loc{File: m.to, Pos: pos}
	}
	return loc
}

// forget drops what is known of rewritten files that the index names no more, now
// that the places of all their rows are to be merged into it.
func (t *Table) forget(settled []*dataFile) {
	for _, out := range settled {
		out.partial = false
		for no, m := range t.moved {
			if m.to == out.no || m.to == 0 {
				delete(t.moved, no)
			}
		}
	}
}

// relocation is some rows of an output, to be found again there.
type relocation struct {
	table *Table
	out   *dataFile
	first uint32 // position of the first key
	keys  []index.Key
	known []bool // false: the row was dead already
	last  bool
	done  chan struct{} // closed when the owner has taken them
}

// relocateAll begins to tell the index the new places of rows in the outputs of
// a published epoch, by reading their keys: as many as were rewritten, however
// large the table.
func (s *session) relocateAll(done *sealed) {
	t := done.table
	if t.index == nil || t.abandoned {
		return
	}
	for _, out := range done.epoch.outputs {
		dead := roaring.New()
		if out.dead != nil {
			dead = out.dead.Clone()
		}
		key, fields, path, store := newRowKey(t.layout), t.layout.fields(t.layout.keyColumns()), out.path, t.store
		s.group.Go(func() error {
			err := s.readRelocations(t, out, key, fields, path, store, dead)
			if err == nil || s.ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read keys of %s: %w", path, err)
		})
	}
}

func (s *session) readRelocations(t *Table, out *dataFile, key *rowKey, fields []int, path string, store TableStore, dead *roaring.Bitmap) error {
	send := func(r relocation) error {
		r.table, r.out, r.done = t, out, make(chan struct{})
		select {
		case s.relocations <- r:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		select {
		case <-r.done:
			return nil
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	keys, known := make([]index.Key, 0, relocationRows), make([]bool, 0, relocationRows)
	err := store.Read(s.ctx, path, fields, nil, func(first int64, rec arrow.RecordBatch) error {
		cols := rec.Columns()
		for i := range int(rec.NumRows()) {
			k, live := index.Key{}, !dead.Contains(uint32(first)+uint32(i))
			if live {
				var err error
				if k, err = key.row(cols, i); err != nil {
					return fmt.Errorf("row %d: %w", first+int64(i), err)
				}
			}
			keys, known = append(keys, k), append(known, live)
			if len(keys) < relocationRows && i+1 < int(rec.NumRows()) {
				continue
			}
			if err := send(relocation{first: uint32(first) + uint32(i+1-len(keys)), keys: keys, known: known}); err != nil {
				return err
			}
			keys, known = keys[:0], known[:0]
		}
		return nil
	})
	if err != nil {
		return err
	}
	return send(relocation{last: true})
}

// relocate gives rows their new places in the index, those that are still where
// the rewrite put them.
func (s *session) relocate(r relocation) error {
	t, out := r.table, r.out
	if t.abandoned || t.index == nil || t.files[out.no] != out {
		close(r.done) // truncated, say
		return nil
	}
	s.o.Fail("in-relocate")
	for i, k := range r.keys {
		to := index.Loc{File: out.no, Pos: r.first + uint32(i)}
		if !r.known[i] || out.isDead(to.Pos) {
			continue
		}
		if err := t.relocate(k, to); err != nil {
			return fmt.Errorf("relocate rows of %s: %w", t.Ident, err)
		}
		t.relocated++
	}
	if r.last {
		t.settled = append(t.settled, out)
	}
	if !r.last && t.relocated < mergedRows {
		close(r.done)
		return nil
	}
	t.held = append(t.held, r.done)
	return s.mergeIdle(t)
}

// mergeIdle merges what has been relocated where no epoch will.
func (s *session) mergeIdle(t *Table) error {
	if t.epoch != nil || len(t.held) == 0 || s.committing != nil && slices.ContainsFunc(s.committing.tables, func(x *sealed) bool { return x.table == t }) {
		return nil
	}
	settled, held := t.settled, t.held
	t.settled, t.held, t.relocated = nil, nil, 0
	if err := t.index.Seal(); err != nil {
		return err
	}
	return t.merge(max(s.committedEpoch, t.index.State().N), t.index.State().Snapshot, settled, held)
}

func (t *Table) relocate(k index.Key, to index.Loc) error {
	var was index.Loc
	there := func(l index.Loc) bool { return !l.Virtual() && l != to && t.follow(l) == to }
	if !t.whole {
		l, ok := t.index.Get(k)
		if !ok || !there(l) {
			return nil
		}
		was = l
	} else {
		t.index.All(k, func(l index.Loc) bool {
			if there(l) {
				was = l
			}
			return was.File == 0
		})
		if was.File == 0 {
			return nil
		}
	}
	if err := t.index.Remove(k, was); err != nil {
		return err
	}
	return t.index.Put(k, to)
}

package lake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
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
	// Resting: none of its rows has died for a long while.
	Resting bool
	// Asked: somebody wants nothing dead left in it.
	Asked bool
	// Unsorted: a rewrite would put its rows in the table's sort order.
	Unsorted bool
	// Busy: a rewrite is at work on it.
	Busy bool
	// Partition is the same for files that may be rewritten into one.
	Partition string
}

const (
	// youngFor is how long a file counts as one that landed a short while ago.
	youngFor = 10 * time.Minute
	// restingAfter is when a file rests in which no row dies any more.
	restingAfter = time.Hour
	// smallRewrite is the input of a rewrite that may go beside a long one, so
	// that new files don't pile up meanwhile.
	smallRewrite = 16 << 20
	rewritesMax  = 2
	// rewriteRetry is how long a table is let be after one of its rewrites failed;
	// twice as long each time, up to rewriteRetryMax.
	rewriteRetry    = time.Minute
	rewriteRetryMax = time.Hour
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
	bytes  int64 // of the inputs
	small  bool
	asked  bool // by somebody
	reason string
	began  time.Time
	epoch  uint64 // it is published with, once installed
}

type rewriteResult struct {
	*rewrite
	out *Rewritten
	err error
}

// rewritable lists the published files, but for those that a rewrite has just
// made or used up; all says that there are none of these, and that no rewrite is
// at work on any.
func (t *Table) rewritable(now time.Time) (files []LiveFile, all bool) {
	byPath := make(map[string]*dataFile, len(t.files))
	for _, f := range t.files {
		byPath[f.path] = f
	}
	all = true
	for _, f := range t.store.Files() {
		d := byPath[f.Path]
		if d == nil || d.enc != nil || d.partial {
			all = false
			continue
		}
		all = all && !d.rewriting
		l := LiveFile{Path: f.Path, Bytes: f.Bytes, Rows: f.Rows, Partition: f.Partition, Young: now.Sub(d.born) < youngFor, Unsorted: f.Unsorted, Busy: d.rewriting}
		if d.dead != nil {
			l.Dead = int64(d.dead.GetCardinality())
		}
		// worn is of what is published.
		l.Resting = now.Sub(d.worn) >= restingAfter && (l.Dead == 0 || f.Dead != nil && l.Dead == int64(f.Dead.GetCardinality()))
		files = append(files, l)
	}
	return files, all
}

// rewrite begins what was planned. The rows that are dead now are left out.
func (s *session) rewrite(m *member, p RewritePlan) {
	r := &rewrite{member: m, table: m.table, bytes: p.Bytes, small: p.Bytes <= smallRewrite, asked: p.asked, reason: p.Reason, began: time.Now()}
	m.plannedOf = 0 // the plan is not for the files that are left
	if p.asked {
		m.asked = m.asked[1:]
	}
	var inputs []RewriteInput
	for _, f := range m.table.files {
		if slices.Contains(p.Inputs, f.path) {
			r.inputs = append(r.inputs, f)
		}
	}
	// In the order in which they came: rows keep it, or those that are equal do.
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
	r.member.plannedOf = 0
	if r.member.table != r.table || r.table.abandoned {
		s.dropIf(r.asked)
		return // what it rewrote is not followed any more
	}
	if r.err != nil {
		if s.ctx.Err() != nil || errors.Is(r.err, ErrInputGone) {
			s.dropIf(r.asked)
			return // TRUNCATE was faster
		}
		wait := min(rewriteRetry<<min(r.member.rewriteFails, 10), rewriteRetryMax)
		r.member.rewriteFails++
		if r.asked {
			r.member.asked, r.member.askedErr = nil, r.err
		}
		r.member.rewriteAt = s.o.Now().Add(wait)
		s.counters.Errors.Add(1)
		level := s.log.Warn
		if errors.Is(r.err, ErrRowsChanged) {
			level = s.log.Error
		}
		level("rewrite data files; they stay as they are, and it is tried again later", "table", r.member.ident.String(), "after", wait, "err", r.err)
		return
	}
	r.member.rewriteFails = 0
	if !r.table.install(r.inputs, r.out, s.o.Now()) {
		s.dropIf(r.asked)
		return
	}
	r.epoch = s.epochNo + 1
	s.installed = append(s.installed, r.rewrite)
	if s.dirtyAt.IsZero() {
		s.dirtyAt = time.Now()
	}
	s.counters.Rewrites.Add(1)
	s.counters.RewrittenFiles.Add(int64(len(r.inputs)))
	if o := r.out.Output; o != nil {
		s.counters.RewrittenRows.Add(o.Rows)
		s.counters.RewrittenBytes.Add(o.Bytes)
		c := s.tally(r.member.ident)
		c.RewrittenRows += o.Rows
		c.RewrittenBytes += o.Bytes
	}
	s.log.Info("data files rewritten", "table", r.member.ident.String(), "files", len(r.inputs), "because", r.reason, "took", time.Since(r.began).Round(time.Millisecond))
	s.o.Fail("after-install")
}

// moved is where the rows of a rewritten file are, for look-ups by an index that
// still has them at their old places.
type moved struct {
	Moved
	to uint32 // number of the output
}

// install puts a rewrite's output in the place of its inputs. Rows that have died
// since it began are dead in the output, and so are all of an input that is gone
// (PROTOCOL §21). false: nothing of the inputs is left to be replaced.
func (t *Table) install(inputs []*dataFile, r *Rewritten, now time.Time) bool {
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
		out = &dataFile{no: t.nextFile(), path: r.Output.Path, rows: uint32(r.Output.Rows), born: now, worn: now, partial: t.index != nil}
	}
	var origins []origin
	for i, f := range inputs {
		m := r.Moved[i]
		origins = append(origins, origin{m, f.no})
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
		if t.index != nil && out != nil {
			t.moved[f.no] = &moved{m, out.no}
		}
	}
	e.rewrites = append(e.rewrites, r)
	if out == nil {
		return true
	}
	t.files[out.no] = out
	e.outputs = append(e.outputs, out)
	e.origins = append(e.origins, origins)
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
			if m.to == out.no {
				delete(t.moved, no)
			}
		}
	}
}

// relocation is some rows of an output, to be found again there.
type relocation struct {
	table *Table
	out   *dataFile
	first uint32      // position of the first key
	keys  []index.Key // of rows one after the other
	was   []index.Loc // their places until now; File 0: the row was dead already
	last  bool
	gone  *atomic.Bool  // set when nothing is to be found in the output any more
	done  chan struct{} // closed when the owner has taken them
}

// errOutputGone: the output that was being read is no longer one of the table's files.
var errOutputGone = errors.New("the file is gone")

// relocateAll begins to tell the index the new places of rows in the outputs of
// a published epoch, by reading their keys: as many as were rewritten, however
// large the table.
func (s *session) relocateAll(done *sealed) {
	t := done.table
	if t.index == nil || t.abandoned {
		return
	}
	for i, out := range done.epoch.outputs {
		r := &relocator{session: s, table: t, out: out, store: t.store, dead: roaring.New(), from: done.epoch.origins[i],
			key: newRowKey(done.reads), fields: done.reads.fields(done.reads.keyColumns())}
		if out.dead != nil {
			r.dead = out.dead.Clone()
		}
		s.group.Go(func() error {
			// Without it rows are found through their old places, until a start
			// reads the keys.
			if err := r.run(s.ctx); err != nil && s.ctx.Err() == nil && !errors.Is(err, errOutputGone) {
				s.log.Warn("read the keys of a rewritten file", "table", t.Ident.String(), "file", r.out.path, "err", err)
			}
			return nil
		})
	}
}

// origin is an input of a rewrite, by the index's number for it.
type origin struct {
	Moved
	no uint32
}

// relocator reads the keys of one output beside the owner.
type relocator struct {
	session *session
	table   *Table // handed on, not looked into
	out     *dataFile
	store   TableStore
	key     *rowKey
	fields  []int
	dead    *roaring.Bitmap // in out, when it began
	from    []origin        // in the order of their rows
	next    uint32          // row of from[0] that the next row of out was, or one before it
	sorted  []index.Loc     // where each row of out was, if from does not tell
}

func (r *relocator) run(ctx context.Context) error {
	r.sort()
	keys, was := make([]index.Key, 0, relocationRows), make([]index.Loc, 0, relocationRows)
	err := r.store.Read(ctx, r.out.path, r.fields, nil, func(first int64, rec arrow.RecordBatch) error {
		cols := rec.Columns()
		for i := range int(rec.NumRows()) {
			pos := uint32(first) + uint32(i)
			k, l, err := index.Key{}, r.origin(pos), error(nil)
			if r.dead.Contains(pos) {
				l = index.Loc{}
			} else if k, err = r.key.row(cols, i); err != nil {
				return fmt.Errorf("row %d: %w", pos, err)
			}
			keys, was = append(keys, k), append(was, l)
			if len(keys) < relocationRows && i+1 < int(rec.NumRows()) {
				continue
			}
			if err := r.send(ctx, relocation{first: pos + 1 - uint32(len(keys)), keys: keys, was: was}); err != nil {
				return err
			}
			keys, was = keys[:0], was[:0]
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.send(ctx, relocation{last: true})
}

// sort lists where the rows of a sorted output were.
func (r *relocator) sort() {
	if len(r.from) == 0 || r.from[0].Order == nil {
		return
	}
	order := r.from[0].Order
	was := make([]index.Loc, len(order))
	for _, pos := range order {
		was[pos] = r.number()
	}
	r.sorted = was
}

// origin is where the row at pos in the output was before. It is asked of each
// in turn.
func (r *relocator) origin(pos uint32) index.Loc {
	if r.sorted != nil {
		return r.sorted[pos]
	}
	return r.number()
}

// number is where the next of the rows that were carried over was before.
func (r *relocator) number() index.Loc {
	for len(r.from) > 0 {
		f := &r.from[0]
		for f.Dead != nil && f.Dead.Contains(r.next) {
			r.next++
		}
		if int64(r.next) < f.Rows {
			r.next++
			return index.Loc{File: f.no, Pos: r.next - 1}
		}
		r.from, r.next = r.from[1:], 0
	}
	return index.Loc{}
}

// send hands rows over and waits until the owner has taken them.
func (r *relocator) send(ctx context.Context, rows relocation) error {
	var gone atomic.Bool
	rows.table, rows.out, rows.gone, rows.done = r.table, r.out, &gone, make(chan struct{})
	select {
	case r.session.relocations <- rows:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-rows.done:
		if gone.Load() {
			return errOutputGone
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// relocate gives rows their new places in the index, those that are still where
// the rewrite put them.
func (s *session) relocate(r relocation) error {
	t, out := r.table, r.out
	if t.abandoned || t.index == nil || t.files[out.no] != out {
		r.gone.Store(true) // truncated, say
		close(r.done)
		return nil
	}
	s.o.Fail("in-relocate")
	for i, k := range r.keys {
		to := index.Loc{File: out.no, Pos: r.first + uint32(i)}
		if r.was[i].File == 0 || out.isDead(to.Pos) {
			continue
		}
		if err := t.relocate(k, r.was[i], to); err != nil {
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

// release lets go on who waits for a merge.
func release(held []chan struct{}) {
	for _, h := range held {
		close(h)
	}
}

// mergeIdle merges what has been relocated where no epoch will.
func (s *session) mergeIdle(t *Table) error {
	if t.abandoned || t.epoch != nil || len(t.held) == 0 || s.committing != nil && slices.ContainsFunc(s.committing.tables, func(x *sealed) bool { return x.table == t }) {
		return nil
	}
	settled, held := t.settled, t.held
	t.settled, t.held, t.relocated = nil, nil, 0
	if err := t.index.Seal(); err != nil {
		return err
	}
	return t.merge(max(s.committedEpoch, t.index.State().N), t.index.State().Snapshot, settled, held)
}

func (t *Table) relocate(k index.Key, was, to index.Loc) error {
	if !t.whole {
		if l, ok := t.index.Get(k); !ok || l != was {
			return nil
		}
	} else if err := t.index.Remove(k, was); err != nil {
		return err
	}
	return t.index.Put(k, to)
}

package lake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"firn/wal"
)

// epoch is every table at one LSN, sealed: what the committing goroutine makes
// durable while the next one fills.
//
// The order is what makes it exact. Data files, delete files, manifests and
// metadata go up first, under names nobody knows; then one step of the head
// publishes them all; only then does the index move to the new places, and only
// then is the LSN acknowledged. A kill before the step leaves objects that
// nothing names, and the changes come again; a kill after it leaves an index
// that recovery brings up to the head, and an acknowledgement that the next
// run repeats. A second record of the LSN, in the source or on local disk, was
// rejected: it could disagree with the head.
type epoch struct {
	stamp  Stamp
	tables []*sealed
	states map[Ident]TableState // that its entry makes known
	base   wal.LSN              // of the head that it follows
	upto   wal.LSN              // how far the stream had come
	exact  bool                 // somebody asked for all tables at just this position
	began  time.Time            // when its oldest change arrived
	sealed time.Time
}

// maybeCut seals and starts to commit when it is time, at a commit boundary.
func (s *session) maybeCut() error {
	if s.txn.open || s.committing != nil {
		return nil
	}
	if !s.due() {
		return s.settled()
	}
	return s.cut()
}

// due says whether there is something to publish, and no reason to wait.
func (s *session) due() bool {
	if s.dirtyAt.IsZero() && len(s.states) == 0 {
		s.cutSoon = false
		return false
	}
	return s.cutSoon || s.stopping || s.asked() || len(s.states) > 0 || time.Since(s.dirtyAt) >= s.freshness()
}

// freshness is how long a commit may wait.
func (s *session) freshness() time.Duration {
	if s.late || s.queued {
		return max(s.o.Freshness, crowded)
	}
	return s.o.Freshness
}

// asked says whether somebody waits for what has been received.
func (s *session) asked() bool {
	reached := func(r request) bool { return r.lsn <= s.streamed() }
	return slices.ContainsFunc(s.cuts, reached) || slices.ContainsFunc(s.waits, reached) && s.whole()
}

// whole says whether every table that can be followed is one of those that
// move together, as readers see them: only then are "all commits" in the lake.
func (s *session) whole() bool {
	for _, m := range s.members {
		if m.state == Loading || m.state == Behind || m.state == Streaming && (m.unseen || m.moved != nil) {
			return false
		}
	}
	return true
}

// settled does what can be done when nothing waits to be published: answer
// those who waited, and let the slot go past WAL that held nothing for us.
func (s *session) settled() error {
	clean := s.dirtyAt.IsZero()
	at := s.durable
	if clean {
		at = max(at, s.position, s.idle)
	}
	s.answer(at, clean)
	if !clean || at <= s.durable {
		return nil
	}
	if at-s.durable < s.o.AdvanceBytes && time.Since(s.advanced) < s.o.AdvanceAfter {
		return nil
	}
	return s.advance(at)
}

// answer replies to the requests that are satisfied at position at.
func (s *session) answer(at wal.LSN, clean bool) {
	keep := s.waits[:0]
	whole := len(s.waits) > 0 && s.whole()
	for _, r := range s.waits {
		if r.lsn <= at && whole {
			r.reply <- reply{lsn: at, epoch: s.epochNo}
		} else {
			keep = append(keep, r)
		}
	}
	s.waits = keep
	keep = s.cuts[:0]
	for _, r := range s.cuts {
		if clean && r.lsn <= at {
			r.reply <- reply{lsn: s.durable, epoch: s.epochNo}
		} else {
			keep = append(keep, r)
		}
	}
	s.cuts = keep
}

// advance writes an entry without tables, so that the slot never passes the
// log (PROTOCOL §2).
func (s *session) advance(at wal.LSN) error {
	err := s.o.Head.Publish(s.ctx, Publication{Stamp: Stamp{LSN: at, Epoch: s.epochNo, CommitTime: s.commit.time, XID: s.commit.xid, Source: s.source, Kind: "advance"}})
	if err != nil {
		return fmt.Errorf("advance the lake to %s: %w", at, err)
	}
	s.durable, s.sealedLSN, s.position = at, at, max(s.position, at)
	s.advanced = time.Now()
	s.counters.Advances.Add(1)
	s.acknowledge()
	return nil
}

// cutBefore makes sure that a commit whose record starts at final comes into
// an epoch after the cuts that were asked for before it.
func (s *session) cutBefore(final wal.LSN) error {
	for _, r := range s.cuts {
		if final < r.lsn {
			continue
		}
		if s.committing != nil {
			if err := s.awaitCommit(); err != nil {
				return err
			}
		}
		if !s.dirtyAt.IsZero() || len(s.states) > 0 {
			if err := s.cut(); err != nil {
				return err
			}
			if err := s.awaitCommit(); err != nil {
				return err
			}
		}
		s.answer(max(s.durable, r.lsn), true)
		return s.cutBefore(final)
	}
	return nil
}

func (s *session) awaitCommit() error {
	select {
	case err := <-s.committed:
		return s.finishCommit(err)
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// cut seals the open epoch and starts its commit.
func (s *session) cut() error {
	e := &epoch{base: s.durable, upto: s.streamed(), exact: len(s.cuts) > 0, began: s.dirtyAt, sealed: time.Now(), states: maps.Clone(s.states)}
	clear(s.states)
	s.position = max(s.position, s.durable)
	s.epochNo++
	e.stamp = Stamp{Epoch: s.epochNo, LSN: s.position, CommitTime: s.commit.time, XID: s.commit.xid, Source: s.source, Kind: "stream"}
	for _, m := range s.sorted() {
		if m.table == nil || m.state != Streaming {
			continue
		}
		t, err := m.table.seal(s.ctx)
		if err != nil {
			return fmt.Errorf("seal %s: %w", m.ident, err)
		}
		if t != nil {
			t.oid = m.oid
			e.tables = append(e.tables, t)
		}
	}
	s.dirtyAt, s.cutSoon = time.Time{}, false
	s.sealedLSN = s.position
	s.committing = e
	s.group.Go(func() error {
		s.committed <- s.commitEpoch(s.ctx, e)
		return nil
	})
	return nil
}

// commitEpoch makes a sealed epoch durable. It runs beside the owner.
func (s *session) commitEpoch(ctx context.Context, e *epoch) error {
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, t := range e.tables {
		g.Go(func() error { return t.build(gctx, e.stamp) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.counters.phase("prepare", began)
	s.o.Fail("before-upload")
	began = time.Now()
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(32)
	for _, t := range e.tables {
		g.Go(func() error { return t.next.Upload(gctx) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("upload epoch %d: %w", e.stamp.Epoch, err)
	}
	s.counters.phase("upload", began)
	s.o.Fail("after-upload")
	p := Publication{Stamp: e.stamp, States: e.states}
	for _, t := range e.tables {
		p.Moves = append(p.Moves, t.next.Move())
		if t.fresh != nil {
			if was, ok := p.States[t.ident]; ok {
				t.unsaid = &was
			}
			p.States[t.ident] = *t.fresh
		}
	}
	s.o.Fail("before-publish")
	began = time.Now()
	if err := s.publish(ctx, e, p); err != nil {
		return fmt.Errorf("publish epoch %d: %w", e.stamp.Epoch, err)
	}
	s.counters.phase("publish", began)
	s.o.Fail("after-publish")
	return nil
}

// publish makes an entry of the epoch. What it did to tables that somebody else
// has committed to meanwhile is worth nothing, for they are at other files now:
// those stay behind at the base, and the others go on without them, or commits by
// others that come often enough would hold all tables up for ever. The error is
// an ErrMoved all the same: the next session begins at the new head, and with
// what the tables left behind have missed.
func (s *session) publish(ctx context.Context, e *epoch, p Publication) error {
	var left error
	for {
		err := s.o.Head.Publish(ctx, p)
		if err == nil {
			return left
		}
		var moved *MovedError
		if e.exact || !errors.As(err, &moved) {
			return err
		}
		left = err
		for _, t := range e.tables {
			if !slices.Contains(moved.Tables, t.ident) {
				continue
			}
			p.Moves = slices.DeleteFunc(p.Moves, func(m Move) bool { return m.Table == t.ident })
			switch {
			case t.unsaid != nil:
				p.States[t.ident] = *t.unsaid
				continue
			case t.fresh != nil:
				delete(p.States, t.ident) // it is what the head says
				continue
			}
			p.States[t.ident] = TableState{OID: t.oid, LSN: e.base, State: Behind, Reason: "another client committed to it"}
		}
	}
}

// finishCommit is the owner's part after the publication.
func (s *session) finishCommit(err error) error {
	e := s.committing
	s.committing = nil
	if err != nil {
		if errors.Is(err, context.Canceled) {
			if werr := s.group.Wait(); werr != nil {
				return werr
			}
		}
		return err
	}
	began := time.Now()
	for _, t := range e.tables {
		s.o.Fail("in-merge")
		if err := t.table.published(t, e.stamp.Epoch, s.o.Now()); err != nil {
			return err
		}
		if t.fresh != nil {
			if m := s.members[t.fresh.OID]; m != nil {
				m.unseen = false
			}
		}
		for _, f := range t.change.Add {
			s.counters.FilesWritten.Add(1)
			s.counters.BytesWritten.Add(f.Bytes)
			s.tally(t.ident).WrittenBytes += f.Bytes
		}
		s.relocateAll(t)
		if err := s.mergeIdle(t.table); err != nil {
			return err
		}
	}
	s.landed(e.stamp.Epoch)
	s.o.Fail("after-merge")
	for _, t := range e.tables {
		s.unhinted[t.store] = true
	}
	s.hint()
	s.counters.phase("index", began)
	s.durable, s.committedEpoch = e.stamp.LSN, e.stamp.Epoch
	s.safe = max(s.safe, e.upto)
	s.standing(e.states)
	s.advanced = time.Now()
	s.counters.Epochs.Add(1)
	if !e.began.IsZero() {
		s.counters.phase("freshness", e.began)
	}
	s.o.Fail("before-ack")
	s.acknowledge()
	s.report() // who has waited may ask for the status next
	s.answer(s.durable, false)
	return nil
}

// hint rewrites version-hint.text of the tables that moved, for readers by
// path: best effort and beside the stream, one round at a time.
func (s *session) hint() {
	if len(s.unhinted) == 0 || !s.hinting.CompareAndSwap(false, true) {
		return
	}
	stores := slices.Collect(maps.Keys(s.unhinted))
	clear(s.unhinted)
	s.group.Go(func() error {
		defer s.hinting.Store(false)
		for _, t := range stores {
			if err := t.WriteHint(s.ctx); err != nil && s.ctx.Err() == nil {
				s.log.Warn("write version-hint.text", "err", err)
			}
		}
		return nil
	})
}

// acknowledge lets the slot go up to where a start would begin: what the lake
// holds, but for tables that the head calls behind. What is only known here, as
// that one of them has caught up, a kill forgets.
func (s *session) acknowledge() {
	at := s.durable
	for _, lsn := range s.lagging {
		at = min(at, lsn)
	}
	s.stream.Ack(at)
}

// standing notes what the head says of tables.
func (s *session) standing(states map[Ident]TableState) {
	for id, st := range states {
		if st.State == Behind && !st.Resync {
			s.lagging[id] = st.LSN
		} else {
			delete(s.lagging, id)
		}
	}
}

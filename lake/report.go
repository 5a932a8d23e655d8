package lake

import "time"

// report makes the status that others read.
func (s *session) report() { s.status.Store(s.snapshotStatus(true)) }

func (s *session) snapshotStatus(running bool) *Status {
	st := &Status{DurableLSN: s.durable, ReceivedLSN: s.streamed(), Epoch: s.committedEpoch, Running: running, CommitTime: s.commit.time,
		Rewrites: len(s.rewrites), RewriteShare: s.share}
	worked, paused := s.o.Pacer.Paced()
	st.RewriteSeconds, st.RewritePauseSeconds = worked.Seconds(), paused.Seconds()
	st.ServerLSN = max(s.lag.end(), st.ReceivedLSN)
	clean := s.dirtyAt.IsZero() && s.committing == nil && !s.txn.open
	if clean { // what has been received and held nothing for us is as good as durable
		s.safe = max(s.safe, st.ReceivedLSN)
	}
	st.DurableLSN = max(st.DurableLSN, s.safe)
	if st.ServerLSN > st.DurableLSN {
		st.LagBytes = int64(st.ServerLSN - st.DurableLSN)
	}
	switch {
	case s.committing != nil && !s.committing.began.IsZero():
		st.Freshness = time.Since(s.committing.began).Seconds()
	case !s.dirtyAt.IsZero():
		st.Freshness = time.Since(s.dirtyAt).Seconds()
	}
	// What waits in the server, or on its way.
	s.lag.forget(st.DurableLSN)
	if age := s.lag.age(st.DurableLSN, time.Now()); age >= hiddenLag {
		st.Freshness = max(st.Freshness, age.Seconds())
	}
	for _, m := range s.sorted() {
		st.Tables = append(st.Tables, s.tableStatus(m))
	}
	return st
}

func (s *session) tableStatus(m *member) TableStatus {
	t := TableStatus{Name: m.ident.String(), State: m.state, Reason: m.reason, LSN: m.position}
	if m.unseen && m.state == Streaming {
		t.State = Loading // readers don't see it yet
	}
	if m.moved != nil && m.state == Streaming {
		t.State, t.Reason = Behind, "Postgres has its rows in a new file; it is being seen whether a TRUNCATE explains that"
	}
	if p := m.progress; p != nil && m.state != Streaming {
		t.LoadRows, t.LoadTotal, t.LoadBytes = p.rows.Load(), p.total.Load(), p.bytes.Load()
	}
	if m.state == Streaming {
		t.LSN = s.durable
	}
	if m.table != nil {
		t.Rows = m.table.live
		f := m.table.store.Footprint()
		t.DataFiles, t.DeleteFiles, t.Bytes, t.SnapshotID = f.DataFiles, f.DeleteFiles, f.Bytes, f.SnapshotID
		t.Compaction = s.compaction(m)
	}
	return t
}

// accept takes a request of another goroutine.
func (s *session) accept(r request) {
	switch r.kind {
	case requestHold:
		s.held = time.Now().Add(holdMax)
		r.reply <- reply{lsn: s.position}
	case requestCut:
		s.held = time.Time{}
		if r.lsn < max(s.position, s.durable) || s.txn.open && r.lsn <= s.txn.final {
			r.reply <- reply{err: ErrLate}
			return
		}
		s.cuts = append(s.cuts, r)
		s.stream.Ping()
	case requestBacklog, requestCompact:
		b, err := s.backlog(r.tables, r.kind == requestCompact)
		r.reply <- reply{backlog: b, err: err}
	default:
		s.waits = append(s.waits, r)
		s.stream.Ping()
	}
}

// pollResult is one look at the source's catalogs.
type pollResult struct {
	Look
	no      int         // of the session's looks, from 1
	members Memberships // nil: not asked for, or not told
	err     error
}

// poll looks at the catalogs beside the owner.
func (s *session) poll() {
	if s.polling || s.stopping {
		return
	}
	s.polling = true
	s.looks++
	no := s.looks
	publish, names := !s.loading, s.published() // a load does it itself
	s.group.Go(func() error {
		r := pollResult{no: no}
		if publish {
			var err error
			if r.members, err = s.o.Source.Publish(s.ctx, names.tables, names.appended); err != nil && s.ctx.Err() == nil {
				s.log.Warn("adjust publication; trying again at the next look", "err", err)
			}
		}
		r.Look, r.err = s.o.Source.Look(s.ctx)
		s.o.Fail("after-look")
		select {
		case s.polled <- r:
		case <-s.ctx.Done():
		}
		return nil
	})
}

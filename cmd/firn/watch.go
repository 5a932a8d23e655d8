package main

import (
	"context"
	"time"

	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/wal/slot"
)

const (
	watchEvery = 2 * time.Second
	// retainedEvery spares Postgres a query that changes little.
	retainedEvery = 10 * time.Second
	// retainedWarn is the retained WAL that is warned of where Postgres has no
	// limit of its own; else half the limit is.
	retainedWarn      = 10 << 30
	retainedWarnAgain = 10 * time.Minute
)

// watch looks, beside the stream, at what firn costs others: the WAL that
// Postgres keeps for the slot, and the sessions that wait for our locks.
func (m *mirror) watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var measured, warned time.Time
	for {
		st := m.status()
		if st.Running {
			if time.Since(measured) >= retainedEvery {
				measured = time.Now()
				m.measure(ctx, &warned)
			}
			m.askWaiters(ctx, st.Tables)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *mirror) measure(ctx context.Context, warned *time.Time) {
	r, err := m.engine.Source.RetainedWAL(ctx)
	if err != nil {
		r = slot.Retained{Bytes: -1, LimitBytes: -1}
		if ctx.Err() == nil {
			m.log.Debug("measure retained WAL", "err", err) // the stream's own error says more
		}
	}
	m.mu.Lock()
	m.retained = r
	m.mu.Unlock()
	if r.Bytes < warnAt(r) || time.Since(*warned) < retainedWarnAgain {
		return
	}
	*warned = time.Now()
	limit := "no max_slot_wal_keep_size is set"
	if r.LimitBytes >= 0 {
		limit = "the slot is lost at " + listen.Size(r.LimitBytes)
	}
	m.log.Warn("Postgres keeps much WAL for firn, which is behind", "slot", m.slot, "retained", listen.Size(r.Bytes), "limit", limit)
}

func warnAt(r slot.Retained) int64 {
	if r.LimitBytes >= 0 {
		return max(1, r.LimitBytes/2)
	}
	return retainedWarn
}

// askWaiters names who waits for us: a load's snapshot keeps a lock on the
// tables that it is still to copy.
func (m *mirror) askWaiters(ctx context.Context, tables []lake.TableStatus) {
	var now []string
	loading := false
	for _, t := range tables {
		loading = loading || t.State == lake.Loading || t.State == lake.Behind
	}
	if loading {
		sessions, err := m.engine.Source.Waiters(ctx)
		if err != nil && ctx.Err() == nil {
			m.log.Debug("look for waiting sessions", "err", err)
		}
		for _, s := range sessions {
			now = append(now, s.String())
		}
	}
	m.mu.Lock()
	before := m.waiters
	m.waiters = now
	m.mu.Unlock()
	if len(now) > 0 && len(before) == 0 {
		for _, w := range now {
			m.log.Warn("a session waits for a table that is being loaded", "session", w)
		}
	}
}

package slot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"firn/wal"
)

// SlotState is a replication slot as pg_replication_slots shows it.
type SlotState struct {
	Name               string
	Plugin, Database   string
	Temporary, Active  bool
	ActivePID          int32 // 0: none
	TwoPhase           bool
	ConfirmedFlush     wal.LSN
	RestartLSN         wal.LSN // 0 once WAL it needs was removed
	WALStatus          string  // reserved, extended, unreserved, lost; empty: unknown
	InvalidationReason string  // from version 17 (16: only "conflict"); empty: valid
}

// Lost says that the slot can't be streamed from any more, and why.
func (st *SlotState) Lost() (reason string, lost bool) {
	switch {
	case st.InvalidationReason != "":
		return "it was invalidated: " + st.InvalidationReason, true
	case st.WALStatus == "lost":
		return "Postgres removed WAL that it still needed (max_slot_wal_keep_size)", true
	}
	return "", false
}

// Slot reads the state of the source's slot, nil if there is none.
func (s *Source) Slot(ctx context.Context) (*SlotState, error) {
	return s.slotState(ctx, s.o.Slot)
}

func (s *Source) slotState(ctx context.Context, name string) (*SlotState, error) {
	st := &SlotState{Name: name}
	var confirmed, restart string
	// The newer columns are read by way of jsonb, for the view differs between
	// versions.
	err := s.one(ctx, `
		SELECT coalesce(plugin, ''), coalesce(database, ''), temporary, active, coalesce(active_pid, 0), two_phase,
		       coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(restart_lsn, '0/0')::text, coalesce(wal_status, ''),
		       coalesce(to_jsonb(s) ->> 'invalidation_reason', CASE WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'conflict' END, '')
		FROM pg_replication_slots s WHERE slot_name = $1`, []any{name},
		&st.Plugin, &st.Database, &st.Temporary, &st.Active, &st.ActivePID, &st.TwoPhase,
		&confirmed, &restart, &st.WALStatus, &st.InvalidationReason)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		st.ConfirmedFlush, err = wal.ParseLSN(confirmed)
	}
	if err == nil {
		st.RestartLSN, err = wal.ParseLSN(restart)
	}
	if err != nil {
		return nil, fmt.Errorf("read slot %s: %w", name, err)
	}
	return st, nil
}

// checkSlot says whether the source's slot can be streamed from.
func (s *Source) checkSlot(ctx context.Context) (*SlotState, error) {
	st, err := s.Slot(ctx)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, fmt.Errorf("%w: %s", ErrSlotMissing, s.o.Slot)
	}
	if reason, lost := st.Lost(); lost {
		return st, fmt.Errorf("%w: %s: %s", ErrSlotLost, s.o.Slot, reason)
	}
	switch {
	case st.Plugin != "pgoutput":
		return st, fmt.Errorf("%w: %s is of plugin %q, not pgoutput", ErrSlotUnfit, s.o.Slot, st.Plugin)
	case st.Database != s.Database():
		return st, fmt.Errorf("%w: %s belongs to database %s, not %s", ErrSlotUnfit, s.o.Slot, st.Database, s.Database())
	case st.TwoPhase:
		return st, fmt.Errorf("%w: %s decodes prepared transactions (two_phase); drop it and let firn make its own", ErrSlotUnfit, s.o.Slot)
	}
	return st, nil
}

const slotRetry = 250 * time.Millisecond

// DropSlot drops a slot; one that is absent is no error. It waits SlotWait for
// one in use, then returns ErrSlotInUse.
func (s *Source) DropSlot(ctx context.Context, name string) error {
	for deadline := time.Now().Add(s.o.SlotWait); ; {
		err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, name)
			return err
		})
		switch {
		case err == nil || code(err) == "42704":
			return nil
		case code(err) != "55006":
			return fmt.Errorf("drop slot %s: %w", name, err)
		case time.Now().After(deadline):
			return fmt.Errorf("drop slot %s: %w: %w", name, ErrSlotInUse, err)
		}
		if err := sleep(ctx, slotRetry); err != nil {
			return err
		}
	}
}

// Retained is the WAL that Postgres keeps for the slot.
type Retained struct {
	Bytes      int64
	LimitBytes int64 // max_slot_wal_keep_size; -1: none is set
	SafeBytes  int64 // what may be written before the slot is in danger; -1: unlimited
}

// RetainedWAL measures it. Error: ErrSlotMissing.
func (s *Source) RetainedWAL(ctx context.Context) (Retained, error) {
	var r Retained
	err := s.one(ctx, `
		SELECT coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint,
		       CASE WHEN current_setting('max_slot_wal_keep_size') = '-1' THEN -1 ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END,
		       coalesce(safe_wal_size, -1)
		FROM pg_replication_slots WHERE slot_name = $1`, []any{s.o.Slot}, &r.Bytes, &r.LimitBytes, &r.SafeBytes)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("measure retained WAL: %w: %s", ErrSlotMissing, s.o.Slot)
	}
	if err != nil {
		return r, fmt.Errorf("measure retained WAL: %w", err)
	}
	return r, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

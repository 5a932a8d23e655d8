package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"firn/catalog"
	"firn/wal/slot"
)

// moment is one LSN, with both sides readable as they stood there.
type moment struct {
	snapshot *slot.Snapshot
	state    *catalog.State
	epoch    uint64
}

const (
	attempts = 5
	// patience is how long the temporary slot may take, within the twenty
	// seconds that a mirror holds its stream. It waits for the end of every
	// transaction that runs.
	patience = 14 * time.Second
)

// moment brings both sides to one LSN. No table is locked: one that is altered
// or truncated meanwhile is noticed by its description (see compare), where a
// lock would make its user wait.
func (v *verifier) moment(ctx context.Context) (*moment, error) {
	if v.Mirror == nil {
		return v.stopped(ctx)
	}
	var last error
	for range attempts {
		m, err := v.running(ctx)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, slot.ErrPrivilege) || errors.Is(err, slot.ErrNoSlotFree) {
			return nil, err
		}
		v.Logger.Info("no common LSN yet", "err", err)
		last = err
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrNoMoment, last)
}

// running holds the stream back, so that the LSN that the slot will be given
// still lies ahead of it, and then lets it go on to just there.
func (v *verifier) running(ctx context.Context) (_ *moment, err error) {
	if err := v.Mirror.Hold(ctx); err != nil {
		return nil, fmt.Errorf("hold the stream: %w", err)
	}
	sn, err := v.snapshot(ctx)
	if err != nil {
		// A cut that is too late lets the stream go on; that it is, is no news.
		_, _, _ = v.Mirror.Cut(ctx, 1)
		return nil, err
	}
	_, epoch, err := v.Mirror.Cut(ctx, sn.ConsistentPoint)
	if err != nil {
		sn.Close()
		return nil, fmt.Errorf("cut an epoch at %s: %w", sn.ConsistentPoint, err)
	}
	state, err := v.epoch(ctx, epoch)
	if err != nil {
		sn.Close()
		return nil, err
	}
	return &moment{snapshot: sn, state: state, epoch: epoch}, nil
}

// stopped takes the head, if Postgres has no change that it lacks.
func (v *verifier) stopped(ctx context.Context) (*moment, error) {
	st, err := v.Source.Slot(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case st == nil:
		return nil, fmt.Errorf("%w: slot %s is gone, so nobody knows what was committed since; start firn, it says what to do", ErrBehind, v.SlotName)
	case st.Active:
		return nil, fmt.Errorf("%w: a firn runs (slot %s is in use by process %d of Postgres), but did not answer: give its address by --url", ErrBehind, v.SlotName, st.ActivePID)
	}
	if why, lost := st.Lost(); lost {
		return nil, fmt.Errorf("%w: slot %s is lost (%s)", ErrBehind, v.SlotName, why)
	}
	sn, err := v.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	head, err := v.Log.Refresh(ctx)
	unread := false
	if err == nil {
		unread, err = v.Source.Unread(ctx, head.LSN, sn.ConsistentPoint)
	}
	if err == nil && unread {
		err = fmt.Errorf("%w: firn does not run, the lake is at %s, and rows have been changed since. Start firn and verify beside it, or let it catch up, stop it, and verify while nothing is written", ErrBehind, head.LSN)
	}
	if err != nil {
		sn.Close()
		return nil, err
	}
	return &moment{snapshot: sn, state: head, epoch: head.Epoch}, nil
}

// snapshot exports one by a temporary slot. Its name leaves the mirror's own
// temporary slots theirs, and lets several verify at a time.
func (v *verifier) snapshot(ctx context.Context) (*slot.Snapshot, error) {
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	name := v.SlotName + "_v" + hex.EncodeToString(b[:])
	return v.Source.CreateSlot(ctx, name, true, nil, slot.LockOptions{Patience: patience})
}

// epoch finds the catalog as it stood when the next epoch came: others may have
// committed to the lake's tables since this one, and what readers see is what is
// to be compared.
func (v *verifier) epoch(ctx context.Context, epoch uint64) (*catalog.State, error) {
	head, err := v.Log.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	if head.Epoch == epoch {
		return head, nil
	}
	for _, k := range head.Epochs() {
		if k.Epoch <= epoch {
			continue
		}
		s, err := v.Log.Entry(ctx, k.Number-1)
		if err != nil {
			return nil, fmt.Errorf("find epoch %d: %w", epoch, err)
		}
		if s.Epoch == epoch {
			return s, nil
		}
		break
	}
	return nil, fmt.Errorf("find epoch %d: the log is at %d and does not keep it", epoch, head.Epoch)
}

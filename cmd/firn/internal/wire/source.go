// Package wire fits the adapters (Postgres, epoch log, object store) to what
// the lake names as its ports.
package wire

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"firn/lake"
	"firn/wal"
	"firn/wal/slot"
)

// Source is a slot.Source as the lake wants it.
type Source struct {
	*slot.Source
	SlotName string
	Patterns []string
	Parts    int // ranges that a large table is cut into
	Logger   *slog.Logger
}

// Identify says which server this is.
func (s *Source) Identify(ctx context.Context) (lake.Identity, error) {
	id, err := s.Source.Identify(ctx)
	return lake.Identity{SystemID: id.SystemID, Timeline: id.Timeline, Database: id.Database, WALPosition: id.WALPosition}, err
}

// SwitchPoint is where the server's history left a timeline.
func (s *Source) SwitchPoint(ctx context.Context, from int32) (wal.LSN, bool, error) {
	id, err := s.Source.Identify(ctx)
	if err != nil {
		return 0, false, err
	}
	history, err := s.TimelineHistory(ctx, id.Timeline)
	if err != nil {
		return 0, false, err
	}
	for _, h := range history {
		if h.Timeline == from {
			return h.LSN, true, nil
		}
	}
	return 0, false, nil
}

// Tables describes the tables that the patterns match.
func (s *Source) Tables(ctx context.Context) ([]wal.Table, error) {
	return s.Source.Tables(ctx, s.Patterns)
}

// Look looks at the tables that the patterns match.
func (s *Source) Look(ctx context.Context) (lake.Look, error) {
	seen, err := s.Source.Look(ctx, s.Patterns)
	return lake.Look(seen), err
}

// Describe tells one table as it is once the transaction after is visible.
func (s *Source) Describe(ctx context.Context, oid, after uint32) (*wal.Table, error) {
	t, err := s.Source.Describe(ctx, oid, after)
	if errors.Is(err, slot.ErrHidden) {
		return nil, errors.Join(lake.ErrHidden, err)
	}
	return t, err
}

// Publish makes the two publications list exactly these tables.
func (s *Source) Publish(ctx context.Context, tables, appended []wal.TableName) (lake.Memberships, error) {
	added, removed, err := s.SyncPublication(ctx, tables)
	if err != nil {
		return nil, err
	}
	more, fewer, err := s.SyncAppendPublication(ctx, appended)
	if n, m := len(added)+len(more), len(removed)+len(fewer); err == nil && n+m > 0 {
		s.Logger.Info("publication adjusted", "added", n, "removed", m)
	}
	if err != nil {
		return nil, err
	}
	return s.Memberships(ctx)
}

// Slot tells the state of the slot.
func (s *Source) Slot(ctx context.Context) (*lake.SlotState, error) {
	st, err := s.Source.Slot(ctx)
	if err != nil || st == nil {
		return nil, err
	}
	out := &lake.SlotState{ConfirmedFlush: st.ConfirmedFlush}
	if why, lost := st.Lost(); lost {
		out.Lost = why
	}
	return out, nil
}

// DropSlot drops the slot.
func (s *Source) DropSlot(ctx context.Context) error { return s.Source.DropSlot(ctx, s.SlotName) }

// Snapshot makes the slot, or a temporary one, and exports its snapshot.
func (s *Source) Snapshot(ctx context.Context, permanent bool, tables []wal.TableName) (lake.Snapshot, error) {
	name := s.SlotName
	if !permanent {
		name += "_load"
	}
	sn, err := s.CreateSlot(ctx, name, !permanent, tables, slot.LockOptions{})
	if err != nil {
		return nil, err
	}
	return &exported{src: s, sn: sn}, nil
}

// Stream starts the slot's stream.
func (s *Source) Stream(ctx context.Context, start wal.LSN, inProgress bool) (lake.Stream, error) {
	st, err := s.StartStream(ctx, start, slot.StreamOptions{Streaming: inProgress})
	if errors.Is(err, slot.ErrSlotInUse) {
		return nil, errors.Join(lake.ErrSlotInUse, err)
	}
	if err != nil {
		return nil, err
	}
	return st, nil
}

type exported struct {
	src   *Source
	sn    *slot.Snapshot
	table *slot.Copier // of the table that is open; nil: none
}

func (s *exported) Point() wal.LSN { return s.sn.ConsistentPoint }

func (s *exported) Describe(ctx context.Context, oid uint32) (*wal.Table, error) {
	return s.src.Describe(ctx, oid, 0)
}

func (s *exported) Parts(ctx context.Context, t *wal.Table, n int) ([]lake.Part, error) {
	c, err := s.src.Copier(ctx, s.sn, t, s.src.Parts, n)
	if err != nil {
		return nil, err
	}
	s.table = c
	var out []lake.Part
	for _, r := range c.Ranges {
		p := lake.Part{Schema: r.Relation.Schema, Table: r.Relation.Name, From: int64(r.From), To: int64(r.To)}
		if r.To == 0 {
			p.To = -1
		}
		out = append(out, p)
	}
	return out, nil
}

func (s *exported) Copy(ctx context.Context, t *wal.Table, p lake.Part, text []bool, fn func(row [][]byte) error) error {
	var cols []slot.CopyColumn
	for i, c := range t.Columns {
		if c.Generated == 0 {
			cols = append(cols, slot.CopyColumn{Name: c.Name, AsText: text[i]})
		}
	}
	r := slot.CTIDRange{Relation: wal.TableName{Schema: p.Schema, Name: p.Table}, From: uint32(p.From), To: uint32(max(0, p.To))}
	return s.table.Copy(ctx, cols, r, fn)
}

func (s *exported) Done(t *wal.Table) {
	if s.table != nil {
		s.table.Close()
		s.table = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.sn.Release(ctx, wal.TableName{Schema: t.Schema, Name: t.Name}); err != nil {
		s.src.Logger.Warn("release the lock of a loaded table", "table", t.Schema+"."+t.Name, "err", err)
	}
}

func (s *exported) Close() { s.sn.Close() }

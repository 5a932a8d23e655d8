package wire

import (
	"context"
	"errors"
	"slices"
	"strings"

	"firn/catalog"
	"firn/lake"
)

// Head is the epoch log as the lake's published state.
type Head struct {
	Log         *catalog.Log
	Warehouse   string // name for clients
	Slot        string
	Publication string
}

// resyncNote marks a table whose rows have to be loaded anew.
const resyncNote = "resync"

// Read returns the newest state.
func (h *Head) Read(ctx context.Context) (*lake.HeadState, error) {
	s, err := h.Log.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	return headState(s), nil
}

func headState(s *catalog.State) *lake.HeadState {
	out := &lake.HeadState{Empty: s.CommitID == "", LSN: s.LSN, Epoch: s.Epoch, CommitTime: s.CommitTime, XID: s.XID}
	if src := s.Source; src != nil {
		out.Source = &lake.SourceState{SystemID: src.SystemID, Timeline: src.Timeline, Database: src.Database,
			Point: src.ConsistentPoint, Creating: src.Phase == catalog.PhaseCreating}
	}
	for id, t := range s.Tables() {
		if m := t.Mirror; m != nil {
			out.Tables = append(out.Tables, lake.HeadTable{Ident: ident(id), Metadata: t.Metadata,
				TableState: lake.TableState{OID: m.OID, LSN: m.LSN, State: m.State, Reason: m.Reason, Resync: m.Notes[resyncNote] != ""}})
		} else {
			out.Foreign = append(out.Foreign, ident(id))
		}
	}
	for id := range s.Views() {
		out.Foreign = append(out.Foreign, ident(id))
	}
	return out
}

func ident(id catalog.Ident) lake.Ident {
	return lake.Ident{Namespace: strings.Join(id.Namespace, "."), Name: id.Name}
}

func catalogIdent(id lake.Ident) catalog.Ident {
	return catalog.Ident{Namespace: []string{id.Namespace}, Name: id.Name}
}

// Claim makes this run the source's one writer.
func (h *Head) Claim(ctx context.Context) error {
	_, err := h.Log.Claim(ctx)
	return fenced(err)
}

func fenced(err error) error {
	if errors.Is(err, catalog.ErrFenced) {
		return errors.Join(lake.ErrFenced, err)
	}
	return err
}

// Changed is closed at the next change of the state.
func (h *Head) Changed() <-chan struct{} { return h.Log.Changed() }

// Publish makes one entry.
func (h *Head) Publish(ctx context.Context, p lake.Publication) error {
	_, err := h.Log.CommitPriority(ctx, func(next *catalog.State) error { return h.apply(next, p) })
	return fenced(err)
}

func (h *Head) apply(next *catalog.State, p lake.Publication) error {
	if p.Source != nil {
		h.putSource(next, p.Source)
	}
	if p.LSN != 0 {
		next.LSN = p.LSN
		if p.Epoch != 0 {
			next.Epoch = p.Epoch
		}
		if !p.CommitTime.IsZero() {
			next.CommitTime, next.XID = p.CommitTime, p.XID
		}
	}
	var moved []lake.Ident
	for _, m := range p.Moves {
		if !put(next, m) {
			moved = append(moved, m.Table)
		}
	}
	if len(moved) > 0 {
		return &lake.MovedError{Tables: moved}
	}
	for id, st := range p.States {
		cid := catalogIdent(id)
		t, ok := next.Table(cid)
		mine := t.Mirror != nil || slices.ContainsFunc(p.Moves, func(m lake.Move) bool { return m.Table == id })
		if !ok || !mine {
			continue // it never came into the lake, or the name is another's
		}
		t.Mirror = &catalog.Mirror{OID: st.OID, LSN: st.LSN, State: st.State, Reason: st.Reason}
		if st.Resync {
			t.Mirror.Notes = map[string]string{resyncNote: "yes"}
		}
		next.PutTable(cid, t)
	}
	return nil
}

func (h *Head) putSource(next *catalog.State, src *lake.SourceState) {
	s := &catalog.Source{}
	if next.Source != nil {
		*s = *next.Source
	}
	s.SystemID, s.Timeline, s.Database, s.ConsistentPoint = src.SystemID, src.Timeline, src.Database, src.Point
	s.Slot, s.Publication, s.Phase = h.Slot, h.Publication, catalog.PhaseReady
	if src.Creating {
		s.Phase = catalog.PhaseCreating
	}
	next.Source = s
	next.Warehouse = h.Warehouse
}

// put moves one table, if it still is where its writer thinks.
func put(next *catalog.State, m lake.Move) bool {
	id := catalogIdent(m.Table)
	was, ok := next.Table(id)
	_, view := next.View(id)
	if ok && was.Metadata != m.From || !ok && (m.From != "" || view) {
		return false
	}
	if _, ok := next.Namespace(id.Namespace); !ok {
		next.PutNamespace(id.Namespace, map[string]string{})
	}
	next.PutTable(id, catalog.Table{UUID: m.UUID, Location: m.Location, Metadata: m.To, SnapshotID: m.SnapshotID,
		SequenceNumber: m.SequenceNum, Mirror: was.Mirror})
	return true
}

package lake

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"firn/wal"
)

// movingSource and movingHead are a source and a lake that another firn moves
// on with each look at either.
type movingSource struct {
	Source
	at *wal.LSN
}

type movingHead struct {
	Head
	at *wal.LSN
}

var errBegun = errors.New("nothing spoke against a start")

func (m movingSource) Slot(context.Context) (*SlotState, error) {
	*m.at++
	return &SlotState{ConfirmedFlush: *m.at}, nil
}

func (m movingHead) Read(context.Context) (*HeadState, error) {
	*m.at++
	return &HeadState{Source: &SourceState{SystemID: "1", Timeline: 1, Database: "shop"}, LSN: *m.at}, nil
}

func (m movingSource) Identify(context.Context) (Identity, error) {
	*m.at++
	return Identity{SystemID: "1", Timeline: 1, Database: "shop", WALPosition: *m.at}, nil
}

func (m movingSource) Look(context.Context) (Look, error) { return Look{}, nil }

// Publish is the first that is asked of the source after the checks.
func (m movingSource) Publish(context.Context, []wal.TableName, []wal.TableName) (Memberships, error) {
	return nil, errBegun
}

// TestRule04WhileAnotherRuns: what a running firn does between our looks at
// slot, head and server is not taken for a slot that somebody moved, nor for a
// server that was restored.
func TestRule04WhileAnotherRuns(t *testing.T) {
	var at wal.LSN
	s := &session{members: map[uint32]*member{}, Lake: New(Options{Source: movingSource{at: &at}, Head: movingHead{at: &at}})}
	require.ErrorIs(t, s.begin(t.Context()), errBegun)
}

// lateSource and lateHead are a source with one table, and a lake to which a put
// of the run before comes just before it is claimed.
type lateSource struct{ Source }

type lateHead struct {
	Head
	now, later *HeadState
}

type lateTables struct {
	Tables
	opened string
}

type idleStream struct{ Stream }

func (lateSource) Slot(context.Context) (*SlotState, error) {
	return &SlotState{ConfirmedFlush: 40}, nil
}

func (lateSource) Identify(context.Context) (Identity, error) {
	return Identity{SystemID: "1", Timeline: 1, Database: "shop", WALPosition: 100}, nil
}

func (lateSource) Look(context.Context) (Look, error) {
	return Look{Tables: []wal.Table{{OID: 7, Schema: "public", Name: "a", Usable: true}}}, nil
}

func (lateSource) Publish(context.Context, []wal.TableName, []wal.TableName) (Memberships, error) {
	return nil, nil
}

func (lateSource) Stream(context.Context, wal.LSN, bool) (Stream, error) { return idleStream{}, nil }

func (idleStream) Run(context.Context) error { return nil }

func (l *lateHead) Read(context.Context) (*HeadState, error) { return l.now, nil }

func (l *lateHead) Claim(context.Context) error { l.now = l.later; return nil }

func (l *lateTables) Open(_ context.Context, _ Ident, metadata string) (TableStore, error) {
	l.opened = metadata
	return nil, errBegun
}

// TestRule07LatePut: what the run before has put between our first look at the
// head and our claim is what the tables begin with.
func TestRule07LatePut(t *testing.T) {
	at := func(lsn wal.LSN, metadata string, st TableState) *HeadState {
		st.OID = 7
		return &HeadState{Source: &SourceState{SystemID: "1", Timeline: 1, Database: "shop"}, LSN: lsn, Epoch: uint64(lsn),
			Tables: []HeadTable{{Ident: Ident{"public", "a"}, Metadata: metadata, TableState: st}}}
	}
	begin := func(later *HeadState) (*session, *lateTables, error) {
		files := &lateTables{}
		l := New(Options{Source: lateSource{}, Tables: files,
			Head: &lateHead{now: at(50, "one", TableState{State: Streaming}), later: later}})
		s := &session{members: map[uint32]*member{}, states: map[Ident]TableState{}, lagging: map[Ident]wal.LSN{},
			Lake: l, log: slog.New(slog.DiscardHandler), group: &errgroup.Group{}, ctx: t.Context(), spoolDir: t.TempDir()}
		err := s.begin(t.Context())
		require.NoError(t, s.group.Wait())
		return s, files, err
	}

	s, files, err := begin(at(60, "two", TableState{State: Streaming}))
	require.ErrorIs(t, err, errBegun)
	require.Equal(t, "two", files.opened)
	require.Equal(t, wal.LSN(60), s.members[7].position)

	s, _, err = begin(at(60, "one", TableState{State: Quarantined, Reason: "why"}))
	require.NoError(t, err)
	require.Equal(t, Quarantined, s.members[7].state)

	// The stream has begun too late for it.
	_, _, err = begin(at(60, "two", TableState{State: Behind, LSN: 45}))
	require.ErrorIs(t, err, errRestart)
}

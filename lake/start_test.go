package lake

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

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
func (m movingSource) Publish(context.Context, []wal.TableName, []wal.TableName) ([]wal.TableName, error) {
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

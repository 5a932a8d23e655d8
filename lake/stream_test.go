package lake

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

// A partitioned table's columns come again with each change of partition. They
// are still those that the first such message brought, so that a look which saw
// that one is not taken for older than them.
func TestRelationThatComesAgain(t *testing.T) {
	relation := func(columns ...string) *wal.Relation {
		r := &wal.Relation{ID: 1}
		for _, name := range columns {
			r.Columns = append(r.Columns, wal.Column{Name: name})
		}
		return r
	}
	m := &member{desc: &wal.Table{Partitioned: true}}
	m.described(relation("id"), 5)
	require.False(t, m.relKnown)
	m.relKnown = true
	m.described(relation("id"), 9)
	require.True(t, m.relKnown)
	require.Equal(t, uint32(5), m.relBy)
	m.described(relation("id", "n"), 11)
	require.False(t, m.relKnown)
	require.Equal(t, uint32(11), m.relBy)
}

// A table that is behind makes the stream begin before the head: what the lake
// has already is not what its next entry names as the last.
func TestLastCommitNeverGoesBack(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s := &session{Lake: New(Options{}), position: 100, commit: lastCommit{time: noon, xid: 70}}
	commit := func(xid uint32, end wal.LSN, at time.Time) {
		s.txn = transaction{open: true, xid: xid}
		s.endTxn(end, at)
	}
	commit(60, 80, noon.Add(-time.Hour))
	require.Equal(t, lastCommit{time: noon, xid: 70}, s.commit)
	require.Equal(t, wal.LSN(80), s.received)
	commit(70, 100, noon)
	require.Equal(t, lastCommit{time: noon, xid: 70}, s.commit)
	commit(65, 120, noon.Add(-time.Minute)) // by a clock that ran back
	require.Equal(t, lastCommit{time: noon, xid: 65}, s.commit)
	require.Equal(t, wal.LSN(120), s.position)
}

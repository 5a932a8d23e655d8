package wal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVisible(t *testing.T) {
	v := Visible{Xmin: 100, Xmax: 110, InProgress: []uint32{100, 105}}
	for xid, sees := range map[uint32]bool{3: true, 99: true, 100: false, 104: true, 105: false, 109: true, 110: false, 5000: false} {
		require.Equal(t, sees, v.Sees(xid), xid)
	}
	wrapped := Visible{Xmin: 1<<32 - 5, Xmax: 10, InProgress: []uint32{1<<32 - 5, 4}}
	for xid, sees := range map[uint32]bool{1<<32 - 6: true, 1<<32 - 5: false, 1<<32 - 1: true, 3: true, 4: false, 9: true, 10: false} {
		require.Equal(t, sees, wrapped.Sees(xid), xid)
	}
}

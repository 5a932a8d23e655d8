package main

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/object"
)

// An epoch may be published without a table: whoever names it or asks for it is
// told which, and what that one shows.
func TestTagOfEpochWithTableBehind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lake")
	store, err := object.Open(t.Context(), dir, object.Options{})
	require.NoError(t, err)
	log, err := catalog.OpenLog(t.Context(), store, catalog.LogOptions{})
	require.NoError(t, err)
	_, err = log.Commit(t.Context(), func(n *catalog.State) error {
		n.Source = &catalog.Source{SystemID: "1", Timeline: 1, Database: "shop", Slot: "s", Phase: catalog.PhaseReady}
		return nil
	})
	require.NoError(t, err)
	_, err = log.Claim(t.Context())
	require.NoError(t, err)
	epoch := func(state string) {
		t.Helper()
		_, err := log.Commit(t.Context(), func(n *catalog.State) error {
			n.Epoch++
			n.LSN += 0x100
			n.CommitTime = time.Date(2026, 11, 23, 10, 0, int(n.Epoch), 0, time.UTC)
			n.PutNamespace([]string{"public"}, nil)
			for name, m := range map[string]*catalog.Mirror{"orders": {OID: 1, State: state, LSN: 0x100, Reason: "another client committed to it"}, "items": {OID: 2, State: catalog.Streaming}} {
				n.PutTable(catalog.Ident{Namespace: []string{"public"}, Name: name}, catalog.Table{UUID: name, Location: store.URI(name), Metadata: store.URI(name + "/metadata/1.json"), SnapshotID: 1, Mirror: m})
			}
			return nil
		})
		require.NoError(t, err)
	}
	epoch(catalog.Streaming)
	epoch(catalog.Behind)
	run := func(args ...string) string {
		t.Helper()
		code, out, said := inProcess(append(args, "--warehouse", dir)...)
		require.Zero(t, code, "%s", said)
		return out
	}
	const note = "note: not up to date in that epoch: public.orders at 0/100 (behind: another client committed to it)\n"
	require.Contains(t, run("tag", "second"), note)
	require.Contains(t, run("asof", "second"), note)
	require.NotContains(t, run("asof", "second", "public.items"), "note:")
	require.NotContains(t, run("tag", "first", "--at", "0/100"), "note:")
	require.NotContains(t, run("asof", "first"), "note:")
	stale := []staleTable{{Name: "public.orders", State: "behind", Reason: "another client committed to it", LSN: 0x100}}
	var tag namedEpoch
	require.NoError(t, json.Unmarshal([]byte(run("tag", "again", "--json")), &tag))
	require.Equal(t, stale, tag.Stale)
	var v view
	require.NoError(t, json.Unmarshal([]byte(run("asof", "latest", "--json")), &v))
	require.Equal(t, stale, v.Stale)
	var epochs []keptEpoch
	require.NoError(t, json.Unmarshal([]byte(run("snapshots", "--json")), &epochs))
	require.Len(t, epochs, 2)
	require.Empty(t, epochs[0].Stale)
	require.Equal(t, stale, epochs[1].Stale)
}

package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

// A removal from the middle of the history must not clear the log before it:
// DuckDB would answer time travel with no rows and no error.
func TestRule15SnapshotLogSurvivesThinning(t *testing.T) {
	h := newHarness(t, 2, 15)
	byTime := map[int64]int64{}
	past := &History{}
	h.tab.o.History = func() *History { return past }
	for i := range uint64(150) {
		h.clock = h.clock.Add(20 * time.Second)
		if i%3 == 0 {
			past.Epochs = append(past.Epochs, h.epoch)
		}
		h.commit(&lake.Change{Stamp: h.stamp("schema")})
	}
	m := h.metadata()
	kept := map[int64]bool{}
	for _, s := range m.Snapshots() {
		kept[s.SnapshotID] = true
		byTime[s.TimestampMs] = s.SnapshotID
	}
	require.InDelta(t, 50, len(kept), 3)
	n := 0
	var last int64
	for e := range m.SnapshotLogs() {
		n++
		require.True(t, kept[e.SnapshotID], "the log names a snapshot that is gone")
		require.Equal(t, e.SnapshotID, byTime[e.TimestampMs])
		require.Greater(t, e.TimestampMs, last)
		last = e.TimestampMs
	}
	require.Equal(t, len(kept), n, "each kept snapshot is in the log")
}

// Commit times that run back, even far, make times that don't: validators
// refuse a snapshot more than a minute behind the last.
func TestRule15TimeNeverRunsBack(t *testing.T) {
	h := newHarness(t, 3, 15)
	start := h.clock
	var want int64
	for i, at := range []time.Duration{0, time.Minute, -time.Hour, time.Minute + time.Millisecond/2, 2 * time.Minute} {
		s := h.stamp("schema")
		s.CommitTime = start.Add(at)
		h.commit(&lake.Change{Stamp: s})
		m := h.metadata()
		got := m.CurrentSnapshot().TimestampMs
		if i == 0 {
			want = s.CommitTime.UnixMilli()
		} else {
			want = max(want+1, s.CommitTime.UnixMilli())
		}
		require.Equal(t, want, got)
		require.Equal(t, got, m.LastUpdatedMillis())
		require.Equal(t, s.CommitTime.UTC().Format(time.RFC3339Nano), m.CurrentSnapshot().Summary.Properties["firn.commit-time"])
	}
}

// What a table lists follows from the kept epochs: of each the snapshot that it
// shows, which may be an old one; refs' and what is newer besides.
func TestRule14TableFollowsKeptEpochs(t *testing.T) {
	list := func(epochs ...uint64) *metadata { // 0: somebody else's
		m := &metadata{refs: map[string]ref{}, rest: map[string]json.RawMessage{}}
		for i, e := range epochs {
			m.addSnapshot(snapshotDoc{id: int64(i + 1), timestampMS: int64(i+1) * 1000, epoch: e})
		}
		return m
	}
	ids := func(m *metadata) (out []int64) {
		for _, s := range m.snapshots {
			out = append(out, s.id)
		}
		require.Len(t, m.log, len(out))
		return out
	}
	for _, c := range []struct {
		name      string
		snapshots []uint64
		kept      []uint64
		ref       int64
		want      []int64
	}{
		{"each is an epoch's", []uint64{1, 2, 3, 4}, []uint64{1, 3}, 0, []int64{1, 3, 4}},
		{"an epoch that the table did not move in", []uint64{1, 5, 9}, []uint64{3, 4, 8}, 0, []int64{1, 2, 3}},
		{"before the table's first", []uint64{5, 6, 7}, []uint64{2, 6}, 0, []int64{2, 3}},
		{"a ref's stays", []uint64{1, 2, 3, 4}, []uint64{3}, 1, []int64{1, 3, 4}},
		{"the one on its way stays", []uint64{1, 2, 3}, []uint64{1}, 0, []int64{1, 2, 3}},
		{"others' go with the epoch before", []uint64{1, 0, 2, 0, 0, 3, 4}, []uint64{2, 4}, 0, []int64{3, 4, 5, 7}},
		{"others' before the first", []uint64{0, 0, 3, 4}, []uint64{4}, 0, []int64{4}},
		{"no epoch yet", []uint64{1, 2}, nil, 0, []int64{1, 2}},
		{"two in an epoch", []uint64{1, 2, 2, 3}, []uint64{2, 3}, 0, []int64{2, 3, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := list(c.snapshots...)
			if c.ref != 0 {
				m.refs["r"] = ref{snapshot: c.ref, fields: map[string]json.RawMessage{}}
			}
			require.NoError(t, m.thin(&History{Epochs: c.kept}))
			require.Equal(t, c.want, ids(m))
		})
	}
	var many, all []uint64
	for i := range uint64(300) {
		many = append(many, i+1)
		all = append(all, i+1)
	}
	m := list(many...)
	require.NoError(t, m.thin(&History{Epochs: all}))
	require.Len(t, m.snapshots, keepSnapshots+1) // and the current one, which main names
	require.Equal(t, int64(300), m.snapshots[keepSnapshots].id)
	m = list(many...)
	require.NoError(t, m.thin(nil))
	require.Len(t, m.snapshots, keepSnapshots+1)
}

// A tag of the lake is a ref of the table, of the snapshot that the lake names;
// refs of others are left alone, those of their names too.
func TestRule14TagIsARef(t *testing.T) {
	h := newHarness(t, 2, 3)
	past := &History{Tags: map[string]uint64{}}
	shows := map[string]int64{}
	asked := 0
	past.Tagged = func(_ context.Context, tag, uuid string) (int64, error) {
		require.Equal(t, h.tab.UUID(), uuid)
		asked++
		return shows[tag], nil
	}
	h.tab.o.History = func() *History { return past }
	now := h.clock
	h.tab.o.Now = func() time.Time { return now }
	step := func(kept ...uint64) int64 {
		past = &History{Epochs: kept, Tags: maps.Clone(past.Tags), Tagged: past.Tagged}
		h.commit(&lake.Change{Stamp: h.stamp("schema")})
		return h.tab.Footprint().SnapshotID
	}
	first := step()
	second := step(1)
	step(1, 2)
	refs := func() map[string]int64 {
		out := map[string]int64{}
		for name, r := range h.metadata().Refs() {
			if name != "main" {
				require.Equal(t, table.TagRef, r.SnapshotRefType)
				out[name] = r.SnapshotID
			}
		}
		return out
	}
	require.False(t, h.tab.Outdated())
	past.Tags["second"], shows["second"] = 2, second
	past.Tags["before"], shows["before"] = 7, 0 // the table was not there
	require.True(t, h.tab.Outdated())
	snapshots := len(h.metadata().Snapshots())
	h.commit(&lake.Change{Stamp: h.stamp("stream")}) // nothing else
	require.Len(t, h.metadata().Snapshots(), snapshots, "a ref needs no snapshot")
	require.Equal(t, map[string]int64{"second": second}, refs())
	require.False(t, h.tab.Outdated())
	require.Equal(t, 2, asked)

	step(1, 2, 3)
	for e := range uint64(9) { // nothing but the newest is kept
		step(e + 4)
	}
	require.Equal(t, map[string]int64{"second": second}, refs())
	require.NotNil(t, h.metadata().SnapshotByID(second), "a tag's snapshot stays")
	require.Nil(t, h.metadata().SnapshotByID(first))
	require.Equal(t, 2, asked, "a tag is asked for once")

	// The same name for another epoch; a name that somebody has used already.
	mine := h.tab.Footprint().SnapshotID
	theirs := h.tab.meta.clone()
	theirs.refs["mine"] = ref{snapshot: mine, fields: map[string]json.RawMessage{"type": json.RawMessage(`"tag"`)}}
	h.tab.meta = theirs
	delete(past.Tags, "before")
	past.Tags["second"], shows["second"] = 12, mine
	past.Tags["mine"], shows["mine"] = 12, mine
	require.True(t, h.tab.Outdated())
	step(12)
	require.Equal(t, map[string]int64{"second": mine, "mine": mine}, refs())
	past.Tags = map[string]uint64{}
	require.True(t, h.tab.Outdated())
	step(13)
	require.Equal(t, map[string]int64{"mine": mine}, refs())
	require.Empty(t, h.tab.Properties()[tagsProperty])

	// A table at rest follows what is thinned, but not with every epoch.
	past = &History{Epochs: []uint64{1000}, Tagged: past.Tagged}
	require.False(t, h.tab.Outdated())
	now = now.Add(refreshAfter)
	require.True(t, h.tab.Outdated())
	h.commit(&lake.Change{Stamp: h.stamp("stream")})
	require.Len(t, h.metadata().Snapshots(), 2, "the current one, and their tag's")
	now = now.Add(refreshAfter)
	require.False(t, h.tab.Outdated())
}

func TestThinningDropsStatistics(t *testing.T) {
	m := &metadata{refs: map[string]ref{}, rest: map[string]json.RawMessage{}}
	for i := range uint64(70) {
		m.addSnapshot(snapshotDoc{id: int64(i + 1), timestampMS: int64(i), epoch: i + 1})
	}
	m.rest["statistics"] = json.RawMessage(`[{"snapshot-id":1,"x":1},{"snapshot-id":60,"x":2}]`)
	require.NoError(t, m.thin(&History{Epochs: []uint64{60, 70}}))
	require.JSONEq(t, `[{"snapshot-id":60,"x":2}]`, string(m.rest["statistics"]))
}

func TestUnknownKeysAreCarried(t *testing.T) {
	h := newHarness(t, 3, 1)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot")})
	b, err := get(h.ctx, h.store, h.tab.Metadata())
	require.NoError(t, err)
	var doc map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(b, &doc))
	doc["encryption-keys"] = json.RawMessage(`[]`)
	doc["somebody-elses"] = json.RawMessage(`{"a":[1,2]}`)
	doc["refs"] = json.RawMessage(fmt.Sprintf(`{"main":{"snapshot-id":%d,"type":"branch","max-ref-age-ms":5},"keep":{"snapshot-id":%[1]d,"type":"tag"}}`, h.tab.Footprint().SnapshotID))
	b, err = json.Marshal(doc)
	require.NoError(t, err)
	first := h.tab.Footprint().SnapshotID
	m, err := parseMetadata(b)
	require.NoError(t, err)
	h.tab.meta = m
	h.commit(&lake.Change{Stamp: h.stamp("schema")})
	b, err = get(h.ctx, h.store, h.tab.Metadata())
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &doc))
	require.JSONEq(t, `{"a":[1,2]}`, string(doc["somebody-elses"]))
	require.JSONEq(t, fmt.Sprintf(`{"main":{"snapshot-id":%d,"type":"branch","max-ref-age-ms":5},"keep":{"snapshot-id":%d,"type":"tag"}}`, h.tab.Footprint().SnapshotID, first), string(doc["refs"]))
	_, err = table.ParseMetadataBytes(b)
	require.NoError(t, err)
}

func TestMetadataVersion(t *testing.T) {
	for name, want := range map[string]int{
		"s3://b/t/metadata/00012-ab-cd.metadata.json": 12, "v3.metadata.json": 3, "v4-x.gz.metadata.json": 4,
		"00007-x.metadata.json.gz": 7, "abc.json": -1, "": -1,
	} {
		require.Equal(t, want, metadataVersion(name), name)
	}
}

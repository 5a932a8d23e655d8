package snapshot

import (
	"encoding/json"
	"fmt"
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
	for range 150 {
		h.clock = h.clock.Add(20 * time.Second)
		h.commit(&lake.Change{Stamp: h.stamp("schema")})
	}
	m := h.metadata()
	kept := map[int64]bool{}
	for _, s := range m.Snapshots() {
		kept[s.SnapshotID] = true
		byTime[s.TimestampMs] = s.SnapshotID
	}
	require.Less(t, len(kept), 150)
	require.Greater(t, len(kept), keepNewest)
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

func historyOf(t *testing.T, times []int64, refs ...int) *metadata {
	m := &metadata{refs: map[string]ref{}, rest: map[string]json.RawMessage{}}
	for i, ms := range times {
		s := snapshotDoc{id: int64(i + 1), timestampMS: ms, doc: json.RawMessage(fmt.Sprint(i))}
		for _, r := range refs {
			if r == i {
				m.refs[fmt.Sprint("tag", i)] = ref{snapshot: s.id, fields: map[string]json.RawMessage{}}
			}
		}
		require.NoError(t, m.addSnapshot(s))
	}
	return m
}

func TestThinning(t *testing.T) {
	var seconds []int64 // one a second for four hours
	base := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	for i := range int64(4 * 3600) {
		seconds = append(seconds, base+i*1000)
	}
	m := historyOf(t, seconds, 4000)
	require.LessOrEqual(t, len(m.snapshots), keepSnapshots+1)
	require.Equal(t, len(m.snapshots), len(m.log))
	require.Equal(t, int64(1), m.snapshots[0].id, "the first of the oldest hour survives")
	newest := m.snapshots[len(m.snapshots)-keepNewest:]
	for i, s := range newest {
		require.Equal(t, seconds[len(seconds)-keepNewest+i], s.timestampMS)
	}
	tagged, minutes, hours := false, 0, 0
	for _, s := range m.snapshots[:len(m.snapshots)-keepNewest] {
		if s.id == 4001 {
			tagged = true
			continue
		}
		if seconds[len(seconds)-1]-s.timestampMS < hourMS {
			minutes++
			require.Zero(t, s.timestampMS%minuteMS, "the first of its minute")
		} else {
			hours++
			require.Zero(t, s.timestampMS%hourMS, "the first of its hour")
		}
	}
	require.True(t, tagged)
	require.InDelta(t, 59, minutes, 1)
	require.Equal(t, 3, hours)

	var hourly []int64 // one an hour for three months
	for i := range int64(90 * 24) {
		hourly = append(hourly, base+i*hourMS)
	}
	m = historyOf(t, hourly)
	require.Len(t, m.snapshots, keepNewest+28) // 60 hours, then days back to the 30th
	require.Less(t, hourly[len(hourly)-1]-m.snapshots[0].timestampMS, int64(30*dayMS))

	m = historyOf(t, []int64{1, 2, 3}) // a quiet table keeps what it has
	require.Len(t, m.snapshots, 3)
}

func TestThinningDropsStatistics(t *testing.T) {
	var times []int64
	for i := range int64(70) {
		times = append(times, 1+i*10*dayMS)
	}
	m := historyOf(t, times[:60])
	m.rest["statistics"] = json.RawMessage(`[{"snapshot-id":1,"x":1},{"snapshot-id":60,"x":2}]`)
	for i, ms := range times[60:] {
		require.NoError(t, m.addSnapshot(snapshotDoc{id: int64(61 + i), timestampMS: ms}))
	}
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

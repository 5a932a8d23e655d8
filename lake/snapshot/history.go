package snapshot

import (
	"encoding/json"
	"fmt"
	"slices"
)

// How much history a metadata document keeps besides what refs name: the
// newest snapshots, then the first of each bucket, the buckets growing with
// age. Ages are counted in the table's own time, from its newest snapshot, so
// a quiet table loses nothing by waiting. The first of a bucket survives since
// it stays the first when the bucket joins a larger one: what was kept is not
// lost by being kept.
const (
	keepNewest    = 60
	keepSnapshots = 200 // never more, refs not counted
	minuteMS      = 60_000
	hourMS        = 60 * minuteMS
	dayMS         = 24 * hourMS
)

// bucket is the number of the bucket that a snapshot of age belongs to; false
// beyond the horizon. Buckets of the three widths have distinct numbers.
func bucket(timestampMS, ageMS int64) (width, number int64, ok bool) {
	switch {
	case ageMS < hourMS:
		width = minuteMS
	case ageMS < 2*dayMS:
		width = hourMS
	case ageMS < 30*dayMS:
		width = dayMS
	default:
		return 0, 0, false
	}
	return width, timestampMS / width, true
}

// thin drops the snapshots that the history doesn't keep. Their log entries go
// with them and no others: clearing the log before a removed snapshot, as the
// libraries do, makes time travel answer nothing.
func (m *metadata) thin() error {
	if len(m.snapshots) <= keepNewest {
		return nil
	}
	named := map[int64]bool{m.current: true}
	for _, r := range m.refs {
		named[r.snapshot] = true
	}
	newest := m.snapshots[len(m.snapshots)-1].timestampMS
	kept := make([]snapshotDoc, 0, keepSnapshots+len(named))
	var lastWidth, lastNumber int64 = 0, -1
	old := len(m.snapshots) - keepNewest
	for i, s := range m.snapshots {
		if i < old {
			width, number, ok := bucket(s.timestampMS, newest-s.timestampMS)
			first := ok && (width != lastWidth || number != lastNumber)
			if ok {
				lastWidth, lastNumber = width, number
			}
			if !first && !named[s.id] {
				continue
			}
		}
		kept = append(kept, s)
	}
	over := -keepSnapshots
	for _, s := range kept {
		if !named[s.id] {
			over++
		}
	}
	kept = slices.DeleteFunc(kept, func(s snapshotDoc) bool {
		if over <= 0 || named[s.id] {
			return false
		}
		over--
		return true
	})
	if len(kept) == len(m.snapshots) {
		return nil
	}
	live := make(map[int64]bool, len(kept))
	for _, s := range kept {
		live[s.id] = true
	}
	m.snapshots = kept
	m.log = slices.DeleteFunc(m.log, func(e logEntry) bool { return !live[e.SnapshotID] })
	return m.dropStatistics(live)
}

// dropStatistics removes statistics files of snapshots that are gone.
func (m *metadata) dropStatistics(live map[int64]bool) error {
	for _, key := range []string{"statistics", "partition-statistics"} {
		raw, ok := m.rest[key]
		if !ok {
			continue
		}
		var docs []json.RawMessage
		if err := json.Unmarshal(raw, &docs); err != nil {
			return fmt.Errorf("metadata key %s: %w", key, err)
		}
		kept := docs[:0]
		for _, doc := range docs {
			var s struct {
				ID int64 `json:"snapshot-id"`
			}
			if err := json.Unmarshal(doc, &s); err != nil {
				return fmt.Errorf("metadata key %s: %w", key, err)
			}
			if live[s.ID] {
				kept = append(kept, doc)
			}
		}
		if len(kept) == len(docs) {
			continue
		}
		out, err := json.Marshal(nonNil(kept))
		if err != nil {
			return fmt.Errorf("metadata key %s: %w", key, err)
		}
		m.rest[key] = out
	}
	return nil
}

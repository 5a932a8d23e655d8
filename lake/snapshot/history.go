package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// History is what of the past the tables' metadata goes on showing. One rule,
// made for epochs, decides for all tables: a table lists the snapshot that each
// kept epoch shows, and no other.
type History struct {
	// Epochs are the numbers of the kept epochs, tagged ones among them,
	// ascending. They may be those of a moment ago: what has been dropped since
	// then is listed a little longer.
	Epochs []uint64
	// Tags are the lake's tags, by name the number of their epoch. In each table
	// they become refs.
	Tags map[string]uint64
	// Tagged returns the snapshot of a table that a tag shows; 0 if it had none.
	// It may read the store.
	Tagged func(ctx context.Context, tag, tableUUID string) (int64, error)
}

const (
	// keepSnapshots is the most that metadata lists besides what refs name.
	keepSnapshots = 200
	// refreshAfter is how often at most the metadata of a table at rest is written
	// anew for what its history loses.
	refreshAfter = time.Hour
	// tagsProperty says which of the refs stand for the lake's tags, and for which
	// epochs: name@epoch@snapshot, the snapshot 0 where there is no ref. Others'
	// refs are theirs.
	tagsProperty = "firn.tags"
)

// madeTag is a tag of the lake as a table's metadata has it.
type madeTag struct {
	epoch    uint64
	snapshot int64 // of the ref; 0: there is none
}

func (m *metadata) madeTags() map[string]madeTag {
	out := map[string]madeTag{}
	for part := range strings.SplitSeq(m.properties[tagsProperty], ",") {
		f := strings.Split(part, "@")
		if len(f) != 3 {
			continue
		}
		epoch, err1 := strconv.ParseUint(f[1], 10, 64)
		id, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 == nil && err2 == nil {
			out[f[0]] = madeTag{epoch, id}
		}
	}
	return out
}

// tag makes the refs that the history's tags want, and removes those of tags that
// are gone. The snapshot of a new one is asked for: it is the one that the tag's
// entry of the log names, which no rule about numbers could tell where others
// have committed to the table between two epochs.
func (m *metadata) tag(ctx context.Context, h *History) error {
	made := m.madeTags()
	for name, was := range made {
		if epoch, ok := h.Tags[name]; ok && epoch == was.epoch {
			continue
		}
		if r, ok := m.refs[name]; ok && was.snapshot != 0 && r.snapshot == was.snapshot {
			delete(m.refs, name)
		}
		delete(made, name)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Tags)) {
		if _, ok := made[name]; ok {
			continue
		}
		epoch := h.Tags[name]
		id, err := h.Tagged(ctx, name, m.uuid)
		if err != nil {
			return fmt.Errorf("make ref of tag %s: %w", name, err)
		}
		_, taken := m.refs[name]
		if taken || !slices.ContainsFunc(m.snapshots, func(s snapshotDoc) bool { return s.id == id }) {
			id = 0
		}
		if id != 0 {
			m.refs[name] = ref{snapshot: id, fields: map[string]json.RawMessage{"type": json.RawMessage(`"tag"`)}}
		}
		made[name] = madeTag{epoch, id}
	}
	var text []string
	for _, name := range slices.Sorted(maps.Keys(made)) {
		text = append(text, fmt.Sprintf("%s@%d@%d", name, made[name].epoch, made[name].snapshot))
	}
	m.setProperties(map[string]string{tagsProperty: strings.Join(text, ",")})
	return nil
}

// shown says of each snapshot whether a kept epoch shows it. An epoch shows the
// newest snapshot that is not after it; what others commit between two epochs
// goes with the one before. What is newer than every kept epoch is shown.
func (m *metadata) shown(epochs []uint64) []bool {
	out := make([]bool, len(m.snapshots))
	for i := 0; i < len(m.snapshots); {
		from, at := i, m.snapshots[i].epoch
		for i++; i < len(m.snapshots) && m.snapshots[i].epoch <= at; i++ { // 0: somebody else's
		}
		k, _ := slices.BinarySearch(epochs, at)
		keep := i == len(m.snapshots) || k == len(epochs) || epochs[k] < m.snapshots[i].epoch
		for j := from; j < i; j++ {
			out[j] = keep
		}
	}
	return out
}

// thin drops the snapshots that the history doesn't keep; without one all stay,
// up to the limit. Their log entries go with them and no others: clearing the log
// before a removed snapshot, as the libraries do, makes time travel answer
// nothing.
func (m *metadata) thin(h *History) error {
	named := map[int64]bool{m.current: true}
	for _, r := range m.refs {
		named[r.snapshot] = true
	}
	kept := slices.Clone(m.snapshots)
	if h != nil {
		kept = kept[:0]
		for i, keep := range m.shown(h.Epochs) {
			if s := m.snapshots[i]; keep || named[s.id] {
				kept = append(kept, s)
			}
		}
	}
	over := -keepSnapshots
	for _, s := range kept {
		if !named[s.id] {
			over++
		}
	}
	for _, others := range []bool{true, false} { // others' go first
		kept = slices.DeleteFunc(kept, func(s snapshotDoc) bool {
			if over <= 0 || named[s.id] || others && s.epoch != 0 {
				return false
			}
			over--
			return true
		})
	}
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

// Outdated says whether the history has changed in a way that the metadata should
// follow though no row does: a tag came or went; or, not more often than each
// hour, a snapshot is listed that no kept epoch shows any more. The next Prepare,
// of an empty Change too, follows it.
func (t *Table) Outdated() bool {
	if t.o.History == nil || t.metaURI == "" {
		return false
	}
	h := t.o.History()
	made := t.meta.madeTags()
	for name, was := range made {
		if epoch, ok := h.Tags[name]; !ok || epoch != was.epoch {
			return true
		}
	}
	if len(made) != len(h.Tags) {
		return true
	}
	if t.o.Now().Sub(t.written) < refreshAfter {
		return false
	}
	for i, keep := range t.meta.shown(h.Epochs) {
		s := t.meta.snapshots[i]
		if !keep && s.id != t.meta.current && !slices.ContainsFunc(slices.Collect(maps.Values(t.meta.refs)), func(r ref) bool { return r.snapshot == s.id }) {
			return true
		}
	}
	return false
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

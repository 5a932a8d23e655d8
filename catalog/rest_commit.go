package catalog

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/apache/iceberg-go/table"
	"golang.org/x/sync/errgroup"
)

// tableChange is one table's part of a commit. Requirements and updates stay
// as they came: applying updates alters them, so each attempt parses anew.
type tableChange struct {
	Identifier   *Ident          `json:"identifier"`
	Requirements json.RawMessage `json:"requirements"`
	Updates      json.RawMessage `json:"updates"`
}

func (ch *tableChange) parse() (reqs table.Requirements, updates table.Updates, err error) {
	err = guard(func() error {
		if raw := present(ch.Requirements); raw != nil {
			if err := json.Unmarshal(raw, &reqs); err != nil {
				return badRequest("malformed requirements: %v", err)
			}
		}
		if raw := present(ch.Updates); raw != nil {
			if err := json.Unmarshal(raw, &updates); err != nil {
				return badRequest("malformed updates: %v", err)
			}
		}
		return nil
	})
	return reqs, updates, err
}

// step is a table's move from the metadata it was planned on to the next.
type step struct {
	id   Ident
	base Table // as planned on; Metadata "": the table is created
	next *metadataFile
	// unchanged: the updates say what is so already.
	unchanged bool
}

// holds reports whether a step planned on another state is good for st too.
func (p *step) holds(st *State) bool {
	if p == nil {
		return false
	}
	t, ok := st.Table(p.id)
	if p.base.Metadata == "" {
		// What a new table asks of the rest of the catalog is asked again.
		return false
	}
	return ok && t.Metadata == p.base.Metadata && (t.Mirror == nil) == (p.base.Mirror == nil)
}

// planTable validates a change against st and builds what it leads to. It
// writes nothing.
func (s *server) planTable(ctx context.Context, st *State, id Ident, ch *tableChange) (*step, error) {
	reqs, updates, err := ch.parse()
	if err != nil {
		return nil, err
	}
	t, ok := visibleTable(st, id)
	if !ok {
		return s.planCreate(st, id, reqs, updates)
	}
	base, err := s.readMetadata(ctx, t.Metadata)
	if err != nil {
		return nil, unavailable("read the table's metadata", err)
	}
	for _, r := range reqs {
		if err := r.Validate(base.Meta); err != nil {
			return nil, commitFailed("%v", err)
		}
	}
	if err := checkStale(ch.Updates, base.Meta); err != nil {
		return nil, err
	}
	var meta table.Metadata
	changed := false
	err = guard(func() error {
		b, err := table.MetadataBuilderFromBase(base.Meta, t.Metadata)
		if err != nil {
			return err
		}
		for _, u := range updates {
			if err := u.Apply(b); err != nil {
				return badRequest("%s: %v", u.Action(), err)
			}
		}
		if changed = b.HasChanges(); !changed {
			return nil
		}
		if meta, err = b.Build(); err != nil {
			return badRequest("the commit leads to invalid table metadata: %v", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p := &step{id: id, base: t}
	if !changed {
		p.next, p.unchanged = base, true
		return p, nil
	}
	fields := map[string]any{}
	if log := mendSnapshotLog(base.Meta, meta); log != nil {
		fields["snapshot-log"] = log
	}
	if t.Mirror != nil && meta.LastSequenceNumber() == base.Meta.LastSequenceNumber() {
		// A tag or property is no news from Postgres, whose clock a mirrored
		// table goes by: a now here would make its next snapshots look late.
		fields["last-updated-ms"] = base.Meta.LastUpdatedMillis()
	}
	if p.next, err = encodeMetadata(meta, fields); err != nil {
		return nil, err
	}
	if err := s.checkMove(ctx, st, id, &t, base.Meta, p.next.Meta); err != nil {
		return nil, err
	}
	p.next.URI = nextMetadataURI(strings.TrimRight(p.next.Meta.Location(), "/"), t.Metadata)
	return p, nil
}

// checkMove refuses what no table may do from one metadata to the next, and
// what a mirrored one may not.
func (s *server) checkMove(ctx context.Context, st *State, id Ident, t *Table, base, next table.Metadata) error {
	if next.TableUUID() != base.TableUUID() {
		return badRequest("a table's uuid cannot be changed")
	}
	if next.Location() != base.Location() {
		if err := s.checkLocation(st, id, strings.TrimRight(next.Location(), "/")); err != nil {
			return err
		}
	}
	if t.Mirror != nil {
		allow := s.o.AllowRowChanges != nil && s.o.AllowRowChanges(id)
		if err := checkMirrored(st, id, base, next, allow); err != nil {
			return err
		}
	}
	return s.checkKept(ctx, st, id, t, base, next)
}

// checkStale answers a snapshot that was made on older metadata by a conflict,
// which the client cures by a retry; the builder calls it invalid.
func checkStale(raw json.RawMessage, base table.Metadata) error {
	var updates []struct {
		Action   string `json:"action"`
		Snapshot *struct {
			ID       int64  `json:"snapshot-id"`
			Parent   *int64 `json:"parent-snapshot-id"`
			Sequence int64  `json:"sequence-number"`
			FirstRow *int64 `json:"first-row-id"`
		} `json:"snapshot"`
	}
	if present(raw) == nil {
		return nil
	}
	if err := json.Unmarshal(raw, &updates); err != nil {
		return badRequest("malformed updates: %v", err)
	}
	for _, u := range updates {
		if u.Action != table.UpdateAddSnapshot || u.Snapshot == nil {
			continue
		}
		if base.Version() >= 2 && u.Snapshot.Parent != nil && u.Snapshot.Sequence <= base.LastSequenceNumber() {
			return commitFailed("snapshot %d has sequence number %d, and the table is at %d already", u.Snapshot.ID, u.Snapshot.Sequence, base.LastSequenceNumber())
		}
		if base.Version() >= 3 && u.Snapshot.FirstRow != nil && *u.Snapshot.FirstRow < base.NextRowID() {
			return commitFailed("snapshot %d has first-row-id %d, and the table's next is %d already", u.Snapshot.ID, *u.Snapshot.FirstRow, base.NextRowID())
		}
	}
	return nil
}

// mendSnapshotLog gives back what the builder takes: after the removal of one
// snapshot it clears the log before it, and then engines answer a time travel
// by no rows, or not at all. Nil: the log is right as it is.
func mendSnapshotLog(base, next table.Metadata) []table.SnapshotLogEntry {
	before := slices.Collect(base.SnapshotLogs())
	after := slices.Collect(next.SnapshotLogs())
	kept := make([]table.SnapshotLogEntry, 0, len(before)+len(after))
	lost := false
	for _, e := range before {
		if next.SnapshotByID(e.SnapshotID) == nil {
			continue
		}
		kept = append(kept, e)
		lost = lost || !slices.Contains(after, e)
	}
	if !lost {
		return nil
	}
	for _, e := range after {
		if !slices.Contains(before, e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// upload puts the metadata files of steps under their names.
func (s *server) upload(ctx context.Context, steps []*step) error {
	const uploadsMax = 8
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadsMax)
	for _, p := range steps {
		if p.unchanged {
			continue
		}
		g.Go(func() error {
			if err := s.putObject(ctx, p.next.URI, p.next.JSON); err != nil {
				return err
			}
			s.cache.put(p.next)
			return nil
		})
	}
	return g.Wait()
}

// install makes the step's assignment, keeping what the head says about the
// mirror, which may have moved on.
func (p *step) install(next *State) {
	t := pointer(p.next)
	if now, ok := next.Table(p.id); ok {
		t.Mirror = now.Mirror
	}
	next.PutTable(p.id, t)
}

func (s *server) commitTable(ctx context.Context, c *call) error {
	var in tableChange
	if err := c.body(&in); err != nil {
		return err
	}
	if in.Identifier != nil && in.Identifier.Name != c.names[1] && !strings.Contains(c.names[1], "+") {
		return badRequest("the body names table %s, the path %s", in.Identifier, c.names[1])
	}
	var p *step
	_, err := s.change(ctx, c, func(ctx context.Context, st *State) (install, error) {
		id, err := c.ident(st, hasTable)
		if err != nil {
			return nil, err
		}
		if !p.holds(st) {
			if p, err = s.planTable(ctx, st, id, &in); err != nil {
				return nil, err
			}
			if err := s.upload(ctx, []*step{p}); err != nil {
				return nil, err
			}
		}
		c.outcome = p.next.URI
		if p.unchanged {
			return nil, ErrUnchanged
		}
		return p.install, nil
	})
	if err != nil {
		return err
	}
	return s.replyOutcome(ctx, c)
}

func (s *server) commitTransaction(ctx context.Context, c *call) error {
	var in struct {
		Changes []*tableChange `json:"table-changes"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	if len(in.Changes) == 0 || len(in.Changes) > tableChangesMax {
		return badRequest("table-changes must hold 1 to %d tables", tableChangesMax)
	}
	named := map[string]bool{}
	for _, ch := range in.Changes {
		if ch == nil || ch.Identifier == nil {
			return badRequest("a table change has no identifier")
		}
		if err := checkNamespace(ch.Identifier.Namespace); err != nil {
			return err
		}
		if err := checkName(ch.Identifier.Name); err != nil {
			return err
		}
		if named[ch.Identifier.key()] {
			return badRequest("table %s is changed twice in one transaction", ch.Identifier)
		}
		named[ch.Identifier.key()] = true
	}
	steps := make([]*step, len(in.Changes))
	_, err := s.change(ctx, c, func(ctx context.Context, st *State) (install, error) {
		var fresh []*step
		changed, places := false, map[string]bool{}
		for i, ch := range in.Changes {
			if !steps[i].holds(st) {
				p, err := s.planTable(ctx, st, *ch.Identifier, ch)
				if err != nil {
					return nil, err
				}
				steps[i], fresh = p, append(fresh, p)
			}
			changed = changed || !steps[i].unchanged
			if place := steps[i].next.Meta.Location(); places[place] {
				return nil, badRequest("two tables of the transaction share the location %s", place)
			} else {
				places[place] = true
			}
		}
		if !changed {
			return nil, ErrUnchanged
		}
		if err := s.upload(ctx, fresh); err != nil {
			return nil, err
		}
		return func(next *State) {
			for _, p := range steps {
				if !p.unchanged {
					p.install(next)
				}
			}
		}, nil
	})
	if err != nil {
		return err
	}
	return c.noContent()
}

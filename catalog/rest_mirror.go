package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"golang.org/x/sync/errgroup"
)

// checkMirrored decides about a commit by others on a mirrored table, by what
// it leads to and not by how it is put: the shape of the table is Postgres',
// and its live rows are, unless the user has allowed row changes. Snapshots of
// other branches, tags, statistics and properties are anyone's.
func checkMirrored(st *State, id Ident, base, next table.Metadata, allowRows bool) error {
	if what := shapeChanged(base, next); what != "" {
		return forbidden("%s mirrors a Postgres table: its %s follows Postgres and cannot be changed here", id, what)
	}
	if err := checkProperties(id, base, next); err != nil {
		return err
	}
	if err := checkTags(st, id, base, next); err != nil {
		return err
	}
	path, err := mainPath(id, base, next)
	if err != nil {
		return err
	}
	before := base.CurrentSnapshot()
	for _, sn := range path {
		// The row index follows delete bitmaps by file; what an equality delete
		// kills nobody knows without reading the table.
		if n, err := count(sn, "added-equality-deletes"); err != nil || n != 0 {
			return forbidden("%s mirrors a Postgres table: equality deletes are not accepted on it", id)
		}
		if !allowRows {
			if why := keepsRows(before, sn); why != "" {
				return forbidden("%s mirrors a Postgres table and snapshot %d changes its rows: %s. Rewrites that keep the rows (operation replace) are accepted; to allow row changes by others set in firn.yaml\ntable_settings:\n  %s:\n    allow_writes: true",
					id, sn.SnapshotID, why, id)
			}
		}
		before = sn
	}
	return nil
}

// shapeChanged names the first part of a table's shape that differs.
func shapeChanged(base, next table.Metadata) string {
	schemasEqual := slices.EqualFunc(base.Schemas(), next.Schemas(), func(a, b *iceberg.Schema) bool { return a.ID == b.ID && a.Equals(b) })
	specsEqual := slices.EqualFunc(base.PartitionSpecs(), next.PartitionSpecs(), func(a, b iceberg.PartitionSpec) bool { return a.ID() == b.ID() && a.Equals(b) })
	ordersEqual := slices.EqualFunc(base.SortOrders(), next.SortOrders(), func(a, b table.SortOrder) bool { return a.OrderID() == b.OrderID() && a.Equals(b) })
	keysEqual := slices.EqualFunc(slices.Collect(base.EncryptionKeys()), slices.Collect(next.EncryptionKeys()),
		func(a, b table.EncryptionKey) bool { return a.KeyID == b.KeyID })
	switch {
	case next.Version() != base.Version():
		return "format version"
	case next.Location() != base.Location():
		return "location"
	case !schemasEqual || next.CurrentSchema().ID != base.CurrentSchema().ID:
		return "schema"
	case !specsEqual || next.DefaultPartitionSpec() != base.DefaultPartitionSpec():
		return "partitioning"
	case !ordersEqual || next.DefaultSortOrder() != base.DefaultSortOrder():
		return "sort order"
	case !keysEqual:
		return "encryption"
	}
	return ""
}

// gcEnabled tells engines whether they may remove files of a table. Of a mirrored
// one they may not: they don't see what older epochs need.
const gcEnabled = "gc.enabled"

// checkProperties keeps firn's own properties out of others' reach.
func checkProperties(id Ident, base, next table.Metadata) error {
	was, is := base.Properties(), next.Properties()
	for _, props := range []map[string]string{was, is} {
		for k := range maps.Keys(props) {
			if (strings.HasPrefix(k, "firn.") || k == gcEnabled) && was[k] != is[k] {
				return forbidden("%s mirrors a Postgres table: its property %s is firn's own", id, k)
			}
		}
	}
	return nil
}

// checkTags keeps the refs that stand for the lake's own tags.
func checkTags(st *State, id Ident, base, next table.Metadata) error {
	refs := maps.Collect(next.Refs())
	for name, ref := range base.Refs() {
		if _, ours := st.Tag(name); !ours || ref.SnapshotRefType != table.TagRef {
			continue
		}
		if now, ok := refs[name]; !ok || now.SnapshotID != ref.SnapshotID {
			return forbidden("tag %s of %s is a tag of the whole lake and cannot be moved or removed on one table", name, id)
		}
	}
	return nil
}

// mainPath lists the snapshots that lead from base's main to next's, oldest
// first. A main that is no descendant is refused whatever the settings: the
// row index could not follow it.
func mainPath(id Ident, base, next table.Metadata) ([]*table.Snapshot, error) {
	from, to := base.CurrentSnapshot(), next.CurrentSnapshot()
	if from == nil && to == nil {
		return nil, nil
	}
	if to == nil {
		return nil, forbidden("%s mirrors a Postgres table: its main branch cannot be removed", id)
	}
	var path []*table.Snapshot
	seen := map[int64]bool{}
	for at := to; ; {
		if from != nil && at.SnapshotID == from.SnapshotID {
			slices.Reverse(path)
			return path, nil
		}
		if seen[at.SnapshotID] {
			break
		}
		seen[at.SnapshotID] = true
		path = append(path, at)
		if at.ParentSnapshotID == nil {
			if from == nil {
				slices.Reverse(path)
				return path, nil
			}
			break
		}
		parent := next.SnapshotByID(*at.ParentSnapshotID)
		if parent == nil {
			break
		}
		at = parent
	}
	fromID := int64(0)
	if from != nil {
		fromID = from.SnapshotID
	}
	return nil, forbidden("%s mirrors a Postgres table: snapshot %d does not descend from its present main, snapshot %d, and only descendants are accepted", id, to.SnapshotID, fromID)
}

// keepsRows says what speaks against sn holding the same live rows as before,
// its parent. Rows may go physically where they were dead already.
func keepsRows(before, sn *table.Snapshot) string {
	if sn.Summary == nil || sn.Summary.Operation != table.OpReplace {
		op := "none"
		if sn.Summary != nil {
			op = string(sn.Summary.Operation)
		}
		return "its operation is " + op
	}
	var bad error
	num := func(of *table.Snapshot, key string) int64 {
		if of == nil {
			return 0
		}
		n, err := count(of, key)
		if err != nil {
			bad = err
		}
		return n
	}
	added, deleted := num(sn, "added-records"), num(sn, "deleted-records")
	dead := num(before, "total-position-deletes")
	addedDeletes, removedDeletes := num(sn, "added-position-deletes"), num(sn, "removed-position-deletes")
	was, is := num(before, "total-records"), num(sn, "total-records")
	switch {
	case bad != nil:
		return bad.Error()
	case added > deleted:
		return fmt.Sprintf("it adds %d records and removes %d", added, deleted)
	case deleted-added > dead:
		return fmt.Sprintf("it removes %d records more than it adds, and only %d were deleted before", deleted-added, dead)
	case addedDeletes > removedDeletes:
		return fmt.Sprintf("it adds %d position deletes and removes %d", addedDeletes, removedDeletes)
	case has(before, "total-records") && has(sn, "total-records") && is != was+added-deleted:
		return fmt.Sprintf("its total of %d records does not follow from %d, %d added and %d removed", is, was, added, deleted)
	}
	return ""
}

func has(sn *table.Snapshot, key string) bool {
	if sn == nil || sn.Summary == nil {
		return false
	}
	_, ok := sn.Summary.Properties[key]
	return ok
}

// count reads a number of a snapshot's summary; one that is not there is 0.
func count(sn *table.Snapshot, key string) (int64, error) {
	if !has(sn, key) {
		return 0, nil
	}
	n, err := strconv.ParseInt(sn.Summary.Properties[key], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("its summary says %s = %q", key, sn.Summary.Properties[key])
	}
	return n, nil
}

// checkKept refuses to remove a snapshot that the lake still answers for. Of a
// mirrored table that is every kept epoch's; of others' tables, which are
// theirs to thin, only what a tag names.
func (s *server) checkKept(ctx context.Context, st *State, id Ident, t *Table, base, next table.Metadata) error {
	gone := map[int64]bool{}
	for _, sn := range base.Snapshots() {
		if next.SnapshotByID(sn.SnapshotID) == nil {
			gone[sn.SnapshotID] = true
		}
	}
	if len(gone) == 0 {
		return nil
	}
	moments := map[uint64]string{}
	if t.Mirror != nil {
		for _, k := range st.Epochs() {
			moments[k.Number] = fmt.Sprintf("epoch %d (%s) is kept", k.Epoch, k.LSN)
		}
	}
	for name, tag := range st.Tags() {
		moments[tag.Number] = "tag " + name + " names it"
	}
	var mu sync.Mutex
	refusal := error(nil)
	const readsMax = 8
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readsMax)
	for number, why := range moments {
		g.Go(func() error {
			snapshot, err := s.kept.snapshot(ctx, s.log, number, id, t.UUID)
			if err != nil {
				return unavailable("read a kept epoch", err)
			}
			if gone[snapshot] {
				mu.Lock()
				defer mu.Unlock()
				refusal = forbidden("snapshot %d of %s cannot be removed: %s", snapshot, id, why)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return refusal
}

// keptCache remembers which snapshot of a table an entry of the log named.
// Entries never change.
type keptCache struct {
	mu        sync.Mutex
	snapshots map[keptKey]int64
}

type keptKey struct {
	number uint64
	uuid   string
}

// keptMax bounds the cache: some hundred tables with their 200 kept epochs. A
// full one starts afresh, as it is cheap to fill.
const keptMax = 50_000

func newKeptCache() *keptCache { return &keptCache{snapshots: map[keptKey]int64{}} }

// snapshot is the table's snapshot as of an entry; 0 if it had none.
func (k *keptCache) snapshot(ctx context.Context, log *Log, number uint64, id Ident, uuid string) (int64, error) {
	key := keptKey{number, uuid}
	k.mu.Lock()
	snapshot, ok := k.snapshots[key]
	k.mu.Unlock()
	if ok {
		return snapshot, nil
	}
	st, err := log.Entry(ctx, number)
	if err != nil {
		return 0, err
	}
	if t, there := st.Table(id); there && t.UUID == uuid {
		snapshot = t.SnapshotID
	} else {
		for _, t := range st.Tables() {
			if t.UUID == uuid {
				snapshot = t.SnapshotID
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.snapshots) >= keptMax {
		clear(k.snapshots)
	}
	k.snapshots[key] = snapshot
	return snapshot, nil
}

package torture

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake"
	"firn/lake/laketest"
)

// keptEpoch is one that the lake answers for.
type keptEpoch struct {
	catalog.Kept
	state *catalog.State
	page  int64 // of the book
}

// judgeHistory compares every kept epoch, tagged ones included, as DuckDB and
// PyIceberg read it: with the book, and where Postgres was asked at that very
// moment, with what it said.
func (r *rig) judgeHistory() {
	r.t.Helper()
	r.t.step("history after cut %d", len(r.cuts))
	ctx := r.t.Context()
	log, err := catalog.OpenLog(ctx, r.store, catalog.LogOptions{})
	require.NoError(r.t, err)
	head := log.Head()
	kept := map[uint64]catalog.Kept{}
	for _, k := range head.Epochs() {
		kept[k.Number] = k
	}
	tags := 0
	for _, t := range head.Tags() {
		kept[t.Number] = t.Kept
		tags++
	}
	require.Len(r.t, r.cuts, tags)
	var epochs []keptEpoch
	for _, k := range kept {
		state, err := log.Entry(ctx, k.Number)
		require.NoError(r.t, err, "entry %d of kept epoch %d", k.Number, k.Epoch)
		epochs = append(epochs, keptEpoch{Kept: k, state: state, page: r.pageOf(state)})
	}
	slices.SortFunc(epochs, func(a, b keptEpoch) int { return cmp.Compare(a.Epoch, b.Epoch) })
	pages := r.book.open()
	compared := map[string]bool{} // tables' snapshots
	last := int64(-1)
	for _, e := range epochs {
		if e.page < 0 {
			r.apart++
			continue
		}
		require.GreaterOrEqual(r.t, e.page, last, "epoch %d is behind the one before it", e.Epoch)
		last = e.page
		held := pages.to(e.page)
		for _, name := range bookTables {
			r.judgeTable(e, name, compared, func() laketest.Multiset { return held.rows(name) })
		}
		if cut := r.cuts[e.Epoch]; cut != nil {
			for _, name := range laketest.WorkloadTables {
				r.judgeTable(e, name, compared, func() laketest.Multiset { return cut[name] })
			}
		}
		require.False(r.t, r.t.Failed()) // every table of the epoch has been told
	}
	require.LessOrEqual(r.t, last, r.book.written.Load()+1)
	r.judged += len(compared)
	r.t.Logf("%d kept epochs, %d tags: %d snapshots of tables compared by two readers", len(epochs), tags, len(compared))
}

func (r *rig) judgeTable(e keptEpoch, name string, compared map[string]bool, want func() laketest.Multiset) {
	r.t.Helper()
	entry, ok := tableOf(e.state, name)
	if !ok || entry.SnapshotID == 0 || entry.Mirror.State != lake.Streaming {
		r.apart++ // its load had not ended, or its index followed somebody's rewrite
		return
	}
	id := fmt.Sprint(entry.UUID, entry.SnapshotID)
	if compared[id] {
		return
	}
	compared[id] = true
	rows := want()
	for reader, got := range map[string]*laketest.Result{
		"DuckDB":    r.duck.Scan(r.t, entry.Metadata),
		"PyIceberg": r.py.Scan(r.t, "", entry.Metadata, laketest.ScanOptions{Properties: r.minio.Properties()}),
	} {
		assert.Empty(r.t, laketest.Diff(rows, got.Multiset()), "%s by %s, epoch %d, page %d, %s", name, reader, e.Epoch, e.page, entry.Metadata)
	}
}

// pageOf is how far the book was; -1: it was not there, or not with the others.
func (r *rig) pageOf(state *catalog.State) int64 {
	r.t.Helper()
	entry, ok := tableOf(state, "book.page")
	if !ok || entry.SnapshotID == 0 || entry.Mirror.State != lake.Streaming {
		return -1
	}
	n, err := strconv.ParseInt(r.duck.Query(r.t, "SELECT n FROM iceberg_scan("+laketest.Quote(entry.Metadata)+")").Value(), 10, 64)
	require.NoError(r.t, err)
	return n
}

func tableOf(state *catalog.State, name string) (catalog.Table, bool) {
	schema, table, _ := strings.Cut(name, ".")
	t, ok := state.Table(catalog.Ident{Namespace: []string{schema}, Name: table})
	return t, ok
}

// tag keeps a cut, by the command that users have.
func (r *rig) tag(ctx context.Context, name, lsn string) {
	r.t.Helper()
	args := append([]string{"tag", name, "--at", lsn}, r.firn.lake...)
	out, err := r.firn.command(ctx, args...).CombinedOutput()
	require.NoError(r.t, err, "%s", out)
}

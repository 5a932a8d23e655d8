package wire

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"firn/catalog"
	"firn/compaction"
	"firn/lake/object"
	"firn/lake/snapshot"
)

const (
	// othersGrace is how old a file must be that somebody else may have put
	// there, who may still be about to commit it.
	othersGrace = 24 * time.Hour
	foldersKept = 30 * othersGrace // how long a folder is known after it was last named
	listPage    = 1000
	visits      = 8 // tables looked through at a time
)

// warehouse is the lake's place as compaction's sweeper sees it.
type warehouse struct {
	log      *catalog.Log
	head     *catalog.State // at the last look
	store    object.Store
	reach    *snapshot.Reach
	pending  *snapshot.Pending
	kept     map[uint64]*named    // by entry, those that were kept at the last look
	mirrored map[string]bool      // folders of mirrored tables
	folders  map[string]time.Time // of whatever the lake shows, or has shown: when it was last named
	spared   map[string]bool      // folders that nothing is removed from, this time
}

// named is what an entry of the log names. Most entries name the same files.
type named struct {
	tables  []namedTable
	views   []namedView
	entries []string // keys in the log
}

type namedTable struct {
	metadata unique.Handle[string] // URI
	folder   unique.Handle[string] // key
	mirrored bool
}

type namedView struct {
	metadata, folder unique.Handle[string] // as a table's
}

func (w *warehouse) namedBy(s *catalog.State) *named {
	n := &named{entries: s.Keys()}
	for _, t := range s.Tables() {
		if t.Metadata != "" {
			n.tables = append(n.tables, namedTable{unique.Make(t.Metadata), w.folder(t.Location), t.Mirror != nil})
		}
	}
	for _, v := range s.Views() {
		n.views = append(n.views, namedView{unique.Make(v.Metadata), w.folder(v.Location)})
	}
	return n
}

// folder is the key of a location; "" lies elsewhere.
func (w *warehouse) folder(location string) unique.Handle[string] {
	key, _ := w.store.Key(strings.TrimRight(location, "/"))
	return unique.Make(key)
}

// newSweeper keeps a warehouse free of what no kept epoch needs.
func newSweeper(log *catalog.Log, store object.Store, pending *snapshot.Pending, grace time.Duration) *compaction.Sweeper {
	w := &warehouse{log: log, store: store, pending: pending, folders: map[string]time.Time{}, reach: snapshot.NewReach(store, xxh3.HashString)}
	return &compaction.Sweeper{Warehouse: w, Grace: grace, OthersGrace: max(grace, othersGrace)}
}

func (w *warehouse) Hash(key string) uint64 { return xxh3.HashString(key) }

// Needed visits the head with its history, the kept epochs, and what is pending.
// A table that mirrors nothing is its engine's to thin: where that one has removed
// what a kept epoch names, the table's folder is left alone, and the rest goes on.
func (w *warehouse) Needed(ctx context.Context, fn func(hash uint64)) error {
	// Pending first: what leaves it meanwhile is in the head.
	for _, key := range w.pending.Keys() {
		fn(w.Hash(key))
	}
	head, err := w.log.Refresh(ctx)
	if err != nil {
		return err
	}
	kept, err := w.keptBy(ctx, head)
	if err != nil {
		return err
	}
	w.head, w.kept, w.mirrored, w.spared = head, kept, map[string]bool{}, map[string]bool{}
	now := time.Now()
	w.reach.Round()
	var mu sync.Mutex
	locked := func(h uint64) {
		mu.Lock()
		fn(h)
		mu.Unlock()
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(visits)
	seen := map[unique.Handle[string]]bool{}
	visit := func(n *named, history bool) {
		for _, key := range n.entries {
			locked(w.Hash(key))
		}
		for _, t := range n.tables {
			w.folders[t.folder.Value()] = now
			if t.mirrored {
				w.mirrored[t.folder.Value()] = true
			}
			if seen[t.metadata] {
				continue
			}
			seen[t.metadata] = true
			g.Go(func() error {
				err := w.reach.Visit(gctx, t.metadata.Value(), history, locked)
				if !t.mirrored && errors.Is(err, snapshot.ErrUnknown) {
					mu.Lock()
					defer mu.Unlock()
					w.spared[t.folder.Value()] = true
					return nil
				}
				return err
			})
		}
		for _, v := range n.views {
			w.folders[v.folder.Value()] = now
			if key, ok := w.store.Key(v.metadata.Value()); ok {
				locked(w.Hash(key))
			}
		}
	}
	visit(w.namedBy(head), true) // before the others: they need less of a file
	for _, n := range kept {
		visit(n, false)
	}
	maps.DeleteFunc(w.folders, func(_ string, named time.Time) bool { return now.Sub(named) > foldersKept })
	if err := w.mark(ctx, head, locked); err != nil {
		return errors.Join(err, g.Wait())
	}
	return g.Wait()
}

// mark visits what the entries from the log's mark on are read from: they build on
// full entries from there on, or on the one that the first of them does.
func (w *warehouse) mark(ctx context.Context, head *catalog.State, fn func(uint64)) error {
	if head.Trimmed == 0 {
		return nil
	}
	first, err := w.log.Entry(ctx, head.Trimmed)
	if err != nil {
		return err
	}
	for _, key := range first.Keys() {
		fn(w.Hash(key))
	}
	return nil
}

// keptBy reads the entries of the kept epochs, tagged ones included, that were
// not read at the last look.
func (w *warehouse) keptBy(ctx context.Context, head *catalog.State) (map[uint64]*named, error) {
	numbers := map[uint64]bool{}
	for _, k := range head.Epochs() {
		numbers[k.Number] = true
	}
	for _, t := range head.Tags() {
		numbers[t.Number] = true
	}
	out := make(map[uint64]*named, len(numbers))
	for n := range numbers {
		if out[n] = w.kept[n]; out[n] != nil {
			continue
		}
		s, err := w.log.Entry(ctx, n)
		if err != nil {
			return nil, err
		}
		out[n] = w.namedBy(s)
	}
	return out, nil
}

// Sweepable: of tables' files and, below the log's mark, of entries. Nothing else
// is touched: a folder that the lake has not shown is somebody's, however it looks
// inside, but for what this package alone names so, and a killed load left.
// version-hint.text is named by nobody, and read by its name.
func (w *warehouse) Sweepable(key string) bool {
	if strings.HasPrefix(key, catalog.LogPrefix) {
		return w.head.MayTrim(key)
	}
	ours := snapshot.OwnName(key) && ownFolder.MatchString(key)
	return (ours || in(w.folders, key)) && !strings.HasSuffix(key, "/version-hint.text") && !in(w.spared, key)
}

// ownFolder matches keys in folders as Tables and the catalog's server name them.
var ownFolder = regexp.MustCompile(`^.+-[0-9a-f]{8}([0-9a-f]{4})?/(data|metadata)/[^/]+$`)

// in says whether a key is in the data or metadata of one of these.
func in[V any](folders map[string]V, key string) bool {
	for i, c := range key {
		if rest := key[i:]; c == '/' && (strings.HasPrefix(rest, "/data/") || strings.HasPrefix(rest, "/metadata/")) {
			if _, ok := folders[key[:i]]; ok {
				return true
			}
		}
	}
	return false
}

// Ours: an engine that rewrites a mirrored table puts its files into the same
// folder, and may take hours until it commits them.
func (w *warehouse) Ours(key string) bool {
	if strings.HasPrefix(key, catalog.LogPrefix) {
		return true
	}
	return snapshot.OwnName(key) && in(w.mirrored, key)
}

func (w *warehouse) List(ctx context.Context, after string) ([]compaction.Object, error) {
	infos, err := w.store.List(ctx, "", after, listPage)
	if err != nil {
		return nil, err
	}
	out := make([]compaction.Object, len(infos))
	for i, o := range infos {
		out[i] = compaction.Object{Key: o.Key, Size: o.Size, Modified: o.Modified}
	}
	return out, nil
}

func (w *warehouse) Now(ctx context.Context) (time.Time, error) { return w.store.Now(ctx) }
func (w *warehouse) Check(ctx context.Context) error            { return w.log.Owned(ctx) }
func (w *warehouse) Delete(ctx context.Context, keys ...string) error {
	return w.store.Delete(ctx, keys...)
}

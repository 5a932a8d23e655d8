package wire

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"unicode"

	"github.com/google/uuid"

	"firn/lake"
	"firn/lake/snapshot"
)

// Tables makes and opens the lake's tables in a store.
type Tables struct {
	Store   snapshot.Store
	TempDir string
	Logger  *slog.Logger
	// FormatVersion chooses 2 or 3 for a new table.
	FormatVersion func(lake.Ident) int
	// Pacer holds the rewrites of all of them back.
	Pacer *lake.Pacer
	// History tells what the lake keeps; nil: the newest snapshots of each table.
	History func() *snapshot.History
	// SortBy is the order of a table's rows, BloomFilters are of which columns;
	// nil: what the table has.
	SortBy       func(lake.Ident) snapshot.SortBy
	BloomFilters func(lake.Ident) snapshot.BloomFilters

	uploads snapshot.Limiter
	footers *snapshot.Footers
	pending *snapshot.Pending
}

// NewTables shares upload slots, a footer cache and the list of what is not yet
// published among all tables.
func NewTables(store snapshot.Store, tempDir string, logger *slog.Logger, formatVersion func(lake.Ident) int) *Tables {
	return &Tables{Store: store, TempDir: tempDir, Logger: logger, FormatVersion: formatVersion, Pacer: &lake.Pacer{},
		uploads: snapshot.NewLimiter(16), footers: snapshot.NewFooters(256), pending: snapshot.NewPending()}
}

func (t *Tables) options(id lake.Ident, location string) snapshot.Options {
	o := snapshot.Options{Store: t.Store, Ident: id, Location: location, Logger: t.Logger, TempDir: t.TempDir, Uploads: t.uploads, Footers: t.footers, Pending: t.pending, History: t.History, Pacer: t.Pacer}
	if t.SortBy != nil {
		o.SortBy = t.SortBy(id)
	}
	if t.BloomFilters != nil {
		o.BloomFilters = t.BloomFilters(id)
	}
	return o
}

// Create makes a table whose folder no table has had before.
func (t *Tables) Create(_ context.Context, id lake.Ident, l *lake.Layout) (lake.TableStore, error) {
	folder := fmt.Sprintf("%s/%s-%s", folderName(id.Namespace), folderName(id.Name), uuid.NewString()[:8])
	return snapshot.Create(snapshot.CreateOptions{Options: t.options(id, folder), Schema: l.Schema(), Partition: l.Partition, FormatVersion: t.FormatVersion(id)})
}

// folderName keeps to characters that every reader takes in a URI as they are;
// what makes a folder unique is not its name.
func folderName(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '-') {
			return r
		}
		return '_'
	}, s)
}

// Open reads a table's metadata and manifests.
func (t *Tables) Open(ctx context.Context, id lake.Ident, metadata string) (lake.TableStore, error) {
	return t.load(ctx, id, metadata, snapshot.Load)
}

// Base reads a table's metadata.
func (t *Tables) Base(ctx context.Context, id lake.Ident, metadata string) (lake.TableStore, error) {
	return t.load(ctx, id, metadata, snapshot.LoadBase)
}

func (t *Tables) load(ctx context.Context, id lake.Ident, metadata string, load func(context.Context, snapshot.Options, string) (*snapshot.Table, error)) (lake.TableStore, error) {
	key, ok := t.Store.Key(metadata)
	if !ok {
		return nil, fmt.Errorf("open %s: %w: %s lies outside the warehouse", id, lake.ErrUnreadable, metadata)
	}
	folder, _, ok := strings.Cut(key, "/metadata/")
	if !ok {
		return nil, fmt.Errorf("open %s: %w: %s is not in a metadata folder", id, lake.ErrUnreadable, metadata)
	}
	opened, err := load(ctx, t.options(id, folder), metadata)
	if err != nil {
		return nil, err // and no *snapshot.Table
	}
	return opened, nil
}

package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	icecat "github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/apache/iceberg-go/table"

	"firn/catalog"
	"firn/lake/object"
)

// foreign rewrites mirrored tables as another engine does: through the catalog,
// with iceberg-go's own rewrite, at any time, whether firn runs or not. The
// catalog's server is one beside firn, as `firn serve` is.
type foreign struct {
	server *httptest.Server
	cat    *rest.Catalog
	rng    *rand.Rand
	tables []string

	paused sync.RWMutex // held for reading by a rewrite

	mu     sync.Mutex
	landed map[string]int
	lost   int // to commits that came between
}

func newForeign(ctx context.Context, store object.Store, o object.Options, tables []string, seed uint64) (*foreign, error) {
	object.RegisterFileIO(o)
	log, err := catalog.OpenLog(ctx, store, catalog.LogOptions{})
	if err != nil {
		return nil, err
	}
	f := &foreign{rng: rand.New(rand.NewPCG(seed, 5)), tables: tables, landed: map[string]int{}}
	f.server = httptest.NewServer(catalog.NewServer(log, store, catalog.ServerOptions{Warehouse: "postgres"}))
	if f.cat, err = rest.NewCatalog(ctx, "lake", f.server.URL); err != nil {
		f.server.Close()
		return nil, err
	}
	return f, nil
}

// run rewrites until ctx ends.
func (f *foreign) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if _, err := f.rewrite(context.WithoutCancel(ctx), f.pick()); err != nil {
			return err
		}
		f.mu.Lock()
		pause := time.Duration(100+f.rng.IntN(900)) * time.Millisecond
		f.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// pick chooses a table.
func (f *foreign) pick() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables[f.rng.IntN(len(f.tables))]
}

// rewrite makes one file of what lives in each of a table's partitions. false: another commit came
// between, or there is nothing to rewrite.
func (f *foreign) rewrite(ctx context.Context, name string) (landed bool, err error) {
	f.paused.RLock()
	defer f.paused.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = f.try(ctx, name)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.landed[name]++
		return true, nil
	case errors.Is(err, errNothing), errors.Is(err, icecat.ErrNoSuchTable):
		return false, nil
	case errors.Is(err, rest.ErrCommitFailed), errors.Is(err, table.ErrCommitFailed):
		f.lost++
		return false, nil
	}
	return false, fmt.Errorf("rewrite %s as another engine: %w", name, err)
}

var errNothing = errors.New("there is nothing to rewrite")

func (f *foreign) try(ctx context.Context, name string) error {
	t, err := f.cat.LoadTable(ctx, strings.Split(name, "."))
	if err != nil {
		return err
	}
	tasks, err := t.Scan().PlanFiles(ctx)
	if err != nil {
		return err
	}
	if len(tasks) == 0 {
		return errNothing
	}
	tx := t.NewTransaction()
	if _, err := tx.RewriteDataFiles(ctx, byPartition(tasks), table.RewriteDataFilesOptions{}); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

// layout is how many fields a table is partitioned and sorted by.
func (f *foreign) layout(ctx context.Context, name string) (partition, sort int, err error) {
	t, err := f.cat.LoadTable(ctx, strings.Split(name, "."))
	if err != nil {
		return 0, 0, err
	}
	spec, order := t.Spec(), t.SortOrder()
	return spec.NumFields(), order.Len(), nil
}

// byPartition groups files as iceberg-go's rewrite wants them: those of one
// partition, which it writes as one stream.
func byPartition(tasks []table.FileScanTask) []table.CompactionTaskGroup {
	var groups []table.CompactionTaskGroup
	at := map[string]int{}
	for _, task := range tasks {
		key := fmt.Sprintf("%d %#v", task.File.SpecID(), task.File.Partition())
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key], groups = i, append(groups, table.CompactionTaskGroup{PartitionKey: key})
		}
		groups[i].Tasks = append(groups[i].Tasks, task)
	}
	return groups
}

// counts are the rewrites that landed, in all and by table, and those that lost.
func (f *foreign) counts() (landed int, by map[string]int, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.landed {
		landed += n
	}
	return landed, f.landed, f.lost
}

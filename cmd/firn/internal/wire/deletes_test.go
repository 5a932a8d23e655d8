package wire_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/lake/laketest"
	"firn/lake/object"
)

// TestRule13 lets run and serve do all they do: nobody deletes an object but
// those of the proof of a new store, and what a load has uploaded lives through
// everything that happens before its publication, a second firn's start and a
// purge by a client included.
func TestRule13(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`create table a (id int primary key, v text); insert into a select i, 'v' from generate_series(1, 5000) i;
		create table b (id int primary key); insert into b select i from generate_series(1, 100) i`)
	st, err := object.Open(t.Context(), r.o.Warehouse, r.o.Object)
	require.NoError(t, err)
	store := laketest.NewFaultStore(st)
	log, err := catalog.OpenLog(t.Context(), store, catalog.LogOptions{Logger: r.o.Logger})
	require.NoError(t, err)

	loaded, goOn := make(chan struct{}), make(chan struct{})
	r.o.Fail = func() func(string) {
		var first sync.Once
		return func(point string) {
			if point == "before-load-join" {
				first.Do(func() { close(loaded); <-goOn })
			}
		}
	}()
	e, err := wire.Connect(t.Context(), r.o, store, log)
	require.NoError(t, err)
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Lake.Run(ctx) }()
	<-loaded
	early := dataFiles(t, store)
	require.NotEmpty(t, early, "the load has uploaded nothing yet")
	named := func() map[string]bool {
		files := map[string]bool{}
		for _, h := range r.head(e).Tables {
			tab, err := wire.NewTables(store, t.TempDir(), r.o.Logger, r.o.FormatVersion).Open(t.Context(), h.Ident, h.Metadata)
			require.NoError(t, err)
			for _, f := range tab.Files() {
				key, ok := store.Key(f.Path)
				require.True(t, ok)
				files[key] = true
			}
		}
		return files
	}
	unnamed := 0
	for _, key := range early {
		if !named()[key] {
			unnamed++
		}
	}
	require.NotZero(t, unnamed, "all is published already")

	// Others come to the same lake meanwhile: a catalog server of another
	// process, whose client makes a table and purges it, and a second firn.
	_, others, err := wire.OpenStore(t.Context(), r.o)
	require.NoError(t, err)
	server := httptest.NewServer(catalog.NewServer(others, store, catalog.ServerOptions{Warehouse: r.o.Name, Logger: r.o.Logger}))
	defer server.Close()
	client, err := rest.NewCatalog(t.Context(), "lake", server.URL)
	require.NoError(t, err)
	require.NoError(t, client.CreateNamespace(t.Context(), []string{"mine"}, nil))
	_, err = client.CreateTable(t.Context(), []string{"mine", "t"}, iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64}))
	require.NoError(t, err)
	require.NoError(t, client.PurgeTable(t.Context(), []string{"mine", "t"}))
	rival := r.o
	rival.StateDir, rival.Fail = t.TempDir(), nil
	second, err := wire.Open(t.Context(), rival)
	require.NoError(t, err)
	second.Close()

	close(goOn)
	r.caughtUp(e)
	for _, key := range early {
		require.True(t, named()[key], "%s was uploaded and is in no table", key)
	}
	r.same(e, "public.a", "public.b")
	r.exec("update a set v = 'w' where id % 2 = 0; delete from a where id < 100; truncate b; insert into b values (1)")
	r.exec("alter table a add n int; update a set n = 1")
	r.settled(e)
	r.exec("alter table a alter n type bigint using n * 2") // loads it anew
	r.settled(e)
	r.same(e, "public.a", "public.b")
	cancel()
	require.NoError(t, <-ended)
	for _, c := range store.Calls() {
		if c.Op == laketest.OpDelete {
			require.True(t, strings.HasPrefix(c.Key, "_firn/probe"), "%s was deleted", c.Key)
		}
	}
	for _, key := range early { // a table that was emptied or loaded anew keeps its history
		_, err := store.Head(t.Context(), key)
		require.NoError(t, err)
	}
}

func dataFiles(t *testing.T, store object.Store) []string {
	t.Helper()
	var out []string
	require.Eventually(t, func() bool {
		keys, err := store.Keys(t.Context(), "", "", 0)
		require.NoError(t, err)
		out = nil
		for _, k := range keys {
			if strings.HasSuffix(k, ".parquet") {
				out = append(out, k)
			}
		}
		return len(out) > 0
	}, 10*time.Second, 20*time.Millisecond)
	return out
}

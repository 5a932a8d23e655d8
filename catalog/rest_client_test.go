package catalog

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	icecat "github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/catalogtest"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/view"
	"github.com/stretchr/testify/require"
)

func TestClientConformance(t *testing.T) {
	catalogtest.RunCatalogTests(t, catalogtest.Config{
		SupportsNamespaceProperties: true,
		NewCatalog: func(t *testing.T) icecat.Catalog {
			return newRestServer(t, newRestFolder(t), ServerOptions{}).client()
		},
	})
}

func restRows(t *testing.T, ids ...int64) array.RecordReader {
	t.Helper()
	sc, err := table.SchemaToArrowSchema(restIcebergSchema, nil, true, false)
	require.NoError(t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	for _, id := range ids {
		b.Field(0).(*array.Int64Builder).Append(id)
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("row ", id))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	rd, err := array.NewRecordReader(sc, []arrow.RecordBatch{rec})
	require.NoError(t, err)
	t.Cleanup(rd.Release)
	return rd
}

func restScan(t *testing.T, tbl *table.Table) []int64 {
	t.Helper()
	got, err := tbl.Scan().ToArrowTable(t.Context())
	require.NoError(t, err)
	defer got.Release()
	var ids []int64
	for _, chunk := range got.Column(0).Data().Chunks() {
		ids = append(ids, chunk.(*array.Int64).Int64Values()...)
	}
	slices.Sort(ids)
	return ids
}

func TestClientWritesAndReads(t *testing.T) {
	folder := newRestFolder(t)
	s := newRestServer(t, folder, ServerOptions{})
	c := s.client()
	require.NoError(t, c.CreateNamespace(t.Context(), table.Identifier{"a"}, nil))
	id := table.Identifier{"a", "t"}
	tbl, err := c.CreateTable(t.Context(), id, restIcebergSchema, icecat.WithProperties(iceberg.Properties{"k": "v"}))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(tbl.Location(), folder.URI("a/t-")), tbl.Location())
	require.Regexp(t, `/metadata/00000-[0-9a-f-]{36}\.metadata\.json$`, tbl.MetadataLocation())

	tbl, err = tbl.Append(t.Context(), restRows(t, 1, 2), nil)
	require.NoError(t, err)
	require.Regexp(t, `/metadata/00001-[0-9a-f-]{36}\.metadata\.json$`, tbl.MetadataLocation())
	first := tbl.CurrentSnapshot().SnapshotID
	tbl, err = tbl.Append(t.Context(), restRows(t, 3), nil)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, restScan(t, tbl))

	// Another server over the same folder, in another process as it were.
	other := newRestServer(t, folder, ServerOptions{}).client()
	tbl, err = other.LoadTable(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, restScan(t, tbl))
	require.Equal(t, "v", tbl.Properties()["k"])
	require.NotNil(t, tbl.SnapshotByID(first))

	head, ok := s.log.Head().Table(Ident{[]string{"a"}, "t"})
	require.True(t, ok)
	require.Equal(t, tbl.CurrentSnapshot().SnapshotID, head.SnapshotID)
	require.Equal(t, tbl.Metadata().LastSequenceNumber(), head.SequenceNumber)

	_, err = other.RenameTable(t.Context(), id, table.Identifier{"a", "u"})
	require.NoError(t, err)
	_, err = other.LoadTable(t.Context(), id)
	require.ErrorIs(t, err, icecat.ErrNoSuchTable)
	tbl, err = other.LoadTable(t.Context(), table.Identifier{"a", "u"})
	require.NoError(t, err)

	where := tbl.MetadataLocation()
	require.NoError(t, other.DropTable(t.Context(), table.Identifier{"a", "u"}))
	tbl, err = other.RegisterTable(t.Context(), table.Identifier{"a", "back"}, where)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, restScan(t, tbl))
	require.NoError(t, other.PurgeTable(t.Context(), table.Identifier{"a", "back"}))
}

func TestClientStagedCreate(t *testing.T) {
	s := newRestServer(t, newRestFolder(t), ServerOptions{})
	c := s.client()
	require.NoError(t, c.CreateNamespace(t.Context(), table.Identifier{"a"}, nil))
	id := table.Identifier{"a", "t"}
	tbl, err := c.CreateTable(t.Context(), id, restIcebergSchema,
		icecat.WithStagedUpdates(table.NewSetPropertiesUpdate(iceberg.Properties{"staged": "yes"})))
	require.NoError(t, err)
	require.Equal(t, "yes", tbl.Properties()["staged"])
	tbl, err = tbl.Append(t.Context(), restRows(t, 5), nil)
	require.NoError(t, err)
	require.Equal(t, []int64{5}, restScan(t, tbl))
	_, err = c.CreateTable(t.Context(), id, restIcebergSchema, icecat.WithStagedUpdates(table.NewSetPropertiesUpdate(iceberg.Properties{"b": "c"})))
	require.ErrorIs(t, err, icecat.ErrTableAlreadyExists)
}

func TestClientTransactionMovesAllOrNone(t *testing.T) {
	s := newRestServer(t, newRestFolder(t), ServerOptions{})
	c := s.client()
	require.NoError(t, c.CreateNamespace(t.Context(), table.Identifier{"a"}, nil))
	ids := []table.Identifier{{"a", "x"}, {"a", "y"}}
	var uuids []table.Requirement
	for _, id := range ids {
		tbl, err := c.CreateTable(t.Context(), id, restIcebergSchema)
		require.NoError(t, err)
		uuids = append(uuids, table.AssertTableUUID(tbl.Metadata().TableUUID()))
	}
	set := func(v string) []table.Update {
		return []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"v": v})}
	}
	before := s.log.Head().Number
	require.NoError(t, c.CommitTransaction(t.Context(), []table.TableCommit{
		{Identifier: ids[0], Requirements: uuids[:1], Updates: set("1")},
		{Identifier: ids[1], Requirements: uuids[1:], Updates: set("1")},
	}))
	require.Equal(t, before+1, s.log.Head().Number, "one entry for both tables")
	err := c.CommitTransaction(t.Context(), []table.TableCommit{
		{Identifier: ids[0], Requirements: uuids[:1], Updates: set("2")},
		{Identifier: ids[1], Requirements: uuids[:1], Updates: set("2")}, // the other table's uuid
	})
	require.ErrorIs(t, err, rest.ErrCommitFailed)
	for _, id := range ids {
		tbl, err := c.LoadTable(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "1", tbl.Properties()["v"])
	}
}

func TestClientPages(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("t%d", i)
		s.makeTable(name)
		s.ok("POST", "/v1/namespaces", fmt.Sprintf(`{"namespace":["n%d"]}`, i))
		want = append(want, name)
	}
	c := s.client()
	var got []string
	for id, err := range c.ListTables(c.SetPageSize(t.Context(), 3), table.Identifier{"a"}) {
		require.NoError(t, err)
		got = append(got, id[1])
	}
	require.Equal(t, want, got)
	nss, err := c.ListNamespaces(c.SetPageSize(t.Context(), 2), nil)
	require.NoError(t, err)
	require.Len(t, nss, 8)

	page := s.ok("GET", "/v1/namespaces/a/tables?pageSize=3&pageToken=", nil).json(t)
	require.Len(t, page["identifiers"], 3)
	require.NotEmpty(t, page["next-page-token"])
	all := s.ok("GET", "/v1/namespaces/a/tables", nil).json(t)
	require.Len(t, all["identifiers"], 7)
	require.NotContains(t, all, "next-page-token")
	for _, q := range []string{"pageSize=x", "pageSize=0", "pageSize=-1", "pageToken=!!"} {
		require.Equal(t, "BadRequestException", s.do("GET", "/v1/namespaces/a/tables?"+q, nil).errorType(t), q)
	}
}

func TestClientViews(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	c := s.client()
	require.NoError(t, c.CreateNamespace(t.Context(), table.Identifier{"a"}, nil))
	version, err := view.NewVersionFromSQL(1, 0, "select 1 as id", table.Identifier{"a"})
	require.NoError(t, err)
	id := table.Identifier{"a", "v"}
	v, err := c.CreateView(t.Context(), id, version, restIcebergSchema)
	require.NoError(t, err)
	_, err = c.CreateView(t.Context(), id, version, restIcebergSchema)
	require.ErrorIs(t, err, icecat.ErrViewAlreadyExists)
	_, err = c.CreateTable(t.Context(), id, restIcebergSchema)
	require.Error(t, err, "a view has the name")

	v, err = c.UpdateView(t.Context(), id, []view.Requirement{view.AssertViewUUID(v.Metadata().ViewUUID())},
		[]view.Update{view.NewSetPropertiesUpdate(iceberg.Properties{"p": "q"})})
	require.NoError(t, err)
	require.Equal(t, "q", v.Properties()["p"])
	require.Regexp(t, `/metadata/00001-`, v.MetadataLocation())

	_, err = c.RenameView(t.Context(), id, table.Identifier{"a", "w"})
	require.NoError(t, err)
	v, err = c.LoadView(t.Context(), table.Identifier{"a", "w"})
	require.NoError(t, err)
	require.Equal(t, "q", v.Properties()["p"])
	var names []string
	for id, err := range c.ListViews(t.Context(), table.Identifier{"a"}) {
		require.NoError(t, err)
		names = append(names, id[1])
	}
	require.Equal(t, []string{"w"}, names)
	require.ErrorIs(t, c.DropNamespace(t.Context(), table.Identifier{"a"}), icecat.ErrNamespaceNotEmpty)
	require.NoError(t, c.DropView(t.Context(), table.Identifier{"a", "w"}))
	_, err = c.LoadView(t.Context(), table.Identifier{"a", "w"})
	require.ErrorIs(t, err, icecat.ErrNoSuchView)
}

// Many clients of two servers change one table; each commit must stand.
func TestClientsRace(t *testing.T) {
	store := newRestMemory()
	servers := []*restServer{newRestServer(t, store, ServerOptions{}), newRestServer(t, store, ServerOptions{})}
	servers[0].makeTable("t")
	const clients, commits = 6, 8
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			s := servers[n%2]
			for i := range commits {
				a := s.do("POST", "/v1/namespaces/a/tables/t",
					restCommit(map[string]any{"action": "set-properties", "updates": map[string]string{fmt.Sprintf("c%d.%d", n, i): "x"}}))
				if a.Status != 200 {
					t.Errorf("commit: %d %s", a.Status, a.Body)
				}
			}
		})
	}
	wg.Wait()
	fresh := newRestServer(t, store, ServerOptions{})
	require.Len(t, fresh.metadata("/v1/namespaces/a/tables/t")["properties"], clients*commits)
}

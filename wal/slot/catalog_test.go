package slot

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"firn/wal"
	"firn/wal/localpg"
)

func TestOpenRefusals(t *testing.T) {
	ctx := t.Context()
	_, err := Open(ctx, Options{URL: "postgres://x@127.0.0.1:1/x?sslmode=disable"})
	require.ErrorIs(t, err, ErrUnreachable)
	_, err = Open(ctx, Options{URL: "postgres://u:topsecret@127.0.0.1:abc/x"})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "topsecret")

	srv := ownServer(t, localpg.Options{HBA: []string{"host all secret 127.0.0.1/32 scram-sha-256", "host all banned 127.0.0.1/32 reject", "host all all 127.0.0.1/32 trust"}})
	c := dial(t, srv.URL("postgres"))
	mustExec(t, c, "CREATE ROLE secret LOGIN PASSWORD 'right'; CREATE ROLE banned LOGIN")
	host := c.Config().Host
	url := func(user, db string) string {
		return "postgres://" + user + "@" + host + ":" + itoa(srv.Port()) + "/" + db + "?sslmode=disable"
	}
	_, err = Open(ctx, Options{URL: url("secret:wrong", "postgres")})
	require.ErrorIs(t, err, ErrAuth)
	require.NotContains(t, err.Error(), "wrong")
	_, err = Open(ctx, Options{URL: url("banned", "postgres")})
	require.ErrorIs(t, err, ErrAuth)
	_, err = Open(ctx, Options{URL: url("postgres", "nowhere")})
	require.ErrorIs(t, err, ErrNoDatabase)
	_, err = Open(ctx, Options{URL: "postgres://postgres@" + host + ":" + itoa(srv.Port()) + "/postgres?sslmode=require"})
	require.ErrorIs(t, err, ErrUnreachable, "TLS was demanded and the server has none")
	s, err := Open(ctx, Options{URL: url("secret:right", "postgres")})
	require.NoError(t, err)
	s.Close()
	s.Close()
	_, err = s.InsertLSN(ctx)
	require.ErrorContains(t, err, "closed")
}

func TestIdentify(t *testing.T) {
	srv := sharedServer(t)
	url, c := newDatabase(t, srv)
	s := open(t, url)
	id, err := s.Identify(t.Context())
	require.NoError(t, err)
	require.Equal(t, int32(1), id.Timeline)
	require.Equal(t, s.Database(), id.Database)
	require.NotEmpty(t, id.SystemID)
	require.NotZero(t, id.WALPosition)
	var v int
	require.NoError(t, c.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&v))
	require.Equal(t, v, id.Version)
	sw, err := s.TimelineHistory(t.Context(), 1)
	require.NoError(t, err)
	require.Empty(t, sw)
	lsn, err := s.InsertLSN(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, lsn, id.WALPosition)
}

func TestSourceSurvivesLostConnections(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	s := open(t, url)
	mustExec(t, c, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	for range 4 {
		_, err := s.InsertLSN(t.Context())
		require.NoError(t, err)
	}
}

const tablesSQL = `
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE DOMAIN price AS numeric(12,3);
	CREATE DOMAIN prices AS price[];
	CREATE DOMAIN deep AS price;
	CREATE SCHEMA other;
	CREATE TABLE plain (id bigint PRIMARY KEY, a numeric(10,2), gone text, m mood, d price, dd deep, ds prices, arr int[], narr numeric(6,1)[], marr mood[],
		v int2vector, acl aclitem, g int GENERATED ALWAYS AS (1) STORED, vc varchar(7) NOT NULL);
	ALTER TABLE plain DROP COLUMN gone;
	ALTER TABLE plain ADD COLUMN late int DEFAULT 7;
	CREATE TABLE two_keys (b int, a int, PRIMARY KEY (a, b));
	CREATE TABLE no_key (x int);
	CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
	CREATE TABLE full_key (x int, id int PRIMARY KEY); ALTER TABLE full_key REPLICA IDENTITY FULL;
	CREATE TABLE full_bare (x int); ALTER TABLE full_bare REPLICA IDENTITY FULL;
	CREATE TABLE by_index (id int PRIMARY KEY, u text NOT NULL); CREATE UNIQUE INDEX by_index_u ON by_index (u); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_u;
	CREATE TABLE index_gone (id int PRIMARY KEY, u text NOT NULL); CREATE UNIQUE INDEX index_gone_u ON index_gone (u); ALTER TABLE index_gone REPLICA IDENTITY USING INDEX index_gone_u; DROP INDEX index_gone_u;
	CREATE TABLE later (id int PRIMARY KEY DEFERRABLE);
	CREATE TABLE later_full (id int PRIMARY KEY DEFERRABLE); ALTER TABLE later_full REPLICA IDENTITY FULL;
	CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
	CREATE TEMP TABLE temporary (id int PRIMARY KEY);
	CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (x int) INHERITS (parent);
	CREATE TABLE parted (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
	CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
	CREATE TABLE parted_b PARTITION OF parted FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (id);
	CREATE TABLE other.parted_b1 PARTITION OF parted_b FOR VALUES IN (1);
	CREATE TABLE split_mind (id int) PARTITION BY LIST (id); ALTER TABLE split_mind REPLICA IDENTITY FULL;
	CREATE TABLE split_mind_1 PARTITION OF split_mind FOR VALUES IN (1);
	CREATE VIEW v AS SELECT 1; CREATE MATERIALIZED VIEW mv AS SELECT 1;
	CREATE TABLE other."we.ird ""Name" ("Id" int PRIMARY KEY);
	CREATE TABLE empty_columns ();`

func TestTables(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, tablesSQL)
	s := open(t, url)
	ts, err := s.Tables(t.Context(), nil)
	require.NoError(t, err)
	got := make(map[string]Table)
	for _, x := range ts {
		got[x.Schema+"."+x.Name] = x
	}
	for name, reason := range map[string]string{
		"public.plain": "", "public.two_keys": "", "public.full_key": "", "public.full_bare": "", "public.by_index": "",
		"public.later_full": "", "public.parent": "", "public.parted": "", `other.we.ird "Name`: "",
		"public.no_key":        "no primary key",
		"public.child":         "no primary key",
		"public.nothing":       "NOTHING",
		"public.index_gone":    "gone",
		"public.later":         "deferrable",
		"public.fast":          "unlogged",
		"public.split_mind":    "split_mind_1 has REPLICA IDENTITY DEFAULT",
		"public.empty_columns": "no columns",
	} {
		x, ok := got[name]
		require.True(t, ok, name)
		require.Equal(t, reason == "", x.Usable, "%s: %s", name, x.Reason)
		require.Contains(t, x.Reason, reason, name)
		delete(got, name)
	}
	require.Empty(t, got, "nothing else is a table of its own")

	keyOf := func(name string) (out []string) {
		x := describe(t, s, name)
		for _, i := range x.Key {
			out = append(out, x.Columns[i].Name)
		}
		return out
	}
	require.Equal(t, []string{"a", "b"}, keyOf("public.two_keys"))
	require.Equal(t, []string{"id"}, keyOf("public.full_key"))
	require.Empty(t, keyOf("public.full_bare"))
	require.Empty(t, keyOf("public.later_full"))
	require.Equal(t, []string{"u"}, keyOf("public.by_index"))
	require.Equal(t, []string{"id", "day"}, keyOf("public.parted"))

	parted := describe(t, s, "public.parted")
	require.True(t, parted.Partitioned)
	require.Equal(t, []string{"parted_b1", "parted_a"}, []string{parted.Leaves[0].Name, parted.Leaves[1].Name})
	require.Equal(t, "other", parted.Leaves[0].Schema)
}

func TestColumnsAndTypes(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, tablesSQL)
	s := open(t, url)
	x := describe(t, s, "public.plain")
	require.Equal(t, []int16{3}, x.Dropped)
	require.Equal(t, int16(15), x.MaxAttNum)
	col := make(map[string]Column)
	for _, c := range x.Columns {
		col[c.Name] = c
	}
	require.NotContains(t, col, "gone")
	require.True(t, col["id"].NotNull)
	require.True(t, col["vc"].NotNull)
	require.False(t, col["a"].NotNull)
	require.True(t, col["late"].HasMissing)
	require.False(t, col["a"].HasMissing)
	require.Equal(t, byte('s'), col["g"].Generated)
	require.Zero(t, col["a"].Generated)

	numeric := func(p, s int32) int32 { return p<<16 | s + 4 }
	require.Equal(t, wal.TypeInfo{OID: 1700, Mod: numeric(10, 2), Schema: "pg_catalog", Name: "numeric", Kind: 'b'}, col["a"].Type)
	require.Equal(t, byte('e'), col["m"].Type.Kind)
	require.Equal(t, "public", col["m"].Type.Schema)
	require.Equal(t, "varchar", col["vc"].Type.Name)
	require.Equal(t, int32(11), col["vc"].Type.Mod)
	require.True(t, col["acl"].Type.NoSend)

	d := col["d"].Type
	require.Equal(t, byte('d'), d.Kind)
	require.Equal(t, numeric(12, 3), d.Base.Mod)
	require.Equal(t, "numeric", d.Base.Name)
	dd := col["dd"].Type
	require.Equal(t, "price", dd.Base.Name)
	require.Equal(t, numeric(12, 3), dd.Base.Base.Mod)
	require.Nil(t, col["ds"].Type.Elem, "a domain is no array, what lies beneath is")
	require.Equal(t, numeric(12, 3), col["ds"].Type.Base.Elem.Base.Mod)

	require.Equal(t, "int4", col["arr"].Type.Elem.Name)
	require.Equal(t, numeric(6, 1), col["narr"].Type.Elem.Mod)
	require.Equal(t, byte('e'), col["marr"].Type.Elem.Kind)
	require.Nil(t, col["v"].Type.Elem)

	ti, err := s.Type(t.Context(), d.OID, -1)
	require.NoError(t, err)
	require.Equal(t, d.Base, ti.Base)
	_, err = s.Type(t.Context(), 4000000000, -1)
	require.ErrorContains(t, err, "does not exist")

	s.InvalidateTypes()
	mustExec(t, c, "ALTER TYPE mood RENAME TO temper")
	ti, err = s.Type(t.Context(), col["m"].Type.OID, -1)
	require.NoError(t, err)
	require.Equal(t, "temper", ti.Name)

	gone, err := s.Describe(t.Context(), 4000000000, 0)
	require.NoError(t, err)
	require.Nil(t, gone)
	mustExec(t, c, "TRUNCATE plain")
	y, err := s.Describe(t.Context(), x.OID, 0)
	require.NoError(t, err)
	require.NotEqual(t, x.FileNode, y.FileNode)
}

// A user's ALTER in an open transaction must not hold up the owner, who looks a
// table up whenever the stream shows it changed.
func TestDescribeTakesNoLock(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
	s := open(t, url)
	x := describe(t, s, "public.t")
	tx, err := c.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "ALTER TABLE t ADD COLUMN b int; LOCK TABLE p; LOCK TABLE p1")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	y, err := s.Describe(ctx, x.OID, 0)
	require.NoError(t, err)
	require.Len(t, y.Columns, 1, "not committed yet")
	_, err = s.Tables(ctx, nil)
	require.NoError(t, err)
	p, err := s.Preflight(ctx, []Table{*x})
	require.NoError(t, err)
	require.Empty(t, p)
	require.NoError(t, tx.Rollback(t.Context()))
}

// TestDescribeWaitsForTheCommit: what the stream has shown as committed is not
// in every snapshot yet. Nothing is waited for that can't concern the table.
func TestDescribeWaitsForTheCommit(t *testing.T) {
	t.Parallel()
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
	s := open(t, url)
	x, u := describe(t, s, "public.t"), describe(t, s, "public.u")
	tx, err := c.Begin(t.Context())
	require.NoError(t, err)
	mustExec(t, tx.Conn(), "ALTER TABLE t ADD COLUMN b int; INSERT INTO u VALUES (1)")
	var xid uint32
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT backend_xid FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&xid))
	_, err = s.Describe(t.Context(), x.OID, xid)
	require.ErrorIs(t, err, ErrHidden)
	began := time.Now()
	_, err = s.Describe(t.Context(), u.OID, xid)
	require.NoError(t, err)
	_, err = s.Describe(t.Context(), x.OID, xid-1)
	require.NoError(t, err)
	require.Less(t, time.Since(began), hiddenMax)
	var commit errgroup.Group
	commit.Go(func() error {
		time.Sleep(200 * time.Millisecond)
		return tx.Commit(t.Context())
	})
	y, err := s.Describe(t.Context(), x.OID, xid)
	require.NoError(t, commit.Wait())
	require.NoError(t, err)
	require.Len(t, y.Columns, 2)
}

func TestRule30PublicationIsAnExplicitList(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, `CREATE TABLE a (id int PRIMARY KEY, x int); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE no_key (x int); CREATE SCHEMA "S"; CREATE TABLE "S"."we ird" (id int PRIMARY KEY);
		CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);`)
	s := openWith(t, Options{URL: url, Publication: `fi"rn`})
	ctx := t.Context()
	sync := func(list ...string) (added, removed []TableName) {
		added, removed, err := s.SyncPublication(ctx, names(list...))
		require.NoError(t, err)
		return added, removed
	}
	list := func(pub string) (out []string) {
		rows, err := c.Query(ctx, "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1", pub)
		require.NoError(t, err)
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return out
	}
	added, removed := sync("public.a", "S.we ird", "public.p", "public.parent")
	require.Equal(t, names("public.a", "S.we ird", "public.p", "public.parent"), added)
	require.Empty(t, removed)
	require.Equal(t, []string{"S.we ird", "public.a", "public.p", "public.parent"}, list(`fi"rn`), "children are tables of their own, partitions are not")
	added, removed = sync("public.a", "S.we ird", "public.p", "public.parent")
	require.Empty(t, added)
	require.Empty(t, removed)
	added, removed = sync("public.b", "public.a")
	require.Equal(t, names("public.b"), added)
	require.Equal(t, names("S.we ird", "public.p", "public.parent"), removed)

	if v, err := s.Version(ctx); err == nil && v >= 150000 {
		mustExec(t, c, `ALTER PUBLICATION "fi""rn" SET TABLE a WHERE (id > 3), b; ALTER PUBLICATION "fi""rn" SET (publish = 'insert', publish_via_partition_root = false)`)
		before, err := s.Memberships(ctx)
		require.NoError(t, err)
		require.Len(t, before, 1, "a table of which some rows are left out is no member")
		added, _ = sync("public.b", "public.a")
		require.Equal(t, names("public.b", "public.a"), added, "a row filter would leave rows out, and so would publish = 'insert'")
		after, err := s.Memberships(ctx)
		require.NoError(t, err)
		require.Len(t, after, 2)
		for table, member := range before {
			require.NotEqual(t, member, after[table], "it is a new one to the stream")
		}
		sync("public.b", "public.a")
		again, err := s.Memberships(ctx)
		require.NoError(t, err)
		require.Equal(t, after, again)
		var whole bool
		require.NoError(t, c.QueryRow(ctx, `SELECT pubupdate AND pubdelete AND pubtruncate AND pubviaroot FROM pg_publication WHERE pubname = 'fi"rn'`).Scan(&whole))
		require.True(t, whole)
	}

	_, _, err := s.SyncAppendPublication(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, list(`fi"rn_append`))
	_, _, err = s.SyncAppendPublication(ctx, names("public.no_key"))
	require.NoError(t, err)
	mustExec(t, c, "INSERT INTO no_key VALUES (1); UPDATE no_key SET x = 2; DELETE FROM no_key")

	mustExec(t, c, "DROP TABLE a")
	added, removed = sync("public.b")
	require.Empty(t, added)
	require.Empty(t, removed)
	_, _, err = s.SyncPublication(ctx, names("public.b", "public.nowhere"))
	require.Equal(t, "42P01", code(err))
	require.Equal(t, []string{"public.b"}, list(`fi"rn`), "an error changes nothing")

	require.NoError(t, s.DropPublication(ctx))
	require.NoError(t, s.DropPublication(ctx))
	mustExec(t, c, `CREATE PUBLICATION "fi""rn" FOR ALL TABLES`)
	_, _, err = s.SyncPublication(ctx, names("public.b"))
	require.ErrorIs(t, err, ErrPublicationUnfit)
}

package engines

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/laketest"
	"firn/lake/object"
)

// bed is a mirror of random traffic in MinIO, and every engine on its catalog.
type bed struct {
	firn  *laketest.FirnProcess
	url   string // of the source database
	spark *laketest.SparkEngine
	trino *laketest.TrinoEngine
	duck  *laketest.DuckDBEngine
	py    *laketest.PyIcebergEngine
}

// TestLake has Spark, Trino, DuckDB and PyIceberg read through firn's own
// catalog what random traffic has left, now and as it was, and write to it: a
// rewrite of a mirrored table is followed, a change of its rows refused.
func TestLake(t *testing.T) {
	const seed = 3
	s3 := laketest.MinIO(t)
	pg := laketest.Postgres(t, "")
	b := &bed{url: pg.URL("shop"), duck: laketest.DuckDB(t), py: laketest.PyIceberg(t)}
	admin, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database shop")
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	load := &laketest.Workload{URL: b.url, Seed: seed, Writers: 3}
	require.NoError(t, load.Setup(t.Context()))
	// Few epochs, so that none is thinned out before it is travelled to.
	warehouse := "s3://" + s3.Bucket(t) + "/shop"
	b.firn = laketest.Firn(t, laketest.FirnOptions{Postgres: b.url, Warehouse: warehouse, S3: s3, Freshness: time.Second,
		Config: "table_settings:\n  torture.acct: {format_version: 3}\n" +
			"  torture.sliced: {partition_by: [month(tz), kind, 'truncate(1, b)', d]}\n  torture.hashed: {format_version: 3, partition_by: ['bucket(5, n)', hour(ts), 'truncate(50, n)', 'bucket(3, b)', 'bucket(3, tz)', 'bucket(3, s)']}\n  torture.dup: {format_version: 3}\n  torture.typed: {format_version: 3}\n  torture.untimed: {format_version: 3}\n  torture.evo: {format_version: 3}\n"})

	traffic := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		running := make(chan error, 1)
		go func() { running <- load.Run(ctx) }()
		for range 3 { // firn dies in the middle of it
			time.Sleep(1300 * time.Millisecond)
			b.firn.KillAndRestart(t)
		}
		require.NoError(t, <-running)
		load.Seed++
		// A change of the schema is in the stream with the next row only, and
		// what was truncated has something to read again.
		b.exec(t, "insert into torture.evo (id) values (100000 + nextval('torture.seq'))",
			"insert into torture.churn select i, 'after' from generate_series(1, 100) i on conflict (id) do update set v = 'again'")
	}
	traffic()
	b.exec(t, "truncate torture.churn", "insert into torture.churn select i, 'after' from generate_series(1, 100) i")
	b.firn.Settle(t)
	b.py.Catalog(t, "lake", map[string]string{"uri": b.firn.URL, "warehouse": "shop"}, s3.Properties())
	then := b.moment(t)
	tag(t, s3, warehouse, "then")
	traffic()
	// Spark has no type for a time of day and refuses a table that has one: for
	// it there is the same table without.
	b.exec(t, "create table torture.untimed as select * from torture.typed", "alter table torture.untimed drop t, add primary key (id)")
	// Long enough for every encoding that is chosen by what a column holds.
	b.exec(t, `create table torture.encoded as select i::bigint as id, i % 1000 as n, timestamptz '2024-01-01' + i * interval '1 second' as at, md5(i::text) as hash,
		sqrt(i) as f, 'kind' || i % 10 as kind, repeat(md5(i::text) || ' some words ', 30) as body from generate_series(1, 20000) i`,
		"alter table torture.encoded add primary key (id)")
	b.slice(t)
	b.look(t)
	b.firn.Settle(t)

	b.spark, b.trino = laketest.Spark(t), laketest.Trino(t)
	b.duck.S3(t, s3)
	// Without the mode it makes a secret of the catalog's configuration, which
	// holds no keys, and leaves one's own aside.
	b.duck.Query(t, fmt.Sprintf("ATTACH 'shop' AS lake (TYPE iceberg, ENDPOINT %s, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')", laketest.Quote(b.firn.URL)))
	b.spark.Catalog(t, "lake", map[string]string{"uri": b.firn.URL, "warehouse": "shop"}, s3.Properties())
	b.trino.Catalog(t, "lake", s3, map[string]string{"iceberg.rest-catalog.uri": b.firn.URL, "iceberg.rest-catalog.warehouse": "shop"})

	t.Run("now", func(t *testing.T) { b.now(t) })
	t.Run("partitions", func(t *testing.T) { b.partitions(t) })
	t.Run("filters", func(t *testing.T) { b.filters(t) })
	t.Run("then", func(t *testing.T) { b.travel(t, then) })
	t.Run("then, by its tag", func(t *testing.T) { b.tagged(t, then, "then") })
	t.Run("row changes", func(t *testing.T) { b.refuses(t) })
	t.Run("rewrites", func(t *testing.T) { b.rewrites(t) })
}

func (b *bed) exec(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, sql := range statements {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

// moment is what Postgres held, and where the lake has it.
type moment map[string]struct {
	want     *laketest.Result
	snapshot int64
}

// moment notes the present one of every table; the lake has caught up.
func (b *bed) moment(t *testing.T) moment {
	m := moment{}
	for _, table := range laketest.WorkloadTables {
		x := m[table]
		x.want = laketest.PostgresRows(t, b.url, "select * from "+table)
		b.py.Python(t, "result = load('lake', args).current_snapshot().snapshot_id", table, &x.snapshot)
		m[table] = x
	}
	return m
}

// now compares the present state, schemas included.
func (b *bed) now(t *testing.T) {
	for _, table := range slices.Concat(laketest.WorkloadTables, []string{"torture.untimed", "torture.encoded"}) {
		b.compare(t, table, b.readers(table)...)
	}
}

// reader is one way to read a table.
type reader struct {
	name string
	read func(t testing.TB) *laketest.Result
	// Spark's SQL has no uuid: a column of it is a string there.
	noUUID bool
}

func (b *bed) readers(table string) []reader {
	sql := "SELECT * FROM lake." + table
	rs := []reader{
		{name: "DuckDB", read: func(t testing.TB) *laketest.Result { return b.duck.Query(t, sql) }},
		{name: "PyIceberg", read: func(t testing.TB) *laketest.Result { return b.py.Scan(t, "lake", table, laketest.ScanOptions{}) }},
		{name: "Trino", read: func(t testing.TB) *laketest.Result { return b.trino.Query(t, sql) }},
	}
	if table != "torture.typed" {
		rs = append(rs, reader{name: "Spark", noUUID: true, read: func(t testing.TB) *laketest.Result { return b.spark.Query(t, sql) }})
	}
	return rs
}

func (b *bed) compare(t *testing.T, table string, readers ...reader) {
	t.Helper()
	want := laketest.PostgresRows(t, b.url, "select * from "+table)
	require.NotEmpty(t, want.Rows, table)
	for _, r := range readers {
		equal(t, table, want, r)
	}
}

func equal(t *testing.T, table string, want *laketest.Result, r reader) {
	t.Helper()
	t.Run(r.name+" "+table, func(t *testing.T) {
		got := r.read(t)
		require.Empty(t, laketest.Diff(want.Multiset(), got.Multiset()))
		schema := want.Schema()
		if r.noUUID {
			for i, c := range schema {
				if name, ok := strings.CutSuffix(c, " uuid"); ok {
					schema[i] = name + " string"
				}
			}
		}
		require.ElementsMatch(t, schema, got.Schema())
	})
}

// travel reads tables as they were at a moment, by snapshot.
func (b *bed) travel(t *testing.T, then moment) {
	for table, x := range then {
		if table == "torture.typed" || table == "torture.ledger" {
			continue // nothing that the others don't have
		}
		at := func(clause string) string { return fmt.Sprintf("SELECT * FROM lake.%s %s", table, clause) }
		for _, r := range []reader{
			{name: "Spark", noUUID: true, read: func(t testing.TB) *laketest.Result {
				return b.spark.Query(t, at(fmt.Sprintf("VERSION AS OF %d", x.snapshot)))
			}},
			{name: "Trino", read: func(t testing.TB) *laketest.Result {
				return b.trino.Query(t, at(fmt.Sprintf("FOR VERSION AS OF %d", x.snapshot)))
			}},
			{name: "DuckDB", read: func(t testing.TB) *laketest.Result {
				return b.duck.Query(t, at(fmt.Sprintf("AT (VERSION => %d)", x.snapshot)))
			}},
			{name: "PyIceberg", read: func(t testing.TB) *laketest.Result {
				return b.py.Scan(t, "lake", table, laketest.ScanOptions{Snapshot: x.snapshot})
			}},
		} {
			equal(t, table, x.want, r)
		}
	}
}

// tag names the newest epoch, from another process than firn's.
func tag(t *testing.T, s3 *laketest.MinIOServer, warehouse, name string) {
	t.Helper()
	store, err := object.Open(t.Context(), warehouse, object.Options{Endpoint: s3.Endpoint, Region: s3.Region, PathStyle: true, AccessKeyID: s3.AccessKey, SecretAccessKey: s3.SecretKey})
	require.NoError(t, err)
	log, err := catalog.OpenLog(t.Context(), store, catalog.LogOptions{})
	require.NoError(t, err)
	_, err = log.Tag(t.Context(), name, catalog.Moment{})
	require.NoError(t, err)
}

// tagged reads a table as it was when a tag was made, by the tag's name, which is
// a ref of every table. DuckDB knows refs by their snapshots only.
func (b *bed) tagged(t *testing.T, then moment, name string) {
	const table = "torture.churn"
	var snapshot int64
	b.py.Python(t, "result = load('lake', args).snapshot_by_name('"+name+"').snapshot_id", table, &snapshot)
	at := func(clause string) string { return fmt.Sprintf("SELECT * FROM lake.%s %s", table, clause) }
	for _, r := range []reader{
		{name: "Spark", noUUID: true, read: func(t testing.TB) *laketest.Result {
			return b.spark.Query(t, at("VERSION AS OF '"+name+"'"))
		}},
		{name: "Trino", read: func(t testing.TB) *laketest.Result { return b.trino.Query(t, at("FOR VERSION AS OF '"+name+"'")) }},
		{name: "DuckDB", read: func(t testing.TB) *laketest.Result {
			return b.duck.Query(t, at(fmt.Sprintf("AT (VERSION => %d)", snapshot)))
		}},
		{name: "PyIceberg", read: func(t testing.TB) *laketest.Result {
			return b.py.Scan(t, "lake", table, laketest.ScanOptions{Ref: name})
		}},
	} {
		equal(t, table, then[table].want, r)
	}
}

// refuses has every engine try to change rows of mirrored tables.
func (b *bed) refuses(t *testing.T) {
	ctx := t.Context()
	try := func(engine string, err error) {
		t.Helper()
		require.ErrorContains(t, err, "allow_writes", engine)
	}
	for _, table := range []string{"torture.churn", "torture.acct"} { // v2 and v3
		for _, sql := range []string{"DELETE FROM lake.%s WHERE id < 10", "UPDATE lake.%s SET id = id + 1 WHERE id < 20", "INSERT INTO lake.%[1]s SELECT * FROM lake.%[1]s WHERE id < 20", "TRUNCATE TABLE lake.%s"} {
			sql = fmt.Sprintf(sql, table)
			_, err := b.spark.Try(ctx, sql)
			try("Spark: "+sql, err)
			_, err = b.trino.Try(ctx, sql)
			try("Trino: "+sql, err)
		}
		_, err := b.duck.Try(ctx, fmt.Sprintf("INSERT INTO lake.%[1]s SELECT * FROM lake.%[1]s LIMIT 1", table))
		try("DuckDB", err)
		if table == "torture.churn" { // PyIceberg writes no v3
			try("PyIceberg", b.py.TryPython(ctx, "t = load('lake', args); t.append(t.scan(limit=1).to_arrow())", table, nil))
			try("PyIceberg", b.py.TryPython(ctx, "load('lake', args).delete('id < 10')", table, nil))
		}
		b.firn.CatchUp(t)
		b.compare(t, table, b.readers(table)[:2]...)
	}
}

// rewrites has Trino and Spark compact mirrored tables while the stream goes
// on with another: accepted, and the row index follows (rule 23), for the
// updates and deletes that come after find their rows.
func (b *bed) rewrites(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	beside := make(chan error, 1)
	go func() { beside <- b.write(ctx) }()
	change := map[string]string{
		"torture.orders":  "update torture.orders set amount = amount + 5 where no % 3 = 0; delete from torture.orders where no % 17 = 4; insert into torture.orders values ('new', 1, 'b', 1, null, null) on conflict (region, no) do update set body = 'c'",
		"torture.acct":    "update torture.acct set note = 'later' where id % 3 = 0; update torture.acct set id = id + 500000 where id % 19 = 5 and id < 1000; delete from torture.acct where id % 23 = 7",
		"torture.byindex": "update torture.byindex set v = 'later' where id % 2 = 0; delete from torture.byindex where id % 5 = 0",
		"torture.dup":     "delete from torture.dup where ctid in (select ctid from torture.dup where a % 2 = 0 limit 40); update torture.dup set b = 'later' where a = 3",
		"torture.churn":   "update torture.churn set v = 'later' where id % 3 = 0; delete from torture.churn where id % 7 = 0",
	}
	for _, x := range []struct{ engine, table string }{
		{"Trino", "torture.orders"}, {"Trino", "torture.acct"}, {"Trino", "torture.churn"},
		{"Spark", "torture.byindex"}, {"Spark", "torture.dup"}, {"Spark", "torture.orders"}, {"Spark", "torture.acct"},
	} {
		t.Run(x.engine+" "+x.table, func(t *testing.T) {
			// One file without deletes would be left as it is.
			b.exec(t, strings.Split(change[x.table], "; ")...)
			b.firn.CatchUp(t)
			before := b.files(t, x.table)
			if x.engine == "Trino" {
				b.trino.Query(t, "ALTER TABLE lake."+x.table+" EXECUTE optimize(file_size_threshold => '1GB')")
			} else {
				b.spark.Query(t, fmt.Sprintf("CALL lake.system.rewrite_data_files(table => '%s', options => map('rewrite-all', 'true', 'remove-dangling-deletes', 'true'))", x.table))
			}
			after := b.files(t, x.table)
			for _, f := range after {
				require.NotContains(t, before, f, "the file has not been rewritten")
			}
			b.compare(t, x.table, b.readers(x.table)[:2]...)
			b.exec(t, strings.Split(change[x.table], "; ")...)
			b.firn.CatchUp(t)
			b.compare(t, x.table, b.readers(x.table)...)
		})
	}
	stop()
	require.NoError(t, <-beside)
	b.firn.CatchUp(t)
	b.compare(t, "torture.ledger", b.readers("torture.ledger")[:2]...)
	// Nothing was loaded anew to get there.
	require.NotContains(t, b.firn.Log(), "contradicts")
}

// write keeps the stream busy with a table that nobody rewrites.
func (b *bed) write(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		if _, err := conn.Exec(ctx, "insert into torture.ledger values (nextval('torture.seq'), 99)"); err != nil && ctx.Err() == nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// files are the paths of a table's live data files.
func (b *bed) files(t *testing.T, table string) []string {
	t.Helper()
	var paths []string
	b.py.Python(t, "result = load('lake', args).inspect.data_files().column('file_path').to_pylist()", table, &paths)
	return paths
}

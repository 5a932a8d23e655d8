package engines

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// bank is a mirrored database whose every transaction books a transfer and
// moves two balances: in any epoch the two tables agree, and in a mixture of
// two they do not.
type bank struct {
	firn *laketest.FirnProcess
	s3   *laketest.MinIOServer
	url  string // of the source database
	lake string // the warehouse
}

const (
	accounts = "bank.account"
	bookings = "bank.booking"
	transfer = `with b as (insert into bank.booking (debit, credit, amount) select 1 + floor(random() * 50), 51 + floor(random() * 50), 1 + floor(random() * 9) returning *)
		update bank.account a set balance = balance + case when a.id = b.credit then b.amount else -b.amount end, moves = moves + 1 from b where a.id in (b.debit, b.credit)`
	// agree is 0 and 0 where the tables are of one epoch.
	agree = `SELECT (SELECT sum(moves) FROM %[1]s.bank.account) - 2 * (SELECT count(*) FROM %[1]s.bank.booking),
		(SELECT sum(CASE WHEN id > 50 THEN balance ELSE 0 END) FROM %[1]s.bank.account) - (SELECT sum(amount) FROM %[1]s.bank.booking)`
)

func newBank(t *testing.T) *bank {
	b := &bank{s3: laketest.MinIO(t)}
	pg := laketest.Postgres(t, "")
	b.url = pg.URL("bank")
	b.exec(t, pg.URL("postgres"), "create database bank")
	b.exec(t, b.url, "create schema bank", "create table bank.account (id int primary key, balance bigint not null default 0, moves bigint not null default 0, owner text)",
		"create table bank.booking (no bigint generated always as identity primary key, debit int, credit int, amount bigint, at timestamptz default clock_timestamp())",
		"insert into bank.account (id, owner) select i, 'owner ' || i from generate_series(1, 110) i")
	b.lake = "s3://" + b.s3.Bucket(t) + "/bank"
	b.firn = laketest.Firn(t, laketest.FirnOptions{Postgres: b.url, Warehouse: b.lake, S3: b.s3, Freshness: 200 * time.Millisecond})
	return b
}

func (b *bank) exec(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, sql := range statements {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

// transfers books one transfer after the other until ctx ends.
func (b *bank) transfers(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		if _, err := conn.Exec(ctx, transfer); err != nil && ctx.Err() == nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

// resolved asks the catalog which moment a warehouse's name means.
func (b *bank) resolved(t *testing.T, warehouse string) (lsn, committed string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.firn.URL+"/v1/config?warehouse="+url.QueryEscape(warehouse), nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct{ Overrides map[string]string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	require.NotEmpty(t, answer.Overrides["prefix"], resp.Status)
	return answer.Overrides["firn.lsn"], answer.Overrides["firn.commit-time"]
}

func (b *bank) tag(t *testing.T, name string) {
	t.Helper()
	bin, err := laketest.FirnBinary()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), bin, "tag", name, "--warehouse", b.lake, "--s3-endpoint", b.s3.Endpoint)
	cmd.Env = append(os.Environ(), b.s3.Env()...)
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
}

// pinnedReader is an engine that attaches warehouses.
type pinnedReader struct {
	name string
	// attach makes a warehouse known by a name of its own.
	attach func(t *testing.T, name, warehouse string)
	query  func(t *testing.T, sql string) *laketest.Result
	try    func(ctx context.Context, sql string) error
}

// TestPinned has every engine read two tables of an older epoch, by its LSN,
// time and tag, and of the newest one while transfers go on.
func TestPinned(t *testing.T) {
	b := newBank(t)
	for range 200 {
		b.exec(t, b.url, transfer)
	}
	b.firn.CatchUp(t)
	then := map[string]*laketest.Result{}
	for _, table := range []string{accounts, bookings} {
		then[table] = laketest.PostgresRows(t, b.url, "select * from "+table)
	}
	lsn, committed := b.resolved(t, "bank@latest")
	b.tag(t, "before-rename") // and it is not thinned out
	b.exec(t, b.url, "alter table bank.account rename owner to holder", "alter table bank.account add branch text default 'head office'",
		"alter table bank.booking add note text", "update bank.account set branch = 'elsewhere' where id % 2 = 0", transfer, "delete from bank.account where id > 100")
	b.firn.Settle(t)
	running, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- b.transfers(running) }()
	moments := map[string]string{"lsn": "bank@" + lsn, "time": "bank@" + committed, "tag": "bank@before-rename"}

	// PyIceberg has no SQL; what is written here is its own.
	t.Run("PyIceberg", func(t *testing.T) {
		py := laketest.PyIceberg(t)
		attach := func(name, warehouse string) {
			py.Catalog(t, name, map[string]string{"uri": b.firn.URL, "warehouse": warehouse}, b.s3.Properties())
		}
		for name, warehouse := range moments {
			attach(name, warehouse)
			for table, want := range then {
				equal(t, table, want, reader{name: warehouse, read: func(t testing.TB) *laketest.Result { return py.Scan(t, name, table, laketest.ScanOptions{}) }})
			}
		}
		attach("latest", "bank@latest")
		var sums []int64
		py.Python(t, `
a = load('latest', 'bank.account')
import time; time.sleep(1)
b = load('latest', 'bank.booking')
a, b = a.scan().to_arrow(), b.scan().to_arrow()
result = [sum(a['moves'].to_pylist()) - 2 * b.num_rows, sum(x for i, x in zip(a['id'].to_pylist(), a['balance'].to_pylist()) if i > 50) - sum(b['amount'].to_pylist())]`, nil, &sums)
		require.Equal(t, []int64{0, 0}, sums)
		require.ErrorContains(t, py.TryPython(t.Context(), "load('tag', args).delete('id = 1')", accounts, nil), "can only be read")
	})
	for _, r := range []func(*testing.T) pinnedReader{b.duck, b.spark, b.trino} {
		b.reads(t, r, moments, then)
	}
	stop()
	require.NoError(t, <-ended)
}

func (b *bank) reads(t *testing.T, open func(*testing.T) pinnedReader, moments map[string]string, then map[string]*laketest.Result) {
	r := open(t)
	t.Run(r.name, func(t *testing.T) {
		for name, warehouse := range moments {
			name = "pin_" + name
			r.attach(t, name, warehouse)
			for table, want := range then {
				equal(t, table, want, reader{name: warehouse, read: func(testing.TB) *laketest.Result { return r.query(t, "SELECT * FROM "+name+"."+table) }})
			}
			require.Equal(t, []string{"0", "0"}, r.query(t, fmt.Sprintf(agree, name)).Rows[0], warehouse)
		}
		r.attach(t, "pin_latest", "bank@latest")
		count := func() string { return r.query(t, "SELECT count(*) FROM pin_latest."+bookings).Value() }
		booked := count()
		require.NotEqual(t, strconv.Itoa(len(then[bookings].Rows)), booked)
		require.Equal(t, []string{"0", "0"}, r.query(t, fmt.Sprintf(agree, "pin_latest")).Rows[0])
		time.Sleep(time.Second)
		require.Equal(t, []string{"0", "0"}, r.query(t, fmt.Sprintf(agree, "pin_latest")).Rows[0])
		require.Equal(t, booked, count(), "latest is resolved once")
		require.ErrorContains(t, r.try(t.Context(), "INSERT INTO pin_tag."+bookings+" SELECT * FROM pin_tag."+bookings), "can only be read")
	})
}

func (b *bank) duck(t *testing.T) pinnedReader {
	duck := laketest.DuckDB(t)
	duck.S3(t, b.s3)
	return pinnedReader{
		name: "DuckDB",
		attach: func(t *testing.T, name, warehouse string) {
			duck.Query(t, fmt.Sprintf("ATTACH %s AS %s (TYPE iceberg, ENDPOINT %s, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')", laketest.Quote(warehouse), name, laketest.Quote(b.firn.URL)))
		},
		query: func(t *testing.T, sql string) *laketest.Result { return duck.Query(t, sql) },
		try:   func(ctx context.Context, sql string) error { _, err := duck.Try(ctx, sql); return err },
	}
}

func (b *bank) spark(t *testing.T) pinnedReader {
	spark := laketest.Spark(t)
	return pinnedReader{
		name: "Spark",
		attach: func(t *testing.T, name, warehouse string) {
			spark.Catalog(t, name, map[string]string{"uri": b.firn.URL, "warehouse": warehouse}, b.s3.Properties())
		},
		query: func(t *testing.T, sql string) *laketest.Result { return spark.Query(t, sql) },
		try:   func(ctx context.Context, sql string) error { _, err := spark.Try(ctx, sql); return err },
	}
}

func (b *bank) trino(t *testing.T) pinnedReader {
	trino := laketest.Trino(t)
	return pinnedReader{
		name: "Trino",
		attach: func(t *testing.T, name, warehouse string) {
			trino.Catalog(t, name, b.s3, map[string]string{"iceberg.rest-catalog.uri": b.firn.URL, "iceberg.rest-catalog.warehouse": warehouse})
		},
		query: func(t *testing.T, sql string) *laketest.Result { return trino.Query(t, sql) },
		try:   func(ctx context.Context, sql string) error { _, err := trino.Try(ctx, sql); return err },
	}
}

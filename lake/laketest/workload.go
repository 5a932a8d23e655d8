package laketest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Workload is seeded random traffic over tables of every replica identity and
// key shape: inserts, updates, deletes, key changes, untouched TOAST, upserts,
// truncates, aborted savepoints and transactions, large ones, several writers
// at once, and in one table changes of its schema. Every transaction keeps the
// sum of all balances.
type Workload struct {
	URL     string
	Seed    uint64
	Writers int

	mu      sync.Mutex
	columns []string // of torture.evo, besides id
	added   int
	paused  sync.RWMutex // held for reading by a change of the schema
}

// WorkloadTables are the tables that Setup makes.
var WorkloadTables = []string{
	"torture.acct", "torture.ledger", "torture.orders", "torture.dup", "torture.typed",
	"torture.churn", "torture.evo", "torture.part", "torture.byindex",
}

const workloadSetup = `
create schema torture;
create type torture.mood as enum ('sad', 'ok', 'happy');
create domain torture.price as numeric(10,2) check (value >= 0);
create sequence torture.seq;
create table torture.acct (id bigint primary key, balance numeric(12,2), note text, updated timestamptz default now());
insert into torture.acct select i, 100, 'start' from generate_series(1, 500) i;
create table torture.ledger (seq bigint primary key, writer int, at timestamptz default clock_timestamp());
create table torture.orders (region text, no int, body text, amount numeric(10,3), tags text[], day date, primary key (region, no));
alter table torture.orders alter body set storage external;
insert into torture.orders select 'r'||i%5, i, repeat(md5(i::text), 100), i/7.0, array['t'||i, null], date '2020-01-01' + i from generate_series(1, 300) i;
create table torture.dup (a int, b text); alter table torture.dup replica identity full;
insert into torture.dup select i%10, 'd' from generate_series(1, 200) i;
create table torture.typed (id uuid primary key default gen_random_uuid(), b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8,
	n numeric, p torture.price, d date, t time, ts timestamp, tz timestamptz, j jsonb, m torture.mood, ip inet, mac macaddr,
	bits bit(5), arr int[], by bytea, c char(5), iv interval, r int4range);
create table torture.churn (id int primary key, v text);
create table torture.evo (id int primary key, c0 text);
insert into torture.evo select i, 'e'||i from generate_series(1, 100) i;
create table torture.part (id int, k int, v text, primary key (id, k)) partition by range (k);
create table torture.part_a partition of torture.part for values from (0) to (50);
create table torture.part_b (v text, k int not null, id int not null);
alter table torture.part attach partition torture.part_b for values from (50) to (100);
create table torture.byindex (id int primary key, code text not null, v text);
create unique index byindex_code on torture.byindex (code);
alter table torture.byindex replica identity using index byindex_code;
`

// Setup makes the tables.
func (w *Workload) Setup(ctx context.Context) error {
	w.columns = []string{"c0"}
	conn, err := pgx.Connect(ctx, w.URL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range strings.Split(workloadSetup, ";\n") {
		if strings.TrimSpace(sql) == "" {
			continue
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// Run writes until ctx ends.
func (w *Workload) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for i := range w.Writers {
		g.Go(func() error { return w.write(gctx, i) })
	}
	g.Go(func() error { return w.evolve(gctx) })
	err := g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// PauseSchema stops changes of the schema until resume is called.
func (w *Workload) PauseSchema() (resume func()) {
	w.paused.Lock()
	return w.paused.Unlock
}

// write runs one writer.
func (w *Workload) write(ctx context.Context, writer int) error {
	rng := rand.New(rand.NewPCG(w.Seed, uint64(writer)))
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, w.URL); err != nil { // Postgres may be restarting
				time.Sleep(100 * time.Millisecond)
				continue
			}
			// A TRUNCATE must not wait for long on somebody's lock while it
			// keeps a slot from being made. The server's log is for its own and
			// firn's errors.
			if _, err := conn.Exec(ctx, "set lock_timeout = '500ms'; set log_min_messages = fatal"); err != nil {
				continue
			}
		}
		if err := w.transaction(ctx, conn, rng, writer); err != nil && !transient(err) && ctx.Err() == nil {
			return fmt.Errorf("writer %d: %w", writer, err)
		}
		time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
	}
	return nil
}

// transient says whether the error is one that concurrent random writers make.
func transient(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "40P01", "40001", "23505", "42703", "42P01", "0A000", "57P01", "57P03", "55P03", "42P10":
			return true
		}
		return false
	}
	return true // the connection
}

func (w *Workload) transaction(ctx context.Context, conn *pgx.Conn, rng *rand.Rand, writer int) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "insert into torture.ledger values (nextval('torture.seq'), $1)", writer); err != nil {
		return err
	}
	for range 1 + rng.IntN(12) {
		if rng.IntN(12) == 0 { // a savepoint that comes to nothing
			sub, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if err := w.step(ctx, sub, rng); err != nil {
				return err
			}
			if err := sub.Rollback(ctx); err != nil {
				return err
			}
			continue
		}
		if err := w.step(ctx, tx, rng); err != nil {
			return err
		}
	}
	if rng.IntN(60) == 0 {
		n := 1000 + rng.IntN(8000)
		from := rng.IntN(1 << 30)
		sql := fmt.Sprintf("insert into torture.churn select i, 'big '||i from generate_series(%d, %d) i on conflict do nothing", from, from+n)
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if rng.IntN(10) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// step is one random change.
func (w *Workload) step(ctx context.Context, tx pgx.Tx, rng *rand.Rand) error {
	id, other := rng.IntN(500)+1, rng.IntN(500)+1
	var sql string
	switch rng.IntN(26) {
	case 0, 1, 2:
		sql = fmt.Sprintf("update torture.acct set balance = balance + case id when %d then 1 else -1 end, updated = clock_timestamp() where id in (%d, %d) and %d <> %d", id, id, other, id, other)
	case 3:
		sql = fmt.Sprintf("update torture.acct set id = id + 100000 where id = %d", id)
	case 4:
		sql = fmt.Sprintf("update torture.acct set id = id - 100000 where id = %d", id+100000)
	case 5, 6:
		sql = fmt.Sprintf("update torture.orders set amount = amount + 1 where no %% 50 = %d", id%50)
	case 7:
		sql = fmt.Sprintf("update torture.orders set body = repeat('b%d', %d), tags = array_append(tags, 'n%d') where no = %d", id, 200+rng.IntN(800), other, id)
	case 8:
		sql = fmt.Sprintf("insert into torture.orders values ('r%d', %d, repeat(md5('%d'), 150), %d, null, '2024-02-29') on conflict (region, no) do update set day = torture.orders.day + 1", id%5, 300+other, id, id)
	case 9:
		sql = fmt.Sprintf("delete from torture.orders where no = %d", id)
	case 10:
		sql = fmt.Sprintf("update torture.orders o set no = no + 10000 where no = %d and not exists (select from torture.orders q where q.region = o.region and q.no = o.no + 10000)", id)
	case 11:
		sql = fmt.Sprintf("insert into torture.dup select %d, case when i = 1 then null else 'd' end from generate_series(1, 3) i", id%10)
	case 12:
		sql = fmt.Sprintf("delete from torture.dup where ctid in (select ctid from torture.dup where a = %d limit 1)", id%10)
	case 13:
		sql = fmt.Sprintf("update torture.dup set b = 'u%d' where ctid in (select ctid from torture.dup where a = %d limit 2)", other%3, id%10)
	case 14, 15:
		sql = typedInsert(rng)
	case 16:
		sql = "update torture.typed set f8 = f8 * 2, arr = arr || 7, j = j || '{\"more\": true}' where ctid in (select ctid from torture.typed limit 3)"
	case 17:
		sql = "delete from torture.typed where ctid in (select ctid from torture.typed limit 2)"
	case 18, 19:
		sql = fmt.Sprintf("insert into torture.churn values (%d, 'c') on conflict (id) do update set v = torture.churn.v || '+'", id)
	case 20:
		if rng.IntN(20) == 0 {
			sql = "truncate torture.churn"
		} else {
			sql = fmt.Sprintf("delete from torture.churn where id = %d", id)
		}
	case 21:
		sql = w.evoInsert(rng)
	case 22:
		sql = fmt.Sprintf("delete from torture.evo where id = %d", id)
	case 23:
		sql = fmt.Sprintf("insert into torture.part values (%d, %d, 'p') on conflict (id, k) do update set v = torture.part.v || 'x'", id, rng.IntN(100))
	case 24:
		sql = fmt.Sprintf("update torture.part p set k = (k + 37) %% 100 where id = %d and not exists (select from torture.part q where q.id = p.id and q.k = (p.k + 37) %% 100)", id)
	case 25:
		if rng.IntN(3) == 0 {
			sql = fmt.Sprintf("update torture.byindex set code = code || 'x', v = v || 'w' where id = %d", id)
			break
		}
		sql = fmt.Sprintf("insert into torture.byindex values (%d, 'code%d', 'v') on conflict do nothing", id, id)
	}
	_, err := tx.Exec(ctx, sql)
	return err
}

// typedInsert picks values at the edges of what the types hold.
func typedInsert(rng *rand.Rand) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	return "insert into torture.typed values (gen_random_uuid(), " + strings.Join([]string{
		pick("true", "false", "null"), pick("0", "-32768", "32767"), pick("1", "-2147483648", "2147483647"),
		pick("5", "-9223372036854775808", "9223372036854775807"), pick("1.5", "'NaN'", "'-Infinity'", "-0.0"),
		pick("1e300", "'Infinity'", "3.14", "'-0'"), pick("123456789012345678901234567890.123", "'NaN'", "0.10", "-1e-20"),
		pick("0", "99999999.99", "12.5"), pick("'0001-01-01'", "'2024-02-29'", "'9999-12-31'", "'0044-03-15 BC'"),
		pick("'00:00'", "'23:59:59.999999'"), pick("'2024-01-01 00:00:00.000001'", "'1900-01-01'"),
		pick("'2024-07-01 12:00+02'", "'1969-12-31 23:59:59.5Z'"), pick(`'{"a": [1, 2.50, null]}'`, "'null'", "null"),
		pick("'sad'", "'happy'", "null"), pick("'10.0.0.1'", "'::1/128'", "'192.168.0.0/16'"), pick("'08:00:2b:01:02:03'", "null"),
		pick("'10101'", "'00000'"), pick("'{1,2,null}'", "'{}'", "null"), pick(`'\xdeadbeef'`, `'\x'`), pick("'ab'", "'abcde'"),
		pick("'1 year 2 days'", "'-3 hours'"), pick("'[1,5)'", "'empty'"),
	}, ", ") + ")"
}

func (w *Workload) evoInsert(rng *rand.Rand) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.columns) == 0 {
		return fmt.Sprintf("insert into torture.evo (id) values (%d) on conflict do nothing", rng.IntN(1000))
	}
	c := w.columns[rng.IntN(len(w.columns))]
	return fmt.Sprintf("insert into torture.evo (id, %s) values (%d, '%d') on conflict (id) do update set %s = excluded.%s", c, rng.IntN(1000), rng.IntN(100), c, c)
}

// evolve changes torture.evo's schema now and then.
func (w *Workload) evolve(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(w.Seed, 1<<32))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(1000+rng.IntN(2000)) * time.Millisecond):
		}
		w.paused.RLock()
		err := w.alter(ctx, rng)
		w.paused.RUnlock()
		if err != nil && !transient(err) && ctx.Err() == nil {
			return fmt.Errorf("change the schema: %w", err)
		}
	}
}

func (w *Workload) alter(ctx context.Context, rng *rand.Rand) error {
	conn, err := pgx.Connect(ctx, w.URL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	w.mu.Lock()
	defer w.mu.Unlock()
	next := append([]string(nil), w.columns...)
	sql := ""
	kind := rng.IntN(6)
	if len(next) < 2 {
		kind = 0
	}
	at := 0
	if len(next) > 0 {
		at = rng.IntN(len(next))
	}
	w.added++
	name := fmt.Sprintf("c%d", w.added)
	switch kind {
	case 0, 1:
		sql = fmt.Sprintf("alter table torture.evo add %s %s", name, []string{"text", "varchar(10)", "int", "bigint"}[rng.IntN(4)])
		next = append(next, name)
	case 2:
		sql = fmt.Sprintf("alter table torture.evo rename %s to %s", next[at], name)
		next[at] = name
	case 3:
		sql = fmt.Sprintf("alter table torture.evo drop %s", next[at])
		next = append(next[:at], next[at+1:]...)
	case 4:
		sql = fmt.Sprintf("alter table torture.evo alter %s type text", next[at])
	case 5:
		sql = fmt.Sprintf("alter table torture.evo add %s int not null default %d", name, rng.IntN(50))
		next = append(next, name)
	}
	if _, err := conn.Exec(ctx, "set lock_timeout = '2s'; "+sql); err != nil {
		return err
	}
	w.columns = next
	return nil
}

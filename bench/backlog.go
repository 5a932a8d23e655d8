package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

// eventsTable has the ten columns that other writers were measured with.
const eventsTable = `create table %s (id bigint primary key, user_id int, kind text, amount numeric(12,2), ok boolean,
	created_at timestamptz, note text, f1 float8, i1 int, tags text)`

// eventsSelect makes such rows of the ids in generate_series(%s) i.
const eventsSelect = `select i, i %% 100000, 'kind' || i %% 10, (i %% 10000) / 100.0, i %% 2 = 0,
	timestamptz '2024-01-01' + i * interval '1 second', md5(i::text) || 'note', i / 3.0, i %% 1000, 'tag' || i %% 100 from generate_series(%s) i`

// makeEvents makes a table of so many.
func makeEvents(ctx context.Context, r *rig, table string, rows int64) error {
	return r.exec(ctx, fmt.Sprintf(eventsTable, table), "insert into "+table+" "+fmt.Sprintf(eventsSelect, fmt.Sprintf("1, %d", rows)))
}

// insertEvents appends rows to a table that makeEvents began with first, in
// transactions of a size.
func insertEvents(ctx context.Context, r *rig, table string, from, rows, perTxn int64) error {
	return r.exec(ctx, fmt.Sprintf(`do $$ begin
		for at in 0 .. %d loop
			insert into %s %s;
			commit;
		end loop; end $$`, rows/perTxn-1, table,
		fmt.Sprintf(eventsSelect, fmt.Sprintf("%d + at * %d, %d + (at + 1) * %d", from+1, perTxn, from, perTxn))))
}

// inserted is a drain of inserts into events.
func inserted(full, short, perTxn, perTxnShort int64) drain {
	const before, beforeShort = 1_000_000, 2_000
	rows := func(r *rig) int64 { return r.size(full, short) }
	return drain{
		tables: []string{"events"},
		rows:   rows,
		setup: func(ctx context.Context, r *rig) error {
			return makeEvents(ctx, r, "events", r.size(before, beforeShort))
		},
		backlog: func(ctx context.Context, r *rig, round int) error {
			return insertEvents(ctx, r, "events", r.size(before, beforeShort)+int64(round)*rows(r), rows(r), r.size(perTxn, perTxnShort))
		},
	}
}

// updated is a drain of random single-row updates, a hundred a transaction.
func updated(keys, keysShort, rows, rowsShort int64) drain {
	return drain{
		tables: []string{"accounts"},
		rows:   func(r *rig) int64 { return r.size(rows, rowsShort) },
		keys:   func(r *rig) int64 { return r.size(keys, keysShort) },
		setup: func(ctx context.Context, r *rig) error {
			return r.exec(ctx, "create table accounts (id bigint primary key, balance bigint, name text)",
				fmt.Sprintf("insert into accounts select i, 0, 'account ' || i from generate_series(1, %d) i", r.size(keys, keysShort)))
		},
		backlog: func(ctx context.Context, r *rig, _ int) error {
			return r.exec(ctx, fmt.Sprintf(`do $$ declare k bigint; begin
				for txn in 1 .. %d loop
					for one in 1 .. 100 loop
						k := 1 + floor(random() * %d)::bigint;
						update accounts set balance = balance + k where id = k;
					end loop;
					commit;
				end loop; end $$`, r.size(rows, rowsShort)/100, r.size(keys, keysShort)))
		},
	}
}

// deleted is a drain of deletes in no order, a hundred a transaction.
func deleted() drain {
	const before, beforeShort, rows, rowsShort = 3_000_000, 6_000, 1_000_000, 2_000
	return drain{
		tables: []string{"events"},
		rows:   func(r *rig) int64 { return r.size(rows, rowsShort) },
		setup: func(ctx context.Context, r *rig) error {
			return makeEvents(ctx, r, "events", r.size(before, beforeShort))
		},
		backlog: func(ctx context.Context, r *rig, round int) error {
			n := r.size(rows, rowsShort)
			// A prime that doesn't divide the number of rows visits each once.
			return r.exec(ctx, fmt.Sprintf(`do $$ begin
				for txn in %d .. %d loop
					for one in 0 .. 99 loop
						delete from events where id = 1 + ((txn::bigint * 100 + one) * 7919 + %d) %% %d;
					end loop;
					commit;
				end loop; end $$`, int64(round)*n/100, int64(round+1)*n/100-1, r.o.seed, r.size(before, beforeShort)))
		},
	}
}

// docs is a table whose body lies outside its rows, 2.4 KB each, moderately
// compressible.
func docs(ctx context.Context, r *rig, rows int64) error {
	return r.exec(ctx, "create table docs (id bigint primary key, version int, body text)",
		"alter table docs alter body set storage external",
		fmt.Sprintf(`insert into docs select i, 0, repeat(md5(i::text) || md5((i * 7)::text) || ' a document of some length, ', 26) from generate_series(1, %d) i`, rows))
}

// untouched is a drain of updates that leave the TOASTed column as it is, a
// hundred a transaction. stride 1 goes through the table in the order of its
// keys, a large one in none.
func untouched(updates, stride int64) drain {
	const short = 1_000
	docsOf := func(r *rig) int64 { return r.size(1_000_000, short) }
	rows := func(r *rig) int64 { return r.size(updates, short) }
	return drain{
		tables: []string{"docs"},
		rows:   rows,
		once:   true, // the preparation takes long
		setup:  func(ctx context.Context, r *rig) error { return docs(ctx, r, docsOf(r)) },
		backlog: func(ctx context.Context, r *rig, _ int) error {
			return r.exec(ctx, fmt.Sprintf(`do $$ begin
				for txn in 0 .. %d loop
					for one in 0 .. 99 loop
						update docs set version = version + 1 where id = 1 + ((txn::bigint * 100 + one) * %d) %% %d;
					end loop;
					commit;
				end loop; end $$`, rows(r)/100-1, stride, docsOf(r)))
		},
	}
}

// tpcb is a drain of pgbench's TPC-B-like transactions: three updates and an
// insert each.
func tpcb() drain {
	clients := int64(4)
	each := func(r *rig) int64 { return r.size(25_000, 250) }
	pgbench := func(ctx context.Context, r *rig, args ...string) error {
		path, err := r.program("pgbench")
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, path, append(args, "-n", r.url)...)
		cmd.Env = append(os.Environ(), "PGOPTIONS=-c synchronous_commit=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("run pgbench: %w: %s", err, out)
		}
		return nil
	}
	return drain{
		tables: []string{"pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"},
		rows:   func(r *rig) int64 { return clients * each(r) * 4 },
		yaml:   "table_settings:\n  public.pgbench_history:\n    mode: append # it has no key\n",
		setup: func(ctx context.Context, r *rig) error {
			return pgbench(ctx, r, "-i", "-I", "dtGp", "-s", strconv.FormatInt(r.size(10, 1), 10), "-q")
		},
		backlog: func(ctx context.Context, r *rig, round int) error {
			return pgbench(ctx, r, "-c", strconv.FormatInt(clients, 10), "-j", "2", "-t", strconv.FormatInt(each(r), 10),
				"--random-seed", strconv.FormatInt(r.o.seed+int64(round), 10))
		},
	}
}

// spread is a drain of inserts over many tables, a hundred rows of one table a
// transaction.
func spread() drain {
	n := func(r *rig) int64 { return r.size(1_000, 20) }
	rows := func(r *rig) int64 { return r.size(1_000_000, 4_000) }
	d := drain{
		rows: rows,
		setup: func(ctx context.Context, r *rig) error {
			return r.exec(ctx, fmt.Sprintf(`do $$ begin
				for n in 1 .. %d loop
					execute format('create table %%I (id bigint primary key, n int, note text)', 'many_' || n);
					execute format('insert into %%I select -i, i, ''before '' || i from generate_series(1, 100) i', 'many_' || n);
					commit;
				end loop; end $$`, n(r)))
		},
		backlog: func(ctx context.Context, r *rig, round int) error {
			return r.exec(ctx, fmt.Sprintf(`do $$ begin
				for txn in %d .. %d loop
					execute format('insert into %%I select %%s::bigint * 100 + i, i, ''row '' || i from generate_series(0, 99) i',
						'many_' || 1 + txn * 7919 %% %d, txn);
					commit;
				end loop; end $$`, int64(round)*rows(r)/100, int64(round+1)*rows(r)/100-1, n(r)))
		},
	}
	return d
}

var drains = []workload{
	{kind: "drain", name: "inserts", about: "1M inserts of ten columns in 1,000-row transactions", disk: 5 * gigabyte, run: inserted(1_000_000, 5_000, 1_000, 500).run},
	{kind: "drain", name: "transaction", about: "one transaction of 1M inserts, streamed", disk: 5 * gigabyte, run: inserted(1_000_000, 20_000, 1_000_000, 20_000).run},
	{kind: "drain", name: "one-row", about: "300,000 inserts, each a transaction", disk: 4 * gigabyte, run: inserted(300_000, 1_000, 1, 1).run},
	{kind: "drain", name: "updates", about: "1M random single-row updates over 10M keys, 100 a transaction", disk: 14 * gigabyte, run: updated(10_000_000, 5_000, 1_000_000, 2_000).run},
	{kind: "drain", name: "updates-1M", about: "the same over 1M keys", disk: 4 * gigabyte, run: updated(1_000_000, 5_000, 1_000_000, 2_000).run},
	{kind: "drain", name: "updates-100k", about: "the same over 100,000 keys", disk: 3 * gigabyte, run: updated(100_000, 5_000, 1_000_000, 2_000).run},
	{kind: "drain", name: "deletes", about: "1M deletes in no order from 3M rows, 100 a transaction", disk: 6 * gigabyte, run: deleted().run},
	{kind: "drain", name: "toast", about: "1M updates, each of another row, that leave a TOASTed column of 2.4 KB untouched, in the order of keys", disk: 14 * gigabyte, run: untouched(1_000_000, 1).run},
	{kind: "drain", name: "toast-random", about: "50,000 such updates of 1M rows, in no order", disk: 10 * gigabyte, run: untouched(50_000, 7919).run},
	{kind: "drain", name: "tpcb", about: "100,000 transactions of pgbench's TPC-B-like mix, 400,000 changes", disk: 4 * gigabyte, run: tpcb().run},
	{kind: "drain", name: "tables", about: "1M inserts spread over 1,000 tables, 100 of one table a transaction", disk: 5 * gigabyte, run: manyTables},
	{kind: "drain", name: "updates-100M", about: "1M random single-row updates over 100M keys, 100 a transaction", disk: 45 * gigabyte, big: true, run: once(updated(100_000_000, 5_000, 1_000_000, 2_000)).run},
	{kind: "drain", name: "transaction-10M", about: "one transaction of 10M inserts, streamed", disk: 15 * gigabyte, big: true, run: once(inserted(10_000_000, 20_000, 10_000_000, 20_000)).run},
}

func once(d drain) drain {
	d.once = true
	return d
}

// manyTables names spread's tables, whose number depends on the size.
func manyTables(ctx context.Context, r *rig, result *Result) error {
	d := spread()
	for i := range r.size(1_000, 20) {
		d.tables = append(d.tables, fmt.Sprint("many_", i+1))
	}
	return d.run(ctx, r, result)
}

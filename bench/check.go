package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"firn/lake/laketest"
)

// compare reads tables of schema public by DuckDB, from the catalog at url, and
// in Postgres: number of rows, and a sum of hashes of all columns of each row.
func (r *rig) compare(ctx context.Context, url string, tables []string) (err error) {
	if err := r.openStore(ctx); err != nil {
		return err
	}
	_, err = r.duckdb.Try(ctx, fmt.Sprintf("ATTACH %s AS lake (TYPE iceberg, ENDPOINT %s, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')",
		laketest.Quote(database), laketest.Quote(url)))
	if err != nil {
		return fmt.Errorf("attach the lake to DuckDB: %w", err)
	}
	defer func() {
		if _, detach := r.duckdb.Try(ctx, "DETACH lake"); detach != nil {
			err = errors.Join(err, fmt.Errorf("detach the lake: %w", detach))
		}
	}()
	for _, table := range tables {
		if err := r.compareTable(ctx, table, "lake.public."+laketest.QuoteName(table)); err != nil {
			return err
		}
	}
	return nil
}

// openStore lets DuckDB read the store.
func (r *rig) openStore(ctx context.Context) error {
	s := r.s3
	_, err := r.duckdb.Try(ctx, fmt.Sprintf("CREATE OR REPLACE SECRET minio (TYPE s3, KEY_ID %s, SECRET %s, ENDPOINT %s, URL_STYLE 'path', USE_SSL false, REGION %s)",
		laketest.Quote(s.AccessKey), laketest.Quote(s.SecretKey), laketest.Quote(s.Host), laketest.Quote(s.Region)))
	if err != nil {
		return fmt.Errorf("tell DuckDB of the store: %w", err)
	}
	return nil
}

// compareTable compares one with what DuckDB reads from.
func (r *rig) compareTable(ctx context.Context, table, from string) error {
	pgRow, duckRow, err := r.rowTexts(ctx, table)
	if err != nil {
		return err
	}
	var count, sum string
	// 60 bits of a hash a row, added up: whatever the order, and exact in both.
	err = r.conn.QueryRow(ctx, fmt.Sprintf("select count(*)::text, coalesce(sum(('x' || substr(md5(%s), 1, 15))::bit(60)::bigint), 0)::text from %s",
		pgRow, laketest.QuoteName(table))).Scan(&count, &sum)
	if err != nil {
		return fmt.Errorf("sum up %s in Postgres: %w", table, err)
	}
	got, err := r.duckdb.Try(ctx, fmt.Sprintf("select count(*)::varchar, coalesce(sum(('0x' || substr(md5(%s), 1, 15))::bigint), 0)::varchar from %s", duckRow, from))
	if err != nil {
		return fmt.Errorf("sum up %s in the lake: %w", table, err)
	}
	if got := got.Rows[0]; got[0] != count || got[1] != sum {
		return fmt.Errorf("the lake is wrong: of %s Postgres has %s rows (sum of hashes %s), the lake %s (%s)", table, count, sum, got[0], got[1])
	}
	return nil
}

// rowTexts are two expressions, Postgres' and DuckDB's, for one text of a row.
func (r *rig) rowTexts(ctx context.Context, table string) (pg, duck string, err error) {
	rows, err := r.conn.Query(ctx, `select attname::text, format_type(atttypid, null) from pg_attribute
		where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum`, laketest.QuoteName(table))
	if err != nil {
		return "", "", fmt.Errorf("read columns of %s: %w", table, err)
	}
	var pgParts, duckParts []string
	var name, typ string
	_, err = pgx.ForEachRow(rows, []any{&name, &typ}, func() error {
		c := laketest.QuoteName(name)
		p, d := c+"::text", c+"::varchar"
		switch typ {
		case "smallint", "integer", "bigint", "numeric", "text", "character varying", "uuid":
		case "character": // Postgres' cast takes the padding away
			d = "rtrim(" + c + ")"
		case "boolean":
			p, d = c+"::int::text", c+"::int::varchar"
		case "timestamp with time zone", "timestamp without time zone":
			p, d = "(extract(epoch from "+c+") * 1000000)::bigint::text", "epoch_us("+c+")::varchar"
		case "double precision": // the same bits, but each prints them its own way
			p, d = "floor("+c+" * 1000)::bigint::text", "floor("+c+" * 1000)::bigint::varchar"
		default:
			return fmt.Errorf("compare column %s of %s: no text form for %s", name, table, typ)
		}
		pgParts = append(pgParts, "coalesce("+p+", '~')")
		duckParts = append(duckParts, "coalesce("+d+", '~')")
		return nil
	})
	if err != nil {
		return "", "", err
	}
	join := func(parts []string) string { return strings.Join(parts, " || '|' || ") }
	return join(pgParts), join(duckParts), nil
}

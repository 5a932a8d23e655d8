package slot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// appendSuffix names the second publication, for tables of which only inserts
// and truncates are wanted.
const appendSuffix = "_append"

// SyncPublication makes the publication name exactly these tables, each as a
// whole, creating it if need be; partitions are published as their root. It
// returns what it changed. A change holds for what commits later, and may split
// a transaction that is under way: a table added needs a floor of its own.
//
// Only tables with a usable replica identity belong here: the users' own UPDATE
// and DELETE fail on any other.
//
// It waits at most 10 s for a table that another transaction holds.
// Errors: ErrPrivilege, ErrPublicationUnfit, ErrBusy.
func (s *Source) SyncPublication(ctx context.Context, tables []TableName) (added, removed []TableName, err error) {
	return s.syncPublication(ctx, s.o.Publication, "insert, update, delete, truncate", tables)
}

// SyncAppendPublication is SyncPublication for tables mirrored by their inserts
// and truncates alone, which need no replica identity. They live in a second
// publication, Options.Publication + "_append", which streams join to the first
// when it exists. It is made even for no table: a stream can't use a publication
// that did not exist yet at the WAL it reads.
func (s *Source) SyncAppendPublication(ctx context.Context, tables []TableName) (added, removed []TableName, err error) {
	return s.syncPublication(ctx, s.o.Publication+appendSuffix, "insert, truncate", tables)
}

// Memberships lists the tables in the two publications by OID, each with the OID
// of its row in pg_publication_rel: a table that is taken out, or given a row
// filter or a column list, and put back as it was, has another.
func (s *Source) Memberships(ctx context.Context) (map[uint32]uint32, error) {
	members := make(map[uint32]uint32)
	err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `
			SELECT r.prrelid, r.oid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
			WHERE p.pubname = ANY($1) AND to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL`,
			[]string{s.o.Publication, s.o.Publication + appendSuffix})
		if err != nil {
			return err
		}
		var table, member uint32
		_, err = pgx.ForEachRow(rows, []any{&table, &member}, func() error {
			members[table] = member
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables of publication %s: %w", s.o.Publication, err)
	}
	return members, nil
}

// DropPublication drops both publications; one that is absent is no error.
func (s *Source) DropPublication(ctx context.Context) error {
	for _, name := range []string{s.o.Publication, s.o.Publication + appendSuffix} {
		if err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "DROP PUBLICATION IF EXISTS "+ident(name))
			return err
		}); err != nil {
			return fmt.Errorf("drop publication %s: %w", name, err)
		}
	}
	return nil
}

// publication is what pg_publication says.
type publication struct {
	allTables, bySchema bool
	publish             string
	viaRoot             bool
	generated           string // PG 18: n none, s stored
	owned               bool
	tables              map[TableName]bool // true: with a row filter or a column list
}

func (s *Source) publication(ctx context.Context, name string) (p *publication, err error) {
	err = s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		p, err = readPublication(ctx, c, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read publication %s: %w", name, err)
	}
	return p, nil
}

type querier interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

// readPublication returns nil if there is none.
func readPublication(ctx context.Context, q querier, name string) (*publication, error) {
	p := &publication{tables: make(map[TableName]bool)}
	var ins, upd, del, trunc bool
	err := q.QueryRow(ctx, `
		SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
		       coalesce(to_jsonb(p) ->> 'pubgencols', ''), pg_has_role(pubowner, 'USAGE'),
		       EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname = 'pg_publication_namespace' AND relnamespace = 'pg_catalog'::regnamespace)
		FROM pg_publication p WHERE pubname = $1`, name).
		Scan(&p.allTables, &ins, &upd, &del, &trunc, &p.viaRoot, &p.generated, &p.owned, &p.bySchema)
	if err == pgx.ErrNoRows {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var kinds []string
	for i, on := range []bool{ins, upd, del, trunc} {
		if on {
			kinds = append(kinds, []string{"insert", "update", "delete", "truncate"}[i])
		}
	}
	p.publish = strings.Join(kinds, ", ")
	if p.bySchema {
		if err := q.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM pg_publication_namespace n JOIN pg_publication p ON p.oid = n.pnpubid WHERE p.pubname = $1)`, name).
			Scan(&p.bySchema); err != nil {
			return nil, err
		}
	}
	rows, err := q.Query(ctx, `
		SELECT n.nspname, c.relname,
		       to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL
		FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1`, name)
	if err != nil {
		return nil, err
	}
	var t TableName
	var partial bool
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &partial}, func() error {
		p.tables[t] = partial
		return nil
	})
	return p, err
}

func (p *publication) fit(name string) error {
	switch {
	case p.allTables:
		return fmt.Errorf("%w: %s is FOR ALL TABLES; drop it, or give firn another publication name", ErrPublicationUnfit, name)
	case p.bySchema:
		return fmt.Errorf("%w: %s names whole schemas; drop it, or give firn another publication name", ErrPublicationUnfit, name)
	}
	return nil
}

func (s *Source) syncPublication(ctx context.Context, name, publish string, tables []TableName) (added, removed []TableName, err error) {
	version, err := s.Version(ctx)
	if err != nil {
		return nil, nil, err
	}
	err = s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		added, removed = nil, nil
		p, err := readPublication(ctx, c, name)
		if err != nil {
			return err
		}
		var have map[TableName]bool
		if p != nil {
			if err := p.fit(name); err != nil {
				return err
			}
			have = p.tables
		}
		// A row filter or column list that someone put on a table would leave
		// rows or columns out without a word, and so would options on all of
		// them: the table is made whole again, and is a new one to the stream.
		stinted := p != nil && (p.publish != publish || !p.viaRoot)
		var drop []TableName
		for _, t := range slices.SortedFunc(maps.Keys(have), compareNames) {
			have[t] = have[t] || stinted
			if wanted := slices.Contains(tables, t); !wanted || have[t] {
				drop = append(drop, t)
				if !wanted {
					removed = append(removed, t)
				}
			}
		}
		for _, t := range tables {
			if partial, ok := have[t]; (!ok || partial) && !slices.Contains(added, t) {
				added = append(added, t)
			}
		}
		stmts := publicationStatements(name, publish, version, p, added, drop)
		if len(stmts) == 0 {
			return nil
		}
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '10s'"); err != nil {
				return err
			}
			for _, q := range stmts {
				if _, err := tx.Exec(ctx, q); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if code(err) == "55P03" {
		err = fmt.Errorf("%w: a table is locked by another transaction: %w", ErrBusy, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("set publication %s: %w", name, err)
	}
	return added, removed, nil
}

func publicationStatements(name, publish string, version int, p *publication, add, drop []TableName) []string {
	options := fmt.Sprintf("publish = %s, publish_via_partition_root = true", literal(publish))
	if version >= 180000 {
		options += ", publish_generated_columns = stored"
	}
	q := ident(name)
	if p == nil {
		stmt := "CREATE PUBLICATION " + q
		if len(add) > 0 {
			stmt += " FOR TABLE " + tableList(add)
		}
		return []string{stmt + " WITH (" + options + ")"}
	}
	var out []string
	if p.publish != publish || !p.viaRoot || version >= 180000 && p.generated != "s" {
		out = append(out, "ALTER PUBLICATION "+q+" SET ("+options+")")
	}
	if len(drop) > 0 {
		out = append(out, "ALTER PUBLICATION "+q+" DROP TABLE "+tableList(drop))
	}
	if len(add) > 0 {
		out = append(out, "ALTER PUBLICATION "+q+" ADD TABLE "+tableList(add))
	}
	return out
}

// tableList writes the tables with ONLY where that is allowed: children by
// inheritance are tables of their own. (On a partitioned table ONLY changes
// nothing.)
func tableList(ts []TableName) string {
	var b strings.Builder
	for i, t := range ts {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("ONLY ")
		b.WriteString(identTable(t))
	}
	return b.String()
}

func compareNames(a, b TableName) int {
	if c := strings.Compare(a.Schema, b.Schema); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

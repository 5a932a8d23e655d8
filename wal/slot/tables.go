package slot

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"firn/wal"
)

// Look is what one look at the catalogs saw.
type Look struct {
	Tables  []Table
	Visible wal.Visible // the look's snapshot
	End     wal.LSN     // the WAL's end after it: the commits that it saw are before
}

// Tables is Look's tables.
func (s *Source) Tables(ctx context.Context, patterns []string) ([]Table, error) {
	look, err := s.Look(ctx, patterns)
	return look.Tables, err
}

// Look describes the tables that patterns choose, sorted by schema and name;
// all of them if there is no pattern. Only ordinary and partitioned tables of
// user schemas are considered, a partitioned one as a whole; temporary tables
// never. A table that can't be mirrored is in the list too, with its Reason.
//
// Nothing here takes a lock on a table, so a user's ALTER never delays it. The
// sizes are therefore the planner's.
func (s *Source) Look(ctx context.Context, patterns []string) (Look, error) {
	p, err := parsePatterns(patterns)
	if err != nil {
		return Look{}, err
	}
	var out Look
	err = s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var oids []uint32
		rows, err := c.Query(ctx, `
			SELECT c.oid, n.nspname, c.relname
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
			  AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
			ORDER BY 2, 3`)
		if err != nil {
			return err
		}
		var oid uint32
		var name TableName
		if _, err := pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name}, func() error {
			if p.match(name) {
				oids = append(oids, oid)
			}
			return nil
		}); err != nil {
			return err
		}
		out, err = s.describe(ctx, c, oids)
		return err
	})
	if err != nil {
		return Look{}, fmt.Errorf("list tables: %w", err)
	}
	return out, nil
}

// Describe reads one table as it is now; nil without an error if it no longer
// exists (or is no table). Like Tables it takes no lock.
//
// after is a transaction whose commit the stream has shown, 0 for none. Postgres
// streams a commit once its record is flushed, and only then shows it to others,
// with synchronous_standby_names when the standbys have it too. If it may have
// altered the table that is waited for, or the description would be of the time
// before. It is no longer than hiddenMax, for firn may be such a standby itself.
// Errors: ErrHidden.
func (s *Source) Describe(ctx context.Context, oid, after uint32) (*Table, error) {
	began, wait := time.Now(), time.Millisecond
	for {
		var out Look
		hidden := false
		err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
			if after != 0 {
				if hidden, err = altering(ctx, c, oid, after); err != nil {
					return err
				}
			}
			out, err = s.describe(ctx, c, []uint32{oid})
			return err
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("describe table %d: %w", oid, err)
		case hidden:
		case len(out.Tables) == 0:
			return nil, nil
		default:
			return &out.Tables[0], nil
		}
		if time.Since(began) > hiddenMax {
			return nil, fmt.Errorf("describe table %d: transaction %d: %w", oid, after, ErrHidden)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 100*time.Millisecond)
	}
}

// hiddenMax is how long Describe waits for a commit to show.
const hiddenMax = 2 * time.Second

// altering says whether the transaction still has the lock that whoever alters a
// table takes. It lets go of it once all can see what it did, and until then no
// other transaction gets at the table: so only the one that wrote to it first can
// have altered it unseen.
func altering(ctx context.Context, c *pgx.Conn, oid, xid uint32) (yes bool, err error) {
	err = c.QueryRow(ctx, `
		SELECT EXISTS (
			SELECT FROM pg_locks t JOIN pg_locks r USING (virtualtransaction)
			WHERE t.locktype = 'transactionid' AND t.transactionid::text = $2 AND t.granted
			  AND r.locktype = 'relation' AND r.relation = $1 AND r.mode = 'AccessExclusiveLock' AND r.granted
			  AND r.database = (SELECT oid FROM pg_database WHERE datname = current_database()))`,
		oid, strconv.FormatUint(uint64(xid), 10)).Scan(&yes)
	return yes, err
}

// facts is what the catalog says about one relation besides its Table.
type facts struct {
	table       Table
	persistence byte
	typeOIDs    []uint32
	typeMods    []int32
	leaves      []leafFacts
}

type leafFacts struct {
	Leaf
	kind, identity, persistence byte
	rows                        int64
}

// keyIndex is an index that may identify rows.
type keyIndex struct {
	primary, identity, immediate, valid bool
	columns                             []string
}

// describe reads the catalog in one snapshot, keeping the order of oids.
func (s *Source) describe(ctx context.Context, c *pgx.Conn, oids []uint32) (look Look, err error) {
	if len(oids) == 0 {
		return look, nil
	}
	byOID := make(map[uint32]*facts, len(oids))
	indexes := make(map[uint32][]keyIndex)
	err = pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := readSnapshot(ctx, tx, &look); err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if err := readRelations(ctx, tx, oids, byOID); err != nil {
			return fmt.Errorf("read pg_class: %w", err)
		}
		if err := readLeaves(ctx, tx, byOID); err != nil {
			return fmt.Errorf("read partitions: %w", err)
		}
		if err := readColumns(ctx, tx, oids, byOID); err != nil {
			return fmt.Errorf("read columns: %w", err)
		}
		all := append([]uint32(nil), oids...)
		for _, f := range byOID {
			for _, l := range f.leaves {
				all = append(all, l.OID)
			}
		}
		if err := readIndexes(ctx, tx, all, indexes); err != nil {
			return fmt.Errorf("read indexes: %w", err)
		}
		return s.readTypes(ctx, tx, byOID)
	})
	if err != nil {
		return look, err
	}
	look.Tables = make([]Table, 0, len(byOID))
	for _, oid := range oids {
		f, ok := byOID[oid]
		if !ok {
			continue
		}
		for i := range f.table.Columns {
			t, err := s.types.compose(f.typeOIDs[i], f.typeMods[i])
			if err != nil {
				return look, err
			}
			f.table.Columns[i].Type = *t
		}
		f.table.Append = s.o.Append != nil && s.o.Append(TableName{Schema: f.table.Schema, Name: f.table.Name})
		judge(f, indexes)
		look.Tables = append(look.Tables, f.table)
	}
	return look, nil
}

// readSnapshot reads what identifies the transaction's snapshot. The WAL's end
// is the inserted one: a commit may be seen that is not flushed yet.
func readSnapshot(ctx context.Context, tx pgx.Tx, into *Look) error {
	var xmin, xmax int64
	var open []int64
	var end string
	if err := tx.QueryRow(ctx, `
		SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint,
		       ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(s) x),
		       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text
		FROM pg_current_snapshot() s`).Scan(&xmin, &xmax, &open, &end); err != nil {
		return err
	}
	into.Visible = wal.Visible{Xmin: uint32(xmin), Xmax: uint32(xmax)}
	for _, x := range open {
		into.Visible.InProgress = append(into.Visible.InProgress, uint32(x))
	}
	var err error
	into.End, err = wal.ParseLSN(end)
	return err
}

func readRelations(ctx context.Context, tx pgx.Tx, oids []uint32, into map[uint32]*facts) error {
	rows, err := tx.Query(ctx, `
		SELECT c.oid, n.nspname, c.relname, c.relkind = 'p', c.relreplident, c.relpersistence,
		       c.reltuples::bigint, c.relpages::bigint, c.relfilenode, c.xmin,
		       c.relpages::bigint * current_setting('block_size')::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = ANY($1::oid[]) AND c.relkind IN ('r', 'p')`, oids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		f := &facts{}
		t := &f.table
		if err := rows.Scan(&t.OID, &t.Schema, &t.Name, &t.Partitioned, &t.ReplicaIdentity, &f.persistence,
			&t.Rows, &t.Pages, &t.FileNode, &t.Writer, &t.Bytes); err != nil {
			return err
		}
		into[t.OID] = f
	}
	return rows.Err()
}

func readLeaves(ctx context.Context, tx pgx.Tx, into map[uint32]*facts) error {
	var roots []uint32
	for oid, f := range into {
		if f.table.Partitioned {
			roots = append(roots, oid)
		}
	}
	if len(roots) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, leavesSQL, roots)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var root uint32
		var l leafFacts
		var bytes int64
		if err := rows.Scan(&root, &l.OID, &l.FileNode, &l.Writer, &l.Schema, &l.Name, &l.Pages, &bytes, &l.rows, &l.kind, &l.identity, &l.persistence); err != nil {
			return err
		}
		f := into[root]
		f.leaves = append(f.leaves, l)
		t := &f.table
		t.Leaves = append(t.Leaves, l.Leaf)
		t.Pages, t.Bytes = max(t.Pages, 0)+l.Pages, max(t.Bytes, 0)+bytes
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, f := range into {
		if !f.table.Partitioned {
			continue
		}
		// A root's own reltuples is there only after a manual ANALYZE.
		f.table.Rows = 0
		for _, l := range f.leaves {
			if l.rows < 0 {
				f.table.Rows = -1
				break
			}
			f.table.Rows += l.rows
		}
	}
	return nil
}

// leavesSQL lists the relations that hold a partitioned table's rows. It reads
// pg_inherits as an ordinary table, so that it is as exact as the transaction's
// snapshot, which pg_partition_tree is not.
const leavesSQL = `
	WITH RECURSIVE tree AS (
		SELECT r AS root, r AS oid FROM unnest($1::oid[]) r
		UNION ALL
		SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending)
	SELECT tree.root, c.oid, c.relfilenode, c.xmin, n.nspname, c.relname, greatest(c.relpages, 0)::bigint,
	       greatest(c.relpages, 0)::bigint * current_setting('block_size')::bigint, c.reltuples::bigint,
	       c.relkind, c.relreplident, c.relpersistence
	FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE tree.oid <> tree.root AND c.relkind <> 'p'
	ORDER BY n.nspname, c.relname`

// readColumns takes stored generated columns for ordinary ones from 18 on: the
// publication has them then.
func readColumns(ctx context.Context, tx pgx.Tx, oids []uint32, into map[uint32]*facts) error {
	rows, err := tx.Query(ctx, `
		SELECT attrelid, attnum, attname, atttypid, atttypmod, attnotnull, atthasmissing,
		       CASE WHEN attgenerated = 's' AND current_setting('server_version_num')::int >= 180000 THEN '' ELSE attgenerated::text END,
		       attisdropped
		FROM pg_attribute WHERE attrelid = ANY($1::oid[]) AND attnum > 0 ORDER BY attrelid, attnum`, oids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var rel, typ uint32
		var mod int32
		var c Column
		var generated string
		var dropped bool
		if err := rows.Scan(&rel, &c.AttNum, &c.Name, &typ, &mod, &c.NotNull, &c.HasMissing, &generated, &dropped); err != nil {
			return err
		}
		f, ok := into[rel]
		if !ok {
			continue
		}
		f.table.MaxAttNum = c.AttNum
		if dropped {
			f.table.Dropped = append(f.table.Dropped, c.AttNum)
			continue
		}
		if generated != "" {
			c.Generated = generated[0]
		}
		f.table.Columns = append(f.table.Columns, c)
		f.typeOIDs = append(f.typeOIDs, typ)
		f.typeMods = append(f.typeMods, mod)
	}
	return rows.Err()
}

func readIndexes(ctx context.Context, tx pgx.Tx, oids []uint32, into map[uint32][]keyIndex) error {
	rows, err := tx.Query(ctx, `
		SELECT i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate, i.indisvalid,
		       ARRAY(SELECT a.attname::text
		             FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, pos)
		             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
		             WHERE k.pos <= i.indnkeyatts ORDER BY k.pos)
		FROM pg_index i WHERE i.indrelid = ANY($1::oid[]) AND (i.indisprimary OR i.indisreplident)`, oids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var rel uint32
		var x keyIndex
		if err := rows.Scan(&rel, &x.primary, &x.identity, &x.immediate, &x.valid, &x.columns); err != nil {
			return err
		}
		into[rel] = append(into[rel], x)
	}
	return rows.Err()
}

// readTypes fills the cache with the types that columns use.
func (s *Source) readTypes(ctx context.Context, tx pgx.Tx, tables map[uint32]*facts) error {
	var used []uint32
	for _, f := range tables {
		used = append(used, f.typeOIDs...)
	}
	for want := s.types.missing(used); len(want) > 0; {
		got, err := fetchTypes(ctx, tx, want)
		if err != nil {
			return fmt.Errorf("read types: %w", err)
		}
		want = s.types.missing(s.types.add(got))
	}
	return nil
}

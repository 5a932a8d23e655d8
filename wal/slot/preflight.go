package slot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Problem is one thing that keeps firn from working, and what to do about it.
// Text and Fix are each a sentence.
type Problem struct {
	Check string // version, wal_level, max_replication_slots, max_wal_senders, replication, select, publication, row_security, standby
	Text  string
	Fix   string
}

func (p Problem) String() string { return p.Text + ". " + p.Fix + "." }

const oldestVersion = 140000

// Preflight looks for all that would stop the mirroring of these tables (those
// that are Usable) before anything is changed. An error means that it could not
// look; no Problem that all is well.
func (s *Source) Preflight(ctx context.Context, tables []Table) ([]Problem, error) {
	var out []Problem
	err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		out = nil
		f, err := readServer(ctx, c, s.o.Slot)
		if err != nil {
			return err
		}
		out = append(out, f.problems(s.o.Slot)...)
		usable := slices.DeleteFunc(slices.Clone(tables), func(t Table) bool { return !t.Usable })
		p, err := tableProblems(ctx, c, f.user, usable)
		if err != nil {
			return err
		}
		out = append(out, p...)
		p, err = s.publicationProblems(ctx, c, f, usable)
		out = append(out, p...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check the database: %w", err)
	}
	p, err := s.replicationProblem(ctx, out)
	if err != nil {
		return nil, fmt.Errorf("check the database: %w", err)
	}
	return append(out, p...), nil
}

// server is what the settings and statistics say.
type server struct {
	version                int
	walLevel, user         string
	slots, slotsUsed       int
	senders, sendersUsed   int
	slotExists, inRecovery bool
	createRight            bool
}

func readServer(ctx context.Context, c *pgx.Conn, slot string) (f server, err error) {
	err = c.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_user::text,
		       current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)::int,
		       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication)::int,
		       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1), pg_is_in_recovery(),
		       has_database_privilege(current_database(), 'CREATE')`, slot).
		Scan(&f.version, &f.walLevel, &f.user, &f.slots, &f.slotsUsed, &f.senders, &f.sendersUsed, &f.slotExists, &f.inRecovery, &f.createRight)
	if err != nil {
		return f, fmt.Errorf("read settings: %w", err)
	}
	return f, nil
}

func (f server) problems(slot string) []Problem {
	var out []Problem
	if f.version < oldestVersion {
		out = append(out, Problem{"version", fmt.Sprintf("Postgres %d is too old; firn needs 14 or newer", f.version/10000), "Upgrade the server"})
	}
	if f.inRecovery && f.version < 160000 {
		out = append(out, Problem{"standby", "This server is a standby, and before version 16 a standby can't decode its WAL", "Connect to the primary"})
	}
	if f.walLevel != "logical" {
		out = append(out, Problem{"wal_level", fmt.Sprintf("wal_level is %s, but logical replication needs logical", f.walLevel),
			"ALTER SYSTEM SET wal_level = logical and restart Postgres (RDS: rds.logical_replication = 1 in the parameter group)"})
	}
	// One slot is the stream's; loads of later tables use another for a while.
	need := 2
	if f.slotExists {
		need = 1
	}
	if free := f.slots - f.slotsUsed; free < need {
		out = append(out, Problem{"max_replication_slots",
			fmt.Sprintf("%d of max_replication_slots = %d are in use, and firn needs %s (slot %s, and a temporary one while tables load)", f.slotsUsed, f.slots, count(need, "more"), slot),
			fmt.Sprintf("Drop a slot that nobody uses, or set max_replication_slots to at least %d and restart Postgres", f.slotsUsed+need)})
	}
	if free := f.senders - f.sendersUsed; free < 2 {
		out = append(out, Problem{"max_wal_senders",
			fmt.Sprintf("%d of max_wal_senders = %d are in use, and firn needs 2 more (the stream, and one while tables load)", f.sendersUsed, f.senders),
			fmt.Sprintf("Set max_wal_senders to at least %d and restart Postgres", f.sendersUsed+2)})
	}
	return out
}

func count(n int, what string) string { return fmt.Sprintf("%d %s", n, what) }

// replicationProblem tries what rights and settings allow, for some providers
// grant replication by a role of their own.
func (s *Source) replicationProblem(ctx context.Context, known []Problem) ([]Problem, error) {
	_, _, err := s.command(ctx, "IDENTIFY_SYSTEM")
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, ErrPrivilege):
		return []Problem{{"replication", fmt.Sprintf("User %s may not replicate", s.cfg.User),
			fmt.Sprintf("ALTER ROLE %s REPLICATION (RDS: GRANT rds_replication TO %s)", ident(s.cfg.User), ident(s.cfg.User))}}, nil
	case errors.Is(err, ErrAuth):
		return []Problem{{"replication", fmt.Sprintf("pg_hba.conf refuses a replication connection of user %s: %v", s.cfg.User, err),
			"Allow the user for this database in pg_hba.conf and reload"}}, nil
	case code(err) == "53300" && slices.ContainsFunc(known, func(p Problem) bool { return p.Check == "max_wal_senders" }):
		return nil, nil // said already
	}
	return nil, fmt.Errorf("try a replication connection: %w", err)
}

func tableProblems(ctx context.Context, c *pgx.Conn, user string, tables []Table) ([]Problem, error) {
	oids := make([]uint32, 0, len(tables))
	for _, t := range tables {
		oids = append(oids, t.OID)
		for _, l := range t.Leaves {
			oids = append(oids, l.OID) // a partition is copied by its own name
		}
	}
	rows, err := c.Query(ctx, `
		SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = ANY($1::oid[])
		  AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid))
		ORDER BY 1, 2`, oids)
	if err != nil {
		return nil, fmt.Errorf("read table rights: %w", err)
	}
	var schemas, selects, hidden []string
	var t TableName
	var usage, sel, rls bool
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &usage, &sel, &rls}, func() error {
		if !usage && !slices.Contains(schemas, t.Schema) {
			schemas = append(schemas, t.Schema)
		}
		if !sel {
			selects = append(selects, identTable(t))
		}
		if rls {
			hidden = append(hidden, identTable(t))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read table rights: %w", err)
	}
	var out []Problem
	for _, schema := range schemas {
		out = append(out, Problem{"select", fmt.Sprintf("User %s may not use schema %s", user, schema),
			fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", ident(schema), ident(user))})
	}
	if len(selects) > 0 {
		out = append(out, Problem{"select", fmt.Sprintf("User %s may not read %s", user, few(selects)),
			fmt.Sprintf("GRANT SELECT ON %s TO %s", strings.Join(selects, ", "), ident(user))})
	}
	if len(hidden) > 0 {
		out = append(out, Problem{"row_security", fmt.Sprintf("Row security hides rows of %s from user %s", few(hidden), user),
			fmt.Sprintf("ALTER ROLE %s BYPASSRLS, or leave these tables out", ident(user))})
	}
	return out, nil
}

func (s *Source) publicationProblems(ctx context.Context, c *pgx.Conn, f server, tables []Table) ([]Problem, error) {
	name := s.o.Publication
	p, err := readPublication(ctx, c, name)
	if err != nil {
		return nil, fmt.Errorf("read publication %s: %w", name, err)
	}
	if p != nil {
		if err := p.fit(name); err != nil {
			return []Problem{{"publication", fmt.Sprintf("Publication %s names all tables or whole schemas; firn needs one with an explicit list", name),
				"Drop it, or give firn another publication name"}}, nil
		}
	}
	missing := make(map[uint32]string)
	for _, t := range tables {
		n := TableName{Schema: t.Schema, Name: t.Name}
		if p == nil {
			missing[t.OID] = identTable(n)
		} else if partial, ok := p.tables[n]; !ok || partial {
			missing[t.OID] = identTable(n)
		}
	}
	var out []Problem
	switch {
	case f.inRecovery && (p == nil || len(missing) > 0):
		return []Problem{{"publication", fmt.Sprintf("This server is a standby, and publication %s does not exist with all tables on it", name),
			fmt.Sprintf("Create it on the primary, with publish_via_partition_root = true and %s", count(len(tables), "tables"))}}, nil
	case p == nil && !f.createRight:
		out = append(out, Problem{"publication", fmt.Sprintf("User %s may not create publication %s: it lacks CREATE on the database", f.user, name),
			fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", ident(s.Database()), ident(f.user))})
	case p != nil && !p.owned && len(missing) > 0:
		out = append(out, Problem{"publication", fmt.Sprintf("User %s does not own publication %s and can't add tables to it", f.user, name),
			fmt.Sprintf("ALTER PUBLICATION %s OWNER TO %s", ident(name), ident(f.user))})
	}
	oids := make([]uint32, 0, len(missing))
	for oid := range missing {
		oids = append(oids, oid)
	}
	rows, err := c.Query(ctx, `SELECT oid FROM pg_class WHERE oid = ANY($1::oid[]) AND NOT pg_has_role(relowner, 'USAGE') ORDER BY relname`, oids)
	if err != nil {
		return nil, fmt.Errorf("read table owners: %w", err)
	}
	var oid uint32
	var foreign []string
	if _, err := pgx.ForEachRow(rows, []any{&oid}, func() error {
		foreign = append(foreign, missing[oid])
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read table owners: %w", err)
	}
	if len(foreign) > 0 {
		out = append(out, Problem{"publication", fmt.Sprintf("User %s can't publish %s, for only a table's owner may", f.user, few(foreign)),
			fmt.Sprintf("GRANT the owners' role to %s, or let the owner create publication %s FOR TABLE %s WITH (publish_via_partition_root = true)", ident(f.user), ident(name), strings.Join(foreign, ", "))})
	}
	return out, nil
}

// few shortens a list for a sentence.
func few(names []string) string {
	if len(names) <= 5 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
}

package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"firn/wal"
)

// CopyColumn is one column of a COPY. AsText selects its text (wal.TextExpr):
// for types that have no binary form, or none that is wanted. Expr, where it is
// not empty, is an SQL expression over the table's columns to select instead.
type CopyColumn struct {
	Name   string
	AsText bool
	Expr   string
}

// Copier reads one table as it stood in a snapshot, by binary COPYs on connections
// of its own. Each of them locks the table before the first COPY and until Close:
// who then comes to wait for the table, an ALTER or a TRUNCATE, can't get between
// two ranges. Its methods but Close may be called by several goroutines at once.
type Copier struct {
	Ranges []CTIDRange // what to copy

	s     *Source
	table *Table
	free  chan *wire // nil: a connection that broke
	all   []*wire
}

// standAsideAfter is how long a Copier waits for a lock in the way of which its
// own snapshot may be.
const standAsideAfter = time.Second

// Copier opens a table of the snapshot for at most n COPYs at a time, and cuts it
// into about parts ranges.
//
// Where the snapshot locks the table, somebody may have come to wait for that
// lock, and would have every connection of ours wait behind: a circle that
// Postgres doesn't see, for it doesn't know that the snapshot waits for us. So
// after a second the table is given up; with its Release the other is let
// through, and the table is to be loaded from a later snapshot.
//
// Errors: ErrBusy (the above), ErrSnapshotGone, ErrTableChanged when a partition
// was attached or detached since t was described, ErrPrivilege.
func (s *Source) Copier(ctx context.Context, sn *Snapshot, t *Table, parts, n int) (*Copier, error) {
	c := &Copier{s: s, table: t}
	err := c.open(ctx, sn, func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := checkLeaves(ctx, conn, t); err != nil {
			return err
		}
		var err error
		c.Ranges, err = ranges(ctx, conn, t, parts)
		return err
	})
	for err == nil && len(c.all) < min(n, len(c.Ranges)) {
		err = c.open(ctx, sn, nil)
	}
	// One connection is enough, and the lock that it has lets it go on.
	if len(c.all) > 0 && errors.Is(err, ErrBusy) {
		s.o.Logger.Info("loading with fewer connections", "table", c.name().String(), "connections", len(c.all), "reason", err)
	} else if err != nil {
		c.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("copy table %s: %w", c.name(), classify(err))
	}
	c.free = make(chan *wire, len(c.all))
	for _, w := range c.all {
		c.free <- w
	}
	return c, nil
}

func (c *Copier) name() TableName { return TableName{Schema: c.table.Schema, Name: c.table.Name} }

// open adds a connection that sees the snapshot and holds the table's lock; ask
// is called before it is taken over for COPYs.
func (c *Copier) open(ctx context.Context, sn *Snapshot, ask func(context.Context, *pgconn.PgConn) error) (err error) {
	conn, _, err := connectRaw(ctx, c.s.cfg.Config.Copy(), false)
	if err != nil {
		return err
	}
	pid := conn.PID()
	c.s.track(pid)
	defer func() {
		if err != nil {
			closePgConn(conn)
			c.s.untrack(pid)
		}
	}()
	if err := importSnapshot(ctx, conn, sn); err != nil {
		return err
	}
	if err := c.lock(ctx, conn, sn.locks != nil); err != nil {
		return err
	}
	if ask != nil {
		if err := ask(ctx, conn); err != nil {
			return err
		}
	}
	w, err := hijack(ctx, conn, nil)
	if err != nil {
		return err
	}
	c.all = append(c.all, w)
	return nil
}

// lock locks the table; standAside bounds the wait for it.
func (c *Copier) lock(ctx context.Context, conn *pgconn.PgConn, standAside bool) error {
	take := func() error {
		_, err := run(ctx, conn, "LOCK TABLE "+identTable(c.name())+" IN ACCESS SHARE MODE")
		return err
	}
	if !standAside {
		return take()
	}
	obs, err := c.s.guard(ctx, conn, 0, standAsideAfter, take)
	if obs != nil && err != nil {
		return fmt.Errorf("%w: standing aside for %s", ErrBusy, joinSessions(obs.Blockers))
	}
	return err
}

// Copy reads one range and calls fn with each row: the columns' binary forms, nil
// for NULL. A row and what it points to are fn's until fn returns. No memory is
// allocated per row. An error of fn ends the COPY and is returned as it is. Copy
// waits for a connection while all are in use; after an error of one its fellows
// may fail too.
//
// Errors: ErrPrivilege (a row security policy counts).
func (c *Copier) Copy(ctx context.Context, cols []CopyColumn, r CTIDRange, fn func(row [][]byte) error) error {
	rel := r.Relation
	if rel == (TableName{}) {
		rel = c.name()
	}
	var w *wire
	select {
	case w = <-c.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	if w == nil {
		c.free <- nil
		return fmt.Errorf("copy table %s: a connection for it has ended", rel)
	}
	err := c.copyRange(ctx, w, cols, rel, r, fn)
	if err == nil {
		c.free <- w
		return nil
	}
	c.free <- nil
	var fe fnError
	if errors.As(err, &fe) {
		return fe.error
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("copy table %s: %w", rel, classify(err))
}

// fnError marks the callback's own error on its way out.
type fnError struct{ error }

func (c *Copier) copyRange(ctx context.Context, w *wire, cols []CopyColumn, rel TableName, r CTIDRange, fn func(row [][]byte) error) error {
	stop := context.AfterFunc(ctx, func() {
		// Wakes a read or write; the callers see ctx's error.
		_ = w.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	if err := w.send(copySQL(cols, rel, r, c.table.Partitioned && len(c.table.Leaves) == 0)); err != nil {
		return err
	}
	if err := readCopy(&w.frames, len(cols), fn); err != nil {
		return err
	}
	if !stop() {
		return ctx.Err() // the connection has a deadline that is over
	}
	return nil
}

// Close ends the connections, and with them their locks. No Copy may run.
func (c *Copier) Close() {
	for _, w := range c.all {
		w.terminate()
		c.s.untrack(w.pid)
	}
	c.all = nil
}

func importSnapshot(ctx context.Context, c *pgconn.PgConn, sn *Snapshot) error {
	_, err := run(ctx, c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT "+literal(sn.Name))
	if code := code(err); code == "22023" || code == "42704" || code == "55000" {
		return fmt.Errorf("%w: %w", ErrSnapshotGone, err)
	}
	return err
}

// checkLeaves compares the partitions of the snapshot with those of t. An
// attached one would bring rows the stream never sent; LOCK doesn't keep it out.
func checkLeaves(ctx context.Context, c *pgconn.PgConn, t *Table) error {
	if !t.Partitioned {
		return nil
	}
	rows, err := run(ctx, c, "SELECT l.oid FROM ("+strings.Replace(leavesSQL, "$1", fmt.Sprintf("'{%d}'", t.OID), 1)+") l")
	if err != nil {
		return err
	}
	var then, now []string
	for _, r := range rows {
		then = append(then, string(r[0]))
	}
	for _, l := range t.Leaves {
		now = append(now, fmt.Sprint(l.OID))
	}
	slices.Sort(then)
	slices.Sort(now)
	if !slices.Equal(then, now) {
		return fmt.Errorf("%w: %s.%s had %d partitions in the snapshot and %d when it was described", ErrTableChanged, t.Schema, t.Name, len(then), len(now))
	}
	return nil
}

func copySQL(cols []CopyColumn, rel TableName, r CTIDRange, empty bool) string {
	var b strings.Builder
	b.WriteString("COPY (SELECT ")
	for i, c := range cols {
		if i > 0 {
			b.WriteString(", ")
		}
		source := ident(c.Name)
		if c.Expr != "" {
			source = "(" + c.Expr + ")"
		}
		if c.AsText {
			source = wal.TextExpr(source)
		}
		b.WriteString(source)
	}
	b.WriteString(" FROM ONLY " + identTable(rel))
	switch {
	case empty:
		// A partitioned table without partitions: ctid means nothing there.
	case r.From > 0 && r.To > 0:
		fmt.Fprintf(&b, " WHERE ctid >= '(%d,0)'::pg_catalog.tid AND ctid < '(%d,0)'::pg_catalog.tid", r.From, r.To)
	case r.To > 0:
		fmt.Fprintf(&b, " WHERE ctid < '(%d,0)'::pg_catalog.tid", r.To)
	case r.From > 0:
		fmt.Fprintf(&b, " WHERE ctid >= '(%d,0)'::pg_catalog.tid", r.From)
	}
	b.WriteString(") TO STDOUT (FORMAT binary)")
	return b.String()
}

// readCopy reads the answer to a COPY TO STDOUT, until the server is ready for
// another query.
func readCopy(f *frameReader, columns int, fn func(row [][]byte) error) error {
	p := copyParser{row: make([][]byte, columns), fn: fn}
	for ended := false; ; {
		typ, body, err := f.next()
		if err != nil {
			return err
		}
		switch typ {
		case 'd':
			if err := p.feed(body); err != nil {
				return err
			}
		case 'C':
			if err := p.finish(); err != nil {
				return err
			}
			ended = true
		case 'Z':
			if !ended {
				return errors.New("read COPY: it has no end")
			}
			return nil
		case 'E':
			return serverError(body)
		case 'H', 'c', 'N', 'S':
		default:
			return fmt.Errorf("read COPY: unexpected message %q", typ)
		}
	}
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

// copyParser reads COPY's binary format from pieces cut anywhere. Format:
// https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
type copyParser struct {
	row   [][]byte
	fn    func(row [][]byte) error
	rest  []byte // a row that isn't whole yet
	begun bool
	done  bool
}

func (p *copyParser) feed(b []byte) error {
	if len(p.rest) > 0 {
		p.rest = append(p.rest, b...)
		b = p.rest
	}
	for len(b) > 0 {
		n, err := p.step(b)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		b = b[n:]
	}
	p.rest = append(p.rest[:0], b...)
	return nil
}

func (p *copyParser) finish() error {
	if len(p.rest) > 0 || !p.done {
		return errors.New("parse COPY: it ends within a row")
	}
	return nil
}

// step takes the header, one row or the trailer from b; 0: more is needed.
func (p *copyParser) step(b []byte) (int, error) {
	if p.done {
		return 0, errors.New("parse COPY: bytes after its end")
	}
	if !p.begun {
		return p.header(b)
	}
	if len(b) < 2 {
		return 0, nil
	}
	n := int16(binary.BigEndian.Uint16(b))
	if n == -1 {
		p.done = true
		return 2, nil
	}
	if int(n) != len(p.row) {
		return 0, fmt.Errorf("parse COPY: a row of %d columns, not %d", n, len(p.row))
	}
	off := 2
	for i := range p.row {
		if len(b)-off < 4 {
			return 0, nil
		}
		size := int(int32(binary.BigEndian.Uint32(b[off:])))
		off += 4
		if size == -1 {
			p.row[i] = nil
			continue
		}
		if size < 0 {
			return 0, fmt.Errorf("parse COPY: column %d has length %d", i, size)
		}
		if len(b)-off < size {
			return 0, nil
		}
		p.row[i] = b[off : off+size : off+size]
		off += size
	}
	if err := p.fn(p.row); err != nil {
		return 0, fnError{err}
	}
	return off, nil
}

func (p *copyParser) header(b []byte) (int, error) {
	const fixed = 11 + 4 + 4
	if len(b) < fixed {
		return 0, nil
	}
	if string(b[:11]) != string(copySignature) {
		return 0, errors.New("parse COPY: not Postgres' binary format")
	}
	if flags := binary.BigEndian.Uint32(b[11:]); flags&0xffff0000 != 0 {
		return 0, fmt.Errorf("parse COPY: unknown flags %#x", flags)
	}
	ext := int(int32(binary.BigEndian.Uint32(b[15:])))
	if ext < 0 {
		return 0, fmt.Errorf("parse COPY: header extension of %d bytes", ext)
	}
	if len(b)-fixed < ext {
		return 0, nil
	}
	p.begun = true
	return fixed + ext, nil
}

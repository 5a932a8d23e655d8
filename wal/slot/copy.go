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

// Copy reads one range of a table as it stood in the snapshot, by a binary COPY
// on a connection of its own, and calls fn with each row: the columns' binary
// forms, nil for NULL. A row and what it points to are fn's until fn returns. No
// memory is allocated per row. An error of fn ends the COPY and is returned as it
// is.
//
// Errors: ErrSnapshotGone, ErrTableChanged when a partition was attached or
// detached since t was described, ErrPrivilege (a row security policy counts).
func (s *Source) Copy(ctx context.Context, sn *Snapshot, t *Table, cols []CopyColumn, r CTIDRange, fn func(row [][]byte) error) error {
	rel := r.Relation
	if rel == (TableName{}) {
		rel = TableName{Schema: t.Schema, Name: t.Name}
	}
	err := s.copyRange(ctx, sn, t, cols, rel, r, fn)
	var fe fnError
	if errors.As(err, &fe) {
		return fe.error
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("copy table %s: %w", rel, classify(err))
	}
	return nil
}

// fnError marks the callback's own error on its way out.
type fnError struct{ error }

func (s *Source) copyRange(ctx context.Context, sn *Snapshot, t *Table, cols []CopyColumn, rel TableName, r CTIDRange, fn func(row [][]byte) error) error {
	cfg := s.cfg.Config.Copy()
	c, _, err := connectRaw(ctx, cfg, false)
	if err != nil {
		return err
	}
	s.track(c.PID())
	defer s.untrack(c.PID())
	if err := importSnapshot(ctx, c, sn); err != nil {
		closePgConn(c)
		return err
	}
	if err := checkLeaves(ctx, c, t); err != nil {
		closePgConn(c)
		return err
	}
	w, err := hijack(ctx, c, nil)
	if err != nil {
		return err
	}
	defer w.terminate()
	defer context.AfterFunc(ctx, func() {
		// Wakes a read or write; the callers see ctx's error.
		_ = w.SetDeadline(time.Unix(1, 0))
	})()
	if err := w.send(copySQL(cols, rel, r, t.Partitioned && len(t.Leaves) == 0)); err != nil {
		return err
	}
	return readCopy(&w.frames, len(cols), fn)
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

// readCopy reads the answer to a COPY TO STDOUT.
func readCopy(f *frameReader, columns int, fn func(row [][]byte) error) error {
	p := copyParser{row: make([][]byte, columns), fn: fn}
	for {
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
			return p.finish()
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

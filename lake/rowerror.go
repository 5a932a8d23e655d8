package lake

import (
	"fmt"

	"firn/wal"
)

// Contradiction is a look-up that the stream proves wrong: an UPDATE or DELETE
// of a row the index doesn't know, an INSERT of one it does (PROTOCOL §19).
type Contradiction struct {
	Table Ident
	Op    string
	Key   string
	LSN   wal.LSN
}

func (c *Contradiction) Error() string {
	want := "is not in the lake"
	if c.Op == "INSERT" {
		want = "is in the lake already"
	}
	return fmt.Sprintf("%s of %s at %s: the row with key %s %s", c.Op, c.Table, c.LSN, c.Key, want)
}

// RowError is a row that could not be taken, by Postgres' own key.
type RowError struct {
	Table Ident
	Op    string
	Key   string
	Err   error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("%s of %s, key %s: %v", e.Op, e.Table, e.Key, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

func (t *Table) contradiction(op string, row wal.Tuple) error {
	return &Contradiction{Table: t.Ident, Op: op, Key: t.showKey(row)}
}

// showKey prints the key columns of a tuple for a message.
func (t *Table) showKey(row wal.Tuple) string {
	if t.key == nil || t.whole || len(row) != len(t.rows.wire) {
		return "(none)"
	}
	s := ""
	for i, c := range t.keyWire {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%s=%.200s", t.layout.Columns[t.layout.key[i]].Name, row[c].Data)
	}
	return s
}

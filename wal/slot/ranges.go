package slot

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// CTIDRange is a part of a table's heap: the pages from From up to To. All
// ranges of one list together hold every row of the snapshot once.
type CTIDRange struct {
	Relation TableName // the table, or one of its partitions
	From     uint32
	To       uint32 // 0: to the end
	Pages    int64  // about how many there are, for a progress bar
}

// minRangePages keeps small tables whole: a connection costs more than 16 MB.
const minRangePages = 2048

// Ranges cuts a table into about n ranges, by the sizes it has now; partitions
// are cut each for itself and small ones left whole. Where the sizes can't be
// had the planner's serve: a range's size is a matter of balance, not of truth,
// for the last range of a relation is open. Call it under the table's lock, for
// asking the size waits for an ALTER.
func (s *Source) Ranges(ctx context.Context, t *Table, n int) []CTIDRange {
	leaves := t.Leaves
	if !t.Partitioned {
		leaves = []Leaf{{OID: t.OID, Schema: t.Schema, Name: t.Name, Pages: t.Pages}}
	}
	pages := make(map[uint32]int64, len(leaves))
	oids := make([]uint32, 0, len(leaves))
	for _, l := range leaves {
		pages[l.OID] = l.Pages
		oids = append(oids, l.OID)
	}
	err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `
			SELECT o, pg_relation_size(o) / current_setting('block_size')::bigint
			FROM unnest($1::oid[]) o WHERE pg_relation_size(o) IS NOT NULL`, oids)
		if err != nil {
			return err
		}
		var oid uint32
		var p int64
		_, err = pgx.ForEachRow(rows, []any{&oid, &p}, func() error {
			pages[oid] = p
			return nil
		})
		return err
	})
	if err != nil {
		s.o.Logger.Warn("cannot read a table's size; cutting it by the planner's estimate", "table", TableName{Schema: t.Schema, Name: t.Name}.String(), "err", err)
	}
	var total int64
	for _, p := range pages {
		total += p
	}
	per := max(total/int64(max(n, 1))+1, minRangePages)
	var out []CTIDRange
	for _, l := range leaves {
		out = appendRanges(out, TableName{Schema: l.Schema, Name: l.Name}, pages[l.OID], per)
	}
	return out
}

func appendRanges(out []CTIDRange, rel TableName, pages, per int64) []CTIDRange {
	parts := max((pages+per/2)/per, 1)
	for i := range parts {
		r := CTIDRange{Relation: rel, From: uint32(pages * i / parts), To: uint32(pages * (i + 1) / parts)}
		r.Pages = int64(r.To - r.From)
		if i == parts-1 {
			r.To = 0
		}
		out = append(out, r)
	}
	return out
}
